//! Makes the corpora: what real servers, clients and agents say, cut to a size that a repository can keep.
//!
//! What is there already is overwritten by its name, never removed.

mod cloned;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use binvault::chunk::compress::{CompressOptions, Compressor};
use binvault::chunk::{HeaderRead, read_header};
use binvault::mysql::replica::{DumpRequest, start_dump};
use binvault::mysql::walk::EventSplitter;
use binvault::mysql::{Address, Connection, SourceOptions};
use tokio::io::AsyncReadExt as _;
use uuid::Uuid;

use crate::corpora;
use crate::support::agent::{AgentConfig, PASSWORD, binvault};
use crate::support::lab::{Mysqld, bin, tool};
use crate::support::wait_until;
use crate::support::workload::{SMALL, Workload};
use crate::tee::Tee;

/// Largest input, in bytes.
const INPUT_BYTES_MAX: usize = 20 << 10;
/// Before what is fed in pieces: pieces of 12 KiB, checksums made right.
const MANNER: u8 = 0xff;

/// Keeps an input for a decoder.
fn keep(target: &str, name: &str, input: &[u8]) {
    let folder = corpora().join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), input).unwrap();
}

/// Events of PREVIOUS_GTIDS in a file, without header and checksum.
fn previous_gtids(file: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let walked = EventSplitter::at_file_start().feed(file, &mut |part| {
        if part.header.kind == 35 {
            found.push(part.body().to_vec());
        }
        Ok(())
    });
    walked.unwrap();
    found
}

/// The files that a server writes of some workloads, and sets of GTIDs.
fn binlogs(hint: &str, server: &Mysqld, workloads: impl Fn(&&Workload) -> bool) {
    for workload in SMALL.iter().filter(workloads) {
        server.sql("FLUSH BINARY LOGS");
        workload.run(server);
    }
    server.sql("FLUSH BINARY LOGS");
    let (mut packer, mut frame) =
        (Compressor::new(CompressOptions { level: 3, long_window_log: None }).unwrap(), Vec::new());
    let files = server.binlogs();
    // The last one is open: its first event does not fit its checksum.
    for path in &files[..files.len() - 1] {
        let file = fs::read(path).unwrap();
        let name = &format!("{hint}-{}", path.extension().unwrap().to_str().unwrap());
        let last = previous_gtids(&file).pop().unwrap();
        keep("gtid_binary", name, &last);
        if file.len() <= INPUT_BYTES_MAX {
            keep("walk", name, &[&[MANNER], &file[..]].concat());
            packer.frame(&file, &mut frame).unwrap();
            keep("sealed", name, &[&u32::try_from(file.len()).unwrap().to_le_bytes(), &frame[..]].concat());
        }
    }
    let executed = server.value("SELECT REPLACE(@@gtid_executed, CHAR(10), '')");
    keep("gtid_text", "executed", executed.as_bytes());
    for (name, text) in [
        ("gtid", "3e11fa47-71ca-11e1-9e33-c80aa9429562:23"),
        ("tagged", "3e11fa47-71ca-11e1-9e33-c80aa9429562:nightly:7"),
        ("set", "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7:10-20:nightly:1-3,4e11fa47-71ca-11e1-9e33-c80aa9429562:1"),
    ] {
        keep("gtid_text", name, text.as_bytes());
    }
}

/// A dump's stream, to an ordinary replica and to a semi-synchronous one.
fn dumps(server: &Mysqld) {
    server.sql(
        "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'; SET GLOBAL rpl_semi_sync_source_enabled = ON",
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let files = server.binlogs();
    let mut small: Vec<_> = files.iter().filter(|path| fs::metadata(path).unwrap().len() < 12 << 10).collect();
    small.truncate(6);
    for (index, path) in small.into_iter().enumerate() {
        let address = Address::Tcp { host: "127.0.0.1".to_owned(), port: server.port() };
        let source = SourceOptions::new(address, "binvault", Some(PASSWORD.to_owned().into()));
        let request = DumpRequest {
            server_id: 77,
            replica_uuid: Uuid::from_u128(77),
            report_host: String::new(),
            report_port: 0,
            heartbeat: Duration::from_secs(1),
            net_write_timeout_s: 60,
            file: path.file_name().unwrap().to_str().unwrap().to_owned(),
            position: 4,
            by_gtid: index % 2 == 0,
            non_block: true,
            register: false,
            semi_sync: index >= 4,
        };
        let stream = runtime.block_on(async {
            let mut raw = start_dump(Connection::connect(&source, "corpus").await.unwrap(), &request).await.unwrap();
            let mut bytes = vec![0; INPUT_BYTES_MAX];
            bytes[..raw.leftover.len()].copy_from_slice(&raw.leftover);
            let mut filled = raw.leftover.len();
            while let Ok(got @ 1..) = raw.stream.read(&mut bytes[filled..]).await {
                filled += got;
            }
            bytes.truncate(filled);
            bytes
        });
        keep("dump", &format!("dump-{index}"), &[&[MANNER], &stream[..]].concat());
    }
    server.sql("SET GLOBAL rpl_semi_sync_source_enabled = OFF");
}

/// What clients ask a server, and what it answers: a replica, `mysqlbinlog`, and our own agent.
fn conversations(server: &Mysqld, config: &AgentConfig) {
    let tee = Tee::start(server.port());
    let replica = Mysqld::start("corpus-replica", &["--server-id=99", "--skip-replica-start"]);
    // It has all: only what it asks is of interest.
    let executed = server.value("SELECT REPLACE(@@gtid_executed, CHAR(10), '')");
    replica.sql(&format!(
        "RESET BINARY LOGS AND GTIDS; SET GLOBAL gtid_purged = '{executed}';
         CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {}, SOURCE_USER = 'binvault', \
         SOURCE_PASSWORD = '{PASSWORD}', SOURCE_SSL = 0, GET_SOURCE_PUBLIC_KEY = 1, SOURCE_AUTO_POSITION = 1; \
         START REPLICA IO_THREAD",
        tee.port
    ));
    wait_until("the replica follows", Duration::from_secs(60), || {
        server.sql("SHOW PROCESSLIST").contains("Binlog Dump")
    });
    let mut reader = tool("mysqlbinlog");
    reader.args(["--read-from-remote-server", "--host=127.0.0.1", "--user=binvault", "--ssl-mode=DISABLED"]);
    reader.args([&format!("--port={}", tee.port), &format!("--password={PASSWORD}"), "--get-server-public-key"]);
    assert!(reader.arg("binlog.000001").output().unwrap().status.success());
    replica.sql("STOP REPLICA");
    let direct = format!(":{}\"", server.port());
    config.edit(&direct, &format!(":{}\"", tee.port));
    config.source("tls = \"disabled\"");
    config.archive_now();
    config.edit(&format!(":{}\"", tee.port), &direct);
    for (index, said) in tee.said().into_iter().enumerate() {
        keep("client", &format!("connection-{index}"), &said.by_client[..said.by_client.len().min(INPUT_BYTES_MAX)]);
        keep("server", &format!("connection-{index}"), &said.by_server[..said.by_server.len().min(INPUT_BYTES_MAX)]);
    }
}

/// Every file below a folder, with its name in it.
fn files(root: &Path, folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(root, &path));
        } else {
            found.push((path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// What an archive holds: names, heads of objects, documents.
fn archive(config: &AgentConfig) {
    for (index, (name, object)) in files(&config.archive(), &config.archive()).into_iter().enumerate() {
        let name_of = |kind: &str| format!("{kind}-{index}");
        if name.ends_with(".json") {
            keep("document", &name_of(name.split('/').next().unwrap()), &object);
        } else if index % 5 == 0 {
            keep("name", &name_of("object"), name.as_bytes());
            keep("name", &name_of("file"), name.split('/').nth(2).unwrap().as_bytes());
            keep("name", &name_of("part"), name.rsplit('/').next().unwrap().as_bytes());
            if object.len() <= INPUT_BYTES_MAX {
                keep("header", &name_of("object"), &object);
            }
            if let Ok(HeaderRead::Whole(meta)) = read_header(&object) {
                keep("document", &name_of("chunk"), &serde_json::to_vec(&meta).unwrap());
            }
        }
    }
    keep("name", "position", b"binlog.000003:1234");
    keep("name", "time", b"20261122T101531.000001Z");
}

/// What people write: configurations, targets.
fn written(config: &AgentConfig) {
    let sample = config.dir().join("sample.toml");
    let made = binvault().args(["init", "-o"]).arg(&sample).output().unwrap();
    assert!(made.status.success());
    let sample = fs::read_to_string(sample).unwrap();
    keep("config", "sample", sample.as_bytes());
    // Every setting, in effect.
    let set: Vec<&str> = sample
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")).unwrap_or(line))
        .collect();
    keep("config", "everything", set.join("\n").as_bytes());
    keep("config", "agent", &fs::read(config.path()).unwrap());
    for (name, text) in [
        ("latest", "latest"),
        ("time", "2026-11-22T14:03:11.482913Z"),
        ("civil", "2026-11-22 14:03:11"),
        ("zoned", "2026-11-22T14:03:11+01:00[Europe/Zurich]"),
        ("ago", "2 hours 5 minutes ago"),
        ("gtid", "gtid:3e11fa47-71ca-11e1-9e33-c80aa9429562:nightly:7"),
        ("place", "binlog.000042:1234"),
    ] {
        keep("target", name, text.as_bytes());
    }
}

/// What mysqldump writes before and behind the data, and other tools say.
fn said(server: &Mysqld) {
    let mut dump = Command::new(bin().join("mysqldump"));
    dump.args(["--no-defaults", "-uroot", &format!("--socket={}", server.socket().display())]);
    let dump = dump.args(["--all-databases", "--no-data", "--source-data=2"]).output().unwrap().stdout;
    keep("said", "dump-head", &dump[..4096]);
    keep("said", "dump-tail", &dump[dump.len() - 200..]);
    for (name, text) in [
        ("xtrabackup", "MySQL binlog position: filename 'binlog.000003', position '157', GTID of the last change"),
        ("version", "mysqldump  Ver 9.7.0 for Linux on x86_64 (MySQL Community Server - GPL)"),
        ("xa", "XA START X'00ff',X'0102',9"),
        ("alter", "ALTER TABLE `d`.`t` ADD COLUMN c INT, ALGORITHM=INPLACE"),
    ] {
        keep("said", name, text.as_bytes());
    }
}

#[test]
#[ignore = "writes the corpora: make fuzz-corpus"]
fn make_the_corpora() {
    let server = Mysqld::start("corpus", &["--plugin-load-add=mysql_clone.so"]);
    server.create_agent_user("binvault", PASSWORD);
    server.grant_base("binvault");
    let config = AgentConfig::with_extra(&server, "[base]\nengine = \"clone\"\n\n[agent]\nchunk_size = \"64KiB\"\n");
    // Written without GTIDs: neither a replica nor an agent is sent that afterwards.
    let without = |workload: &&Workload| workload.name == "anonymous";
    binlogs("anonymous", &Mysqld::start("corpus-anonymous", &[]), without);
    binlogs("binlog", &server, |workload| !without(workload));
    dumps(&server);
    conversations(&server, &config);
    config.ok(&["base"]);
    cloned::keep_all(&config);
    archive(&config);
    written(&config);
    said(&server);
}
