//! Row events: what they do, and to how many rows. Values are stepped over, never looked at.

use super::table_map::{TableMap, Width};
use crate::mysql::wire::Reader;

/// What a row event does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowAction {
    /// INSERT (and REPLACE of nothing).
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
}

/// Row events of MySQL 5.1 to 5.5 (23 to 25), those since 5.6 (30 to 32), and the one with partial JSON values (39).
const UPDATE_V1: u8 = 24;
const UPDATE_V2: u8 = 31;
const PARTIAL_UPDATE: u8 = 39;

/// What events of a type do to rows; `None` if they are no row events.
pub(super) fn action(kind: u8) -> Option<RowAction> {
    match kind {
        23 | 30 => Some(RowAction::Insert),
        UPDATE_V1 | UPDATE_V2 | PARTIAL_UPDATE => Some(RowAction::Update),
        25 | 32 => Some(RowAction::Delete),
        _ => None,
    }
}

/// A row event, its head read.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowsEvent<'a> {
    /// Which table, by the number of its TABLE_MAP.
    pub(super) table_id: u64,
    /// Whether the statement ends with it: the tables mapped before are done with.
    pub(super) ends_statement: bool,
    kind: u8,
    columns: usize,
    /// Which columns the images have, a bit each: before (or only) and after.
    before: &'a [u8],
    after: &'a [u8],
    rows: &'a [u8],
}

impl<'a> RowsEvent<'a> {
    /// Reads the head of a body; `None` if it is cut short.
    pub(super) fn parse(kind: u8, body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let (table_id, flags) = (reader.u48()?, reader.u16()?);
        if kind >= 30 {
            // Extra data, its own length included.
            let extra = reader.u16()?.checked_sub(2)?;
            reader.bytes(usize::from(extra))?;
        }
        let columns = usize::try_from(reader.lenenc()?).ok()?;
        let before = reader.bytes(columns.div_ceil(8))?;
        let two = matches!(kind, UPDATE_V1 | UPDATE_V2 | PARTIAL_UPDATE);
        let after = if two { reader.bytes(columns.div_ceil(8))? } else { &[] };
        Some(Self { table_id, ends_statement: flags & 1 != 0, kind, columns, before, after, rows: reader.0 })
    }

    /// Whether there are no rows in it.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Counts the rows; `None` if the images do not fit the table, or it has a type that this program does not know.
    pub(super) fn count(&self, table: &TableMap) -> Option<u64> {
        if self.columns > table.columns.len() {
            return None;
        }
        let widths = table.columns.get(..self.columns)?;
        let images = [Image::of(widths, self.before), Image::of(widths, self.after)];
        let images = if self.after.is_empty() { images.get(..1)? } else { &images };
        let partial_bytes = (self.kind == PARTIAL_UPDATE).then(|| table.json_columns.div_ceil(8));
        let mut reader = Reader(self.rows);
        let mut rows = 0_u64;
        while !reader.is_empty() {
            let left = reader.0.len();
            for (number, image) in images.iter().enumerate() {
                if let Some(partial) = partial_bytes.filter(|_| number == 1)
                    && reader.lenenc()? & 1 != 0
                {
                    reader.bytes(partial)?;
                }
                image.skip(&mut reader)?;
            }
            // A row of nothing would never end.
            if reader.0.len() == left {
                return None;
            }
            rows = rows.saturating_add(1);
        }
        Some(rows)
    }
}

/// Which columns an image has.
#[derive(Debug)]
struct Image<'a> {
    widths: &'a [Width],
    present: &'a [u8],
    count: usize,
}

impl<'a> Image<'a> {
    fn of(widths: &'a [Width], present: &'a [u8]) -> Self {
        // Not by counting ones: the server leaves the bits behind the last column set.
        let count = (0..widths.len()).filter(|column| bit(present, *column)).count();
        Self { widths, present, count }
    }

    /// Steps over one row image: a bit for each column that it has (set: NULL), then the values.
    fn skip(&self, reader: &mut Reader<'_>) -> Option<()> {
        let nulls = reader.bytes(self.count.div_ceil(8))?;
        let mut number = 0_usize;
        for (column, width) in self.widths.iter().enumerate() {
            if !bit(self.present, column) {
                continue;
            }
            let null = bit(nulls, number);
            number = number.saturating_add(1);
            if null {
                continue;
            }
            let length = match width {
                Width::Fixed(bytes) => usize::from(*bytes),
                Width::Prefixed(1) => usize::from(reader.u8()?),
                Width::Prefixed(2) => usize::from(reader.u16()?),
                Width::Prefixed(bytes) => {
                    let length = reader.bytes(usize::from(*bytes))?;
                    length.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
                }
                Width::Unknown => return None,
            };
            reader.bytes(length)?;
        }
        Some(())
    }
}

fn bit(bits: &[u8], number: usize) -> bool {
    bits.get(number / 8).is_some_and(|byte| byte >> (number % 8) & 1 == 1)
}
