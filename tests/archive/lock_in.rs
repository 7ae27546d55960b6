//! No lock-in: the stock `age` and `zstd` turn the chunks into the server's own files, without this program.

use crate::support::agent::{AgentConfig, binvault};
use crate::support::compare::{Extent, assert_same};
use crate::support::lab::{Mysqld, tool};
use crate::support::workload::named;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// `age -d -i KEY CHUNK | zstd -d >> FILE`, as the documentation tells it.
fn stock(key: &Path, chunk: &Path, to: &Path) {
    let mut age = tool("age").arg("-d").arg("-i").arg(key).arg(chunk).stdout(Stdio::piped()).spawn().unwrap();
    let output = File::options().append(true).create(true).open(to).unwrap();
    let unpacked =
        tool("zstd").args(["-d", "-q", "-c"]).stdin(age.stdout.take().unwrap()).stdout(output).status().unwrap();
    assert!(age.wait().unwrap().success(), "age -d -i {} {}", key.display(), chunk.display());
    assert!(unpacked.success(), "zstd -d of {}", chunk.display());
}

/// Folders or files in a folder, by name.
fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

#[test]
fn stock_tools_give_the_servers_files_with_either_key() {
    let server = Mysqld::start("stock", &[]);
    let config = AgentConfig::with_extra(&server, "[agent]\nchunk_size = \"1MiB\"");
    // A second recipient: an office safe's key, say.
    let second = config.dir().join("second-key");
    let made = binvault().arg("keygen").arg("-o").arg(&second).output().unwrap();
    let recipient = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    config.edit("recipients = [", &format!("recipients = [\"{recipient}\", "));
    for name in ["row", "types", "compressed", "rotation", "load_data", "row_17m"] {
        named(name).run(&server);
    }
    server.sql("FLUSH BINARY LOGS");
    config.archive_now();
    let folders = sorted(&config.archive().join("chunks").join(server.uuid()));
    let binlogs = server.binlogs();
    assert_eq!(folders.len(), binlogs.len(), "folders of files in the archive: {folders:?}");
    let mut several = 0;
    for key in [config.identity(), second] {
        for (folder, binlog) in folders.iter().zip(&binlogs) {
            let name = binlog.file_name().unwrap().to_str().unwrap();
            assert!(
                folder.file_name().unwrap().to_str().unwrap().starts_with(&format!("{name}.")),
                "{folder:?} for {name}"
            );
            let rebuilt = config.dir().join("rebuilt");
            let chunks = sorted(folder);
            several += usize::from(chunks.len() > 1);
            for chunk in &chunks {
                stock(&key, chunk, &rebuilt);
            }
            let live = Some(binlog) == binlogs.last();
            assert_same(binlog, &rebuilt, if live { Extent::Prefix } else { Extent::Whole });
            std::fs::remove_file(rebuilt).unwrap();
        }
    }
    assert!(several > 0, "no file had more than one chunk");
}
