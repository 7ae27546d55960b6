//! TABLE_MAP: which table the row events behind it speak of, and how long its values are.

use crate::mysql::wire::Reader;

/// A table as a TABLE_MAP event describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMap {
    /// Number by which the row events name it.
    pub id: u64,
    /// Its database.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// How long each column's values are.
    pub(super) columns: Vec<Width>,
    /// How many columns are JSON: partial updates have a bit for each.
    pub(super) json_columns: usize,
}

/// How long a column's value is in a row image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// So many bytes.
    Fixed(u16),
    /// A length of so many bytes (1 to 4) stands before it.
    Prefixed(u8),
    /// Of a type that this program does not know.
    Unknown,
}

impl TableMap {
    /// Reads the body: table id, flags, database, name, column types, their metadata.
    ///
    /// `None` if it is cut short.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let (id, _flags) = (reader.u48()?, reader.u16()?);
        let schema = name(&mut reader)?;
        let table = name(&mut reader)?;
        let count = usize::try_from(reader.lenenc()?).ok()?;
        let types = reader.bytes(count)?;
        let mut metadata = Reader(reader.lenenc_bytes()?);
        let mut columns = Vec::with_capacity(types.len());
        let mut json_columns = 0_usize;
        for kind in types {
            json_columns = json_columns.saturating_add(usize::from(*kind == JSON));
            columns.push(width(*kind, &mut metadata)?);
        }
        Some(Self { id, schema, table, columns, json_columns })
    }
}

/// A length, the name, a zero byte.
fn name(reader: &mut Reader<'_>) -> Option<String> {
    let text = String::from_utf8_lossy(reader.lenenc_bytes()?).into_owned();
    if reader.u8()? == 0 { Some(text) } else { None }
}

const JSON: u8 = 245;

/// A column's width by its type and metadata, as the server's `Field::pack` writes values.
fn width(kind: u8, metadata: &mut Reader<'_>) -> Option<Width> {
    use Width::{Fixed, Prefixed};

    Some(match kind {
        // TINY, YEAR | SHORT | INT24, DATE, TIME, NEWDATE | LONG, TIMESTAMP | LONGLONG, DATETIME | NULL
        1 | 13 => Fixed(1),
        2 => Fixed(2),
        9..=11 | 14 => Fixed(3),
        3 | 7 => Fixed(4),
        8 | 12 => Fixed(8),
        6 => Fixed(0),
        // FLOAT, DOUBLE: the metadata is their size.
        4 | 5 => Fixed(u16::from(metadata.u8()?)),
        // VARCHAR: the longest there may be, in bytes.
        15 => Prefixed(if metadata.u16()? > 255 { 2 } else { 1 }),
        // BIT: bits behind the last whole byte, whole bytes.
        16 => {
            let (bits, bytes) = (metadata.u8()?, metadata.u8()?);
            Fixed(u16::from(bytes).saturating_add(u16::from(bits > 0)))
        }
        // TIMESTAMP2, DATETIME2, TIME2: two decimals a byte behind the whole seconds.
        17 => Fixed(fraction(metadata, 4)?),
        18 => Fixed(fraction(metadata, 5)?),
        19 => Fixed(fraction(metadata, 3)?),
        // TYPED_ARRAY: its elements' type and that one's metadata; never stored in tables, so never in rows.
        20 => Width::Unknown,
        // The BLOBs, GEOMETRY, JSON, VECTOR: the metadata is the size of the length.
        242 | JSON | 249..=252 | 255 => match metadata.u8()? {
            bytes @ 1..=4 => Prefixed(bytes),
            _ => Width::Unknown,
        },
        246 => {
            let (precision, scale) = (metadata.u8()?, metadata.u8()?);
            decimal(precision, scale)
        }
        247 | 248 => Fixed(u16::from(pair(metadata)?.1)),
        // CHAR, BINARY, ENUM, SET: the real type, with two bits of the length in it.
        254 => match pair(metadata)? {
            (247 | 248, size) => Fixed(u16::from(size)),
            (real, low) => {
                let high = u16::from((real & 0x30) ^ 0x30) << 4;
                Prefixed(if high | u16::from(low) > 255 { 2 } else { 1 })
            }
        },
        _ => Width::Unknown,
    })
}

fn pair(metadata: &mut Reader<'_>) -> Option<(u8, u8)> {
    Some((metadata.u8()?, metadata.u8()?))
}

fn fraction(metadata: &mut Reader<'_>, whole: u16) -> Option<u16> {
    let decimals = u16::from(metadata.u8()?.min(6));
    Some(whole.saturating_add(decimals.div_ceil(2)))
}

/// Nine digits in four bytes, on either side of the point; the rest in as few as they need.
fn decimal(precision: u8, scale: u8) -> Width {
    let side = |digits: u8| u16::from(digits / 9).saturating_mul(4).saturating_add(u16::from(digits % 9).div_ceil(2));
    match precision.checked_sub(scale) {
        Some(whole) => Width::Fixed(side(whole).saturating_add(side(scale))),
        None => Width::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_packed_nine_digits_in_four_bytes() {
        for (precision, scale, bytes) in [(14, 4, 7), (10, 0, 5), (65, 30, 30), (5, 0, 3), (9, 9, 4), (18, 9, 8)] {
            assert_eq!(decimal(precision, scale), Width::Fixed(bytes), "DECIMAL({precision},{scale})");
        }
        assert_eq!(decimal(2, 3), Width::Unknown);
    }
}
