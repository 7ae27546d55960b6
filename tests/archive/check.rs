//! Is an archive what its server wrote? Every way to ask, in one call.

#![allow(dead_code, reason = "each test binary uses a part")]

use crate::support::agent::AgentConfig;
use crate::support::compare::{assert_exported, assert_exported_as_sent};
use crate::support::lab::{Mysqld, tool};
use binvault::archive::{Archive, History};
use binvault::chunk::ChunkMeta;
use binvault::config::{Config, load};
use binvault::position::GtidSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use tokio_util::sync::CancellationToken;

/// What may be in the archive beside one line of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overlaps {
    /// Nothing: every byte in exactly one chunk.
    None,
    /// Chunks of interrupted or further agents.
    Allowed,
}

/// A quiet server's archive, caught up: every file of the server is exported, as far as it goes, and the same by every
/// byte; every chunk opens and every event is right; the metadata tells the transactions that are there. Returns the
/// number of bytes compared.
pub(crate) fn whole(config: &AgentConfig, server: &Mysqld, overlaps: Overlaps) -> u64 {
    let exported = config.export();
    let bytes = assert_exported(server, &exported);
    rest(config, server, &exported, overlaps);
    bytes
}

/// As [`whole`], for a server whose binlogs are encrypted at rest.
pub(crate) fn whole_as_sent(config: &AgentConfig, server: &Mysqld) -> u64 {
    let exported = config.export();
    let bytes = assert_exported_as_sent(server, &exported);
    rest(config, server, &exported, Overlaps::None);
    bytes
}

fn rest(config: &AgentConfig, server: &Mysqld, exported: &Path, overlaps: Overlaps) {
    if server.is_running() {
        let (file, end) = server.position();
        let have = exported.join(&file).metadata().map_or(0, |meta| meta.len());
        assert_eq!(have, end, "exported bytes of the live file {file}");
    }
    config.verify_deep();
    let metas = metas(config);
    for binlog in server.binlogs() {
        let name = binlog.file_name().unwrap().to_str().unwrap();
        let of_file: Vec<&ChunkMeta> = metas.iter().filter(|meta| meta.file.as_str() == name).collect();
        let length = exported.join(name).metadata().unwrap().len();
        let stored: u64 = of_file.iter().map(|meta| meta.end - meta.start).sum();
        if stored == length {
            let told: u64 = of_file.iter().map(|meta| meta.transactions).sum();
            let there = transactions(&exported.join(name));
            assert_eq!(told, there, "transactions of {name}: the metadata's sum (left), stock mysqlbinlog's (right)");
        } else {
            assert!(overlaps == Overlaps::Allowed, "{name} has {length} bytes, its chunks {stored}: they overlap");
        }
    }
    if server.is_running() && server.value("SELECT @@GLOBAL.gtid_mode") == "ON" {
        let told = history(config).files.last().and_then(binvault::archive::FileState::executed).unwrap_or_default();
        let executed: GtidSet = server.value("SELECT REPLACE(@@GLOBAL.gtid_executed, '\\n', '')").parse().unwrap();
        assert_eq!(told, executed, "the set executed at the archive's end (left), at the server's (right)");
    }
    std::fs::remove_dir_all(exported).unwrap();
}

/// Transactions in a binlog file, as the stock tool shows them.
pub(crate) fn transactions(file: &Path) -> u64 {
    let mut child =
        tool("mysqlbinlog").args(["--base64-output=decode-rows"]).arg(file).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::with_capacity(1 << 20, child.stdout.take().unwrap());
    let (mut line, mut found) = (Vec::new(), 0);
    while output.read_until(b'\n', &mut line).unwrap() > 0 {
        // One a transaction, and `AUTOMATIC` at the end of the output.
        if line.starts_with(b"SET @@SESSION.GTID_NEXT= '") && !line.starts_with(b"SET @@SESSION.GTID_NEXT= 'AUTOMATIC'")
        {
            found += 1;
        }
        line.clear();
    }
    assert!(child.wait().unwrap().success(), "mysqlbinlog cannot read {}", file.display());
    found
}

/// The archive, opened with the configuration's own settings; `read` asks it.
fn with_archive<T>(config: &AgentConfig, read: impl AsyncFnOnce(Archive) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let raw = load(Some(&config.path()), std::iter::empty::<(String, String)>()).unwrap();
    let options = Config::new(raw).unwrap().store(false).unwrap();
    runtime.block_on(async {
        let store = binvault::store::open(&options, &CancellationToken::new()).await.unwrap();
        read(Archive::open(store, false).await.unwrap()).await
    })
}

/// The archive's history of its one server.
pub(crate) fn history(config: &AgentConfig) -> History {
    with_archive(config, async |archive| {
        let servers = archive.servers().await.unwrap();
        assert_eq!(servers.len(), 1, "servers in the archive: {servers:?}");
        archive.history(&servers[0]).await.unwrap()
    })
}

/// The metadata of every chunk, in the order of files and ranges.
pub(crate) fn metas(config: &AgentConfig) -> Vec<ChunkMeta> {
    let history = history(config);
    with_archive(config, async |archive| {
        let mut metas = Vec::new();
        for chunk in history.files.iter().flat_map(|file| &file.chunks.chunks) {
            metas.push(archive.meta(chunk).await.unwrap());
        }
        metas
    })
}

/// Names of all objects in the store: of chunks, beacons, the identity.
pub(crate) fn objects(config: &AgentConfig) -> Vec<String> {
    with_archive(config, async |archive| {
        let listing = binvault::store::list_collect(
            archive.store().as_ref(),
            "",
            binvault::store::ListDepth::Everything,
            1 << 20,
        );
        let mut names: Vec<String> =
            listing.await.unwrap().objects.iter().map(|object| object.key.as_str().to_owned()).collect();
        names.sort();
        names
    })
}
