//! Which bytes may hold an answer: files by their times and executed sets, chunks by their names and metadata, cut into
//! segments that begin between two transactions.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use super::narrow::narrow;
use super::{NotSearched, Query};
use crate::archive::{Archive, Cover, FileChunks, Piece};
use crate::chunk::{ChunkMeta, OpenTransaction};
use crate::error::{Error, Kind, Result};
use crate::position::{ByteRange, ChecksumAlgorithm, CommitTime, GtidSet, Incarnation, ServerUuid};

/// Raw bytes that one scan gets: enough to be worth a task, few enough that all cores get some.
const SEGMENT_BYTES: u64 = 32 << 20;
/// How far a server's clock may be set back without a transaction being missed by time, in microseconds. (Being set back
/// for longer than a chunk takes is noticed by itself: the highest commit time then stands still.)
const CLOCK_SLACK_US: u64 = 60_000_000;
/// Chunk headers read at a time.
const HEADERS_AT_A_TIME: usize = 16;

/// A file that may hold an answer.
#[derive(Debug, Clone)]
pub(super) struct FileRef {
    server: ServerUuid,
    incarnation: Incarnation,
}

/// Bytes to be scanned in one go.
#[derive(Debug)]
pub(super) struct Segment {
    /// The file, covered at least there.
    pub(super) chunks: Arc<FileChunks>,
    /// The bytes.
    pub(super) range: ByteRange,
    /// How the file's events are protected, unless the segment begins with the file.
    pub(super) inside: Option<ChecksumAlgorithm>,
}

/// What is to be done with a file, in the order asked for.
#[derive(Debug, Default)]
pub(super) struct FileChoice {
    pub(super) segments: Vec<Segment>,
    pub(super) not_searched: Vec<NotSearched>,
}

/// The files that may hold an answer, in the order asked for.
pub(super) async fn files(archive: &Archive, servers: &[ServerUuid], query: &Query) -> Result<Vec<FileRef>> {
    let known = |server: &ServerUuid| servers.contains(server);
    if let Some(server) = query.server.filter(|server| !known(server)) {
        return Err(Error::config(format!("nothing of server {server} is in the archive"))
            .hint("`binvault list` shows which servers are"));
    }
    let (mut chosen, mut named) = (Vec::new(), Vec::new());
    for server in servers.iter().filter(|server| query.server.is_none_or(|wanted| wanted == **server)) {
        let all = archive.incarnations(server).await?;
        named.extend(all.iter().map(|file| file.file.clone()));
        let in_time = of_time(&all, query);
        let by_gtid = match &query.gtids {
            Some(set) if query.files.is_empty() => of_gtids(archive, server, &all, set).await?,
            _ => vec![true; all.len()],
        };
        for ((incarnation, in_time), by_gtid) in all.into_iter().zip(in_time).zip(by_gtid) {
            let by_name = query.files.is_empty() || query.files.contains(&incarnation.file);
            if by_name && in_time && by_gtid {
                chosen.push(FileRef { server: *server, incarnation });
            }
        }
    }
    if let Some(file) = query.files.iter().find(|file| !named.contains(file)) {
        return Err(Error::config(format!("{file} is not in the archive")).hint("`binvault list` shows what is"));
    }
    if query.newest_first {
        chosen.reverse();
    }
    Ok(chosen)
}

/// By when they were begun.
fn of_time(files: &[Incarnation], query: &Query) -> Vec<bool> {
    let begun = |file: &Incarnation| CommitTime::from_seconds(file.created_s).micros();
    let too_new =
        |file: &Incarnation| query.to.is_some_and(|to| begun(file) > to.micros().saturating_add(CLOCK_SLACK_US));
    let too_old = |next: Option<&Incarnation>| {
        let (Some(from), Some(next)) = (query.from, next) else { return false };
        begun(next).saturating_add(CLOCK_SLACK_US) < from.micros()
    };
    let all = files.iter().enumerate();
    all.map(|(index, file)| !too_new(file) && !too_old(files.get(index.saturating_add(1)))).collect()
}

/// By what was executed before each; files that a reset parts are looked at apart.
async fn of_gtids(
    archive: &Archive,
    server: &ServerUuid,
    files: &[Incarnation],
    wanted: &GtidSet,
) -> Result<Vec<bool>> {
    let mut chosen = Vec::with_capacity(files.len());
    for run in files.chunk_by(|earlier, later| later.file.follows(&earlier.file)) {
        let executed = async |index: usize| {
            let Some(file) = run.get(index) else { return Ok(None) };
            let chunks = archive.chunks(server, file).await?;
            let Some(first) = chunks.first() else { return Ok(None) };
            let meta = readable(archive.meta(first).await)?;
            Ok(meta.and_then(|meta| meta.previous).map(|previous| common(wanted, &previous)))
        };
        chosen.extend(narrow(run.len(), executed).await?);
    }
    Ok(chosen)
}

/// How many of the wanted transactions are in a set.
fn common(wanted: &GtidSet, set: &GtidSet) -> u64 {
    wanted.count().saturating_sub(wanted.minus(set).count())
}

/// A header that is damaged says nothing; the scan will say what is wrong with its chunk.
fn readable(meta: Result<ChunkMeta>) -> Result<Option<ChunkMeta>> {
    match meta {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.kind() == Kind::Corrupt => Ok(None),
        Err(error) => Err(error),
    }
}

/// The segments of a file that may hold an answer, in the order asked for.
pub(super) async fn segments(archive: &Archive, file: FileRef, query: &Query) -> Result<FileChoice> {
    let chunks = Arc::new(archive.chunks(&file.server, &file.incarnation).await?);
    let mut choice = FileChoice::default();
    for hole in &chunks.cover.holes {
        choice.not_searched.push(missing(&chunks, *hole, "these bytes are not in the archive"));
    }
    let mut before = CommitTime::NONE;
    let joined = |a: &Piece, b: &Piece| a.take.end() == b.take.start();
    for pieces in chunks.cover.pieces.chunk_by(joined) {
        let mut run = Run::new(archive, &chunks, pieces, query);
        let mut wanted = run.of_time(before);
        if let Some(set) = &query.gtids {
            let by_gtid = run.of_gtids(set).await?;
            wanted.iter_mut().zip(by_gtid).for_each(|(wanted, by_gtid)| *wanted &= by_gtid);
        }
        run.widen(&mut wanted).await?;
        run.cut(&wanted, &mut choice).await?;
        before = run.high_commit(pieces.len().saturating_sub(1)).max(before);
    }
    if query.newest_first {
        choice.segments.reverse();
    }
    Ok(choice)
}

fn missing(chunks: &FileChunks, range: ByteRange, why: &str) -> NotSearched {
    let (server, file) = (chunks.server, chunks.incarnation.file.clone());
    NotSearched { server, file, from: range.start(), to: range.end(), why: why.to_owned() }
}

/// What stands at the beginning of a piece.
enum Seam {
    /// A transaction has ended, and none has begun.
    Clean,
    /// The piece begins inside of this transaction.
    Inside(OpenTransaction),
    /// Nobody knows.
    Unknown,
}

/// Pieces of a file without a hole between them.
struct Run<'a> {
    archive: &'a Archive,
    /// The file, as if it consisted of these pieces.
    chunks: Arc<FileChunks>,
    pieces: &'a [Piece],
    query: &'a Query,
    metas: HashMap<usize, Option<Arc<ChunkMeta>>>,
}

impl<'a> Run<'a> {
    fn new(archive: &'a Archive, file: &Arc<FileChunks>, pieces: &'a [Piece], query: &'a Query) -> Self {
        let end = pieces.last().map_or(0, |piece| piece.take.end());
        let cover = Cover { pieces: pieces.to_vec(), contiguous_end: end, holes: Vec::new(), end };
        let chunks = if file.cover.holes.is_empty() {
            Arc::clone(file)
        } else {
            Arc::new(FileChunks { cover, ..FileChunks::clone(file) })
        };
        Self { archive, chunks, pieces, query, metas: HashMap::new() }
    }

    fn begins_the_file(&self) -> bool {
        self.pieces.first().is_some_and(|piece| piece.take.start() == 0)
    }

    /// The highest commit time up to the end of a piece.
    fn high_commit(&self, index: usize) -> CommitTime {
        let chunk = self.pieces.get(index).and_then(|piece| self.chunks.chunks.get(piece.index));
        chunk.map_or(CommitTime::NONE, |chunk| chunk.name.high_commit)
    }

    async fn meta(&mut self, index: usize) -> Result<Option<Arc<ChunkMeta>>> {
        if let Some(known) = self.metas.get(&index) {
            return Ok(known.clone());
        }
        self.fetch(&[index]).await?;
        Ok(self.metas.get(&index).cloned().flatten())
    }

    /// Reads headers in parallel.
    async fn fetch(&mut self, indices: &[usize]) -> Result<()> {
        let (archive, chunks, pieces) = (self.archive, &self.chunks, self.pieces);
        let mut reads = stream::iter(indices)
            .map(|index| async move {
                let chunk = pieces.get(*index).and_then(|piece| chunks.chunks.get(piece.index));
                let meta = match chunk {
                    Some(chunk) => readable(archive.meta(chunk).await)?,
                    None => None,
                };
                Ok::<_, Error>((*index, meta.map(Arc::new)))
            })
            .buffer_unordered(HEADERS_AT_A_TIME);
        while let Some(read) = reads.next().await {
            let (index, meta) = read?;
            self.metas.insert(index, meta);
        }
        Ok(())
    }

    /// Which pieces may hold a transaction of the time asked for, `before` being the highest commit time before the run.
    fn of_time(&self, before: CommitTime) -> Vec<bool> {
        let (query, mut before) = (self.query, before);
        let mut wanted = Vec::with_capacity(self.pieces.len());
        for index in 0..self.pieces.len() {
            let high = self.high_commit(index);
            let too_old = query.from.is_some_and(|from| !high.is_none() && high < from);
            let too_new = query.to.is_some_and(|to| {
                // A time that stands still has been higher before: the clock was set back, and anything may follow.
                before.micros() > to.micros().saturating_add(CLOCK_SLACK_US) && high > before
            });
            wanted.push(!too_old && !too_new);
            before = high;
        }
        wanted
    }

    /// Which pieces transactions of the set end in.
    async fn of_gtids(&mut self, set: &GtidSet) -> Result<Vec<bool>> {
        let count = self.pieces.len();
        let first = if self.begins_the_file() { self.meta(0).await? } else { None };
        let previous = first.and_then(|meta| meta.previous.clone());
        narrow(count, async |index| match index.checked_sub(1) {
            None => Ok(previous.as_ref().map(|previous| common(set, previous))),
            Some(index) => {
                let meta = self.meta(index).await?;
                let empty = GtidSet::new();
                Ok(meta.map(|meta| common(set, &meta.executed.resolve(previous.as_ref().unwrap_or(&empty)))))
            }
        })
        .await
    }

    /// What stands at the beginning of a piece.
    async fn seam(&mut self, index: usize) -> Result<Seam> {
        Ok(match index.checked_sub(1) {
            None if self.begins_the_file() => Seam::Clean,
            None => match self.meta(0).await? {
                Some(meta) if !meta.starts_inside => Seam::Clean,
                _ => Seam::Unknown,
            },
            Some(before) => match self.meta(before).await?.as_deref() {
                Some(ChunkMeta { open: Some(open), .. }) => Seam::Inside(open.clone()),
                Some(meta) if meta.resume == meta.end => Seam::Clean,
                _ => Seam::Unknown,
            },
        })
    }

    /// Whether a transaction is certainly none that is looked for.
    fn excludes(&self, open: &OpenTransaction) -> bool {
        let Query { from, to, gtids, .. } = self.query;
        from.is_some_and(|from| open.commit_us < from)
            || to.is_some_and(|to| open.commit_us > to)
            || gtids.as_ref().is_some_and(|set| open.gtid.as_ref().is_none_or(|gtid| !set.contains(gtid)))
    }

    /// The first place in a piece that is known to lie between two transactions.
    fn first_place(&self, index: usize, seam: &Seam) -> Option<u64> {
        let piece = self.pieces.get(index)?;
        match seam {
            Seam::Clean => Some(piece.take.start()),
            Seam::Inside(open) => open.end.filter(|end| (piece.take.start()..piece.take.end()).contains(end)),
            Seam::Unknown => None,
        }
    }

    /// Where a segment may begin in a piece without missing anything that is looked for.
    async fn begin(&mut self, index: usize) -> Result<Option<u64>> {
        let seam = self.seam(index).await?;
        let missed = matches!(&seam, Seam::Inside(open) if !self.excludes(open));
        Ok(if missed { None } else { self.first_place(index, &seam) })
    }

    /// Adds the pieces in which the wanted pieces' first transactions begin, and their last ones end.
    async fn widen(&mut self, wanted: &mut [bool]) -> Result<()> {
        let is = |wanted: &[bool], index: usize| wanted.get(index) == Some(&true);
        for index in (1..wanted.len()).rev() {
            let before = index.saturating_sub(1);
            if is(wanted, index) && !is(wanted, before) && self.begin(index).await?.is_none() {
                wanted.iter_mut().skip(before).take(1).for_each(|before| *before = true);
            }
        }
        for index in 1..wanted.len() {
            if is(wanted, index.saturating_sub(1))
                && !is(wanted, index)
                && let Seam::Inside(open) = self.seam(index).await?
                && !self.excludes(&open)
            {
                wanted.iter_mut().skip(index).take(1).for_each(|here| *here = true);
            }
        }
        Ok(())
    }

    /// Cuts the wanted pieces into segments.
    async fn cut(&mut self, wanted: &[bool], choice: &mut FileChoice) -> Result<()> {
        let start = |pieces: &[Piece], index: usize| pieces.get(index).map_or(0, |piece| piece.take.start());
        // Where a segment may become long enough, in round figures: those headers are needed, and read in parallel.
        let round = |index: usize| start(self.pieces, index) / SEGMENT_BYTES;
        let likely: Vec<usize> = (1..wanted.len())
            .filter(|index| wanted.get(*index) == Some(&true) && round(*index) != round(index.saturating_sub(1)))
            .map(|index| index.saturating_sub(1))
            .collect();
        self.fetch(&likely).await?;
        // Where the open segment begins, and in which piece.
        let mut open: Option<(usize, u64)> = None;
        for (index, piece) in self.pieces.iter().enumerate() {
            let here = wanted.get(index) == Some(&true);
            match open {
                Some((from, begin)) if !here => {
                    self.push(from, begin, piece.take.start(), choice).await?;
                    open = None;
                }
                Some((from, begin)) if piece.take.start().saturating_sub(begin) >= SEGMENT_BYTES => {
                    let seam = self.seam(index).await?;
                    if let Some(place) = self.first_place(index, &seam) {
                        self.push(from, begin, place, choice).await?;
                        open = Some((index, place));
                    }
                }
                Some(_) => {}
                None if here => {
                    open = self.begin(index).await?.map(|place| (index, place));
                    // Only behind a hole can a run begin in the middle of a transaction.
                    if open.is_none() {
                        let why = "they begin inside a transaction whose beginning is not in the archive";
                        choice.not_searched.push(missing(&self.chunks, piece.take, why));
                    }
                }
                None => {}
            }
        }
        match (open, self.pieces.last()) {
            (Some((from, begin)), Some(last)) => self.push(from, begin, last.take.end(), choice).await,
            _ => Ok(()),
        }
    }

    /// Adds the segment `begin..end` that begins in the piece `from`.
    async fn push(&mut self, from: usize, begin: u64, end: u64, choice: &mut FileChoice) -> Result<()> {
        let Some(range) = ByteRange::new(begin, end).filter(|range| !range.is_empty()) else { return Ok(()) };
        let inside = if begin == 0 { None } else { self.meta(from.saturating_sub(1)).await?.map(|meta| meta.checksum) };
        if begin > 0 && inside.is_none() {
            choice.not_searched.push(missing(&self.chunks, range, "the chunk before them cannot be read"));
            return Ok(());
        }
        choice.segments.push(Segment { chunks: Arc::clone(&self.chunks), range, inside });
        Ok(())
    }
}
