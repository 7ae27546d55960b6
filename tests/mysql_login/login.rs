//! caching_sha2_password over every channel: with and without the server's cache.

use super::*;

/// Key files that are not there: turning their generation off is not enough, another default makes them.
const NO_RSA_KEYS: &[&str] = &[
    "--caching-sha2-password-auto-generate-rsa-keys=OFF",
    "--caching-sha2-password-private-key-path=absent.pem",
    "--caching-sha2-password-public-key-path=absent.pem",
];

fn create(server: &Mysqld, name: &str, password: &str) {
    server.sql(&format!("CREATE USER '{name}'@'%' IDENTIFIED BY '{password}'"));
}

#[tokio::test]
async fn a_password_that_the_server_does_not_remember_is_proven_over_every_channel() {
    let server = &shared();
    let long = "p".repeat(190);
    // An RSA-OAEP block of 2048 bits holds 214 bytes; so long a password has to fit into it.
    for (index, password) in ["simple", "sp ace'-ü€ \\\\", long.as_str()].into_iter().enumerate() {
        let unquoted = password.replace("\\\\", "\\");
        let quoted = password.replace('\'', "''");
        for channel in ["clear", "tls", "socket", "socket_tls"] {
            // A user of its own: nobody has logged in as it, so the server's cache is empty and must be filled.
            let user = format!("full_{channel}_{index}");
            create(server, &user, &quoted);
            let options = match channel {
                "clear" => clear(server, &user, &unquoted),
                "tls" => tcp(server.port(), &user, &unquoted, tls(TlsMode::Required)),
                "socket" => socket(server, &user, &unquoted),
                _ => SourceOptions { tls: tls(TlsMode::Required), ..socket(server, &user, &unquoted) },
            };
            for round in ["full", "fast"] {
                let mut connection = connect(&options).await;
                assert_eq!(connection.is_tls(), channel.ends_with("tls"), "{channel} {round}");
                assert_eq!(value(&mut connection, "SELECT CURRENT_USER()").await, format!("{user}@%"));
                assert_eq!(value(&mut connection, "SELECT CONNECTION_ID()").await, connection.id().to_string());
                connection.quit().await;
            }
        }
    }
}

#[tokio::test]
async fn without_rsa_keys_the_clear_channel_works_exactly_while_the_server_remembers() {
    let server = Mysqld::start("norsa", NO_RSA_KEYS);
    create(&server, "agent", "pw");
    let (plain, protected) = (clear(&server, "agent", "pw"), tcp(server.port(), "agent", "pw", tls(TlsMode::Required)));
    // No key, so the full login is impossible here: whoever gets in was let in by the cache.
    assert_says(&refused(&plain).await, Kind::Refused, false, Some(1045));
    connect(&protected).await.quit().await;
    connect(&plain).await.quit().await;
    server.sql("FLUSH PRIVILEGES");
    assert_says(&refused(&plain).await, Kind::Refused, false, Some(1045));
    connect(&protected).await.quit().await;
    connect(&plain).await.quit().await;
    // A changed password empties the cache too.
    server.sql("ALTER USER agent IDENTIFIED BY 'other'");
    assert_says(&refused(&protected).await, Kind::Refused, false, Some(1045));
    connect(&tcp(server.port(), "agent", "other", tls(TlsMode::Required))).await.quit().await;
    connect(&clear(&server, "agent", "other")).await.quit().await;
}

#[tokio::test]
async fn an_account_of_another_method_is_switched_to() {
    let server = &shared();
    for (name, password) in [("sha256", "p'w"), ("sha256_empty", "")] {
        let quoted = password.replace('\'', "''");
        server.sql(&format!("CREATE USER '{name}'@'%' IDENTIFIED WITH sha256_password BY '{quoted}'"));
        for options in [
            clear(server, name, password),
            tcp(server.port(), name, password, tls(TlsMode::Required)),
            socket(server, name, password),
        ] {
            let mut connection = connect(&options).await;
            assert_eq!(value(&mut connection, "SELECT CURRENT_USER()").await, format!("{name}@%"));
            let wrong = SourceOptions { password: secret("wrong"), ..options };
            assert_says(&refused(&wrong).await, Kind::Refused, false, Some(1045));
        }
    }
}

#[tokio::test]
async fn an_empty_password_is_a_password() {
    let server = &shared();
    create(server, "nopassword", "");
    for options in [
        clear(server, "nopassword", ""),
        tcp(server.port(), "nopassword", "", tls(TlsMode::Required)),
        socket(server, "nopassword", ""),
    ] {
        connect(&options).await.quit().await;
    }
    assert_says(&refused(&clear(server, "nopassword", "x")).await, Kind::Refused, false, Some(1045));
}

#[tokio::test]
async fn the_server_sees_what_a_connection_is_for() {
    let server = &shared();
    create(server, "named", "pw");
    let mut connection = Connection::connect(&socket(server, "named", "pw"), "binvault dump").await.unwrap();
    let seen = server.sql(&format!(
        "SELECT ATTR_NAME, ATTR_VALUE FROM performance_schema.session_connect_attrs WHERE PROCESSLIST_ID = {}",
        connection.id()
    ));
    assert!(seen.contains("program_name\tbinvault dump\n"), "{seen}");
    assert!(seen.contains("_client_name\tbinvault\n"), "{seen}");
    connection.ping().await.unwrap();
    let version = value(&mut connection, "SELECT VERSION()").await;
    assert_eq!(connection.server_version().text, version);
}
