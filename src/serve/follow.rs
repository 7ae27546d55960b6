//! Following the archive: one head's history without a gap, file by file, as it grows.
//!
//! A look costs two listings: the server's folders, and the newest file's chunks; a new file costs its first chunk's
//! header, and telling the order of files anew.

use std::sync::Arc;
use std::time::Duration;

use crate::archive::{Archive, FileState, Seam};
use crate::clock::{self, Instant};
use crate::error::{Error, Result};
use crate::mysql::event::FIRST_EVENT;
use crate::playback::{Feed, PlayFile, Playlist};
use crate::position::{GtidSet, Incarnation, ServerUuid};
use crate::timeline::{Place, Route, RoutePart};

/// Uploads end in any order: only a break that stays so long is one.
const BREAK_IS_REAL_AFTER: Duration = Duration::from_secs(60);

/// The files that are served, and where the archive stands.
pub(super) struct Follower {
    archive: Archive,
    /// Files of the lines that the head's own goes on from.
    earlier: Vec<PlayFile>,
    /// What was executed before the first file.
    before: GtidSet,
    /// The head's own files, as far as they join; never empty.
    files: Vec<FileState>,
    /// The transactions of them that belong to the history; `None`: all.
    only: Option<Arc<GtidSet>>,
    /// The server's files, as they were listed last, and in the order in which it wrote them.
    listed: Vec<Incarnation>,
    ordered: Vec<Incarnation>,
    /// Where serving ends for good: then nothing is followed.
    place: Option<Place>,
    /// Since when there is something behind a break, and when that was told.
    broken: Option<(Instant, Option<Instant>)>,
    /// When it was last asked whether another server goes on.
    asked: Instant,
}

impl Follower {
    /// Follows a route.
    pub(super) fn begin(archive: Archive, route: Route) -> Result<Self> {
        let Route { mut parts, place, .. } = route;
        if let Some(place) = &place {
            parts.truncate(place.segment.saturating_add(1));
        }
        let before = parts.first().map(RoutePart::before).unwrap_or_default();
        let Some(own) = parts.pop() else { return Err(Error::failed("a route of nothing")) };
        let earlier = parts.iter().flat_map(play_all).collect();
        // The line of a place in the past may have to be thinned out like an earlier one.
        let (files, only) = (own.line.files, own.only.map(Arc::new));
        let (listed, ordered) = (Vec::new(), Vec::new());
        let asked = clock::monotonic();
        Ok(Self { archive, earlier, before, files, only, listed, ordered, place, broken: None, asked })
    }

    /// What there is to send now.
    pub(super) fn feed(&self) -> Feed {
        let mut files = self.earlier.clone();
        let count = self.place.as_ref().map_or(self.files.len(), |place| place.file.saturating_add(1));
        for (index, state) in self.files.iter().enumerate().take(count) {
            let place = self.place.as_ref().filter(|place| place.file == index);
            let until = place.map_or(state.contiguous_end(), |place| place.position.offset);
            let (chunks, only) = (Arc::clone(&state.chunks), self.only.clone());
            files.push(PlayFile { chunks, from: FIRST_EVENT, until: until.max(FIRST_EVENT), only });
        }
        let last = self.files.iter().rev().find_map(|file| file.first.as_ref());
        let by_gtid = self.by_gtid();
        Feed {
            playlist: Playlist { files },
            before: by_gtid.then(|| self.before.clone()),
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
        if self.place.is_some() {
            return Ok(false);
        }
        let mut grown = self.look_at_last().await?;
        let Some(last) = self.files.last() else { return Ok(grown) };
        let (server, newest) = (last.chunks.server, last.incarnation().clone());
        let listed = self.archive.listed(&server).await?;
        if listed != self.listed {
            self.ordered = self.archive.in_order(&server, listed.clone()).await?;
            self.listed = listed;
        }
        let behind = behind(&self.ordered, &newest).map(<[Incarnation]>::to_vec);
        let mut broken = behind.is_none() || self.files.last().is_some_and(|file| !file.holes().is_empty());
        for incarnation in behind.unwrap_or_default() {
            // Its end may have come since.
            grown |= self.look_at_last().await?;
            let chunks = self.archive.chunks(&server, &incarnation).await?;
            let state = self.archive.file_state_of(chunks, self.files.last()).await?;
            if state.seam != Seam::Joined {
                broken = true;
                // What comes yet may tell of another order.
                self.listed.clear();
                break;
            }
            self.files.push(state);
            grown = true;
        }
        self.tell(broken);
        if !grown && self.asked.elapsed() >= BREAK_IS_REAL_AFTER {
            self.asked = clock::monotonic();
            self.look_for_others(&server).await?;
        }
        Ok(grown)
    }

    /// Says if another server writes later: after a failover, or a restore, it may be the one to follow.
    async fn look_for_others(&self, own: &ServerUuid) -> Result<()> {
        let newest = self.files.last().map_or(0, |file| file.incarnation().created_s);
        for server in self.archive.servers().await?.iter().filter(|server| *server != own) {
            let last = self.archive.incarnations(server).await?.pop();
            if last.is_some_and(|file| file.created_s > newest) {
                tracing::warn!(
                    %server, serving = %own,
                    "another server's history is newer than the one that is served: start anew to follow it"
                );
            }
        }
        Ok(())
    }

    /// Lists the last file again.
    async fn look_at_last(&mut self) -> Result<bool> {
        let Some(last) = self.files.last_mut() else { return Ok(false) };
        let chunks = self.archive.chunks(&last.chunks.server, &last.chunks.incarnation).await?;
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
                end = end.unwrap_or_default(),
                "the archive has a gap here: replicas cannot go on; `binvault status` shows it"
            );
        }
    }
}

/// The files that the server wrote behind one, if that is there: it may have been pruned. Their times do not tell: its clock may
/// have been set back.
fn behind<'a>(all: &'a [Incarnation], one: &Incarnation) -> Option<&'a [Incarnation]> {
    let at = all.iter().position(|file| file == one)?;
    all.get(at.saturating_add(1)..)
}

/// All of a line.
fn play_all(part: &RoutePart) -> Vec<PlayFile> {
    let only = part.only.clone().map(Arc::new);
    let play = |state: &FileState| {
        let chunks = Arc::clone(&state.chunks);
        PlayFile { chunks, from: FIRST_EVENT, until: state.contiguous_end().max(FIRST_EVENT), only: only.clone() }
    };
    part.line.files.iter().map(play).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::BinlogFile;

    #[test]
    fn the_file_behind_is_the_next_in_order_whatever_its_time() {
        let file = |number: u64, created_s: u32| Incarnation {
            file: BinlogFile::new(&format!("b.{number:06}")).unwrap(),
            created_s,
        };
        // The clock was set back before the third.
        let all = [file(1, 100), file(2, 200), file(3, 50)];
        assert_eq!(behind(&all, &all[1]), Some(&[file(3, 50)][..]));
        assert_eq!(behind(&all, &all[2]), Some(&[][..]));
        assert_eq!(behind(&all, &file(9, 9)), None, "it was pruned");
    }
}
