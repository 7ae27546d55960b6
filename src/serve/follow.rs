//! Following the archive: one server's history without a break, file by file, as it grows.
//!
//! A look costs two listings: the server's folders, and the newest file's chunks; a new file costs its first chunk's
//! header.

use std::time::Duration;

use super::StopAt;
use crate::archive::{Archive, FileState, Seam};
use crate::clock::{self, Instant};
use crate::error::{Error, Kind, Result};
use crate::playback::{Feed, PlayFile, Playlist};
use crate::position::ServerUuid;

/// Uploads end in any order: only a break that stays so long is one.
const BREAK_IS_REAL_AFTER: Duration = Duration::from_secs(60);

/// The files that are served, and where the archive stands.
pub(super) struct Follower {
    archive: Archive,
    server: ServerUuid,
    /// Without a break; the first to be served first, never empty.
    files: Vec<FileState>,
    until: Option<StopAt>,
    /// Since when there is something behind a break, and when that was told.
    broken: Option<(Instant, Option<Instant>)>,
}

impl Follower {
    /// Begins with the newest run of files that join.
    pub(super) async fn begin(archive: Archive, server: Option<ServerUuid>, until: Option<StopAt>) -> Result<Self> {
        let server = match server {
            Some(server) => server,
            None => newest_server(&archive).await?,
        };
        let mut history = archive.history(&server).await?;
        let Some(run) = history.runs().pop() else {
            return Err(Error::config(format!("nothing is archived of the server {server}"))
                .hint("`binvault list` shows what is archived"));
        };
        let files: Vec<FileState> = history.files.drain(run).collect();
        if let Some(stop) = &until
            && !files.iter().any(|file| file.incarnation() == &stop.incarnation)
        {
            let (file, first) = (&stop.incarnation.file, files.first().map(|file| file.incarnation().file.to_string()));
            return Err(Error::new(
                Kind::Gap,
                format!(
                    "{file} is not among the files that are served, which begin with {}",
                    first.unwrap_or_default()
                ),
            )
            .hint("`binvault status` shows the ranges without a gap"));
        }
        Ok(Self { archive, server, files, until, broken: None })
    }

    pub(super) fn server(&self) -> ServerUuid {
        self.server
    }

    /// What there is to send now.
    pub(super) fn feed(&self) -> Feed {
        let mut files = Vec::new();
        for state in &self.files {
            let stop = self.until.as_ref().filter(|stop| &stop.incarnation == state.incarnation());
            let end = state.contiguous_end();
            let until = stop.map_or(end, |stop| end.min(stop.offset));
            files.push(PlayFile { chunks: state.chunks.clone(), from: 4, until, only: None });
            if stop.is_some() {
                break;
            }
        }
        let last = self.files.iter().rev().find_map(|file| file.first.as_ref());
        let by_gtid = self.by_gtid();
        Feed {
            playlist: Playlist { files },
            before: if by_gtid { self.files.first().and_then(FileState::previous).cloned() } else { None },
            by_gtid,
            server_version: last.map(|meta| meta.server_version.clone()).unwrap_or_default(),
            ..Feed::default()
        }
    }

    /// Whether transactions have GTIDs, by what the newest file says; where there is no transaction yet, they may.
    fn by_gtid(&self) -> bool {
        let executed = self.files.last().and_then(FileState::executed).is_some_and(|executed| !executed.is_empty());
        let metas = self.files.iter().flat_map(|file| [&file.first, &file.last]).flatten();
        executed || metas.map(|meta| meta.transactions).all(|transactions| transactions == 0)
    }

    /// Looks into the archive again. Whether there is more to send.
    pub(super) async fn look(&mut self) -> Result<bool> {
        let mut grown = self.look_at_last().await?;
        let newest = self.files.last().map(|file| file.incarnation().clone());
        let all = self.archive.incarnations(&self.server).await?;
        let mut broken = self.files.last().is_some_and(|file| !file.holes().is_empty());
        for incarnation in all.iter().filter(|file| Some(*file) > newest.as_ref()) {
            // Its end may have come since.
            grown |= self.look_at_last().await?;
            let chunks = self.archive.chunks(&self.server, incarnation).await?;
            let state = self.archive.file_state_of(chunks, self.files.last()).await?;
            if state.seam != Seam::Joined {
                broken = true;
                break;
            }
            self.files.push(state);
            grown = true;
        }
        self.tell(broken);
        Ok(grown)
    }

    /// Lists the last file again.
    async fn look_at_last(&mut self) -> Result<bool> {
        let Some(last) = self.files.last_mut() else { return Ok(false) };
        let chunks = self.archive.chunks(&self.server, &last.chunks.incarnation).await?;
        let grown = chunks.cover.contiguous_end > last.contiguous_end();
        if grown {
            if last.executed().is_none_or(|executed| executed.is_empty()) {
                // Until a transaction was seen, it is open whether they have GTIDs.
                let seam = last.seam.clone();
                *last = FileState { seam, ..self.archive.file_state_of(chunks, None).await? };
            } else {
                last.chunks = chunks.into();
            }
        }
        Ok(grown)
    }

    /// Says, once a minute, that there is more behind a break.
    fn tell(&mut self, broken: bool) {
        if !broken {
            self.broken = None;
            return;
        }
        let (since, told) = self.broken.get_or_insert_with(|| (clock::monotonic(), None));
        let due = told.map_or(since.elapsed(), |told| told.elapsed()) >= BREAK_IS_REAL_AFTER;
        if due {
            *told = Some(clock::monotonic());
            let end = self.files.last().map(|file| format!("{}:{}", file.incarnation().file, file.contiguous_end()));
            tracing::error!(
                server = %self.server, end = end.unwrap_or_default(),
                "the archive has a gap here: replicas cannot go on; `binvault status` shows it"
            );
        }
    }
}

/// The server that wrote the newest file.
async fn newest_server(archive: &Archive) -> Result<ServerUuid> {
    let mut newest = None;
    for server in archive.servers().await? {
        let last = archive.incarnations(&server).await?.pop();
        newest = newest.max(last.map(|file| (file.created_s, server)));
    }
    newest.map(|(_, server)| server).ok_or_else(|| {
        Error::config("nothing is archived yet, so there is nothing to serve").hint("start `binvault run` first")
    })
}
