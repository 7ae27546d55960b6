//! One error type for the whole program: what failed, why, what to do, and the exit code that says so to scripts.
//!
//! Owns: the kinds, their exit codes, which of them are *definite* (a retry cannot help), and how an error is printed.
//! Does not own: the many inner causes; they travel as `source` and are printed once, at the top.
//!
//! Invariants: `Display` never repeats the source; every definite error carries a hint; exit codes never change meaning.

use std::error::Error as StdError;
use std::fmt;

/// What kind of thing went wrong, from the operator's point of view. The number is the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Anything that has no kind of its own; a retry may help.
    Failed = 1,
    /// The command line or the configuration is wrong: mend it and start again.
    Config = 2,
    /// The MySQL server cannot be reached (unknown host, refused, timed out, connection lost).
    Unreachable = 3,
    /// The server refused the account: wrong password, missing privilege, TLS demanded.
    Refused = 4,
    /// The server cannot be archived as it is configured (no binlog, for example).
    Unfit = 5,
    /// The server no longer has the binlogs that the archive needs next.
    Purged = 6,
    /// The server's history is not the archived one: reset, other incarnation, other server, archive ahead of it.
    Diverged = 7,
    /// Another agent follows this server under the same identity.
    Clash = 8,
    /// The object store refuses or cannot take or give objects: missing bucket, read-only, full.
    Store = 9,
    /// Bytes that are not what they must be: bad checksum or digest, truncated chunk, event that cannot be parsed.
    Corrupt = 10,
    /// No given key opens the object.
    Key = 11,
    /// The archive has a hole, or two different contents for one range.
    Gap = 12,
    /// The archive was written by a newer format than this program understands.
    Format = 13,
}

impl Kind {
    /// Every kind, for the documentation and the tests that hold it against the code.
    pub const ALL: [Kind; 13] = [
        Kind::Failed,
        Kind::Config,
        Kind::Unreachable,
        Kind::Refused,
        Kind::Unfit,
        Kind::Purged,
        Kind::Diverged,
        Kind::Clash,
        Kind::Store,
        Kind::Corrupt,
        Kind::Key,
        Kind::Gap,
        Kind::Format,
    ];

    /// The exit code of a process that ends with this kind of error.
    pub fn exit_code(self) -> u8 {
        self as u8
    }

    /// One line for the table of exit codes.
    pub fn describe(self) -> &'static str {
        match self {
            Kind::Failed => "failed for a reason without a code of its own",
            Kind::Config => "wrong usage or configuration",
            Kind::Unreachable => "the MySQL server cannot be reached",
            Kind::Refused => "the server refuses the account (password, privilege, TLS)",
            Kind::Unfit => "the server cannot be archived as it is configured",
            Kind::Purged => "the server has purged binlogs that were not archived",
            Kind::Diverged => "the server's history is not the archived one",
            Kind::Clash => "another agent uses the same identity",
            Kind::Store => "the object store refuses or is full",
            Kind::Corrupt => "stored or received bytes are damaged",
            Kind::Key => "no given key opens the object",
            Kind::Gap => "the archive has a gap or a fork",
            Kind::Format => "the archive's format is newer than this program",
        }
    }

    /// Whether starting again can help without somebody mending something first.
    fn retryable(self) -> bool {
        match self {
            Kind::Failed | Kind::Unreachable => true,
            Kind::Config
            | Kind::Refused
            | Kind::Unfit
            | Kind::Purged
            | Kind::Diverged
            | Kind::Clash
            | Kind::Store
            | Kind::Corrupt
            | Kind::Key
            | Kind::Gap
            | Kind::Format => false,
        }
    }
}

/// An error with a kind, a message, perhaps a hint, and perhaps a cause.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    retryable: bool,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result type of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`. Whether it is retryable follows from the kind, see [`Error::transient`].
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, retryable: kind.retryable(), message: message.into(), hint: None, source: None }))
    }

    /// Shorthand for [`Kind::Failed`].
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Shorthand for [`Kind::Config`].
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Kind::Config, message)
    }

    /// Shorthand for [`Kind::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }

    /// Adds what the operator should do. Shown after `HINT:`.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says that a retry may help although the kind alone would not say so (a throttled store, a full disk).
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.0.retryable = true;
        self
    }

    /// Says that a retry cannot help.
    #[must_use]
    pub fn definite(mut self) -> Self {
        self.0.retryable = false;
        self
    }

    /// Wraps this error: `message` says what was being done; kind, hint and retry class stay.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        let (kind, retryable) = (self.0.kind, self.0.retryable);
        Self(Box::new(Inner { kind, retryable, message: message.into(), hint: None, source: Some(Box::new(self)) }))
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether trying again, unchanged, may succeed.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The hint of this error or, if it has none, of the nearest cause that has one.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref().or_else(|| {
            let source: &(dyn StdError + 'static) = self.0.source.as_deref()?;
            source.downcast_ref::<Error>()?.hint_text()
        })
    }

    /// The whole chain on one line, `a: b: c`, without repeating a text that its parent already ends in.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = StdError::source(self);
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.chain())?;
        match self.hint_text() {
            Some(hint) => write!(f, " (HINT: {hint})"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Adds "while doing what" to results.
pub trait Context<T> {
    /// Wraps the error: `message` says, in the present tense, what was being done and on which object.
    fn context(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for Result<T, Error> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.context(message()))
    }
}

impl<T> Context<T> for Result<T, std::io::Error> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::failed(message()).source(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_says_each_thing_once() {
        let error = Error::failed("read the header").source(std::io::Error::other("disk gone")).context("open chunk 7");
        assert_eq!(error.chain(), "open chunk 7: read the header: disk gone");
    }

    #[test]
    fn context_keeps_kind_hint_and_retry_class() {
        let error = Error::new(Kind::Store, "no room").hint("make room").transient().context("put chunk 7");
        assert_eq!(error.kind(), Kind::Store);
        assert!(error.is_retryable());
        assert_eq!(error.hint_text(), Some("make room"));
    }

    #[test]
    fn exit_codes_are_unique_and_stable() {
        let codes: Vec<u8> = Kind::ALL.iter().map(|kind| kind.exit_code()).collect();
        assert_eq!(codes, (1..=13).collect::<Vec<u8>>());
    }
}
