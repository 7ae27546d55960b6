//! mysql_native_password, and being switched to it, on a real server that still has it: MariaDB.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use binvault::mysql::facts::{self, ServerFacts};

use super::*;

/// Runs its arguments and kills them when its own input ends, that is when the test's process does.
const GUARD: &str = r#""$@" < /dev/null & server=$!; cat > /dev/null; kill -9 $server; wait $server"#;

struct MariaDb {
    dir: tempfile::TempDir,
    port: u16,
    bin: PathBuf,
    guard: Child,
}

impl MariaDb {
    fn start() -> Self {
        let got = Command::new(support::repo().join("tests/lab/mysql.sh"))
            .args(["get", "mariadb"])
            .env("BINVAULT_LAB", support::lab_dir())
            .stderr(Stdio::inherit())
            .output()
            .expect("run tests/lab/mysql.sh");
        assert!(got.status.success(), "no MariaDB: see the message above");
        let bin = PathBuf::from(String::from_utf8(got.stdout).unwrap().trim());
        let dir = tempfile::Builder::new().prefix("bvm").tempdir().unwrap();
        bootstrap(&bin, dir.path());
        let port = free_port();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let guard = Command::new("setsid")
            .args(["sh", "-c", GUARD, "guard"])
            .args(mariadbd(&bin, dir.path()))
            .arg(format!("--socket={}", dir.path().join("s").display()))
            .args(["--bind-address=127.0.0.1", &format!("--port={port}"), "--log-bin=mdb", "--server-id=7"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start mariadbd");
        let server = Self { dir, port, bin, guard };
        support::wait_until("mariadbd answers", Duration::from_secs(60), || {
            std::os::unix::net::UnixStream::connect(server.socket()).is_ok()
        });
        server
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn sql(&self, script: &str) {
        let out = Command::new(self.bin.join("mariadb"))
            .args(["--no-defaults", "-uroot", "-S"])
            .arg(self.socket())
            .args(["-e", script])
            .output()
            .expect("run the mariadb client");
        assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        drop(self.guard.wait());
        if std::thread::panicking() {
            eprintln!("{}", support::tail(&self.dir.path().join("log"), 15));
        }
    }
}

/// A port between 22000 and 24000 that nobody listens on and that no other test here was given.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(step < 2_000, "no free port between 22000 and 24000");
        let port = 22_000 + u16::try_from(std::process::id().wrapping_mul(97).wrapping_add(step) % 2_000).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn mariadbd(bin: &Path, dir: &Path) -> Vec<String> {
    let root = bin.parent().unwrap().join("root/usr");
    let user = Command::new("id").arg("-un").output().unwrap();
    vec![
        bin.join("mariadbd").display().to_string(),
        "--no-defaults".to_owned(),
        format!("--user={}", String::from_utf8(user.stdout).unwrap().trim()),
        format!("--datadir={}", dir.join("data").display()),
        format!("--basedir={}", root.display()),
        format!("--lc-messages-dir={}", root.join("share/mysql").display()),
        "--innodb-buffer-pool-size=16M".to_owned(),
        "--innodb-log-file-size=8M".to_owned(),
    ]
}

/// What mariadb-install-db does, without its need of an installed MariaDB.
fn bootstrap(bin: &Path, dir: &Path) {
    std::fs::create_dir(dir.join("data")).unwrap();
    let scripts = bin.parent().unwrap().join("root/usr/share/mysql");
    let command = mariadbd(bin, dir);
    let mut server = Command::new(&command[0])
        .args(&command[1..])
        .arg("--bootstrap")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(dir.join("bootstrap")).unwrap())
        .spawn()
        .expect("run mariadbd");
    let mut input = server.stdin.take().unwrap();
    input.write_all(b"CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n").unwrap();
    for name in ["mysql_system_tables.sql", "mysql_system_tables_data.sql"] {
        input.write_all(&std::fs::read(scripts.join(name)).unwrap()).unwrap();
    }
    drop(input);
    assert!(server.wait().unwrap().success(), "{}", support::tail(&dir.join("bootstrap"), 10));
}

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
            "clear" => tcp(server.port, user, password, tls(TlsMode::Disabled)),
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
    let error = refused(&tcp(server.port, "agent", "p'w", tls(TlsMode::Required))).await;
    assert!(assert_says(&error, Kind::Refused, false, None).contains("disabled"));
    connect(&tcp(server.port, "agent", "p'w", tls(TlsMode::Auto))).await.quit().await;
}

#[tokio::test]
async fn facts_of_a_mariadb_are_read_as_far_as_it_has_them() {
    let server = MariaDb::start();
    server.sql("CREATE USER agent@'%' IDENTIFIED BY 'pw'; GRANT REPLICATION SLAVE ON *.* TO agent@'%'");
    let mut connection = connect(&tcp(server.port, "agent", "pw", tls(TlsMode::Disabled))).await;
    let facts = ServerFacts::read(&mut connection).await.unwrap();
    assert!(facts.version.is_mariadb);
    assert_eq!((facts.server_uuid, facts.server_id, facts.log_bin), (None, Some(7), Some(true)));
    assert_eq!((facts.gtid_mode, facts.gtid_executed), (None, None));
    let hint = assert_says(&facts::binary_logs(&mut connection).await.unwrap_err(), Kind::Refused, false, Some(1227));
    assert_eq!(hint, "GRANT BINLOG MONITOR ON *.* TO 'agent'@'%';");
    server.sql("GRANT BINLOG MONITOR ON *.* TO agent@'%'");
    let mut connection = connect(&tcp(server.port, "agent", "pw", tls(TlsMode::Disabled))).await;
    let logs = facts::binary_logs(&mut connection).await.unwrap();
    let status = facts::binlog_status(&mut connection).await.unwrap().unwrap();
    assert_eq!(logs.last().map(|log| log.name.as_str()), Some(status.file.as_str()));
}
