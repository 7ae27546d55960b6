//! MySQL's CLONE protocol, the recipient's side: what is said, and how the snapshot is described in it.
//!
//! Owns: the messages (`packet`), InnoDB's descriptors in them (`descriptor`), the framing in which a base backup keeps the
//! donor's answers (`record`), and the snapshot's own binlog position (`trx_sys`). Does not own: when what is sent (`base`),
//! and what becomes of it (`restore`).
//!
//! All of it is pure. The facts were found on a live 9.7 unless a field says otherwise; docs/clone-protocol.md has them
//! in one piece.

pub mod descriptor;
pub mod packet;
pub mod record;
pub mod trx_sys;

/// The number of InnoDB among the storage engines; only its data is cloned.
pub const INNODB: u8 = 12;

/// The largest message that is taken, in bytes. A donor sends 64 pages at a time: 4 MiB with the largest pages.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
