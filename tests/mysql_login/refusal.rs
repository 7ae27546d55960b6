//! Servers that are not there, are something else, or do not let us in: each has its kind, its code and a hint.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn refused_accounts_say_why_and_are_not_tried_again() {
    let server = &shared();
    server.sql(
        "CREATE USER wrong IDENTIFIED BY 'pw'; CREATE USER elsewhere@'192.0.2.1' IDENTIFIED BY 'pw';\
         CREATE USER locked IDENTIFIED BY 'pw' ACCOUNT LOCK; CREATE USER expired IDENTIFIED BY 'pw' PASSWORD EXPIRE",
    );
    let cases = [
        ("wrong", "not it", 1045, "password"),
        ("wrong", "", 1045, "password"),
        ("nobody", "pw", 1045, "user"),
        ("elsewhere", "pw", 1045, "host"),
        ("locked", "pw", 3118, "UNLOCK"),
        ("expired", "pw", 1862, "IDENTIFIED BY"),
    ];
    for (user, password, code, hint) in cases {
        for options in [clear(server, user, password), socket(server, user, password)] {
            let error = refused(&options).await;
            let said = assert_says(&error, Kind::Refused, false, Some(code));
            assert!(said.contains(hint), "{user}: {said}");
            assert!(error.chain().contains(&format!("as {user:?} to")), "{error:?}");
            assert!(!format!("{error:?}").contains("not it"), "the password is shown: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_full_house_is_worth_another_try() {
    let server = &shared();
    server.sql("CREATE USER single IDENTIFIED BY 'pw' WITH MAX_USER_CONNECTIONS 1");
    let first = connect(&clear(server, "single", "pw")).await;
    assert_says(&refused(&clear(server, "single", "pw")).await, Kind::Unreachable, true, Some(1226));
    first.quit().await;

    let small = Mysqld::start("small", &["--max-connections=1"]);
    small.sql("CREATE USER agent IDENTIFIED BY 'pw'");
    let first = connect(&clear(&small, "agent", "pw")).await;
    let hint = assert_says(&refused(&clear(&small, "agent", "pw")).await, Kind::Unreachable, true, Some(1040));
    assert!(hint.contains("max_connections"), "{hint}");
    first.quit().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_and_worth_another_try() {
    let at = |host: &str, port| SourceOptions::new(Address::Tcp { host: host.to_owned(), port }, "u", None);
    let error = refused(&at("no-such-host.invalid", 3306)).await;
    assert!(assert_says(&error, Kind::Unreachable, true, None).contains("host"));
    assert!(error.to_string().contains("no-such-host.invalid"), "{error:?}");

    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    assert!(assert_says(&refused(&at("127.0.0.1", free)).await, Kind::Unreachable, true, None).contains("listening"));

    let nowhere = SourceOptions::new(Address::Socket("/nowhere/mysqld.sock".into()), "u", None);
    assert!(assert_says(&refused(&nowhere).await, Kind::Unreachable, true, None).contains("socket"));
}

#[tokio::test]
async fn strangers_and_silence_on_the_port_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut options = tcp(port, "u", "pw", tls(TlsMode::Disabled));
    options.connect_timeout = Duration::from_millis(300);
    let error = refused(&options).await;
    assert_says(&error, Kind::Unreachable, true, None);
    assert!(error.to_string().contains("no answer within 0.3 s"), "{error:?}");

    drop(listener.accept().await.unwrap());

    options.connect_timeout = Duration::from_secs(20);
    let greetings: [(&[u8], Kind, bool); 4] = [
        (b"\x05\0\0\0HTTP/", Kind::Refused, false),
        (b"\x0a\0\0\0\x0a9.7.4\0abc", Kind::Refused, false),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Kind::Refused, false),
        (b"", Kind::Unreachable, true),
    ];
    for (bytes, kind, retryable) in greetings {
        let server = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            peer.write_all(bytes).await.unwrap();
            peer.shutdown().await.unwrap();
            std::future::pending::<()>().await;
        };
        let error = tokio::select! {
            error = refused(&options) => error,
            () = server => unreachable!(),
        };
        assert_says(&error, kind, retryable, None);
    }
}

#[tokio::test]
async fn bytes_in_clear_behind_the_greeting_are_not_taken_for_the_tls_server_s() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut bytes = b"\x0a9.7.4\0\x0b\0\0\0ABCDEFGH\0\xff\xff\xff\x02\0\xff\xdf\x15".to_vec();
    bytes.extend([0; 10]);
    bytes.extend(b"IJKLMNOPQRST\0caching_sha2_password\0");
    let mut packet = vec![u8::try_from(bytes.len()).unwrap(), 0, 0, 0];
    packet.extend(&bytes);
    packet.extend(b"\x07\0\0\x02\0\0\0\x02\0\0\0");
    let options = tcp(listener.local_addr().unwrap().port(), "u", "pw", tls(TlsMode::Required));
    let server = async {
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.write_all(&packet).await.unwrap();
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        error = refused(&options) => error,
        () = server => unreachable!(),
    };
    assert_says(&error, Kind::Refused, false, None);
    assert!(error.to_string().contains("where TLS must start"), "{error:?}");
}
