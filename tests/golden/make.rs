//! Makes a new golden archive from a real server.

use std::fs;
use std::time::Duration;

use super::support::agent::{AgentConfig, binvault, said};
use super::support::lab::Mysqld;
use super::support::repo;
use super::{ChunkName, metadata};

/// Nothing to do, unless `BINVAULT_GOLDEN_NEW` names an archive to be made.
#[test]
fn a_new_one_is_made_when_asked_for() {
    let Some(name) = std::env::var_os("BINVAULT_GOLDEN_NEW") else {
        assert!(repo().join("tests/golden/format-1").is_dir(), "the first one is there");
        return;
    };
    let folder = repo().join("tests/golden").join(name);
    fs::create_dir(&folder).expect("a golden archive is never overwritten");
    let server = Mysqld::start("golden", &[]);
    let config = AgentConfig::with_extra(&server, "[agent]\nflush_interval = \"50ms\"\nchunk_size = \"64KiB\"\n");
    let second = config.dir().join("second-key");
    let made = binvault().args(["keygen", "-o", second.to_str().unwrap()]).output().unwrap();
    let made = said(&made);
    let recipient = made.split_whitespace().find(|word| word.starts_with("age1") && word.len() > 50).unwrap();
    config.edit("recipients = [", &format!("recipients = [\"{recipient}\", "));
    let mut agent = config.spawn();
    for script in SCRIPTS {
        server.sql(script);
        std::thread::sleep(Duration::from_millis(400));
    }
    agent.wait_caught_up(&server);
    agent.terminate();
    // Closed in good order, so that the files are whole and final.
    let mut server = server;
    server.stop();
    let archived = config.export();
    fs::create_dir(folder.join("binlogs")).unwrap();
    fs::create_dir(folder.join("keys")).unwrap();
    for file in server.binlogs() {
        let name = file.file_name().unwrap();
        // The last file ends with the server's STOP event, which came behind what is archived.
        let length = archived.join(name).metadata().unwrap().len();
        let mut bytes = fs::read(&file).unwrap();
        bytes.truncate(usize::try_from(length).unwrap());
        fs::write(folder.join("binlogs").join(name), bytes).unwrap();
    }
    fs::copy(config.identity(), folder.join("keys/first")).unwrap();
    fs::copy(&second, folder.join("keys/second")).unwrap();
    for path in super::files_under(&config.archive()) {
        let name = path.strip_prefix(config.archive()).unwrap();
        let fine = ChunkName::parse(name.to_str().unwrap()).is_ok() || name.extension().is_some_and(|e| e == "json");
        assert!(fine, "{} is no part of an archive", name.display());
        let to = folder.join("archive").join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    }
    let json = serde_json::to_string_pretty(&metadata(&folder)).unwrap();
    fs::write(folder.join("chunks.json"), json + "\n").unwrap();
}

/// Each becomes a chunk or more.
const SCRIPTS: &[&str] = &[
    "CREATE DATABASE golden; CREATE TABLE golden.t (id INT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT);",
    "INSERT INTO golden.t (v) VALUES ('one'), ('two'); UPDATE golden.t SET v = CONCAT(v, '!');",
    "SET gtid_next = 'AUTOMATIC:nightly'; INSERT INTO golden.t (v) VALUES ('tagged'); SET gtid_next = 'AUTOMATIC';",
    "FLUSH BINARY LOGS; INSERT INTO golden.t (v) VALUES ('in the second file');",
    // Larger than a chunk of 64 KiB, small when compressed: chunks that end inside a transaction, and inside an event.
    "BEGIN; INSERT INTO golden.t (v) VALUES (REPEAT('large ', 4000)); INSERT INTO golden.t (v) VALUES (REPEAT('x', 60000)); \
     INSERT INTO golden.t (v) VALUES ('the end of it'); COMMIT;",
    "XA START 'x'; DELETE FROM golden.t WHERE id = 1; XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x';",
];
