//! Real MySQL servers for tests: provisioned, started, killed and cleaned up by themselves.
//!
//! Owns: instances under `.lab/var`, each with its own data directory (copied from a template), port and socket.
//! Does not own: how MySQL is obtained; `tests/lab/mysql.sh` does that.
//!
//! Invariants: a server dies with the process that started it, however that ends: a small guard holds the read end of a
//! pipe whose write end only this process has, and kills the server at its end. The data go when the [`Mysqld`] is
//! dropped, unless the test failed or `BINVAULT_KEEP` is set; what a killed process left is swept by the next one, told
//! by the lock file in each instance's folder.

use super::{lab_dir, repo, tail};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(120);

/// Small and fast: what is lost when the machine dies is no concern of a test. Options of [`Mysqld::start`] override.
const DEFAULTS: &[&str] = &[
    "--mysqlx=OFF",
    "--performance-schema=OFF",
    "--innodb-buffer-pool-size=64M",
    "--innodb-redo-log-capacity=64M",
    "--innodb-flush-log-at-trx-commit=2",
    "--sync-binlog=0",
    "--innodb-doublewrite=OFF",
    "--table-open-cache=200",
    "--max-connections=60",
    "--max-allowed-packet=1G",
    "--log-error-verbosity=2",
    "--secure-file-priv=",
    "--local-infile=ON",
    "--server-id=1",
    "--log-bin=binlog",
    "--gtid-mode=ON",
    "--enforce-gtid-consistency=ON",
];

/// A guard's script: starts its arguments, says their pid, and kills them when its own input ends.
const GUARD: &str = r#"
exec 3<&0 4>&1
"$@" < /dev/null > /dev/null 3<&- 4>&- & server=$!
echo $server >&4
exec 4>&- > /dev/null
{ while read -r _; do :; done; kill -9 $server; } <&3 2> /dev/null & watch=$!
exec 3<&-
wait $server; code=$?
kill $watch 2> /dev/null
exit $code
"#;

/// The programs of the lab, fetched at the first call.
pub fn bin() -> &'static Path {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| {
        sweep();
        PathBuf::from(script("get"))
    })
}

/// A program of the lab: `mysqlbinlog`, `mysql`, `age`, `zstd`, ... The MySQL ones read no option files.
pub fn tool(name: &str) -> Command {
    let mut command = Command::new(bin().join(name));
    if name.starts_with("mysql") {
        command.arg("--no-defaults");
    }
    command
}

fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        bin();
        PathBuf::from(script("template"))
    })
}

/// Runs `tests/lab/mysql.sh`; its last line is the answer.
fn script(verb: &str) -> String {
    let out = Command::new(repo().join("tests/lab/mysql.sh"))
        .arg(verb)
        .env("BINVAULT_LAB", lab_dir())
        .stderr(Stdio::inherit())
        .output()
        .expect("run tests/lab/mysql.sh");
    assert!(out.status.success(), "tests/lab/mysql.sh {verb} failed ({}): see its message above", out.status);
    String::from_utf8(out.stdout).unwrap().lines().last().unwrap_or_default().to_owned()
}

/// Removes instances whose process is gone; those of failed tests stay for a day.
fn sweep() {
    for entry in std::fs::read_dir(lab_dir().join("var")).into_iter().flatten().flatten() {
        let dir = entry.path();
        let Ok(lock) = File::open(dir.join("lock")) else { continue };
        let fresh = dir
            .join("failed")
            .metadata()
            .and_then(|meta| meta.modified())
            .is_ok_and(|when| when.elapsed().is_ok_and(|age| age < Duration::from_secs(86_400)));
        if lock.try_lock().is_ok() && !fresh && !dir.join("keep").exists() {
            if let Ok(sockets) = std::fs::read_to_string(dir.join("sockets")) {
                drop(std::fs::remove_file(Path::new(&sockets).join("s")));
                drop(std::fs::remove_file(Path::new(&sockets).join("s.lock")));
                drop(std::fs::remove_dir(&sockets));
            }
            drop(std::fs::remove_dir_all(&dir));
        }
    }
}

/// What a server said to a script.
#[derive(Debug)]
pub struct SqlError(pub String);

/// A running (or stopped, or killed) server.
pub struct Mysqld {
    dir: PathBuf,
    program: PathBuf,
    options: Vec<String>,
    port: u16,
    sockets: tempfile::TempDir,
    guard: Option<Child>,
    pid: i32,
    _lock: File,
}

impl Mysqld {
    /// A fresh server with binlogs and GTIDs on; `options` (`--name=value`) come after the defaults. `root` has no
    /// password and is `root@localhost`.
    pub fn start(hint: &str, options: &[&str]) -> Self {
        Self::start_as(hint, options, |_| bin().join("mysqld"))
    }

    /// As [`Mysqld::start`], with a keyring, as `--binlog-encryption=ON` needs one.
    pub fn start_with_keyring(hint: &str, options: &[&str]) -> Self {
        Self::start_as(hint, options, super::keyring::program)
    }

    fn start_as(hint: &str, options: &[&str], program: impl Fn(&Path) -> PathBuf) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let template = template();
        let dir = lab_dir().join("var").join(format!(
            "{hint}-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&dir).expect("make the instance's folder");
        let lock = File::create(dir.join("lock")).unwrap();
        lock.lock().expect("lock the instance's folder");
        if std::env::var_os("BINVAULT_KEEP").is_some() {
            File::create(dir.join("keep")).unwrap();
        }
        let copied = Command::new("cp")
            .args(["-a", "--sparse=always", "--reflink=auto"])
            .args([template, &dir.join("data")])
            .status()
            .expect("run cp");
        assert!(copied.success(), "cannot copy {} to {}", template.display(), dir.display());
        // A socket's path holds at most 107 bytes: it cannot live in a checkout that lies deep.
        let sockets = tempfile::Builder::new().prefix("bv").tempdir().expect("make a folder for the socket");
        std::fs::write(dir.join("sockets"), sockets.path().to_str().unwrap()).unwrap();
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let program = program(&dir);
        let mut server = Self { dir, program, options, port: 0, sockets, guard: None, pid: 0, _lock: lock };
        for attempt in 0..5 {
            server.port = free_port();
            match server.launch(&[]) {
                Ok(()) => return server,
                Err(why) if attempt < 4 && why.contains("Bind on TCP/IP port") => {
                    std::fs::remove_file(server.log()).unwrap();
                }
                Err(why) => panic!("{why}"),
            }
        }
        unreachable!("the last attempt panics")
    }

    /// Starts it again on the same port and data, after [`Mysqld::stop`] or [`Mysqld::kill`]. `options` are added for
    /// good.
    pub fn start_again(&mut self, options: &[&str]) {
        assert!(self.guard.is_none(), "still running");
        self.options.extend(options.iter().map(|&option| option.to_owned()));
        if let Err(why) = self.launch(&[]) {
            panic!("{why}");
        }
    }

    fn launch(&mut self, extra: &[&str]) -> Result<(), String> {
        drop(std::fs::remove_file(self.socket()));
        let mut guard = Command::new("setsid")
            .args(["sh", "-c", GUARD, "guard"])
            .arg(&self.program)
            .arg("--no-defaults")
            .args(DEFAULTS)
            .arg(format!("--user={}", user()))
            .arg(format!("--datadir={}", self.datadir().display()))
            .arg(format!("--tmpdir={}", self.dir.display()))
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--pid-file={}", self.dir.join("pid").display()))
            .arg(format!("--log-error={}", self.log().display()))
            .args(["--bind-address=127.0.0.1", &format!("--port={}", self.port)])
            .args(&self.options)
            .args(extra)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the server's guard");
        let mut pid = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        self.pid = pid.trim().parse().expect("the server's pid");
        let start = binvault::clock::monotonic();
        while !self.greets() {
            let ended = guard.try_wait().expect("ask after the guard");
            if ended.is_some() || start.elapsed() > PATIENCE {
                drop(guard.stdin.take());
                drop(guard.wait());
                return Err(format!("mysqld does not start ({ended:?}):\n{}", self.log_tail()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.guard = Some(guard);
        Ok(())
    }

    /// Whether the server answers on its socket.
    fn greets(&self) -> bool {
        let Ok(mut socket) = UnixStream::connect(self.socket()) else { return false };
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut head = [0; 5];
        socket.read_exact(&mut head).is_ok() && head[4] == 10
    }

    /// Clean shutdown, as `systemctl stop` does.
    pub fn stop(&mut self) {
        self.end(rustix::process::Signal::TERM);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.end(rustix::process::Signal::KILL);
    }

    /// SIGSTOP: the server hangs, its sockets stay open. [`Mysqld::thaw`] ends it.
    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("signal mysqld");
    }

    fn end(&mut self, signal: rustix::process::Signal) {
        let mut guard = self.guard.take().expect("is running");
        self.signal(signal);
        let start = binvault::clock::monotonic();
        while guard.try_wait().expect("ask after the guard").is_none() {
            assert!(start.elapsed() < PATIENCE, "mysqld does not stop:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the server's process is there (frozen counts).
    pub fn is_running(&self) -> bool {
        self.guard.is_some() && Path::new(&format!("/proc/{}", self.pid)).exists()
    }

    /// The server's process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Runs a script as root by the stock client and returns its output: rows as lines, columns parted by tabs.
    pub fn sql(&self, script: &str) -> String {
        self.try_sql(script).unwrap_or_else(|error| {
            let head: String = script.chars().take(400).collect();
            panic!("sql failed: {}\nthe script begins:\n{head}\nthe server's log ends:\n{}", error.0, self.log_tail())
        })
    }

    /// As [`Mysqld::sql`], but an error is the caller's.
    pub fn try_sql(&self, script: &str) -> Result<String, SqlError> {
        let mut client = self.client().spawn().expect("start the mysql client");
        let mut input = client.stdin.take().unwrap();
        let script = script.to_owned();
        let writer = std::thread::spawn(move || drop(input.write_all(script.as_bytes())));
        let out = client.wait_with_output().expect("wait for the mysql client");
        writer.join().unwrap();
        answer(&out)
    }

    /// A long script: `write` produces it into the client's input while the client runs it. Panics on any error.
    pub fn sql_stream(&self, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> String {
        let mut client = self.client().spawn().expect("start the mysql client");
        let mut input = std::io::BufWriter::with_capacity(1 << 18, client.stdin.take().unwrap());
        let mut output = client.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            output.read_to_end(&mut text).map(|_| text)
        });
        let written = write(&mut input).and_then(|()| input.flush());
        drop(input);
        let mut out = client.wait_with_output().expect("wait for the mysql client");
        out.stdout = reader.join().unwrap().unwrap();
        let text = answer(&out).unwrap_or_else(|error| panic!("sql failed: {}\n{}", error.0, self.log_tail()));
        written.expect("write the script to the mysql client");
        text
    }

    /// One value, as text.
    pub fn value(&self, query: &str) -> String {
        self.sql(query).trim_end_matches('\n').to_owned()
    }

    /// The stock client, connected as root over the socket, reading a script from its input.
    pub fn client(&self) -> Command {
        let mut client = tool("mysql");
        client
            .args(["-uroot", "--batch", "--raw", "--skip-column-names", "--max-allowed-packet=1G"])
            .args(["--binary-mode", "--local-infile=1", "--default-character-set=utf8mb4", "--unbuffered"])
            .arg(format!("--socket={}", self.socket().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        client
    }

    /// `mysqlbinlog` fetching from this server as root: add `--raw`, a result file and file names.
    pub fn remote_mysqlbinlog(&self) -> Command {
        let mut command = tool("mysqlbinlog");
        command.args(["--read-from-remote-server", "-uroot", &format!("--socket={}", self.socket().display())]);
        command
    }

    /// The TCP port on 127.0.0.1; the same through all restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket's path.
    pub fn socket(&self) -> PathBuf {
        self.sockets.path().join("s")
    }

    /// The data directory.
    pub fn datadir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A folder for this instance's by-products; goes with it.
    pub fn scratch(&self) -> PathBuf {
        let dir = self.dir.join("scratch");
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// The error log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("error.log")
    }

    /// The error log's end, for messages.
    pub fn log_tail(&self) -> String {
        tail(&self.log(), 15)
    }

    /// The server's binlog files, oldest first, from its index; the last one is in use while it runs.
    pub fn binlogs(&self) -> Vec<PathBuf> {
        let index = std::fs::read_to_string(self.datadir().join("binlog.index")).expect("read the binlog index");
        index.lines().map(|line| self.datadir().join(line)).collect()
    }

    /// The file in use and the position of its end.
    pub fn position(&self) -> (String, u64) {
        let row = self.sql("SHOW BINARY LOG STATUS");
        let mut columns = row.split('\t');
        let file = columns.next().expect("a file").to_owned();
        (file, columns.next().expect("a position").parse().expect("a number"))
    }

    /// `server_uuid`.
    pub fn uuid(&self) -> String {
        self.value("SELECT @@server_uuid")
    }

    /// An account as the documentation tells to make it, with a password; over TCP, no TLS demanded.
    pub fn create_agent_user(&self, name: &str, password: &str) {
        self.sql(&format!(
            "SET SESSION sql_log_bin = 0; CREATE USER '{name}'@'%' IDENTIFIED BY '{password}';\
             GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '{name}'@'%'"
        ));
    }

    /// What base backups need beside that, as the documentation tells.
    pub fn grant_base(&self, name: &str) {
        self.sql(&format!(
            "SET SESSION sql_log_bin = 0;
             GRANT SELECT, RELOAD, PROCESS, SHOW VIEW, TRIGGER, EVENT, SHOW_ROUTINE, XA_RECOVER_ADMIN, BACKUP_ADMIN
               ON *.* TO '{name}'@'%'"
        ));
    }
}

impl Drop for Mysqld {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take()); // the guard kills the server now
            drop(guard.wait());
        }
        if std::thread::panicking() {
            drop(File::create(self.dir.join("failed")));
            eprintln!("the server's folder is kept for a day: {}\n{}", self.dir.display(), self.log_tail());
        } else if !self.dir.join("keep").exists() {
            drop(std::fs::remove_dir_all(&self.dir));
        }
    }
}

fn answer(out: &Output) -> Result<String, SqlError> {
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        Err(SqlError(String::from_utf8_lossy(&out.stderr).trim().to_owned()))
    }
}

fn user() -> String {
    let out = Command::new("id").arg("-un").output().expect("run id");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// A port that nobody listens on, below the range that the kernel hands out by itself: it is still free when the server
/// comes back after a restart.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..10_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = (std::process::id().wrapping_mul(97).wrapping_add(step)) % 8_000;
        let port = u16::try_from(24_000 + offset).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 24000 and 32000")
}
