//! Coordinates that are proven: a position that a tool tells, held against the server's binlog.

use super::engine::{Site, Trouble};
use super::follow::Follower;
use super::server;
use crate::archive::Coordinates;
use crate::error::{Error, Result};
use crate::mysql::Connection;
use crate::position::{GtidSet, Position};

/// The coordinates at a position, and the reader of the binlog, which stands there.
///
/// # Errors
/// [`crate::error::Kind::Corrupt`] if no transaction ends there; those of reading the binlog.
pub(super) async fn prove(
    site: &Site<'_>,
    asked: &mut Connection,
    position: &Position,
) -> Result<(Coordinates, Follower), Trouble> {
    let end = server::end_of_log(asked).await?;
    if *position > end {
        return Err(Error::corrupt(format!(
            "the backup is said to stand at {position}, but the server's binlog ends at {end}"
        ))
        .into());
    }
    let mut follower = Follower::open(site.source, &position.file).await?;
    let place = follower.place(position.offset).await?;
    let mut executed = place.executed;
    executed.union_with(&purged(asked).await?);
    let coordinates = Coordinates {
        file: position.file.clone(),
        created_s: Some(place.created_s),
        position: position.offset,
        executed,
        gtid_mode: site.facts.gtid_mode.clone().unwrap_or_else(|| "OFF".to_owned()),
    };
    Ok((coordinates, follower))
}

/// What was executed without being in any binlog (set by hand on a restored server) is executed too.
async fn purged(asked: &mut Connection) -> Result<GtidSet> {
    let rows = asked.query("SELECT @@GLOBAL.gtid_purged").await?;
    let text: String = rows.first().and_then(|row| row.get_at(0)).unwrap_or_default().split_whitespace().collect();
    text.parse().map_err(|error| Error::corrupt("the server tells a GTID set that is none").source(error))
}
