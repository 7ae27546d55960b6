//! Base backups in `list`: what they are, and whether the archive goes on from them.

use serde::Serialize;

use crate::archive::{Archive, BaseManifest, Drill, History};
use crate::error::Result;
use crate::position::{CommitTime, GtidSet, Position, ServerUuid};

/// One base backup in `list`.
#[derive(Debug, Serialize)]
pub struct ListedBase {
    /// Its id, as `--base` takes it.
    pub id: String,
    /// The engine that took it.
    pub engine: String,
    /// The tool, as it names itself.
    pub tool: String,
    /// The server it is of.
    pub server: ServerUuid,
    /// That server's version.
    pub server_version: String,
    /// When it was begun, RFC 3339.
    pub started: String,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Its bytes, unpacked.
    pub raw_bytes: u64,
    /// Bytes of its objects.
    pub stored_bytes: u64,
    /// Where in the binlog it stands.
    pub position: Position,
    /// What was executed there.
    pub executed: Option<GtidSet>,
    /// Whether the archive has the server's binlog from there without a break up to its end.
    pub covered: bool,
    /// What stands in the way, if it has not.
    pub problem: Option<String>,
    /// When a drill last proved a restore of it, RFC 3339.
    pub last_verified: Option<String>,
}

/// What `list` tells of base backups.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) bases: Vec<ListedBase>,
    pub(super) unfinished: Vec<String>,
    pub(super) unreadable: Vec<UnreadableBase>,
}

/// A base backup that cannot be used.
#[derive(Debug, Serialize)]
pub struct UnreadableBase {
    /// Its id.
    pub id: String,
    /// Why.
    pub problem: String,
}

/// Reads the base backups and holds them against the servers' histories.
pub(super) async fn listed(archive: &Archive, histories: &[History]) -> Result<Listed> {
    let found = archive.bases().await?;
    let drills = archive.drills().await?;
    let bases = found.complete.iter().map(|base| entry(base, histories, &drills)).collect();
    let unreadable =
        found.unreadable.into_iter().map(|base| UnreadableBase { id: base.id, problem: base.problem }).collect();
    Ok(Listed { bases, unfinished: found.unfinished, unreadable })
}

fn entry(base: &BaseManifest, histories: &[History], drills: &[Drill]) -> ListedBase {
    let history = histories.iter().find(|history| history.server == base.server);
    let problem = match history {
        None => Some("nothing of its server's binlog is archived".to_owned()),
        Some(history) => history.in_the_way_of(base),
    };
    let proven = drills.iter().rev().find(|drill| drill.ok && drill.base.as_ref() == Some(&base.id));
    ListedBase {
        id: base.id.clone(),
        engine: base.engine.clone(),
        tool: base.tool.clone(),
        server: base.server,
        server_version: base.server_version.clone(),
        started: CommitTime::from_micros(base.started_us).rfc3339(),
        seconds: base.duration().as_secs_f64(),
        raw_bytes: base.raw_bytes,
        stored_bytes: base.stored_bytes,
        position: base.coordinates.position(),
        executed: Some(base.coordinates.executed.clone()).filter(|set| !set.is_empty()),
        covered: problem.is_none(),
        problem,
        last_verified: proven.map(|drill| CommitTime::from_micros(drill.finished_us).rfc3339()),
    }
}
