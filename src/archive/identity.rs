//! `binvault.json`: says that this is an archive, of which format, and which one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::chunk::{FORMAT_VERSION, read_document};
use crate::clock;
use crate::error::{Context, Error, Kind, Result};
use crate::position::CommitTime;
use crate::store::{self, SharedStore};

const NAME: &str = "binvault.json";
const BYTES_MAX: u64 = 64 << 10;

/// The content of `binvault.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The archive's format version.
    pub format: u32,
    /// The archive's id: chunks carry it, agents derive their uuid from it.
    pub archive: Uuid,
    /// When it was made, RFC 3339 UTC.
    pub created: String,
}

pub(super) async fn open(store: &SharedStore, create: bool) -> Result<Identity> {
    if let Some(identity) = read(store).await? {
        return Ok(identity);
    }
    if !create {
        return Err(Error::config(format!("there is no archive at {}", store.url()))
            .hint("correct archive.url, or start `binvault run`, which makes the archive"));
    }
    let created = CommitTime::from_micros(clock::now_us()).rfc3339();
    let identity = Identity { format: FORMAT_VERSION, archive: Uuid::new_v4(), created };
    let json = serde_json::to_vec_pretty(&identity).map_err(|e| Error::failed("write binvault.json").source(e))?;
    // Two agents may start at once: the first to write wins, both go by what is there.
    store
        .put_new(&super::key(NAME.into())?, Bytes::from(json))
        .await
        .map_err(Error::from)
        .context(|| format!("make a new archive at {}", store.url()))?;
    read(store).await?.ok_or_else(|| {
        Error::new(Kind::Store, format!("{NAME} was written to {}, but cannot be read back", store.url()))
    })
}

async fn read(store: &SharedStore) -> Result<Option<Identity>> {
    let body = match store::get_all(store.as_ref(), &super::key(NAME.into())?, BYTES_MAX).await {
        Ok(body) => body,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(Error::from(error).context(format!("open the archive at {}", store.url()))),
    };
    read_document(NAME, &body).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_archive_is_refused_politely() {
        let decode = |json: &[u8]| read_document::<Identity>(NAME, json);
        let error = decode(br#"{"format":2,"everything":"else"}"#).unwrap_err();
        assert_eq!(error.kind(), Kind::Format);
        assert_eq!(decode(b"{}").unwrap_err().kind(), Kind::Corrupt);
    }
}
