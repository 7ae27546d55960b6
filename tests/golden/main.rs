//! Archives that were written once and must be read for ever.
//!
//! Each folder beside this file is one: `archive` as an agent left it, the server's own `binlogs`, the private `keys`
//! that open it (made for this, used for nothing else), and `chunks.json`: every chunk's metadata. A change that makes
//! one of them unreadable, or read differently, breaks somebody's backups: mend the change, never the files.
//!
//! `BINVAULT_GOLDEN_NEW=NAME` makes a new one from a real server, beside the old ones; it never changes one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stderr, reason = "shown with the test that fails")]

#[path = "../support/mod.rs"]
mod support;

mod make;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use binvault::chunk::{ChunkName, HeaderRead, OpenedChunk, keys::Identities, read_header};
use secrecy::SecretString;
use serde_json::Value;
use support::agent::{binvault, said};
use support::compare::{Extent, assert_same};

/// The folders with a golden archive.
fn golden() -> Vec<PathBuf> {
    let here = support::repo().join("tests/golden");
    let mut folders: Vec<PathBuf> =
        fs::read_dir(here).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "there is no golden archive");
    folders
}

fn files_under(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// Every chunk with its name in the archive and its bytes.
fn chunks(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let archive = folder.join("archive");
    let name = |path: &Path| path.strip_prefix(&archive).unwrap().to_str().unwrap().to_owned();
    files_under(&archive.join("chunks")).iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
}

/// Every chunk's metadata as its header tells it, read without a key.
fn metadata(folder: &Path) -> Value {
    let read = |(name, object): (String, Vec<u8>)| match read_header(&object).unwrap() {
        HeaderRead::Whole(meta) => (name, serde_json::to_value(&*meta).unwrap()),
        HeaderRead::NeedsMore => panic!("{name}: the header is cut short"),
    };
    Value::Object(chunks(folder).into_iter().map(read).collect())
}

fn keys(folder: &Path) -> Vec<PathBuf> {
    let keys = files_under(&folder.join("keys"));
    assert_eq!(keys.len(), 2, "two recipients");
    keys
}

/// A command on a golden archive, which must not be written to.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    let url = format!("file://{}", folder.join("archive").display());
    binvault().args(["--archive", &url]).args(arguments).output().unwrap()
}

fn ok(folder: &Path, arguments: &[&str]) -> String {
    let out = run(folder, arguments);
    assert!(out.status.success(), "{} {arguments:?}: {}", folder.display(), said(&out));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn the_metadata_reads_as_it_was_written() {
    for folder in golden() {
        let wanted: Value = serde_json::from_slice(&fs::read(folder.join("chunks.json")).unwrap()).unwrap();
        assert!(wanted.as_object().unwrap().len() >= 5, "several chunks");
        assert_eq!(metadata(&folder), wanted, "{}", folder.display());
    }
}

#[test]
fn the_names_read_as_they_were_written() {
    for folder in golden() {
        for (text, object) in chunks(&folder) {
            let name = ChunkName::parse(&text).unwrap();
            assert_eq!(name.to_string(), text);
            OpenedChunk::check(&name, &object).unwrap();
        }
    }
}

#[test]
fn either_key_gives_the_servers_files_back() {
    for folder in golden() {
        for key in keys(&folder) {
            let (key, to) = (key.to_str().unwrap(), tempfile::tempdir().unwrap());
            ok(&folder, &["verify", "--deep", "--identity", key]);
            ok(&folder, &["export", "--to", to.path().to_str().unwrap(), "--identity", key]);
            let binlogs = files_under(&folder.join("binlogs"));
            assert_eq!(fs::read_dir(to.path()).unwrap().count(), binlogs.len());
            for binlog in binlogs {
                assert_same(&binlog, &to.path().join(binlog.file_name().unwrap()), Extent::Whole);
            }
        }
    }
}

#[test]
fn status_and_list_tell_what_is_there() {
    for folder in golden() {
        ok(&folder, &["verify"]);
        let status: Value = serde_json::from_str(&ok(&folder, &["status", "--json"])).unwrap();
        let server = &status["servers"][0];
        assert_eq!((server["ranges"].as_array().unwrap().len(), server["gaps"].as_array().unwrap().len()), (1, 0));
        let list: Value = serde_json::from_str(&ok(&folder, &["list", "--json"])).unwrap();
        for file in list["files"].as_array().unwrap() {
            let binlog = folder.join("binlogs").join(file["file"].as_str().unwrap());
            assert_eq!(file["bytes"], binlog.metadata().unwrap().len());
        }
    }
}

/// `age -d | zstd -d`, with the stock programs, in the order of the names: promise of the format.
#[test]
fn stock_age_and_zstd_give_the_same_bytes() {
    for folder in golden() {
        let key = keys(&folder).remove(1);
        let content = SecretString::from(fs::read_to_string(&key).unwrap());
        let identities = Identities::parse("key", &content).unwrap();
        for (text, object) in chunks(&folder) {
            let decrypt = support::lab::bin().join("age");
            let decompress = support::lab::bin().join("zstd");
            let out = Command::new("sh")
                .args(["-c", "\"$1\" -d -i \"$2\" \"$3\" | \"$4\" -d", "sh"])
                .args([&decrypt, &key, &folder.join("archive").join(&text), &decompress])
                .stderr(Stdio::inherit())
                .output()
                .unwrap();
            let mut ours = Vec::new();
            let name = ChunkName::parse(&text).unwrap();
            OpenedChunk::new(&name, &object, &identities).unwrap().read_to_end(&mut ours).unwrap();
            assert_eq!(out.stdout, ours, "{text}");
            let binlog = fs::read(folder.join("binlogs").join(name.incarnation.file.as_str())).unwrap();
            let range = usize::try_from(name.range.start()).unwrap()..usize::try_from(name.range.end()).unwrap();
            assert_eq!(binlog[range], ours, "{text}");
        }
    }
}
