//! The proof: what the server has executed is what the plan said, nothing less and nothing more.

use super::site::{Site, executed};
use super::words::CHANNEL;
use crate::error::{Error, Kind, Result};
use crate::mysql::event::FIRST_EVENT;
use crate::position::{BinlogFile, Position};
use crate::timeline::Plan;

/// Holds the server against the plan.
///
/// # Errors
/// [`Kind::Failed`], naming what is missing and what is too much.
pub(super) async fn prove(plan: &Plan, site: &mut dyn Site) -> Result<()> {
    if !plan.by_gtid {
        return prove_position(plan, site).await;
    }
    let there = executed(site.connection()?).await?;
    let (missing, extra) = (plan.expected.minus(&there), there.minus(&plan.expected));
    if missing.is_empty() && extra.is_empty() {
        return Ok(());
    }
    let mut what = Vec::new();
    if !missing.is_empty() {
        what.push(format!("{} transactions are missing: {missing}", missing.count()));
    }
    if !extra.is_empty() {
        what.push(format!("{} transactions are there that should not be: {extra}", extra.count()));
    }
    Err(Error::new(Kind::Failed, format!("the restore is NOT proven: {}", what.join("; ")))
        .hint("do not use this server; restore anew into an empty place, and keep this one as evidence"))
}

/// Without GTIDs: the applier stands exactly where the plan ends.
async fn prove_position(plan: &Plan, site: &mut dyn Site) -> Result<()> {
    if plan.playlist.is_empty() {
        return Ok(());
    }
    match position(site).await? {
        Some(at) if stands_at(plan, &at) => Ok(()),
        at => {
            let at = at.map_or_else(|| "nowhere".to_owned(), |at| at.to_string());
            Err(Error::new(
                Kind::Failed,
                format!(
                    "the restore is NOT proven: it should end at {}, the server stands at {at}",
                    plan.place.position
                ),
            )
            .hint("do not use this server; restore anew into an empty place, and keep this one as evidence"))
        }
    }
}

/// Whether a position is the plan's end: nothing but events of no transaction may stand between the two.
pub(super) fn stands_at(plan: &Plan, at: &Position) -> bool {
    let end = &plan.place.position;
    // A file without any transaction ends, for a replica, where its events begin.
    let quiet = plan.place.quiet_from.max(FIRST_EVENT)..=end.offset.max(FIRST_EVENT);
    at.file == end.file && quiet.contains(&at.offset)
}

/// How far the server has executed the channel, by the archived server's files.
pub(super) async fn position(site: &mut dyn Site) -> Result<Option<Position>> {
    let words = site.words();
    // Asked for by name, a channel that does not exist would be an error.
    let rows = site.connection()?.query(&words.any_status()).await?;
    let Some(row) = rows.iter().find(|row| row.get("Channel_Name") == Some(CHANNEL)) else { return Ok(None) };
    let file = words.column(row, "Relay_Source_Log_File").and_then(|name| BinlogFile::new(name).ok());
    let offset = words.column(row, "Exec_Source_Log_Pos").and_then(|text| text.parse().ok());
    Ok(file.zip(offset).map(|(file, offset)| Position { file, offset }))
}
