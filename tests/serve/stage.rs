//! An archive of a server, opened by the library, and playbacks of it.

use std::sync::Arc;

use binvault::archive::{Archive, FileState, ReadOptions};
use binvault::chunk::keys::Identities;
use binvault::config::{self, Config, read_secret};
use binvault::mysql::walk::{Step, TransactionWalk};
use binvault::playback::{PlayFile, Playback, PlaybackOptions, Playlist};
use binvault::position::{ByteRange, GtidSet, ServerUuid};
use secrecy::ExposeSecret;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::replica;
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;

/// An archive to play.
pub struct Stage {
    pub runtime: Runtime,
    pub archive: Archive,
    pub read: ReadOptions,
    pub files: Vec<FileState>,
}

/// A transaction in a file.
pub struct Place {
    pub file: usize,
    pub start: u64,
    pub end: u64,
    pub gtid: Option<String>,
}

impl Stage {
    /// Opens the archive of a configuration, which has one server.
    pub fn open(config: &AgentConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let raw = config::load(Some(&config.path()), std::iter::empty()).unwrap();
        let options = Config::new(raw).unwrap().store(false).unwrap();
        let keys = Identities::parse("key", &read_secret(&config.identity()).unwrap()).unwrap();
        let (archive, files) = runtime.block_on(async {
            let store = binvault::store::open(&options, &CancellationToken::new()).await.unwrap();
            let archive = Archive::open(store, false).await.unwrap();
            let servers: Vec<ServerUuid> = archive.servers().await.unwrap();
            let files = archive.history(&servers[0]).await.unwrap().files;
            (archive, files)
        });
        Self { runtime, archive, read: ReadOptions::new(Arc::new(keys)), files }
    }

    /// Everything there is.
    pub fn everything(&self) -> Playlist {
        let file = |file: &FileState| PlayFile {
            chunks: Arc::clone(&file.chunks),
            from: 4,
            until: file.contiguous_end(),
            only: None,
        };
        Playlist { files: self.files.iter().map(file).collect() }
    }

    /// All transactions, in order.
    pub fn transactions(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for (file, state) in self.files.iter().enumerate() {
            let range = ByteRange::new(0, state.contiguous_end()).unwrap();
            let mut reader =
                self.runtime.block_on(async { self.archive.read_range(Arc::clone(&state.chunks), range, &self.read) });
            let mut walk = TransactionWalk::at_file_start();
            while let Some(block) = self.runtime.block_on(reader.next()).unwrap() {
                let mut sink = |step: Step<'_>| {
                    if let Step::End(transaction) = step {
                        let gtid = transaction.gtid.as_ref().map(ToString::to_string);
                        places.push(Place { file, start: transaction.start, end: transaction.end, gtid });
                    }
                    Ok(())
                };
                walk.feed(&block.bytes, &mut sink).unwrap();
            }
        }
        places
    }

    /// Plays a list; `skip` is left out.
    pub fn play(&self, playlist: Playlist, by_gtid: bool, skip: &str) -> Playback {
        let options = PlaybackOptions {
            archive: self.archive.clone(),
            read: self.read.clone(),
            playlist,
            listen: "127.0.0.1:0".parse().unwrap(),
            server_version: self.files.last().unwrap().first.as_ref().unwrap().server_version.clone(),
            by_gtid,
            skip: skip.parse::<GtidSet>().unwrap(),
        };
        self.runtime.block_on(Playback::start(options)).unwrap()
    }
}

/// Points a replica at a playback and starts it.
pub fn follow(replica: &Mysqld, playback: &Playback, more: &str) {
    let password = playback.password().expose_secret();
    replica::point(replica, playback.address(), playback.user(), password, &format!("SOURCE_SSL = 0, {more}"));
    replica.sql("START REPLICA");
}
