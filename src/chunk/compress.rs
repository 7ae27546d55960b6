//! zstd: raw bytes in frames of bounded size, and back with a bound.
//!
//! A chunk is a run of independent frames: several cores can work on one chunk, each on bytes still in its cache, and
//! `zstd -d` reads frames one behind the other as if they were one.

use zstd::bulk;
use zstd::zstd_safe::CParameter;

use crate::error::{Error, Result};

/// How to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressOptions {
    /// zstd level, -7 to 19.
    pub level: i32,
    /// Window of long-distance matching as a power of two, 20 to 27; `None` switches it off. With it a frame is a
    /// whole chunk and a compressor takes about `2 << window` bytes.
    pub long_window_log: Option<u32>,
}

/// A reusable compressor.
pub struct Compressor {
    context: bulk::Compressor<'static>,
}

impl Compressor {
    /// Prepares one.
    ///
    /// # Errors
    /// If zstd refuses the parameters or has no memory.
    pub fn new(options: CompressOptions) -> Result<Self> {
        let failed = |error: std::io::Error| Error::failed("prepare zstd").source(error);
        let mut context = bulk::Compressor::new(options.level).map_err(failed)?;
        if let Some(window_log) = options.long_window_log {
            context.set_parameter(CParameter::EnableLongDistanceMatching(true)).map_err(failed)?;
            context.set_parameter(CParameter::WindowLog(window_log)).map_err(failed)?;
        }
        // age authenticates every byte; a second checksum would cost and tell nothing.
        context.set_parameter(CParameter::ChecksumFlag(false)).map_err(failed)?;
        Ok(Self { context })
    }

    /// Compresses `raw` into one frame in `out`, which is cleared first.
    ///
    /// # Errors
    /// If zstd fails, which means no memory.
    pub fn frame(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        self.context.compress_to_buffer(raw, out).map_err(|error| Error::failed("compress").source(error))?;
        Ok(())
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}
