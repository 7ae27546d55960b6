//! Recorded breaks in history: `gaps/<when>.json`, one object a break, never overwritten.
//!
//! Listings show where bytes are missing between and inside of files; a record says what happened, when, to whom, and which
//! transactions are concerned. It stays when nothing else tells any more.

use serde::{Deserialize, Serialize};

use super::{Archive, FileState, Seam};
use crate::error::Result;
use crate::position::{CommitTime, GtidSet, Incarnation, Position, ServerUuid};

const FOLDER: &str = "gaps/";

/// What broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakKind {
    /// Binlogs were purged before they were archived.
    Purged,
    /// The server's binlogs begin anew: reset, re-cloned or restored under the same uuid, or renamed without GTIDs.
    Reset,
    /// The server lost the tail of its last file in a crash; the archive has it.
    LostTail,
    /// Another server took the place of the archived one, without some of its transactions, or with some that nobody has.
    Failover,
}

impl BreakKind {
    /// The name, as in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purged => "purged",
            Self::Reset => "reset",
            Self::LostTail => "lost_tail",
            Self::Failover => "failover",
        }
    }
}

/// One break.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRecord {
    /// Version of the record's schema: 1.
    pub schema: u32,
    /// When it was found, microseconds since 1970.
    pub at_us: u64,
    /// The agent that found it.
    pub agent: String,
    /// What broke.
    pub kind: BreakKind,
    /// The same for people.
    pub problem: String,
    /// The server that was archived until then.
    pub server: ServerUuid,
    /// Where that archive ends: before its first hole, if it has one.
    pub ends: Position,
    /// When the file in which it ends was begun, as the file says, seconds since 1970; `None`: recorded before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_created_s: Option<u32>,
    /// The newest file of which anything was archived then, if the archive ends before it, at a hole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Incarnation>,
    /// The server that is archived from then on.
    pub goes_on_with: ServerUuid,
    /// Where archiving begins anew.
    pub goes_on_at: Position,
    /// When that file was begun, as `ends_created_s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goes_on_created_s: Option<u32>,
    /// Transactions of the new history that nobody has archived and that the server no longer has; `None`: without GTIDs
    /// nobody can tell.
    pub missing: Option<GtidSet>,
    /// Archived transactions that the server no longer has.
    pub lost: Option<GtidSet>,
}

impl GapRecord {
    /// When it was found, RFC 3339.
    pub fn at(&self) -> String {
        CommitTime::from_micros(self.at_us).rfc3339()
    }

    /// Whether something is missing, or lost, or may be. Behind a reset, or a lost tail, the sets alone do not tell: the
    /// server gives the same numbers again, to other transactions, and may have done so before it was looked at.
    pub fn is_loss(&self) -> bool {
        matches!(self.kind, BreakKind::Reset | BreakKind::LostTail)
            || [&self.missing, &self.lost].iter().any(|set| set.as_ref().is_none_or(|set| !set.is_empty()))
    }

    /// Whether it tells why a file of a server's begins without a link to another.
    pub fn explains(&self, server: &ServerUuid, incarnation: &Incarnation) -> bool {
        let is_it = self.goes_on_created_s == Some(incarnation.created_s) || self.is_later_than(incarnation);
        self.goes_on_with == *server && self.goes_on_at.file == incarnation.file && is_it
    }

    /// Whether it tells why bytes of a server's file are missing from here on: archiving ended here, or before, and went on
    /// behind. A chunk that was on its way may land behind the record, so the hole may begin later than was seen.
    pub fn explains_hole(&self, server: &ServerUuid, incarnation: &Incarnation, from: u64) -> bool {
        let at = Position { file: incarnation.file.clone(), offset: from };
        if self.server != *server {
            return false;
        }
        match (self.ends_created_s, self.goes_on_created_s) {
            (Some(ends), Some(goes_on)) => self.left_behind(incarnation, &at, ends, goes_on),
            _ => {
                let is_there = self.ends == at || (self.kind == BreakKind::Purged && self.is_between(&at));
                is_there && self.is_later_than(incarnation)
            }
        }
    }

    /// The file with which archiving of a server was begun anew, and those in which it had ended, if this record tells: where
    /// all that was archived ends, and, if a hole is before that, where the hole begins.
    pub(super) fn begun_behind(&self, server: &ServerUuid) -> Option<(Incarnation, Vec<Incarnation>)> {
        let (ends_s, goes_on_s) = (self.ends_created_s?, self.goes_on_created_s?);
        if self.server != *server || self.goes_on_with != *server {
            return None;
        }
        let file = |at: &Position, created_s| Incarnation { file: at.file.clone(), created_s };
        let ends = std::iter::once(file(&self.ends, ends_s)).chain(self.newest.clone()).collect();
        Some((file(&self.goes_on_at, goes_on_s), ends))
    }

    fn is_later_than(&self, incarnation: &Incarnation) -> bool {
        u64::from(incarnation.created_s).saturating_mul(1_000_000) <= self.at_us
    }

    /// Whether nothing can be archived any more at this place, the files being told apart by when they were begun: behind a
    /// reset the names come again, and archiving may have ended behind another break.
    fn left_behind(&self, incarnation: &Incarnation, at: &Position, ends_s: u32, goes_on_s: u32) -> bool {
        if at.file == self.ends.file && incarnation.created_s == ends_s {
            return match self.kind {
                // The server may come back, and go on in that file.
                BreakKind::Failover => *at == self.ends,
                BreakKind::Purged | BreakKind::Reset | BreakKind::LostTail => *at >= self.ends,
            };
        }
        let is_later = at.file.base() == self.ends.file.base() && incarnation.created_s >= ends_s;
        is_later
            && match self.kind {
                // Within a second names tell.
                BreakKind::Purged => (incarnation.created_s, at) < (goes_on_s, &self.goes_on_at),
                BreakKind::Reset | BreakKind::LostTail => incarnation.created_s < goes_on_s,
                BreakKind::Failover => false,
            }
    }

    fn is_between(&self, at: &Position) -> bool {
        at.file.base() == self.ends.file.base() && self.ends <= *at && *at < self.goes_on_at
    }

    /// Whether it tells why a file does not join the one before it.
    pub fn explains_seam(&self, file: &FileState) -> bool {
        let (server, incarnation) = (&file.chunks.server, file.incarnation());
        match &file.seam {
            Seam::Begins => self.explains(server, incarnation),
            Seam::Missing { wanted, have } => self.explains_hole(server, &wanted.incarnation(), *have),
            Seam::Unknown => self.explains_hole(server, incarnation, 0),
            Seam::Joined | Seam::Branches { .. } | Seam::Pruned { .. } | Seam::Remains => false,
        }
    }

    /// Whether both tell the same.
    fn repeats(&self, other: &Self) -> bool {
        let told = |gap: &Self| Self { at_us: 0, agent: String::new(), problem: String::new(), ..gap.clone() };
        told(self) == told(other)
    }
}

impl Archive {
    /// Keeps a record, unless one tells the same already. Returns whether it is news.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn put_gap(&self, gap: &GapRecord) -> Result<bool> {
        if self.gaps().await?.iter().any(|known| gap.repeats(known)) {
            return Ok(false);
        }
        self.put_record(FOLDER, gap.at_us, gap).await?;
        Ok(true)
    }

    /// The records, oldest first; of very many the newest thousand. One that cannot be read is logged.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn gaps(&self) -> Result<Vec<GapRecord>> {
        self.records(FOLDER).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    fn record(kind: BreakKind, missing: Option<&str>, lost: Option<&str>) -> GapRecord {
        let position = Position { file: crate::position::BinlogFile::new("b.000001").unwrap(), offset: 4 };
        let set = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        GapRecord {
            schema: 1,
            at_us: 1,
            agent: "main".into(),
            kind,
            problem: String::new(),
            server: ServerUuid(uuid::Uuid::nil()),
            ends: position.clone(),
            ends_created_s: None,
            newest: None,
            goes_on_with: ServerUuid(uuid::Uuid::nil()),
            goes_on_at: position,
            goes_on_created_s: None,
            missing: set(missing),
            lost: set(lost),
        }
    }

    /// Found by `tests/chaos`: the numbers of a reset server had come again before the agent looked.
    #[test]
    fn numbers_that_came_again_do_not_make_a_reset_harmless() {
        use BreakKind::{Failover, LostTail, Purged, Reset};
        for (kind, is_loss) in [(Reset, true), (LostTail, true), (Purged, false), (Failover, false)] {
            assert_eq!(record(kind, Some(""), Some("")).is_loss(), is_loss, "{kind:?}");
            assert!(record(kind, None, Some("")).is_loss(), "nobody can tell: {kind:?}");
            assert!(record(kind, Some(""), Some("3c1f0a80-0000-4000-8000-000000000001:7")).is_loss(), "{kind:?}");
        }
    }

    #[test]
    fn a_hole_behind_the_archived_end_is_explained_by_a_purge() {
        let file = |name: &str| Incarnation { file: crate::position::BinlogFile::new(name).unwrap(), created_s: 0 };
        let mut gap = record(BreakKind::Purged, Some(""), Some(""));
        gap.ends = Position { file: file("b.000003").file, offset: 500 };
        gap.goes_on_at = Position { file: file("b.000007").file, offset: 4 };
        let mut explains = |kind: BreakKind, name: &str, from: u64| {
            gap.kind = kind;
            gap.explains_hole(&gap.server, &file(name), from)
        };
        assert!(explains(BreakKind::Purged, "b.000003", 500) && explains(BreakKind::Purged, "b.000006", 0));
        assert!(!explains(BreakKind::Purged, "b.000003", 499) && !explains(BreakKind::Purged, "b.000007", 4));
        assert!(!explains(BreakKind::Purged, "c.000004", 4), "another name, another history");
        // Behind a reset the same names come again.
        assert!(explains(BreakKind::Reset, "b.000003", 500) && !explains(BreakKind::Reset, "b.000004", 0));
    }

    #[test]
    fn files_of_one_name_are_told_apart_by_when_they_were_begun() {
        use BreakKind::{Failover, LostTail, Purged, Reset};
        let name = |name: &str| crate::position::BinlogFile::new(name).unwrap();
        let mut gap = record(Purged, Some(""), Some(""));
        gap.at_us = 100_000_000;
        gap.ends = Position { file: name("b.000003"), offset: 500 };
        gap.goes_on_at = Position { file: name("b.000007"), offset: 4 };
        (gap.ends_created_s, gap.goes_on_created_s) = (Some(30), Some(70));
        let mut explained = |file: &str, created_s: u32, from: u64| {
            let kinds = [Purged, Reset, LostTail, Failover].into_iter();
            let incarnation = Incarnation { file: name(file), created_s };
            let told = kinds.filter(|kind| {
                gap.kind = *kind;
                gap.explains_hole(&gap.server, &incarnation, from)
            });
            told.map(BreakKind::as_str).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(explained("b.000003", 30, 499), "");
        assert_eq!(explained("b.000003", 30, 500), "purged reset lost_tail failover");
        assert_eq!(explained("b.000003", 30, 501), "purged reset lost_tail", "a chunk has landed since");
        assert_eq!(explained("b.000003", 80, 501), "", "the name came again");
        assert_eq!(explained("b.000003", 60, 0), "purged reset lost_tail", "twice, and was left again");
        assert_eq!(
            explained("b.000001", 60, 0),
            "purged reset lost_tail",
            "behind a reset that another record tells of"
        );
        assert_eq!(explained("b.000003", 20, 501), "", "and was there before");
        assert_eq!(explained("b.000004", 40, 0), "purged reset lost_tail");
        assert_eq!(explained("b.000004", 20, 0), "");
        assert_eq!(explained("b.000001", 30, 0), "purged reset lost_tail", "the same within a second");
        assert_eq!(explained("b.000008", 60, 9), "purged reset lost_tail");
        assert_eq!(explained("b.000008", 70, 9), "", "it goes on there, or before");
        assert_eq!(explained("b.000006", 70, 0), "purged", "nothing tells in one second, but a purge renames nothing");
        assert_eq!(explained("b.000008", 80, 9), "");
        assert_eq!(explained("c.000004", 40, 0), "");
    }

    #[tokio::test]
    async fn two_agents_that_find_a_break_in_one_microsecond_both_keep_it() {
        let archive = Archive::open(std::sync::Arc::new(MemoryStore::new()), true).await.unwrap();
        let [mine, same, other] = ["main", "main", "another"].map(|agent| {
            let mut gap = record(BreakKind::Reset, Some(""), Some(""));
            gap.agent = agent.into();
            gap
        });
        assert!(archive.put_gap(&mine).await.unwrap());
        assert!(!archive.put_gap(&same).await.unwrap(), "no news");
        // As if neither had seen the other's yet.
        archive.put_record(FOLDER, other.at_us, &other).await.unwrap();
        archive.put_record(FOLDER, other.at_us, &other).await.unwrap();
        assert_eq!(archive.gaps().await.unwrap(), [mine, other]);
    }
}
