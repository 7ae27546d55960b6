//! Whether a server can start on what a clone gives, held against the manifest before anything is written; and the options
//! that it must have.
//!
//! The rules are those that servers keep between donor and recipient, and stricter where files carry redo: recovery of a
//! redo log of another series is refused. Pure but for one look at the program.

use std::io::Read;
use std::path::Path;

use super::place::system_place;
use crate::archive::{BaseManifest, CloneFacts};
use crate::error::{Error, Kind, Result};
use crate::mysql::Version;

/// What is known of the clone.
///
/// # Errors
/// [`Kind::Corrupt`] if the manifest does not say it.
pub(in crate::restore) fn facts(base: &BaseManifest) -> Result<&CloneFacts> {
    base.clone
        .as_ref()
        .ok_or_else(|| Error::corrupt(format!("the manifest of {} does not say what was cloned", base.id)))
}

/// Whether a server of this version and platform (`OS`, machine) can start on the base's files.
///
/// # Errors
/// [`Kind::Unfit`], saying what differs.
pub(in crate::restore) fn judge(
    restoring: &Version,
    platform: Option<&(String, String)>,
    base: &BaseManifest,
) -> Result<()> {
    let facts = facts(base)?;
    let archived = Version::parse(&base.server_version);
    let fine = if (restoring.major, restoring.minor) != (archived.major, archived.minor) || restoring.is_mariadb {
        false
    } else if (archived.major, archived.minor) == (8, 0) && restoring.patch.min(archived.patch) < 37 {
        restoring.patch == archived.patch
    } else {
        true
    };
    if !fine {
        return Err(Error::new(
            Kind::Unfit,
            format!("the restoring server is {restoring}, the base backup {} is a clone of a {archived}", base.id),
        )
        .hint(
            "a clone's files need a server of the same series (below 8.0.37: the same version): give one with --mysqld and \
             upgrade afterwards, or choose a base backup of another engine with --base",
        ));
    }
    let Some((os, machine)) = platform else { return Ok(()) };
    let differ = |archived: &str, here: &str| !archived.is_empty() && !archived.eq_ignore_ascii_case(here);
    if differ(&facts.compile_os, os) || differ(&facts.compile_machine, machine) {
        return Err(Error::new(
            Kind::Unfit,
            format!(
                "the restoring server is for {os} on {machine}, the base backup {} is a clone of one for {} on {}",
                base.id, facts.compile_os, facts.compile_machine
            ),
        )
        .hint(
            "restore on a host of the archived server's kind, or choose a base backup of another engine with --base",
        ));
    }
    Ok(())
}

/// Refuses a program that cannot load a keyring: a server learns of its keyring from a file beside its program alone.
///
/// # Errors
/// [`Kind::Unfit`] with what is to be done.
pub(in crate::restore) fn judge_keyring(program: &Path, version: &Version) -> Result<()> {
    if !version.is_mysql_at_least(8, 0, 24) {
        return Err(Error::new(
            Kind::Unfit,
            format!("the base backup has encrypted tablespaces, and {version} has no keyring component"),
        )
        .hint("choose a base backup of another engine with --base: a dump is not encrypted by the server"));
    }
    let Ok(program) = std::fs::canonicalize(program) else { return Ok(()) };
    let mut head = [0; 4];
    let is_program =
        std::fs::File::open(&program).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == *b"\x7fELF";
    // A script may start a program anywhere: what that one loads is seen when it starts.
    if !is_program || program.with_file_name("mysqld.my").is_file() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Unfit,
        format!("the base backup has encrypted tablespaces, and {} loads no keyring", program.display()),
    )
    .hint(keyring_hint(&program)))
}

/// How a server is made to load the keyring that a restore writes.
pub(in crate::restore) fn keyring_hint(program: &Path) -> String {
    format!(
        "write {{\"read_local_manifest\": true}} into {}, and {{\"read_local_config\": true}} into \
         component_keyring_file.cnf in its plugin_dir: then it takes the keyring that the data directory names",
        program.with_file_name("mysqld.my").display()
    )
}

/// Options without which a server does not start on the files, beyond those that every restoring server gets.
///
/// # Errors
/// [`Kind::Corrupt`] if the manifest's words cannot be a server's.
pub(in crate::restore) fn options(base: &BaseManifest) -> Result<Vec<String>> {
    // The dump of the buffer pool came along, and is for the server that goes on with the data.
    let mut options = vec![
        "--innodb-buffer-pool-load-at-startup=OFF".to_owned(),
        "--innodb-buffer-pool-dump-at-shutdown=OFF".to_owned(),
        format!("--innodb-page-size={}", facts(base)?.innodb_page_size),
    ];
    if let Some(path) = base.settings.get("innodb_data_file_path") {
        options.push(format!("--innodb-data-file-path={}", data_file_path(path)?));
    }
    Ok(options)
}

/// `innodb_data_file_path` for files that all lie below the data directory.
fn data_file_path(text: &str) -> Result<String> {
    let odd = || {
        Error::corrupt(format!("the manifest has an innodb_data_file_path of {text:?}"))
            .hint("no server is started with it: choose another base backup with --base")
    };
    let file = |part: &str| {
        let (name, size) = part.split_once(':').ok_or_else(odd)?;
        let plain =
            size.split(':').all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        // A raw partition has a word of its own behind its size, which no file has.
        if !plain || size.contains("raw") {
            return Err(odd());
        }
        Ok(format!("{}:{size}", system_place(name).map_err(|_| odd())?.display()))
    };
    Ok(text.split(';').map(file).collect::<Result<Vec<_>>>()?.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(version: &str, os: &str, machine: &str) -> BaseManifest {
        let json = serde_json::json!({
            "format": 1, "archive": uuid::Uuid::nil(), "id": "x", "engine": "clone", "content": "clone",
            "server": uuid::Uuid::nil(), "server_version": version, "started_us": 0, "finished_us": 0,
            "coordinates": { "file": "binlog.000001", "position": 4, "executed": "", "gtid_mode": "ON" },
            "raw_bytes": 0, "stored_bytes": 0, "tool": "", "parts": [],
            "clone": { "compile_os": os, "compile_machine": machine, "innodb_page_size": 16384 },
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn versions_are_of_one_series() {
        let fits =
            |restoring: &str, archived: &str| judge(&Version::parse(restoring), None, &base(archived, "", "")).is_ok();
        for (restoring, archived, wanted) in [
            ("9.7.4", "9.7.2", true),
            ("9.7.2", "9.7.4", true),
            ("8.4.2", "8.4.9", true),
            ("8.0.36", "8.0.36", true),
            ("8.0.37", "8.0.41", true),
            ("8.0.37", "8.0.36", false),
            ("8.0.20", "8.0.21", false),
            ("9.7.4", "8.4.2", false),
            ("9.8.0", "9.7.4", false),
            ("9.7.4-MariaDB", "9.7.4", false),
        ] {
            assert_eq!(fits(restoring, archived), wanted, "{archived} on {restoring}");
        }
    }

    #[test]
    fn platforms_are_the_same() {
        let here = ("Linux".to_owned(), "x86_64".to_owned());
        let judge = |os: &str, machine: &str| judge(&Version::parse("9.7.4"), Some(&here), &base("9.7.4", os, machine));
        assert!(judge("Linux", "x86_64").is_ok() && judge("", "").is_ok());
        assert_eq!(judge("Linux", "aarch64").unwrap_err().kind(), Kind::Unfit);
        assert!(judge("macos14", "x86_64").unwrap_err().to_string().contains("macos14"));
    }

    #[test]
    fn the_system_tablespace_comes_home() {
        assert_eq!(data_file_path("ibdata1:12M:autoextend").unwrap(), "ibdata1:12M:autoextend");
        assert_eq!(
            data_file_path("/a/ibdata1:12M;two:50M:autoextend:max:5G").unwrap(),
            "ibdata1:12M;two:50M:autoextend:max:5G"
        );
        for odd in [
            "",
            "ibdata1",
            "../x:12M",
            "ibdata1:12M --user=root",
            "/dev/sdb1:5Gnewraw",
            "ibdata1:",
            "mysqld-auto.cnf:1M",
        ] {
            assert!(data_file_path(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_program_without_a_keyring_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("mysqld");
        let version = Version::parse("9.7.4");
        std::fs::write(&program, b"\x7fELFxyz").unwrap();
        let error = judge_keyring(&program, &version).unwrap_err();
        assert!(error.hint_text().unwrap().contains("read_local_manifest"), "{error}");
        std::fs::write(folder.path().join("mysqld.my"), "{}").unwrap();
        assert!(judge_keyring(&program, &version).is_ok());
        assert_eq!(judge_keyring(&program, &Version::parse("8.0.20")).unwrap_err().kind(), Kind::Unfit);
    }
}
