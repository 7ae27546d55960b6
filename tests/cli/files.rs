//! What `keygen` and `init` write: modes, contents, and never over anything.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::support::agent::{binvault, said};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn keygen_writes_a_private_key_and_prints_the_public_one() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let out = binvault().args(["keygen", "-o", key.to_str().unwrap()]).output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    assert_eq!(mode(&key), 0o600);
    let recipient = String::from_utf8(out.stdout).unwrap();
    assert!(recipient.starts_with("age1") && recipient.lines().count() == 1, "{recipient:?}");
    let text = fs::read_to_string(&key).unwrap();
    assert!(text.contains(recipient.trim()), "the file tells its public half");
    assert_eq!(text.lines().filter(|line| line.starts_with("AGE-SECRET-KEY-1")).count(), 1);
    assert!(!String::from_utf8_lossy(&out.stderr).contains("AGE-SECRET-KEY"));
}

#[test]
fn nothing_is_ever_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["keygen", "init"] {
        let path = folder.path().join(command);
        fs::write(&path, "mine").unwrap();
        let out = binvault().args([command, "-o", path.to_str().unwrap()]).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{}", said(&out));
        assert!(said(&out).contains("HINT: it is never overwritten"), "{}", said(&out));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let link = folder.path().join(format!("{command}-link"));
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).unwrap();
        let out = binvault().args([command, "-o", link.to_str().unwrap()]).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "not through a link either: {}", said(&out));
    }
}

#[test]
fn what_init_writes_is_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let out = binvault().current_dir(folder.path()).args(arguments).output().unwrap();
        (out.status.code(), said(&out))
    };
    let (_, made) = run(&["keygen"]);
    let recipient = made.split_whitespace().find(|word| word.starts_with("age1") && word.len() > 50).unwrap();
    let archive = format!("file://{}/archive", folder.path().display());
    let source = "mysql://binvault@127.0.0.1:1";
    let (code, text) = run(&["init", "--source", source, "--to", &archive, "--recipient", recipient]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(mode(&folder.path().join("binvault.toml")) & 0o007, 0, "not for everybody to read");
    // It is understood: what is missing is not there yet, which is another kind of error than a bad configuration.
    let (code, text) = run(&["-c", "binvault.toml", "status"]);
    assert_eq!(code, Some(9), "{text}");
    // The password file it names is not there.
    let (code, text) = run(&["-c", "binvault.toml", "run"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("/etc/binvault/password"), "{text}");
}
