//! Nobody but the owner, and the group where that is meant, gets at what is written, whatever the umask says.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::{server, with_key, words};
use crate::support::agent::{AgentConfig, said};
use crate::support::lab::bin;

/// Runs a command with an umask of nothing.
fn open_handed(config: &AgentConfig, arguments: &[&str]) {
    let plain = config.command(arguments);
    let mut shell = Command::new("bash");
    shell.args(["-c", "umask 000; exec \"$@\"", "open-handed"]).arg(plain.get_program()).args(plain.get_args());
    let out = shell.output().unwrap();
    assert!(out.status.success(), "{arguments:?}: {}", said(&out));
}

/// The permissions of everything below a path, and of itself.
fn modes(path: &Path) -> Vec<(String, u32)> {
    let found = fs::symlink_metadata(path).unwrap();
    let mut all = vec![(path.display().to_string(), found.permissions().mode() & 0o777)];
    if found.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| all.extend(modes(&entry.unwrap().path())));
    }
    all
}

#[test]
fn whatever_is_written_is_closed_to_others() {
    let server = server("modes");
    let config = AgentConfig::with_extra(&server, "[base]\nengine = \"clone\"\n");
    let path = |name: &str| config.dir().join(name).to_str().unwrap().to_owned();
    open_handed(&config, &["keygen", "-o", &path("new.key")]);
    open_handed(&config, &["init", "-o", &path("new.toml")]);
    open_handed(&config, &["run", "--once"]);
    open_handed(&config, &["base"]);
    open_handed(&config, &words(&with_key(&config, &["export", "--to", &path("exported")])));
    let mysqld = bin().join("mysqld");
    let restore = ["restore", "--to", "latest", "--datadir", &path("restored"), "--mysqld", mysqld.to_str().unwrap()];
    open_handed(&config, &words(&with_key(&config, &restore)));
    assert_eq!(modes(&config.dir().join("new.key"))[0].1, 0o600);
    for name in ["new.toml", "archive", "exported", "restored"] {
        let all = modes(&config.dir().join(name));
        // The server's own files are the server's affair: it makes its certificates readable by all.
        let ours = |path: &str| !path.ends_with(".pem");
        let open: Vec<_> = all.iter().filter(|(path, mode)| mode & 0o027 != 0 && ours(path)).collect();
        assert!(open.is_empty(), "{open:?}");
        println!("{name}: {} files and folders", all.len());
    }
}
