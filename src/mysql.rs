//! What MySQL says: the client side of its protocol, in the role of a replica and of an ordinary client.
//!
//! Owns: framing ([`packet`]), TLS ([`tls`]), login ([`auth`], [`connect`]), plain questions ([`query`], [`facts`]),
//! the replica's words before the dump ([`replica`]), the stream behind it ([`dump`], [`event`]), its acknowledgement
//! ([`semi_sync`]), the same events as they lie in a file ([`walk`]) and what they do to tables ([`rows`]), and the protocol
//! by which a server gives its files away ([`clone`]); which of a cluster's servers takes writes ([`members`]). Does not own: when to connect, how often, or what to do with an
//! answer; that is decided above.
//!
//! Invariants: a password never leaves in clear but over TLS or a unix socket; every answer is bounded in bytes and
//! in time; bytes of the peer are parsed without panics.

pub mod auth;
pub mod clone;
pub mod connect;
pub mod dump;
mod dump_error;
pub mod event;
pub mod facts;
pub mod fault;
pub mod members;
pub mod packet;
pub mod query;
pub mod replica;
pub mod rows;
pub mod semi_sync;
pub mod source;
pub mod stream;
pub mod tls;
pub mod version;
pub mod walk;
mod wire;

pub use connect::{Connection, RawStream, SourceOptions};
pub use fault::{ServerError, server_code};
pub use query::Row;
pub use stream::Address;
pub use tls::{TlsMode, TlsOptions};
pub use version::Version;
