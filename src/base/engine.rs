//! The seam between taking a base backup and what writes it.
//!
//! An engine starts a backup; the backup is a stream of bytes that is read to its end, and then tells where in the
//! server's history it stands. A new engine implements [`Engine`] and [`Running`], and nothing else changes.

use async_trait::async_trait;

use super::options::BaseOptions;
use crate::archive::{BaseContent, CloneFacts, Coordinates};
use crate::error::Error;
use crate::mysql::facts::ServerFacts;
use crate::mysql::{Connection, SourceOptions};

/// Where and of what the backup is.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) source: &'a SourceOptions,
    pub(super) facts: &'a ServerFacts,
    pub(super) options: &'a BaseOptions,
}

/// Something that can take a base backup.
#[async_trait]
pub(super) trait Engine: Send + Sync {
    /// What its bytes are.
    fn content(&self) -> BaseContent;

    /// The tool, as it names itself.
    ///
    /// # Errors
    /// If it is not there or cannot be used.
    async fn tool(&self) -> Result<String, Error>;

    /// What it leaves out on purpose, of this server.
    ///
    /// # Errors
    /// Those of asking.
    async fn left_out(&self, asked: &mut Connection) -> Result<Vec<String>, Error>;

    /// Settings to be kept, beside those of every backup.
    fn settings(&self) -> &'static [&'static str] {
        &[]
    }

    /// The most parts on their way to the store, whatever is configured: their bytes are in memory.
    fn uploads_max(&self) -> usize {
        usize::MAX
    }

    /// Starts a backup.
    async fn start(&self, site: &Site<'_>) -> Result<Box<dyn Running>, Trouble>;

    /// Called once after each start, however it went, when what it started has ended.
    async fn clean_up(&self, source: &SourceOptions);
}

/// A backup on its way. Dropping it ends it.
#[async_trait]
pub(super) trait Running: Send {
    /// The next bytes, into `room`; 0 at the end. Safe to cancel.
    async fn read(&mut self, room: &mut [u8]) -> Result<usize, Trouble>;

    /// Called behind the last byte: whether it is whole, and where it stands.
    async fn finish(&mut self, site: &Site<'_>) -> Result<Ending, Trouble>;
}

/// What is known of a backup at its end.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) coordinates: Coordinates,
    pub(super) clone: Option<CloneFacts>,
}

impl From<Coordinates> for Ending {
    fn from(coordinates: Coordinates) -> Self {
        Self { coordinates, clone: None }
    }
}

/// Why a backup did not come about.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) error: Error,
    /// The server was busy with something that passes: no fault of the tool's, so not counted as a failure.
    pub(super) busy: bool,
}

impl Trouble {
    /// Something that passes: a lock that was not to be had, DDL at the wrong moment.
    pub(super) fn busy(error: Error) -> Self {
        Self { error: error.transient(), busy: true }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self { error, busy: false }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.error.chain())
    }
}
