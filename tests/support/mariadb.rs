//! Real MariaDB servers for tests: what is no MySQL, and what still has the native password method.
//!
//! Invariant: a server dies with the process that started it, and its data go with the [`MariaDb`].

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Runs its arguments and kills them when its own input ends, that is when the test's process does.
const GUARD: &str = r#""$@" < /dev/null & server=$!; cat > /dev/null; kill -9 $server; wait $server"#;

/// A running MariaDB; `root` has no password on the socket.
pub struct MariaDb {
    dir: tempfile::TempDir,
    port: u16,
    bin: PathBuf,
    guard: Child,
}

impl MariaDb {
    /// A fresh server with a binlog.
    pub fn start() -> Self {
        let got = Command::new(super::repo().join("tests/lab/mysql.sh"))
            .args(["get", "mariadb"])
            .env("BINVAULT_LAB", super::lab_dir())
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
        super::wait_until("mariadbd answers", Duration::from_secs(60), || {
            std::os::unix::net::UnixStream::connect(server.socket()).is_ok()
        });
        server
    }

    /// The socket's path.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs a script as root.
    pub fn sql(&self, script: &str) {
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
            eprintln!("{}", super::tail(&self.dir.path().join("log"), 15));
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
        format!("--tmpdir={}", dir.display()),
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
    assert!(server.wait().unwrap().success(), "{}", super::tail(&dir.join("bootstrap"), 10));
}
