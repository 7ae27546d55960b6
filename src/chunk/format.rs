//! The version of the archive's format, and reading the JSON documents that bear it.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};

/// The format this program writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Reads a document whose field `format` says how the rest is to be understood. `what` names it in errors.
///
/// # Errors
/// [`Kind::Format`] for a newer format, whatever else stands in it; [`Kind::Corrupt`] for anything that does not fit.
pub(crate) fn read_document<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let wrong = |error| Error::corrupt(format!("{what} cannot be read")).source(error);
    let version: Version = serde_json::from_slice(json).map_err(wrong)?;
    if version.format > FORMAT_VERSION {
        return Err(Error::new(
            Kind::Format,
            format!("{what} has archive format {}; this program reads up to {FORMAT_VERSION}", version.format),
        )
        .hint("use a newer binvault"));
    }
    serde_json::from_slice(json).map_err(wrong)
}
