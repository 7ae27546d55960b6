//! Status and list: what the archive holds, for people and scripts.
//!
//! Owns: the reports and their numbers (ranges, lag, gaps, sizes).
//! Does not own: how they are printed (`cli`), how the archive is read (`archive`).
//!
//! Invariants: everything comes from the archive; the server is asked only for its own position, and if it does not
//! answer, what the last beacon said is shown with its age. The JSON of both reports is a contract: fields may be
//! added, none changes its meaning (`docs/JSON.md`).

mod bases;
mod gaps;
mod protection;

use std::time::Duration;

use serde::Serialize;

use crate::archive::{Archive, Bases, Beacon, Drill, FileState, GapRecord, History, Seam};
use crate::clock;
use crate::config::Objectives;
use crate::error::{Error, Kind, Result};
use crate::mysql::facts::binlog_status;
use crate::mysql::{Connection, SourceOptions};
use crate::position::{BinlogFile, CommitTime, Position, ServerUuid, created_text};
use crate::timeline::Lines;

pub use bases::{ListedBase, UnreadableBase};
pub use gaps::RecordedGap;
pub use protection::{BaseSummary, DrillSummary, Protection};

/// How long the server may take to say where it is.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// The whole report of `status`.
#[derive(Debug, Serialize)]
pub struct StatusReport {
    /// Version of this schema.
    pub schema: u32,
    /// URL of the archive.
    pub url: String,
    /// Its id.
    pub archive: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Each server that has chunks, the one archived last at the end.
    pub servers: Vec<ServerStatus>,
    /// Breaks in the history that agents have recorded, oldest first.
    pub recorded_gaps: Vec<RecordedGap>,
    /// Base backups, drills, objectives.
    pub protection: Protection,
    /// The agents' last words.
    pub agents: Vec<Beacon>,
}

/// One server's part.
#[derive(Debug, Serialize)]
pub struct ServerStatus {
    /// Its uuid.
    pub server: ServerUuid,
    /// Everything before this is in the archive without a hole, as far back as the newest range goes.
    pub durable: Option<Position>,
    /// How far the server is ahead.
    pub lag: Lag,
    /// What can be replayed without a break, oldest first.
    pub ranges: Vec<Range>,
    /// Every moment from here to the end can be restored, RFC 3339; `None` if no base backup leads to the end.
    pub restorable_from: Option<String>,
    /// The same, microseconds since 1970.
    #[serde(skip)]
    pub restorable_from_us: Option<u64>,
    /// What is missing between and inside files.
    pub gaps: Vec<Gap>,
    /// Files.
    pub files: usize,
    /// Chunks.
    pub chunks: usize,
    /// Raw bytes covered.
    pub raw_bytes: u64,
    /// Bytes of the chunk objects.
    pub stored_bytes: u64,
}

/// How far the server is ahead of the archive.
#[derive(Debug, Serialize)]
pub struct Lag {
    /// Where the number comes from: `server` (asked just now), `beacon` (an agent's last word) or `unknown`.
    pub from: &'static str,
    /// The server's position.
    pub server_position: Option<Position>,
    /// When it was there, microseconds since 1970.
    pub as_of_us: Option<u64>,
    /// Bytes the archive lacks; `None` if they are in files it does not know the size of.
    pub bytes: Option<u64>,
    /// Seconds the archive is behind: 0 when it has everything as of then, else the age of its last commit.
    pub seconds: Option<f64>,
}

/// A run of files without a break.
#[derive(Debug, Serialize)]
pub struct Range {
    /// First byte.
    pub from: Position,
    /// One past the last byte.
    pub to: Position,
    /// First commit in it, RFC 3339; `None` if there is none.
    pub first_commit: Option<String>,
    /// Last commit in it.
    pub last_commit: Option<String>,
    /// What was executed before it.
    pub executed_before: Option<String>,
    /// What was executed at its end.
    pub executed: Option<String>,
}

/// Something is missing.
#[derive(Debug, Serialize)]
pub struct Gap {
    /// The file it is in or before.
    pub file: BinlogFile,
    /// What.
    pub problem: String,
    /// Whether an agent has recorded the break that explains it.
    pub recorded: bool,
}

/// One file in `list`.
#[derive(Debug, Serialize)]
pub struct ListedFile {
    /// The server.
    pub server: ServerUuid,
    /// The file.
    pub file: BinlogFile,
    /// When it was begun (its incarnation).
    pub created: String,
    /// Bytes without a hole from its start.
    pub bytes: u64,
    /// Bytes of its chunk objects.
    pub stored_bytes: u64,
    /// Its chunks.
    pub chunks: usize,
    /// Missing ranges, `start-end`.
    pub holes: Vec<String>,
    /// Whether it is known to be complete: it ends with its closing event, or the next file says that it ended there.
    pub complete: bool,
    /// First commit in its first chunk, RFC 3339.
    pub first_commit: Option<String>,
    /// Last commit up to its end.
    pub last_commit: Option<String>,
    /// What was executed at its end.
    pub executed: Option<String>,
}

/// The whole report of `list`.
#[derive(Debug, Serialize)]
pub struct ListReport {
    /// Version of this schema.
    pub schema: u32,
    /// URL of the archive.
    pub url: String,
    /// Base backups, the oldest first.
    pub bases: Vec<ListedBase>,
    /// Base backups without a manifest: on their way, or given up.
    pub unfinished_bases: Vec<String>,
    /// Base backups whose manifest cannot be used.
    pub unreadable_bases: Vec<UnreadableBase>,
    /// Binlog files, server by server, in the order they were written.
    pub files: Vec<ListedFile>,
}

fn time(commit: CommitTime) -> Option<String> {
    (!commit.is_none()).then(|| commit.rfc3339())
}

/// The report of `status`, and what it was made of.
#[derive(Debug)]
pub struct Survey {
    /// The report.
    pub report: StatusReport,
    /// Base backups.
    pub bases: Bases,
    /// Drills, the oldest first.
    pub drills: Vec<Drill>,
}

/// Makes the report of `status`, asking the server for its position if one is given, and judging the objectives.
///
/// # Errors
/// Those of reading the archive.
pub async fn survey(archive: &Archive, source: Option<&SourceOptions>, objectives: &Objectives) -> Result<Survey> {
    let agents = archive.beacons().await?;
    let asked = match source {
        Some(source) => clock::with_timeout(ASK_LIMIT, ask(source)).await.and_then(|answer| {
            answer
                .inspect_err(|error| tracing::debug!(error = %error.chain(), "the server does not say where it is"))
                .ok()
        }),
        None => None,
    };
    let (bases, drills) = (archive.bases().await?, archive.drills().await?);
    let (histories, gaps) = archive.histories_and_gaps().await?;
    let lines = Lines::of(&histories);
    let mut servers = Vec::new();
    for history in &histories {
        let restorable_from_us = lines.restorable_from(history.server, &bases.complete)?;
        servers.push(server_status(history, asked.as_ref(), &agents, &gaps, restorable_from_us));
    }
    servers.sort_by_key(|server| server.ranges.last().and_then(|range| range.last_commit.clone()));
    let identity = archive.identity();
    let report = StatusReport {
        schema: 1,
        url: archive.store().url(),
        archive: identity.archive.to_string(),
        created: identity.created.clone(),
        recorded_gaps: gaps::recorded(gaps, &bases.complete),
        protection: protection::protection(&bases.complete, &drills, objectives, &servers),
        servers,
        agents,
    };
    Ok(Survey { report, bases, drills })
}

/// What the server says of itself.
struct Answer {
    server: String,
    position: Position,
    as_of_us: u64,
}

async fn ask(source: &SourceOptions) -> Result<Answer> {
    let mut connection = Connection::connect(source, "binvault").await?;
    let as_of_us = clock::now_us();
    let status = binlog_status(&mut connection).await?.ok_or_else(|| Error::new(Kind::Unfit, "no current binlog"))?;
    let rows = connection.query("SELECT @@GLOBAL.server_uuid").await?;
    let server = rows.first().and_then(|row| row.get_at(0)).unwrap_or("").to_owned();
    let file = BinlogFile::new(&status.file).map_err(|error| Error::corrupt("binlog status").source(error))?;
    Ok(Answer { server, position: Position { file, offset: status.position }, as_of_us })
}

fn server_status(
    history: &History,
    asked: Option<&Answer>,
    agents: &[Beacon],
    records: &[GapRecord],
    restorable_from_us: Option<u64>,
) -> ServerStatus {
    let files = &history.files;
    let durable = history.position();
    let last_commit = files.iter().map(|file| file.chunks.high_commit()).max().unwrap_or_default();
    ServerStatus {
        server: history.server,
        lag: lag(history, durable.as_ref(), last_commit, asked, agents),
        durable,
        ranges: history.runs().iter().filter_map(|run| range(files.get(run.clone())?)).collect(),
        restorable_from: restorable_from_us.map(|us| CommitTime::from_micros(us).rfc3339()),
        restorable_from_us,
        gaps: gaps(files, records),
        files: files.len(),
        chunks: files.iter().map(|file| file.chunks.chunks.len()).sum(),
        raw_bytes: files.iter().map(FileState::contiguous_end).fold(0, u64::saturating_add),
        stored_bytes: files.iter().map(|file| file.chunks.stored_bytes()).fold(0, u64::saturating_add),
    }
}

fn range(run: &[FileState]) -> Option<Range> {
    let (first, last) = (run.first()?, run.last()?);
    let first_commit = run.iter().map(FileState::first_commit).find(|commit| !commit.is_none()).unwrap_or_default();
    let set = |set: Option<String>| set.filter(|text| !text.is_empty());
    Some(Range {
        from: Position { file: first.incarnation().file.clone(), offset: 0 },
        to: Position { file: last.incarnation().file.clone(), offset: last.contiguous_end() },
        first_commit: time(first_commit),
        last_commit: time(last.chunks.high_commit()),
        executed_before: set(first.executed_before().map(|executed| executed.to_string())),
        executed: set(last.executed_at_end().map(|executed| executed.to_string())),
    })
}

fn gaps(files: &[FileState], records: &[GapRecord]) -> Vec<Gap> {
    let mut gaps = Vec::new();
    for (index, state) in files.iter().enumerate() {
        let file = &state.incarnation().file;
        let (server, incarnation) = (&state.chunks.server, state.incarnation());
        let recorded = records.iter().any(|gap| gap.explains_seam(state));
        let mut add = |problem: String| gaps.push(Gap { file: file.clone(), problem, recorded });
        match &state.seam {
            Seam::Joined | Seam::Branches { .. } | Seam::Pruned { .. } => {}
            // What is left of it goes with the next `prune`.
            Seam::Remains => continue,
            Seam::Begins if index == 0 => {}
            Seam::Begins => add("archiving began anew with this file".into()),
            Seam::Unknown => add("its first chunk is missing".into()),
            Seam::Missing { wanted, have } => {
                add(format!("follows {}, which ended at {}; the archive has it up to {have}", wanted.file, wanted.end));
            }
        }
        for hole in state.holes() {
            let recorded = records.iter().any(|gap| gap.explains_hole(server, incarnation, hole.start()));
            gaps.push(Gap { file: file.clone(), problem: format!("bytes {hole} are missing"), recorded });
        }
    }
    gaps
}

fn lag(
    history: &History,
    durable: Option<&Position>,
    last: CommitTime,
    asked: Option<&Answer>,
    agents: &[Beacon],
) -> Lag {
    let from_server = asked.filter(|answer| answer.server == history.server.to_string());
    let beacon = agents.iter().filter(|beacon| beacon.server == history.server).max_by_key(|beacon| beacon.as_of_us);
    let known = from_server
        .map(|answer| ("server", answer.position.clone(), answer.as_of_us))
        .or_else(|| beacon.and_then(|beacon| Some(("beacon", beacon.server_position.clone()?, beacon.as_of_us))));
    let (Some((from, position, as_of_us)), Some(durable)) = (known, durable) else {
        return Lag { from: "unknown", server_position: None, as_of_us: None, bytes: None, seconds: None };
    };
    let bytes = if *durable >= position {
        Some(0)
    } else if durable.file == position.file {
        Some(position.offset.saturating_sub(durable.offset))
    } else {
        None
    };
    let seconds = if bytes == Some(0) {
        Some(0.0)
    } else if last.is_none() {
        None
    } else {
        Some(Duration::from_micros(as_of_us.saturating_sub(last.micros())).as_secs_f64())
    };
    Lag { from, server_position: Some(position), as_of_us: Some(as_of_us), bytes, seconds }
}

/// Makes the report of `list`.
pub async fn list(archive: &Archive) -> Result<ListReport> {
    let histories = archive.histories().await?;
    let bases::Listed { bases, unfinished, unreadable } = bases::listed(archive, &histories).await?;
    Ok(ListReport {
        schema: 1,
        url: archive.store().url(),
        bases,
        unfinished_bases: unfinished,
        unreadable_bases: unreadable,
        files: histories.iter().flat_map(listed_files).collect(),
    })
}

fn listed_files(history: &History) -> Vec<ListedFile> {
    let entry = |(index, state): (usize, &FileState)| {
        let next = history.files.get(index.saturating_add(1));
        let joined_by_next = next.is_some_and(|next| next.seam == Seam::Joined);
        let closed = state.last.as_ref().is_some_and(|meta| meta.closes.is_some());
        ListedFile {
            server: history.server,
            file: state.incarnation().file.clone(),
            created: created_text(state.incarnation().created_s),
            bytes: state.contiguous_end(),
            stored_bytes: state.chunks.stored_bytes(),
            chunks: state.chunks.chunks.len(),
            holes: state.holes().iter().map(ToString::to_string).collect(),
            complete: state.holes().is_empty() && (closed || joined_by_next),
            first_commit: time(state.first_commit()),
            last_commit: time(state.chunks.high_commit()),
            executed: state.executed().map(|set| set.to_string()).filter(|text| !text.is_empty()),
        }
    };
    history.files.iter().enumerate().map(entry).collect()
}
