//! Recorded breaks, as they are told.

use serde::Serialize;

use crate::archive::{BaseManifest, BreakKind, GapRecord};
use crate::position::{GtidSet, Position, ServerUuid};

/// A break in the history.
#[derive(Debug, Serialize)]
pub struct RecordedGap {
    /// When it was found, RFC 3339.
    pub at: String,
    /// The agent that found it.
    pub agent: String,
    /// `purged`, `reset`, `lost_tail` or `failover`.
    pub kind: BreakKind,
    /// The same for people.
    pub problem: String,
    /// The server that was archived until then.
    pub server: ServerUuid,
    /// Where that archive ends.
    pub ends: Position,
    /// The server that is archived from then on.
    pub goes_on_with: ServerUuid,
    /// Where archiving began anew.
    pub goes_on_at: Position,
    /// Transactions that nobody has archived; `None` if nobody can tell.
    pub missing: Option<GtidSet>,
    /// Archived transactions that the server no longer had.
    pub lost: Option<GtidSet>,
    /// Whether something is missing or lost, or may be.
    pub is_loss: bool,
    /// Whether a base backup was taken later.
    pub base_behind: bool,
}

/// Tells them, beside the finished base backups, the oldest first.
pub(super) fn recorded(gaps: Vec<GapRecord>, bases: &[BaseManifest]) -> Vec<RecordedGap> {
    let newest_base = bases.last().map(|base| base.started_us);
    let told = |gap: GapRecord| RecordedGap {
        at: gap.at(),
        is_loss: gap.is_loss(),
        base_behind: newest_base.is_some_and(|base| base >= gap.at_us),
        agent: gap.agent,
        kind: gap.kind,
        problem: gap.problem,
        server: gap.server,
        ends: gap.ends,
        goes_on_with: gap.goes_on_with,
        goes_on_at: gap.goes_on_at,
        missing: gap.missing,
        lost: gap.lost,
    };
    gaps.into_iter().map(told).collect()
}
