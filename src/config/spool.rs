//! `[spool]`: a folder in front of the store.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Config;
use super::semi_sync::SemiSyncMode;
use super::values::{Size, de};
use crate::archive::chunk_spool;
use crate::error::{Error, Result};
use crate::store::spool::SpoolOptions;

/// `[spool]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawSpool {
    /// The folder; without one there is no spool.
    pub dir: Option<PathBuf>,
    /// Most bytes in it.
    pub max_size: Size,
    /// Most objects in it.
    #[serde(deserialize_with = "de::number")]
    pub max_chunks: usize,
}

impl Default for RawSpool {
    fn default() -> Self {
        Self { dir: None, max_size: Size::mebibytes(4096), max_chunks: 20_000 }
    }
}

/// An object is at most so much larger than the raw bytes in it.
const OBJECT_ROOM_BYTES: u64 = 128 << 10;
/// Pieces may take an eighth of the room: as many bytes as there are chunks on their way must fit there.
const ROOM_TIMES: u64 = 8;

impl Config {
    /// The configured folder, whatever else is configured.
    pub fn spool_dir(&self) -> Option<&Path> {
        self.raw.spool.dir.as_deref()
    }

    /// The spool, if one is configured.
    ///
    /// # Errors
    /// If a value is out of range, or does not go with `semi_sync.mode`.
    pub fn spool(&self) -> Result<Option<SpoolOptions>> {
        let RawSpool { dir, max_size, max_chunks } = &self.raw.spool;
        let mode = self.raw.semi_sync.mode;
        let Some(dir) = dir else {
            if mode == SemiSyncMode::Spool {
                return Err(Error::config("semi_sync.mode is \"spool\", but no spool is configured")
                    .hint("set spool.dir = \"/var/spool/binvault\" (on another host than the database's)"));
            }
            return Ok(None);
        };
        if mode == SemiSyncMode::Store {
            return Err(Error::config(
                "semi_sync.mode is \"store\", but spool.dir is set: chunks would be called durable in the spool",
            )
            .hint("set semi_sync.mode = \"spool\", or leave spool.dir out"));
        }
        if !dir.is_absolute() {
            return Err(Error::config(format!("spool.dir {} is no absolute path", dir.display())));
        }
        let ship = self.ship()?;
        let on_way = u64::try_from(ship.uploads).unwrap_or(u64::MAX).saturating_add(4);
        let least =
            on_way.saturating_mul(ship.chunk_bytes.saturating_add(OBJECT_ROOM_BYTES)).saturating_mul(ROOM_TIMES);
        if max_size.get() < least {
            return Err(Error::config(format!("spool.max_size is less than {} MiB", least.div_ceil(1 << 20)))
                .hint("it must hold 8 x (agent.uploads + 4) x (agent.chunk_size + 128 KiB)"));
        }
        if *max_chunks < 1000 {
            return Err(Error::config("spool.max_chunks is less than 1000"));
        }
        Ok(Some(chunk_spool(dir.clone(), max_size.get(), *max_chunks)))
    }
}
