//! Passwords and private keys: in no log, in no process's command line, in no core file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{server, with_key, words};
use crate::s3;
use crate::support::agent::{AgentConfig, PASSWORD, binvault};
use crate::support::lab::bin;
use crate::support::wait_until;

/// The command lines of a process and all that it has started.
fn command_lines(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut all = vec![String::from_utf8_lossy(&line).into_owned()];
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for thread in threads {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        all.extend(children.split_whitespace().flat_map(|child| command_lines(child.parse().unwrap())));
    }
    all
}

#[test]
fn no_crate_logs_a_secret_and_no_command_line_has_one() {
    let (server, store) = (server("secrets"), s3::Server::start());
    let extra = format!(
        "{}[base]\nengine = \"mysqldump\"\nmysqldump = \"{}\"\n[log]\nlevel = \"trace\"\n",
        store.settings(),
        bin().join("mysqldump").display()
    );
    let config = AgentConfig::with(&server, &format!("s3://{}/x", s3::BUCKET), &extra);
    let key = fs::read_to_string(config.identity()).unwrap();
    let private = key.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap();
    let to = config.dir().join("exported");
    let mut tools = 0;
    for arguments in [
        // This one logs as configured: every crate, everything.
        vec!["run".to_owned(), "--once".to_owned()],
        vec!["-vv".to_owned(), "base".to_owned()],
        with_key(&config, &["-vv", "verify", "--deep"]),
        with_key(&config, &["-vv", "export", "--to", to.to_str().unwrap()]),
    ] {
        let mut agent = config.spawn_with(&words(&arguments));
        while agent.exited().is_none() {
            for line in command_lines(agent.pid()) {
                assert!(![PASSWORD, s3::SECRET_KEY, private].iter().any(|secret| line.contains(secret)), "{line}");
                tools += u32::from(line.contains("mysqldump\0"));
            }
        }
        let log = fs::read_to_string(agent.log_path()).unwrap();
        assert!(agent.exited().unwrap().success() && log.contains("DEBUG"), "{log}");
        for secret in [PASSWORD, s3::SECRET_KEY, private] {
            assert!(!log.contains(secret), "{arguments:?} logs a secret");
        }
    }
    assert!(tools > 0, "no tool was seen at work");
}

/// A process that may not be dumped leaves no core file, and its memory, environment and descriptors are not its
/// account's other processes' to read. The last can be looked at.
#[test]
fn nobody_of_the_same_account_reads_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let pipe = folder.path().join("pipe");
    // A configuration that never comes.
    assert!(Command::new("mkfifo").args(["-m", "666"]).arg(&pipe).status().unwrap().success());
    let mut waiting = binvault();
    waiting.arg("-c").arg(&pipe).arg("status");
    let mut careless = Command::new("sleep");
    careless.arg("60");
    for (command, program, readable) in [(careless, "sleep", true), (waiting, "binvault", false)] {
        let mut child = as_somebody(&command).stderr(Stdio::null()).spawn().unwrap();
        let of = |file: &str| format!("/proc/{}/{file}", child.id());
        let look = || as_somebody(Command::new("cat").arg(of("environ"))).output().unwrap().status.success();
        wait_until("it is the program", Duration::from_secs(20), || {
            fs::read_to_string(of("comm")).unwrap().trim() == program && look() == readable
        });
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// A command under an account that is not the superuser's, to whom nothing is closed.
fn as_somebody(command: &Command) -> Command {
    let mut all = vec![command.get_program()];
    all.extend(command.get_args());
    if rustix::process::geteuid().is_root() {
        let mut other = Command::new("setpriv");
        other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).args(all);
        return other;
    }
    let mut same = Command::new(all.remove(0));
    same.args(all);
    same
}
