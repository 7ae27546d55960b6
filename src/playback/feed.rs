//! What there is to send, and where in it a replica begins.

use std::sync::Arc;
use std::time::Duration;

use crate::archive::{Archive, FileChunks};
use crate::error::{Error, Kind, Result};
use crate::mysql::event::FIRST_EVENT;
use crate::mysql::source::Ask;
use crate::position::{BinlogFile, GtidSet};

/// A part of an archived file that is to be sent.
#[derive(Debug, Clone)]
pub struct PlayFile {
    /// Its chunks.
    pub chunks: Arc<FileChunks>,
    /// Where to begin: 4, or the start of a transaction.
    pub from: u64,
    /// Where to stop: no transaction, and no event between transactions, that ends behind it is begun.
    pub until: u64,
    /// Only transactions of this set, and no anonymous ones; `None`: every transaction.
    pub only: Option<Arc<GtidSet>>,
}

impl PlayFile {
    /// The file's name, as events and clients write it.
    pub(super) fn name(&self) -> &str {
        self.chunks.incarnation.file.as_str()
    }
}

/// Files in the order in which they are to be sent.
#[derive(Debug, Clone, Default)]
pub struct Playlist {
    /// The files.
    pub files: Vec<PlayFile>,
}

/// What is sent, as of now. A later feed of the same playback has the same files or more, each as far or farther.
#[derive(Debug, Clone, Default)]
pub struct Feed {
    /// The files.
    pub playlist: Playlist,
    /// Transactions that are left out.
    pub skip: GtidSet,
    /// Transactions are sent only when they were committed so long ago.
    pub delay: Option<Duration>,
    /// What was executed before the first file; a replica that lacks some of it is refused. `None`: the caller sees to it.
    pub before: Option<GtidSet>,
    /// Whether the transactions have GTIDs: then replicas may auto-position.
    pub by_gtid: bool,
    /// The version of the server whose events these are.
    pub server_version: String,
}

/// Where a dump begins. The file may be the one behind the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) index: usize,
    pub(super) position: u64,
}

impl Feed {
    /// Where the dump begins that is asked for. Errors have the texts that MySQL's users know.
    pub(super) async fn start(&self, archive: &Archive, ask: &Ask) -> Result<Start> {
        let files = &self.playlist.files;
        if ask.gtids.is_some() && !self.by_gtid {
            return Err(Error::config(
                "the replication sender thread cannot start in AUTO_POSITION mode: this archive's transactions have no GTIDs",
            )
            .hint("let the replica begin by SOURCE_LOG_FILE and SOURCE_LOG_POS, with SOURCE_AUTO_POSITION = 0"));
        }
        if ask.position < FIRST_EVENT {
            return Err(Error::config("Client requested source to start replication from position < 4"));
        }
        let Some(first) = files.first() else {
            return Err(Error::new(Kind::Gap, "the archive has no binlog file to send"));
        };
        match &ask.gtids {
            Some(have) if ask.file.is_empty() => self.start_by_set(archive, have).await,
            _ if ask.file.is_empty() => Ok(Start { index: 0, position: first.from }),
            _ => self.start_by_name(ask),
        }
    }

    /// By name and position. Where a name came back after a reset of the binlogs, the newest file that has the position.
    fn start_by_name(&self, ask: &Ask) -> Result<Start> {
        let files = &self.playlist.files;
        let named = |file: &&PlayFile| file.name() == ask.file;
        // Behind the last file's ROTATE, a replica stands in the next one, which may not be there yet.
        let follows = |last: &PlayFile| {
            BinlogFile::new(&ask.file).is_ok_and(|asked| asked.follows(&last.chunks.incarnation.file))
        };
        if ask.position == FIRST_EVENT && !files.iter().any(|file| named(&file)) && files.last().is_some_and(follows) {
            return Ok(Start { index: files.len(), position: FIRST_EVENT });
        }
        let Some(newest) = files.iter().rfind(named) else {
            return Err(Error::new(Kind::Gap, "Could not find first log file name in binary log index file").hint(
                format!("{:?} is none of the files that are served: `binvault list` shows what is archived", ask.file),
            ));
        };
        let has = |file: &PlayFile| (file.from..=file.until).contains(&ask.position);
        match files.iter().rposition(|file| named(&file) && has(file)) {
            Some(index) => Ok(Start { index, position: ask.position }),
            None if ask.position < newest.from => Err(Error::new(
                Kind::Gap,
                format!("{} is served from position {} on, not from {}", ask.file, newest.from, ask.position),
            )),
            None => Err(Error::new(
                Kind::Gap,
                format!(
                    "Client requested source to start replication from position > file size: {} is served up to {}",
                    ask.file, newest.until
                ),
            )),
        }
    }

    /// The last file before which there is nothing that the replica lacks.
    async fn start_by_set(&self, archive: &Archive, have: &GtidSet) -> Result<Start> {
        if let Some(before) = &self.before {
            let missing = before.minus(have).minus(&self.skip);
            if !missing.is_empty() {
                return Err(Error::new(
                    Kind::Gap,
                    format!(
                        "Cannot replicate because the archive does not have required transactions: it begins behind \
                         them. The missing transactions are '{missing}'"
                    ),
                )
                .hint("set the replica up from a backup that has them"));
            }
        }
        let (mut fine, mut unknown) = (0_usize, self.playlist.files.len());
        // A later file's set has all of the earlier ones': the question has one answer up to a file, and another behind.
        while fine.saturating_add(1) < unknown {
            let middle = fine.midpoint(unknown);
            if self.may_start_at(archive, middle, have).await? { fine = middle } else { unknown = middle }
        }
        let position = self.playlist.files.get(fine).map_or(FIRST_EVENT, |file| file.from);
        Ok(Start { index: fine, position })
    }

    /// Whether everything that the files before this one would send is with the replica.
    async fn may_start_at(&self, archive: &Archive, index: usize, have: &GtidSet) -> Result<bool> {
        let Some(file) = self.playlist.files.get(index) else { return Ok(false) };
        let Some(first) = file.chunks.first() else { return Ok(false) };
        let meta = archive.meta(first).await?;
        let Some(mut before) = meta.previous else { return Ok(false) };
        // What was executed before a file and is in none of its server's does not stand in its PREVIOUS_GTIDS.
        before.union_with(&meta.unlogged);
        let missing = before.minus(have).minus(&self.skip);
        let sent_before = |file: &PlayFile| match &file.only {
            None => !missing.is_empty(),
            Some(only) => missing.minus(only) != missing,
        };
        Ok(!self.playlist.files.iter().take(index).any(sent_before))
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_before(self.playlist.files.len())
    }

    /// Bytes of the files before one.
    pub(super) fn bytes_before(&self, index: usize) -> u64 {
        let lengths = self.playlist.files.iter().take(index).map(|file| file.until.saturating_sub(file.from));
        lengths.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::archive::Cover;
    use crate::position::{Incarnation, ServerUuid};

    fn file(name: &str, created_s: u32, from: u64, until: u64) -> PlayFile {
        let incarnation = Incarnation { file: BinlogFile::new(name).unwrap(), created_s };
        let server = ServerUuid(Uuid::from_u128(1));
        let (chunks, cover, strangers) = (Vec::new(), Cover::default(), Vec::new());
        let chunks = Arc::new(FileChunks { server, incarnation, chunks, cover, strangers });
        PlayFile { chunks, from, until, only: None }
    }

    fn ask(file: &str, position: u64) -> Ask {
        Ask { server_id: 9, file: file.into(), position, non_block: false, heartbeat_v2: true, gtids: None }
    }

    #[test]
    fn a_name_and_a_position_lead_to_a_file() {
        let files = vec![
            file("b.000001", 1, 4, 900),
            file("b.000002", 2, 4, 500),
            file("b.000001", 3, 4, 300),
            file("b.000002", 4, 200, 600),
        ];
        let feed = Feed { playlist: Playlist { files }, ..Feed::default() };
        let start =
            |file, position| feed.start_by_name(&ask(file, position)).map(|start| (start.index, start.position));
        // The newest life of a name that has the position.
        assert_eq!(start("b.000001", 4).unwrap(), (2, 4));
        assert_eq!(start("b.000001", 301).unwrap(), (0, 301));
        assert_eq!(start("b.000002", 600).unwrap(), (3, 600));
        assert_eq!(start("b.000002", 4).unwrap(), (1, 4));
        // Behind the last file's ROTATE, before the next file is there.
        assert_eq!(start("b.000003", 4).unwrap(), (4, 4));
        for (name, position, says) in [
            ("b.000003", 5, "Could not find first log file name"),
            ("b.000004", 4, "Could not find first log file name"),
            ("x", 4, "Could not find first log file name"),
            ("b.000001", 901, "position > file size"),
        ] {
            let error = start(name, position).unwrap_err();
            assert!(error.to_string().contains(says), "{name}:{position}: {error}");
        }
        assert_eq!(feed.bytes(), 896 + 496 + 296 + 400);
        assert_eq!(feed.bytes_before(2), 896 + 496);
    }
}
