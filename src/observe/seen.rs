//! What the agent has seen: of the server by its last answer, of the archive by the last look at it, of itself.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::archive::VerifyWord;
use crate::clock;
use crate::error::Error;
use crate::position::{Position, ServerUuid};

/// Points of the trail that are kept: six hours of one each half minute.
const POINTS_MAX: usize = 720;

/// All of it, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// When the agent began, microseconds since 1970.
    pub started_us: u64,
    /// Whether the server's binlog flows.
    pub streaming: bool,
    /// Since when that is so, or is not.
    pub since_us: u64,
    /// The server.
    pub server: Option<ServerUuid>,
    /// Its version.
    pub server_version: Option<String>,
    /// Its last answer.
    pub answered: Option<Answered>,
    /// Times that streaming ended in trouble.
    pub interruptions: u64,
    /// The last trouble, while it lasts.
    pub trouble: Option<Trouble>,
    /// Breaks in the history recorded since the start.
    pub gaps: u64,
    /// The last of them.
    pub last_gap: Option<String>,
    /// When the next base backup is due; `None` without a schedule.
    pub base_due_us: Option<u64>,
    /// Scheduled base backups.
    pub bases: Counted,
    /// When the next prune is due.
    pub prune_due_us: Option<u64>,
    /// Scheduled prunes.
    pub prunes: Counted,
    /// The last verification of the archive.
    pub verified: Option<VerifyWord>,
    /// The purge guard.
    pub guard: Counted,
    /// Files that it has had purged; `None` where it is off.
    pub guard_purged: Option<u64>,
    /// Notifications that were sent, that failed, and that were held back.
    pub notifications: Option<[u64; 3]>,
    /// What the last look at the archive found.
    pub outlook: Option<Arc<Outlook>>,
    /// Lag and throughput of the last hours.
    pub trail: VecDeque<Point>,
}

/// What the server said last.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// Where its binlog ended.
    pub position: Position,
    /// When, microseconds since 1970.
    pub as_of_us: u64,
    /// Bytes it had that were not durable; `None` if a file between is unknown.
    pub lag_bytes: Option<u64>,
    /// Its files that are durable as a whole.
    pub margin_files: Option<u64>,
    /// How old a binlog may become before it is purged, seconds; `None`: as old as it likes.
    pub expiry_s: Option<u64>,
}

/// Something went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// When, microseconds since 1970.
    pub at_us: u64,
    /// What.
    pub text: String,
    /// What helps.
    pub hint: Option<String>,
}

impl Trouble {
    /// An error, as it is told: now.
    pub fn of(error: &Error) -> Self {
        Self { at_us: clock::now_us(), text: error.chain(), hint: error.hint_text().map(str::to_owned) }
    }
}

/// Something that is done by a schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// When it was last done well, microseconds since 1970.
    pub done_us: Option<u64>,
    /// How often it failed.
    pub failures: u64,
    /// The last failure, until it is done well.
    pub trouble: Option<Trouble>,
}

impl Counted {
    /// It was done well.
    pub fn done(&mut self) {
        self.done_us = Some(clock::now_us());
        self.trouble = None;
    }

    /// It failed.
    pub fn failed(&mut self, error: &Error) {
        self.failures = self.failures.saturating_add(1);
        self.trouble = Some(Trouble::of(error));
    }
}

/// What only the archive can tell.
#[derive(Debug, Clone, Default)]
pub struct Outlook {
    /// When it was looked at, microseconds since 1970.
    pub as_of_us: u64,
    /// The document of `binvault status --json`.
    pub report: serde_json::Value,
    /// Finished base backups, the oldest first.
    pub bases: Vec<BaseMark>,
    /// Drills, the oldest first.
    pub drills: Vec<DrillMark>,
    /// Chunk objects, and their bytes.
    pub chunks: (u64, u64),
    /// Objects of base backups, and their bytes.
    pub base_objects: (u64, u64),
    /// Recorded breaks by which something is missing or lost.
    pub gaps: u64,
    /// Those that no base backup was taken behind.
    pub gaps_without_base: u64,
    /// What is missing between what is archived, and no record explains.
    pub holes: u64,
    /// The earliest moment from which on everything can be restored.
    pub restorable_from_us: Option<u64>,
    /// Objectives that are not met, for people.
    pub unmet: Vec<String>,
}

/// A base backup, for a picture.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BaseMark {
    /// Its id.
    pub id: String,
    /// The engine that took it.
    pub engine: String,
    /// The server it is of.
    pub server: ServerUuid,
    /// When it was begun, microseconds since 1970.
    pub started_us: u64,
    /// When it was finished.
    pub finished_us: u64,
    /// Bytes of its objects.
    pub stored_bytes: u64,
}

/// A drill, for a picture.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DrillMark {
    /// When it was begun, microseconds since 1970.
    pub started_us: u64,
    /// Whether everything held.
    pub ok: bool,
    /// How long the restore took, seconds.
    pub seconds: f64,
    /// What did not hold.
    pub problem: Option<String>,
}

/// Lag and throughput at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When, microseconds since 1970.
    pub at_us: u64,
    /// Seconds behind.
    pub lag_seconds: Option<f64>,
    /// Bytes read from the server until then.
    pub received_bytes: u64,
    /// Raw bytes made durable until then.
    pub durable_bytes: u64,
    /// PUTs until then.
    pub puts: u64,
}

impl Seen {
    /// Streaming begins or ends.
    pub fn set_streaming(&mut self, streaming: bool) {
        if self.streaming != streaming {
            self.streaming = streaming;
            self.since_us = clock::now_us();
        }
    }

    /// A break was recorded.
    pub fn gap(&mut self, problem: &str) {
        self.gaps = self.gaps.saturating_add(1);
        self.last_gap = Some(problem.to_owned());
    }

    /// Adds a point to the trail; the oldest goes.
    pub fn add_point(&mut self, point: Point) {
        if self.trail.len() >= POINTS_MAX {
            self.trail.pop_front();
        }
        self.trail.push_back(point);
    }
}
