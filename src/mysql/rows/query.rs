//! Events that carry a statement's text: QUERY and EXECUTE_LOAD_QUERY.

use std::borrow::Cow;

use crate::mysql::wire::Reader;

/// A statement as it stands in the binlog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// The default database; empty if there was none.
    pub schema: Cow<'a, str>,
    /// The text, in the client's character set.
    pub text: &'a [u8],
    /// Whether the text is only a beginning: the event is larger than what was held of it.
    pub cut: bool,
}

impl<'a> Query<'a> {
    /// Reads the body of a QUERY event, or of an EXECUTE_LOAD_QUERY event (`load`). `None` if it is cut short.
    ///
    /// Thread u32, seconds u32, length of the database's name u8, error u16, length of the variables u16 | for LOAD DATA:
    /// file id u32, two offsets u32, duplicates u8 | variables, database, 0, text.
    pub(super) fn parse(body: &'a [u8], load: bool, cut: bool) -> Option<Self> {
        let mut reader = Reader(body);
        reader.bytes(8)?;
        let schema = usize::from(reader.u8()?);
        let (_error, variables) = (reader.u16()?, usize::from(reader.u16()?));
        reader.bytes(variables.saturating_add(if load { 13 } else { 0 }))?;
        let schema = String::from_utf8_lossy(reader.bytes(schema)?);
        if reader.u8()? != 0 {
            return None;
        }
        Some(Self { schema, text: reader.0, cut })
    }
}

/// A statement's text for people: UTF-8, or, where it is none, Latin 1, which any bytes are.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        // Cut between the bytes of one character.
        Err(error) if error.error_len().is_none() => {
            String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or(&[]))
        }
        Err(_) => Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect()),
    }
}
