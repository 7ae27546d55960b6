//! A server's archived files in a row: which follow one another without a break.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::files::FILES_AT_A_TIME;
use super::order::{Placed, Times, breaks, in_order};
use super::{Archive, BaseManifest, FileChunks, GapRecord};
use crate::chunk::{ChunkMeta, Link};
use crate::error::Result;
use crate::position::{ByteRange, CommitTime, GtidSet, Incarnation, Position, ServerUuid};

/// A file's chunks, and what the first and the last contiguous one say.
struct Ends {
    chunks: FileChunks,
    first: Option<ChunkMeta>,
    last: Option<ChunkMeta>,
}

/// How a file joins the one archived before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seam {
    /// It follows the file before it, which is there to its last byte.
    Joined,
    /// Archiving began with this file: nothing is known of what was before.
    Begins,
    /// It follows a file that is not there, or not to its end.
    Missing {
        /// The file, and where it ended.
        wanted: Link,
        /// Up to where it is there.
        have: u64,
    },
    /// It follows a file that was removed on purpose: here is where the archive begins.
    Pruned {
        /// The file, and where it ended.
        wanted: Link,
    },
    /// It follows a file that is there, but from an earlier place, or behind files of another history: the server lost what it
    /// had written since, or came back from an old copy.
    Branches {
        /// The file, and where it was left.
        from: Link,
    },
    /// It is to be removed, and its first chunk is gone.
    Remains,
    /// Its first chunk is missing, so nobody can tell.
    Unknown,
}

/// One archived file with what its first and last chunks say.
#[derive(Debug, Clone)]
pub struct FileState {
    /// Its chunks.
    pub chunks: Arc<FileChunks>,
    /// Metadata of its first chunk.
    pub first: Option<ChunkMeta>,
    /// Metadata of the chunk that holds its last contiguous byte.
    pub last: Option<ChunkMeta>,
    /// How it joins the file before.
    pub seam: Seam,
}

impl FileState {
    /// The file.
    pub fn incarnation(&self) -> &Incarnation {
        &self.chunks.incarnation
    }

    /// One past the last contiguous byte.
    pub fn contiguous_end(&self) -> u64 {
        self.chunks.cover.contiguous_end
    }

    /// Holes inside the file.
    pub fn holes(&self) -> &[ByteRange] {
        &self.chunks.cover.holes
    }

    /// What its PREVIOUS_GTIDS event says.
    pub fn previous(&self) -> Option<&GtidSet> {
        self.first.as_ref()?.previous.as_ref()
    }

    /// What was executed at its contiguous end, as its binlog tells it.
    pub fn executed(&self) -> Option<GtidSet> {
        let empty = GtidSet::new();
        Some(self.last.as_ref()?.executed.resolve(self.previous().unwrap_or(&empty)))
    }

    /// What was executed before the file, be it in a binlog or not.
    pub fn executed_before(&self) -> Option<GtidSet> {
        let first = self.first.as_ref()?;
        let mut before = first.previous.clone()?;
        before.union_with(&first.unlogged);
        Some(before)
    }

    /// What was executed at its contiguous end, be it in a binlog or not.
    pub fn executed_at_end(&self) -> Option<GtidSet> {
        Some(self.with_unlogged(self.executed()?))
    }

    /// A set that the file's binlog tells, with what no binlog does.
    pub fn with_unlogged(&self, mut told: GtidSet) -> GtidSet {
        if let Some(first) = &self.first {
            told.union_with(&first.unlogged);
        }
        told
    }

    /// The first commit in its first chunk.
    pub fn first_commit(&self) -> CommitTime {
        self.first.as_ref().map(|meta| meta.first_commit_us).unwrap_or_default()
    }
}

/// All files of a server, in the order it wrote them.
#[derive(Debug, Clone)]
pub struct History {
    /// The server.
    pub server: ServerUuid,
    /// Its files.
    pub files: Vec<FileState>,
}

impl History {
    /// What keeps the history from being replayed on a base backup up to its end; `None` if nothing does.
    pub fn in_the_way_of(&self, base: &BaseManifest) -> Option<String> {
        let at = &base.coordinates;
        let here = |file: &FileState| {
            let incarnation = file.incarnation();
            incarnation.file == at.file && at.created_s.is_none_or(|created_s| incarnation.created_s == created_s)
        };
        let Some(index) = self.files.iter().rposition(here) else {
            return Some(format!("{} is not archived", at.file));
        };
        let end = self.files.get(index).map_or(0, FileState::contiguous_end);
        if end < at.position {
            return Some(format!("{} is archived up to {end} only", at.file));
        }
        let runs = self.runs();
        let run = runs.iter().find(|run| run.contains(&index))?;
        if run.end == self.files.len() {
            return None;
        }
        let next = self.files.get(run.end)?;
        Some(format!("the archive has a gap before or in {}", next.incarnation().file))
    }

    /// Indices of files in runs that join without a break.
    pub fn runs(&self) -> Vec<std::ops::Range<usize>> {
        let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
        let mut broken_before = true;
        for (index, file) in self.files.iter().enumerate() {
            // What an interrupted `prune` has left of a file is of no use to anybody.
            if file.seam == Seam::Remains {
                broken_before = true;
                continue;
            }
            match runs.last_mut() {
                Some(run) if file.seam == Seam::Joined && !broken_before => run.end = index.saturating_add(1),
                _ => runs.push(index..index.saturating_add(1)),
            }
            broken_before = !file.holes().is_empty();
        }
        runs
    }

    /// The last contiguous byte of the newest run.
    pub fn position(&self) -> Option<Position> {
        let file = self.files.last()?;
        Some(Position { file: file.incarnation().file.clone(), offset: file.contiguous_end() })
    }
}

impl Archive {
    /// Reads every server's history.
    pub async fn histories(&self) -> Result<Vec<History>> {
        Ok(self.histories_and_gaps().await?.0)
    }

    /// The same, with the records of breaks that it takes to tell the order of files.
    pub async fn histories_and_gaps(&self) -> Result<(Vec<History>, Vec<GapRecord>)> {
        let mut listed = Vec::new();
        for server in self.servers().await? {
            listed.push((server, self.listed(&server).await?));
        }
        // A record is there before the file that it tells of.
        let gaps = self.gaps().await?;
        let mut histories = Vec::new();
        for (server, files) in listed {
            histories.push(self.history_of(&server, &files, &gaps).await?);
        }
        Ok((histories, gaps))
    }

    /// Reads a server's history: one listing and two headers a file, some files at a time.
    pub async fn history(&self, server: &ServerUuid) -> Result<History> {
        let files = self.listed(server).await?;
        self.history_of(server, &files, &self.gaps().await?).await
    }

    async fn history_of(&self, server: &ServerUuid, files: &[Incarnation], gaps: &[GapRecord]) -> Result<History> {
        let breaks = breaks(server, gaps);
        let mut ends = self.all_ends(server, files).await?;
        if Times::of(files, &breaks) != Times::Tell {
            let placed = ends.iter().map(|ends| {
                let follows = ends.first.as_ref().and_then(|meta| meta.follows.as_ref()).map(Link::incarnation);
                Placed::new(ends.chunks.incarnation.clone(), follows, &breaks)
            });
            let order = in_order(&placed.collect::<Vec<Placed>>());
            let rank: HashMap<_, _> = order.iter().enumerate().map(|(rank, file)| (file, rank)).collect();
            ends.sort_by_key(|ends| rank.get(&ends.chunks.incarnation).copied());
        }
        Ok(History { server: *server, files: self.in_a_row(ends).await? })
    }

    /// Reads what stands in files that are in order.
    pub(super) async fn file_states(&self, server: &ServerUuid, files: &[Incarnation]) -> Result<Vec<FileState>> {
        let ends = self.all_ends(server, files).await?;
        self.in_a_row(ends).await
    }

    async fn all_ends(&self, server: &ServerUuid, files: &[Incarnation]) -> Result<Vec<Ends>> {
        let looks = stream::iter(files).map(|file| async move {
            let chunks = self.chunks(server, file).await?;
            self.ends_of(chunks).await
        });
        looks.buffered(FILES_AT_A_TIME).try_collect().await
    }

    async fn in_a_row(&self, all: Vec<Ends>) -> Result<Vec<FileState>> {
        let mut files: Vec<FileState> = Vec::with_capacity(all.len());
        for ends in all {
            let state = self.joined(ends, files.last()).await?;
            files.push(state);
        }
        Ok(files)
    }

    /// What a file's first and last chunks say, and how it joins the file before it.
    pub async fn file_state_of(&self, chunks: FileChunks, before: Option<&FileState>) -> Result<FileState> {
        let ends = self.ends_of(chunks).await?;
        self.joined(ends, before).await
    }

    async fn ends_of(&self, chunks: FileChunks) -> Result<Ends> {
        let first = self.first_meta(&chunks).await?;
        let last = match chunks.last_contiguous() {
            // A file may have several first chunks, and they tell of different ends.
            Some(chunk) if chunks.first() == Some(chunk) => first.clone(),
            Some(chunk) => Some(self.meta(chunk).await?),
            None => None,
        };
        Ok(Ends { chunks, first, last })
    }

    async fn joined(&self, Ends { chunks, first, last }: Ends, before: Option<&FileState>) -> Result<FileState> {
        let seam = match &first {
            None if self.is_pruned(&chunks.server, &chunks.incarnation).await? => Seam::Remains,
            None => Seam::Unknown,
            Some(meta) => match &meta.follows {
                None => Seam::Begins,
                Some(link) => self.seam(&chunks.server, link, before).await?,
            },
        };
        Ok(FileState { chunks: Arc::new(chunks), first, last, seam })
    }

    /// Judges a link against the file that stands before, or, if it is to another one, against that.
    async fn seam(&self, server: &ServerUuid, link: &Link, before: Option<&FileState>) -> Result<Seam> {
        let linked = link.incarnation();
        let have = match before.filter(|file| *file.incarnation() == linked) {
            Some(before) if before.contiguous_end() == link.end => return Ok(Seam::Joined),
            Some(before) => before.contiguous_end(),
            None => self.chunks(server, &linked).await?.cover.contiguous_end,
        };
        let (from, wanted) = (link.clone(), link.clone());
        if have >= link.end {
            return Ok(Seam::Branches { from });
        }
        let is_pruned = self.is_pruned(server, &linked).await?;
        Ok(if is_pruned { Seam::Pruned { wanted } } else { Seam::Missing { wanted, have } })
    }
}
