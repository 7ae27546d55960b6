//! Where a snapshot stands, by the notes that it has in itself. Pure.
//!
//! Near its end the donor notes with each commit where in the binlog this transaction ends, and once, by itself, where the
//! binlog ends. That one note may be *ahead*: transactions that are in the binlog already, and not committed yet, are before
//! it; the snapshot may end before they commit. And it may be *late*, and repeat what was noted a few commits before. What the
//! donor's recovered copy says is the last note, whichever it is.
//!
//! Owns: which note is believed, and how far. Does not own: finding notes (`mysql::clone::trx_sys`), the binlog (`prove`).
//!
//! Invariants: every transaction that ends at or before `since` is in the snapshot, and none that ends behind `until`;
//! where the notes leave no doubt, the position is exact.

use crate::error::{Error, Result};
use crate::mysql::clone::trx_sys::Notes;
use crate::position::Position;

/// Where a snapshot stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// What the donor's copy will say.
    pub(super) position: Position,
    /// Between here and the binlog's end behind the snapshot notes do not prove which transactions are in it: with GTIDs,
    /// InnoDB itself tells it.
    pub(super) since: Position,
    /// Whether the notes leave no doubt all the same.
    pub(super) told: bool,
}

impl Standing {
    /// Reads the notes, of which none can be before the binlog's end while pages were copied, `from`, nor behind its end
    /// afterwards, `until`.
    ///
    /// # Errors
    /// If no note is there, though the binlog went on meanwhile.
    pub(super) fn of(notes: &Notes, from: &Position, until: &Position) -> Result<Self> {
        let fits = |note: &&Position| (from..=until).contains(note);
        let in_redo: Vec<&Position> = notes.in_redo.iter().filter(fits).collect();
        // Nothing was written meanwhile: there is one place only, and nothing is on its way.
        if from == until {
            return Ok(Self { position: from.clone(), since: from.clone(), told: true });
        }
        let Some(last) = in_redo.last().copied().or_else(|| notes.in_page.as_ref().filter(fits)) else {
            let newest = notes.in_redo.last().or(notes.in_page.as_ref());
            let newest = newest.map_or_else(|| "none".to_owned(), ToString::to_string);
            return Err(Error::failed(format!(
                "the clone's binlog position is not to be found between {from} and {until} (last: {newest})"
            ))
            .hint(
                "please report it; until it is mended, another engine takes base backups of this server (base.engine)",
            ));
        };
        let below = in_redo.iter().copied().filter(|note| *note < last).max();
        Ok(Self { position: last.clone(), since: below.unwrap_or(from).clone(), told: is_told(&in_redo) })
    }
}

/// Whether the donor's own note stands beside the one of the commit that it repeats, and all the others are of commits: then
/// the last one is of a commit, or repeats the last commit's.
fn is_told(notes: &[&Position]) -> bool {
    let pairs = || notes.iter().zip(notes.iter().skip(1));
    pairs().all(|(one, next)| one <= next) && pairs().filter(|(one, next)| one == next).count() == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::BinlogFile;

    fn at(offset: u64) -> Position {
        Position { file: BinlogFile::new("binlog.000003").unwrap(), offset }
    }

    /// Position, since, told.
    fn found(notes: &[u64], from: u64, until: u64) -> Option<(u64, u64, bool)> {
        let notes = Notes { in_page: Some(at(100)), in_redo: notes.iter().map(|offset| at(*offset)).collect() };
        let standing = Standing::of(&notes, &at(from), &at(until)).ok()?;
        Some((standing.position.offset, standing.since.offset, standing.told))
    }

    #[test]
    fn the_last_note_within_the_bounds_is_the_position() {
        assert_eq!(found(&[200, 300], 150, 350), Some((300, 200, false)));
        assert_eq!(found(&[200, 900], 150, 350), Some((200, 150, false)), "what looks like a note is none");
        assert_eq!(found(&[], 150, 150), Some((150, 150, true)), "nothing was written");
        assert_eq!(found(&[120, 150], 150, 150), Some((150, 150, true)));
        assert_eq!(found(&[], 90, 350), Some((100, 90, false)), "the page has one");
        assert_eq!(found(&[900], 150, 350), None);
    }

    #[test]
    fn a_note_that_is_repeated_beside_itself_is_the_donors_own() {
        assert_eq!(found(&[200, 250, 300, 300], 150, 350), Some((300, 250, true)));
        assert_eq!(found(&[200, 200, 250, 300], 150, 350), Some((300, 250, true)));
        assert_eq!(found(&[200, 300, 250, 300, 310], 150, 350), Some((310, 300, false)), "it was ahead");
        assert_eq!(found(&[200, 300, 250], 150, 350), Some((250, 200, false)), "it was ahead, and of no commit");
        assert_eq!(found(&[200, 250, 300, 250], 150, 350), Some((250, 200, false)), "it is late");
        assert_eq!(found(&[200, 200, 250, 250], 150, 350), Some((250, 200, false)), "one note too many");
    }
}
