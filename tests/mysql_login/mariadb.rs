//! mysql_native_password, and being switched to it, on a real server that still has it: MariaDB.

use binvault::mysql::facts::{self, ServerFacts};

use super::support::mariadb::MariaDb;
use super::*;

#[tokio::test]
async fn the_native_method_works_whether_named_in_the_greeting_or_switched_to() {
    let server = MariaDb::start();
    // The second account tries the socket's owner first, which is nobody's name here, and then switches the client to
    // the native method with a new nonce.
    server.sql(
        "CREATE USER agent@'%' IDENTIFIED BY 'p''w'; CREATE USER nopassword@'%'; CREATE USER switched@'%' \
         IDENTIFIED VIA unix_socket OR mysql_native_password USING PASSWORD('p''w'); \
         CREATE USER os@'%' IDENTIFIED VIA unix_socket",
    );
    for channel in ["clear", "socket"] {
        let options = |user: &str, password: &str| match channel {
            "clear" => tcp(server.port(), user, password, tls(TlsMode::Disabled)),
            _ => SourceOptions::new(Address::Socket(server.socket()), user, secret(password)),
        };
        for (user, password) in [("agent", "p'w"), ("nopassword", ""), ("switched", "p'w")] {
            let mut connection = connect(&options(user, password)).await;
            assert_eq!(value(&mut connection, "SELECT CURRENT_USER()").await, format!("{user}@%"), "{channel}");
            assert!(connection.server_version().is_mysql_at_least(5, 6, 0) != connection.server_version().is_mariadb);
        }
        for user in ["agent", "nopassword", "switched"] {
            assert_says(&refused(&options(user, "wrong")).await, Kind::Refused, false, Some(1045));
        }
        assert_says(&refused(&options("os", "p'w")).await, Kind::Refused, false, Some(1698));
    }
    // MariaDB 10.11 has no certificates of its own.
    let error = refused(&tcp(server.port(), "agent", "p'w", tls(TlsMode::Required))).await;
    assert!(assert_says(&error, Kind::Refused, false, None).contains("disabled"));
    connect(&tcp(server.port(), "agent", "p'w", tls(TlsMode::Auto))).await.quit().await;
}

#[tokio::test]
async fn facts_of_a_mariadb_are_read_as_far_as_it_has_them() {
    let server = MariaDb::start();
    server.sql("CREATE USER agent@'%' IDENTIFIED BY 'pw'; GRANT REPLICATION SLAVE ON *.* TO agent@'%'");
    let mut connection = connect(&tcp(server.port(), "agent", "pw", tls(TlsMode::Disabled))).await;
    let facts = ServerFacts::read(&mut connection).await.unwrap();
    assert!(facts.version.is_mariadb);
    assert_eq!((facts.server_uuid, facts.server_id, facts.log_bin), (None, Some(7), Some(true)));
    assert_eq!((facts.gtid_mode, facts.gtid_executed), (None, None));
    let hint = assert_says(&facts::binary_logs(&mut connection).await.unwrap_err(), Kind::Refused, false, Some(1227));
    assert_eq!(hint, "GRANT BINLOG MONITOR ON *.* TO 'agent'@'%';");
    server.sql("GRANT BINLOG MONITOR ON *.* TO agent@'%'");
    let mut connection = connect(&tcp(server.port(), "agent", "pw", tls(TlsMode::Disabled))).await;
    let logs = facts::binary_logs(&mut connection).await.unwrap();
    let status = facts::binlog_status(&mut connection).await.unwrap().unwrap();
    assert_eq!(logs.last().map(|log| log.name.as_str()), Some(status.file.as_str()));
}
