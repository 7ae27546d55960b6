//! Coordinates that are proven: a position that a tool tells, held against the server's binlog.

use super::engine::{Site, Trouble};
use super::follow::{Follower, Place};
use super::server;
use crate::archive::Coordinates;
use crate::error::{Error, Result};
use crate::mysql::Connection;
use crate::position::{GtidSet, Position};

/// A position that was held against the binlog.
pub(super) struct Proven {
    pub(super) coordinates: Coordinates,
    /// The reader of the binlog, which stands there.
    pub(super) follower: Follower,
    /// What was executed there without a trace in InnoDB.
    pub(super) unrecorded: GtidSet,
}

/// Proves the coordinates at a position. The follower notes the transactions that end behind `since`.
///
/// # Errors
/// [`crate::error::Kind::Corrupt`] if no transaction ends there; those of reading the binlog.
pub(super) async fn prove(
    site: &Site<'_>,
    asked: &mut Connection,
    position: &Position,
    since: Option<&Position>,
) -> Result<Proven, Trouble> {
    let end = server::end_of_log(asked).await?;
    if *position > end {
        return Err(Error::corrupt(format!(
            "the backup is said to stand at {position}, but the server's binlog ends at {end}"
        ))
        .into());
    }
    let mut follower = Follower::open(site.source, &position.file).await?;
    let place = follower.place(position.offset, since).await?;
    let Place { created_s, mut executed, unrecorded } = place;
    executed.union_with(&purged(asked).await?);
    let coordinates = Coordinates {
        file: position.file.clone(),
        created_s: Some(created_s),
        position: position.offset,
        executed,
        gtid_mode: site.facts.gtid_mode.clone().unwrap_or_else(|| "OFF".to_owned()),
    };
    Ok(Proven { coordinates, follower, unrecorded })
}

/// What was executed without being in any binlog (set by hand on a restored server) is executed too.
async fn purged(asked: &mut Connection) -> Result<GtidSet> {
    let rows = asked.query("SELECT @@GLOBAL.gtid_purged").await?;
    let text: String = rows.first().and_then(|row| row.get_at(0)).unwrap_or_default().split_whitespace().collect();
    text.parse().map_err(|error| Error::corrupt("the server tells a GTID set that is none").source(error))
}
