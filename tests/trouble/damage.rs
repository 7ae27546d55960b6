//! What happens to stored chunks: cut, flipped, removed, moved, from the future, or locked with another key. Each is
//! found by the keyless `verify` where it can be, never exported as if it were right, and mended from the server.

use std::fs;
use std::path::PathBuf;

use super::*;

/// The quiet server, archived in small chunks.
fn archived(server: &Mysqld) -> AgentConfig {
    let config = AgentConfig::with_extra(server, SMALL_CHUNKS);
    config.archive_now();
    config
}

/// The chunks of each file: folders and their objects, in order.
fn chunks(config: &AgentConfig) -> Vec<Vec<PathBuf>> {
    let sorted = |dir: &Path| {
        let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries
    };
    let server = sorted(&config.archive().join("chunks")).remove(0);
    let files: Vec<Vec<PathBuf>> = sorted(&server).iter().map(|file| sorted(file)).collect();
    assert!(files.len() >= 4 && files[1].len() >= 4, "files of several chunks: {files:?}");
    files
}

fn name_of(chunk: &Path) -> String {
    chunk.file_name().unwrap().to_str().unwrap().to_owned()
}

/// An export must fail with this code and say these words, leaving no file that is not right.
fn export_fails(config: &AgentConfig, key: &Path, code: i32, words: &[&str]) {
    let to = tempfile::tempdir().unwrap();
    let arguments = with_key(&["export", "--to", to.path().to_str().unwrap()], key);
    one_error(&config.fails(&arguments, code), words);
    for file in fs::read_dir(to.path()).unwrap() {
        let file = file.unwrap();
        let whole = quiet().datadir().join(file.file_name());
        support::compare::assert_same(&whole, &file.path(), support::compare::Extent::Whole);
    }
}

/// Damage in place of chunk `chunk`: told by name everywhere, and mended when the damaged object is taken away.
fn damaged(damage: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let server = quiet();
    let config = archived(&server);
    let chunk = chunks(&config)[1][1].clone();
    fs::write(&chunk, damage(fs::read(&chunk).unwrap())).unwrap();
    let name = name_of(&chunk);
    one_error(&config.fails(&["verify"], 10), &[&name]);
    one_error(&config.fails(&with_key(&["verify", "--deep"], &config.identity()), 10), &[&name]);
    export_fails(&config, &config.identity(), 10, &[&name]);
    // Without the damaged object there is a hole, and holes are fetched again.
    fs::remove_file(&chunk).unwrap();
    mended(&config, &server);
}

#[test]
fn a_truncated_chunk_is_found_and_mended() {
    damaged(|object| object[..object.len() / 2].to_vec());
}

#[test]
fn an_emptied_chunk_is_found_and_mended() {
    damaged(|_| Vec::new());
}

#[test]
fn a_flipped_bit_in_a_chunk_is_found_and_mended() {
    damaged(|mut object| {
        let middle = object.len() / 2;
        object[middle] ^= 4;
        object
    });
}

#[test]
fn a_flipped_bit_in_a_chunks_header_is_found_and_mended() {
    damaged(|mut object| {
        object[300] ^= 1;
        object
    });
}

#[test]
fn a_removed_chunk_is_a_gap_wherever_it_was() {
    let server = quiet();
    // In the middle of a file, its first one, its last one, and all of a file.
    for place in ["middle", "first", "last", "all"] {
        let config = archived(&server);
        let file = &chunks(&config)[1];
        let removed = match place {
            "middle" => &file[1..2],
            "first" => &file[..1],
            "last" => &file[file.len() - 1..],
            _ => &file[..],
        };
        for chunk in removed {
            fs::remove_file(chunk).unwrap();
        }
        one_error(&config.fails(&["verify"], 12), &[]);
        one_error(&config.fails(&with_key(&["verify", "--deep"], &config.identity()), 12), &[]);
        let status = config.status().unwrap();
        assert_ne!(status["servers"][0]["gaps"].as_array().unwrap().len(), 0, "{status}");
        export_fails(&config, &config.identity(), 12, &[]);
        mended(&config, &server);
    }
}

#[test]
fn a_chunk_under_a_name_that_is_not_its_own_is_refused() {
    let server = quiet();
    let config = archived(&server);
    let files = chunks(&config);
    let chunk = &files[1][1];
    let other_file = files[2][0].parent().unwrap().join(name_of(chunk));
    let name = name_of(chunk);
    let (start, rest) = name.split_once('-').unwrap();
    let other_range = chunk.with_file_name(format!("{:016}-{rest}", start.parse::<u64>().unwrap() + 1));
    let commit = name.split('.').nth(1).unwrap();
    let other_commit = chunk.with_file_name(name.replace(commit, "20010203T040506"));
    for elsewhere in [other_file, other_range, other_commit] {
        assert_ne!(&elsewhere, chunk);
        fs::copy(chunk, &elsewhere).unwrap();
        let wrong = name_of(&elsewhere);
        one_error(&config.fails(&["verify"], 10), &[&wrong]);
        one_error(&config.fails(&with_key(&["verify", "--deep"], &config.identity()), 10), &[&wrong]);
        fs::remove_file(&elsewhere).unwrap();
    }
    // Moved, not copied: export cannot go round it.
    let other_range = chunk.with_file_name(name.replace(commit, "20010203T040506"));
    fs::rename(chunk, &other_range).unwrap();
    export_fails(&config, &config.identity(), 10, &[&name_of(&other_range)]);
    fs::rename(&other_range, chunk).unwrap();
    mended(&config, &server);
}

#[test]
fn what_is_no_chunk_does_not_go_unnoticed() {
    let server = quiet();
    let config = archived(&server);
    let stranger = chunks(&config)[0][0].with_file_name("notes.txt");
    fs::write(&stranger, "hello").unwrap();
    one_error(&config.fails(&["verify"], 10), &["notes.txt"]);
    assert_exported(&server, &config.export());
    fs::remove_file(stranger).unwrap();
    mended(&config, &server);
}

#[test]
fn a_wrong_key_opens_nothing_and_says_so() {
    let server = quiet();
    let config = archived(&server);
    let other = config.dir().join("other-key");
    let made = support::agent::binvault().args(["keygen", "-o", other.to_str().unwrap()]).output().unwrap();
    assert!(made.status.success());
    export_fails(&config, &other, 11, &["chunks/"]);
    let hint = one_error(&config.fails(&with_key(&["verify", "--deep"], &other), 11), &["chunks/"]);
    assert!(hint.contains("--identity"), "{hint}");
    for arguments in [&["verify", "--deep"][..], &["export", "--to", "/nowhere"]] {
        let hint = one_error(&config.fails(arguments, 11), &["private key"]);
        assert!(hint.contains("--identity"), "{hint}");
    }
    fs::write(&other, "this is no key\n").unwrap();
    let said = config.fails(&with_key(&["verify", "--deep"], &other), 11);
    one_error(&said, &["other-key", "line 1"]);
    complete(&config, &server);
}

#[test]
fn an_archive_of_a_later_format_is_refused() {
    let server = quiet();
    let config = archived(&server);
    let path = config.archive().join("binvault.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    let key = config.identity();
    let export = with_key(&["export", "--to", "/nowhere"], &key);
    for arguments in [&["run"][..], &["run", "--once"], &["status"], &["list"], &["verify"], &export] {
        let hint = one_error(&config.fails(arguments, 13), &["format 2"]);
        assert!(hint.contains("newer binvault"), "{hint}");
    }
    fs::write(&path, text).unwrap();
    mended(&config, &server);
}
