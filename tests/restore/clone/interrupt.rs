//! A clone that is being put back when the restore is killed: no server starts on half of it, the next run begins anew.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::scene::{clone, plain};
use crate::oracle::fingerprint;
use crate::place::{Restored, arguments};
use crate::scene::orders;
use crate::support::agent::said;
use crate::support::lab::tool;
use crate::support::wait_until;

/// Tries to hit the restore while it writes; each is a restore from its beginning.
const TRIES: usize = 20;

#[test]
fn a_half_clone_is_no_data_directory() {
    let (source, config) = plain("rclonekill", 200_000, &[]);
    clone(&config);
    orders(&source, &["four"]);
    config.archive_now();
    let dir = tempfile::tempdir().unwrap();
    let datadir = dir.path().join("data");
    let command = || {
        let all = arguments(&config, "latest", &datadir, &["--json", "--keep-running"]);
        let mut command = config.command(&all.iter().map(String::as_str).collect::<Vec<_>>());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let hit = (0..TRIES).any(|_| killed_while_writing(command(), &datadir));
    assert!(hit, "the restore was never met while it wrote");
    let marker = std::fs::read_to_string(datadir.join(".binvault-restore.json")).unwrap();
    assert!(marker.contains("\"loading\""), "{marker}");

    // The server itself refuses it.
    let mut server = tool("mysqld");
    server
        .args(["--user=root", "--skip-networking", "--mysqlx=OFF", "--secure-file-priv=NULL"])
        .arg(format!("--datadir={}", datadir.display()));
    let out = server.arg(format!("--socket={}", dir.path().join("s").display())).stdin(Stdio::null()).output().unwrap();
    assert!(!out.status.success() && said(&out).contains("Incomplete cloned data directory"), "{}", said(&out));

    let out = command().output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    let restored = Restored::of(&out);
    assert_eq!(restored.report["continued"], false, "half a clone is no base to go on from");
    assert_eq!(fingerprint(|sql| restored.sql(sql)), fingerprint(|sql| source.sql(sql)));
    let left = datadir.join(".binvault-restore.parts");
    assert!(!left.exists() && !datadir.join("#clone/#status_in_progress").exists());
    restored.assert_clean();
}

/// Starts a restore and kills it as soon as it writes; false if it was through by then.
fn killed_while_writing(mut command: Command, datadir: &Path) -> bool {
    let mut child = command.spawn().unwrap();
    let parts = datadir.join(".binvault-restore.parts");
    wait_until("the clone is being put back", Duration::from_secs(120), || {
        std::fs::read_dir(&parts).is_ok_and(|entries| entries.count() > 2) || child.try_wait().unwrap().is_some()
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let met = parts.exists() && datadir.join("#clone/#status_in_progress").exists();
    if !met {
        end_server(datadir);
        std::fs::remove_dir_all(datadir).unwrap();
    }
    met
}

/// Ends the server that a restore left running.
fn end_server(datadir: &Path) {
    let wanted = format!("--datadir={}", datadir.display());
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.split(|byte| *byte == 0).any(|argument| argument == wanted.as_bytes()) {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            wait_until("the server ends", Duration::from_secs(60), || !entry.path().exists());
        }
    }
}
