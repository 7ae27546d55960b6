//! Where a restore happens: the small seam between a data directory with a private server and a server that is there.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::process::Command;

use super::words::{Words, quoted};
use crate::error::Result;
use crate::mysql::Connection;
use crate::position::GtidSet;

/// A server that is being restored into.
#[async_trait]
pub(super) trait Site: Send {
    /// The connection, with every privilege.
    ///
    /// # Errors
    /// If the server has been stopped.
    fn connection(&mut self) -> Result<&mut Connection>;

    /// The words of its version.
    fn words(&self) -> Words;

    /// Whether the base backup is already in: an earlier run was interrupted behind that.
    fn is_loaded(&self) -> bool;

    /// Makes an empty server ready, into which the base backup can be loaded.
    async fn begin(&mut self) -> Result<()>;

    /// Where the files of a clone go.
    ///
    /// # Errors
    /// If the site has no data directory.
    fn destination(&self) -> Result<Destination>;

    /// The base backup is a data directory, and lies in it now: start a server on that.
    ///
    /// # Errors
    /// If the site has no data directory.
    async fn begin_on_files(&mut self) -> Result<()>;

    /// A `mysql` client that reads statements from its input and runs them as an administrator, without a trace in the
    /// server's binlog.
    fn client(&self) -> Result<Command>;

    /// What a configured load command is told, as environment variables.
    fn environment(&self) -> Vec<(&'static str, String)>;

    /// The base backup is in: take stock, and remember it across interruptions.
    async fn loaded(&mut self, executed: &GtidSet) -> Result<()>;

    /// The host by which the server reaches this process.
    fn listen_host(&self) -> String;

    /// Its error log's last lines, for an error that it does not explain itself.
    fn last_words(&self) -> String;

    /// Everything is proven: clean up, stop it or let it run.
    async fn leave(&mut self) -> Result<Left>;

    /// The restore failed: stop what was started, keep what lets it go on. Gives a hint for people.
    async fn abandon(&mut self) -> String;
}

/// What is left behind a restore.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) executed: GtidSet,
    pub(super) datadir: Option<PathBuf>,
    pub(super) socket: Option<PathBuf>,
    pub(super) next: Vec<String>,
}

/// Where a clone is put.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    /// The data directory, empty but for what is ours.
    pub(super) datadir: PathBuf,
    /// The file of the keyring, if there are keys to be wrapped; it is not there yet.
    pub(super) keyring: Option<PathBuf>,
}

/// How long a statement may take: dropping and recovering big tables takes as long as it takes.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// What is left to be done with a restored server, so that it is protected again.
pub(super) fn protect_it() -> [String; 2] {
    [
        "archive it as a new incarnation of the same archive: point source.url at it, then `binvault run --adopt`"
            .to_owned(),
        "take a base backup of it: `binvault base`".to_owned(),
    ]
}

/// Makes a server's executed set exactly that of the base backup which was loaded into it.
pub(super) async fn take_for_executed(connection: &mut Connection, words: Words, have: &GtidSet) -> Result<()> {
    connection.execute(words.reset_gtids()).await?;
    if !have.is_empty() {
        connection.execute(&format!("SET GLOBAL gtid_purged = {}", quoted(&have.to_string()))).await?;
    }
    Ok(())
}

/// What a server has executed.
pub(super) async fn executed(connection: &mut Connection) -> Result<GtidSet> {
    let rows = connection.query("SELECT @@GLOBAL.gtid_executed").await?;
    let text = rows.first().and_then(|row| row.get_at(0)).unwrap_or("");
    text.parse().map_err(|error| crate::error::Error::corrupt("the server tells a GTID set that is none").source(error))
}

/// The error of a base backup that is files, for a server that runs.
pub(super) fn no_files() -> crate::error::Error {
    crate::error::Error::config("the base backup is a data directory: it cannot be put into a running server")
        .hint("restore with --datadir DIR, or choose a base backup of another engine with --base")
}
