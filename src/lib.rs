//! binvault archives a live MySQL, encrypted, into an object store, and brings it back to any moment, proven.
//!
//! This page is the architecture: the roads, the rooms, and the promises with the test that guards each.
//!
//! # The roads
//!
//! ```text
//!   MySQL ─► mysql::dump ─► ship::receive ─► ship::cut ─► ship::seal ─► ship::upload ─► ship::commit ─► durable
//!            checked         socket,          frames of     zstd + age    several at      in order        position
//!            event pieces    timers           chunks        2 threads     a time
//!
//!   server's own files ◄─ export ◄──────┐
//!                                       ├─ chunk::OpenedChunk ◄─ archive::reader ◄─ archive (listing → ranges) ◄─ store
//!   mysqld ◄─ mysql::source ◄─ playback ┘       ▲ in order,        in parallel,
//!   its own applier            restore, serve   │ exact bytes      bounded
//!                                               └ timeline: which history, up to where, from which base backup
//!
//!   CLONE protocol, mysqldump, or any command ─► base ─► parts: zstd + age ─► store, the manifest last
//! ```
//!
//! A byte's way in: [`mysql::dump`] splits the socket's bytes into pieces of events and checks each CRC32;
//! [`ship`]'s cutter puts them, unchanged, into frames of a chunk and writes down what the chunk holds; the sealer
//! compresses frames on several threads and encrypts the chunk; uploads run in parallel, the commit follows their order;
//! only then does the durable position move. A byte's way out: [`archive`] turns the listing into ranges, [`chunk`]
//! opens objects, [`export`] writes files. To bring a server back, [`timeline`] plans (head, base backup, files, the place to
//! stop), [`restore`] puts the base back and lets the server follow [`playback`], which is a replication source with exactly
//! the planned transactions; in the end what was executed is held against the plan.
//!
//! # The rooms, from the top
//!
//! | room | owns |
//! |---|---|
//! | [`cli`] | arguments, output, exit codes, signals |
//! | [`run`], [`check`], [`export`], [`serve`], [`find`], [`drill`] | one command's work each; they never use one another |
//! | [`status`], [`verify`] | the same for two that `run` does, too |
//! | [`observe`], [`objective`] | metrics, health and the status page over HTTP, what is wrong and what to do; RPO and RTO held against what was measured |
//! | [`config`] | settings, their defaults, where secrets come from |
//! | [`retention`] | what nobody needs any more: the policy, and removing it |
//! | [`notify`] | messages to a web hook |
//! | [`base`] | base backups: engines, exact coordinates, the pump to the store, the schedule |
//! | [`restore`] | the restoring server from its first start to the proof |
//! | [`ship`] | MySQL → store: one generation of the pipeline |
//! | [`timeline`] | which histories there are, where a target is in one, what must be played to reach it |
//! | [`playback`] | the archive as a replication source: what is sent to whom |
//! | [`archive`] | what is durable: files, ranges, gaps, the resume point, beacons, base backups, drills |
//! | [`chunk`] | the stored format: names, metadata, sealing and opening; pure |
//! | [`store`] | named immutable objects in a folder, in S3, in memory |
//! | [`mysql`] | what MySQL says, as its client, its replica and its source: login, queries, the dump, events, rows |
//! | [`retry`], [`clock`], [`schedule`], [`threads`], [`simulation`], [`position`], [`error`] | the ground floor |
//!
//! Imports run downward only, siblings never import each other; `tests/layering.rs` holds the sources to it, and to the
//! sizes of files and functions. Whatever decodes bytes of a server, a client, a store or a person has a door in `fuzzing`:
//! `tests/corpora` feeds it what real ones said and what becomes of that by chance, `make fuzz` looks for more.
//!
//! # The promises, and what fails if one is broken
//!
//! 1. **Byte identity**: what is exported is the server's closed file, byte for byte (`tests/archive`: every kind of
//!    workload, compared with the server's own files).
//! 2. **Durable means stored**: the durable position moves over contiguous chunks that the store has acknowledged
//!    (`ship::commit`; `make soak-kill` kills the agent at each stage and compares).
//!    An acknowledgement to a semi-synchronous source is sent for it alone (`ship::acknowledge`; `tests/semi_sync` destroys
//!    the source and looks for every commit that had returned).
//! 3. **No local state**: the resume point comes from the archive alone (`archive::resume`; the kill tests start from it).
//!    A spool, where there is one, is part of the archive that has not reached the store yet (`store::spool`; `tests/semi_sync`
//!    kills agent and server, and drains it).
//! 4. **Immutable objects**: a chunk's name ends in the digest of its bytes; nothing is overwritten but beacons
//!    (`tests/store_conformance`).
//! 5. **The database host cannot read the history**: it has public keys only (`chunk::keys`; the tests of wrong keys).
//! 6. **No lock-in**: `age -d | zstd -d` gives the bytes (`tests/archive`, with the stock tools).
//! 7. **A gap is loud**: a hole or a missing tail shows in `status` and fails `verify` and `export` (`tests/trouble`).
//! 8. **One line of history**: a restore plays the transactions of one head only (`timeline`; `tests/restore/branches.rs`
//!    drops a table, restores to before it, goes on, and restores `latest`).
//! 9. **A restore is proven or it failed** (`restore::prove`; `tests/restore` compares each with what stock
//!    `mysqlbinlog | mysql` makes of the source's own files).
//! 10. **Bounded**: all bytes between the stages live in lent buffers with a budget (`ship::buffers`; the memory tests
//!     send transactions many times larger).
//!
//! Beside those, `tests/sim` lives through thousands of histories in which everything goes wrong, each a function of one
//! seed: the real [`run`] and all below it on one thread, against models of a MySQL server and of an object store, with
//! simulated time. Every byte, every word about durability, every acknowledgement, every reason to give up and every
//! restore plan is held against the model; a failing seed is printed with the command that shows it. `make soak-sim` takes
//! 10,000 of them. [`simulation`] is where the product lets it in, and where bugs are planted to prove that they are seen.
//! `tests/chaos` does the like with the real program, a real server and a real S3 server, under load (`make soak-chaos`).

pub mod archive;
pub mod base;
pub mod check;
pub mod chunk;
pub mod cli;
pub mod clock;
pub mod config;
pub mod drill;
pub mod error;
pub mod export;
pub mod find;
#[doc(hidden)]
pub mod fuzzing;
pub mod mysql;
pub mod notify;
pub mod objective;
pub mod observe;
pub mod playback;
pub mod position;
pub mod restore;
pub mod retention;
pub mod retry;
pub mod run;
pub mod schedule;
pub mod serve;
pub mod ship;
pub mod simulation;
pub mod status;
pub mod store;
pub mod threads;
pub mod timeline;
pub mod verify;
