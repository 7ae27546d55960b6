//! What we store: a chunk is `age( zstd( raw binlog bytes ) )`, with its metadata in the age header. Pure: no I/O, no await.
//!
//! ```text
//!   age-encryption.org/v1
//!   -> X25519 …                     one stanza a recipient (private keys needed to open)
//!   -> binvault-chunk 1             our stanza: JSON metadata, readable without a key, covered by the MAC
//!   --- MAC
//!   payload: zstd frames, one behind the other, of exactly the raw bytes start..end
//! ```
//!
//! The parts of a base backup are wrapped in the same way, with a stanza `binvault-base` ([`part`]).
//!
//! Owns: metadata, names, sealing and opening, keys. The format is drawn in `docs/FORMAT.md`.
//! Does not own: where objects live (`store`), which of them make a file (`archive`), when a chunk is cut (`ship`).
//!
//! Invariants: stock `age -d | zstd -d` gives the raw bytes; an opened chunk has exactly the bytes its name and
//! metadata promise or is an error; nothing of the data, and no digest of it, is in the clear.

pub mod compress;
mod envelope;
mod format;
pub mod keys;
mod meta;
mod name;
mod open;
pub mod part;
mod seal;
#[cfg(test)]
mod tests;

pub use format::FORMAT_VERSION;
pub(crate) use format::read_document;
pub use meta::{ChunkMeta, Close, Executed, Link, OpenTransaction};
pub use name::{ChunkName, DIGEST_HEX, digest_hex};
pub use open::{HeaderRead, OpenedChunk, read_header};
pub use seal::{Sealed, seal};

/// Most raw bytes a chunk may hold. Chunks are cut far below; the bound protects readers.
pub const CHUNK_BYTES_MAX: u64 = 1 << 30;
/// Most bytes a chunk object may have: raw bytes that do not compress, and room for the header.
pub const OBJECT_BYTES_MAX: u64 = CHUNK_BYTES_MAX + (64 << 20);
/// Longest age header read, in bytes: a GTID set of that size is a server in deep trouble.
pub const HEADER_BYTES_MAX: u64 = 16 << 20;
