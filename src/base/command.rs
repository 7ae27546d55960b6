//! The engine for any tool that writes a backup to stdout.
//!
//! The commands come from the configuration alone and are run by `sh -c`; nothing of the archive is ever run. How the
//! server is reached they learn from their environment (`access`). Where the backup stands is told by the tool (in
//! its stderr, or by a second command), or asked by us under a short read lock in which the command `snapshot` runs.

use std::time::Duration;

use async_trait::async_trait;
use tokio::process::Command;

use super::access::Access;
use super::engine::{Ending, Engine, Running, Site, Trouble};
use super::options::{CommandOptions, CoordinatesFrom};
use super::pattern;
use super::prove::{Proven, prove};
use super::server::{self, PROGRAM};
use super::tool::{Tool, answer_of};
use crate::archive::BaseContent;
use crate::error::{Context, Error, Result};
use crate::mysql::{Connection, SourceOptions};
use crate::position::Position;

/// How long the command that tells the coordinates may take.
const COORDINATES_LIMIT: Duration = Duration::from_secs(120);
/// How long cleaning up may take.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(600);

/// The engine.
#[derive(Debug)]
pub(super) struct CommandEngine {
    options: CommandOptions,
}

impl CommandEngine {
    pub(super) fn new(options: CommandOptions) -> Self {
        Self { options }
    }
}

fn shell(script: &str, access: &Access) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    access.tell(&mut command);
    command
}

#[async_trait]
impl Engine for CommandEngine {
    fn content(&self) -> BaseContent {
        BaseContent::Stream
    }

    async fn tool(&self) -> Result<String, Error> {
        Ok(self.options.backup.clone())
    }

    async fn left_out(&self, _asked: &mut Connection) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn start(&self, site: &Site<'_>) -> Result<Box<dyn Running>, Trouble> {
        let access = Access::new(site.source)?;
        let known = match &self.options.coordinates {
            CoordinatesFrom::Lock { snapshot, timeout } => {
                Some(snapshot_under_lock(snapshot, *timeout, &access, site).await?)
            }
            CoordinatesFrom::Stderr { .. } | CoordinatesFrom::Output { .. } => None,
        };
        let tool = Tool::start("the backup command", shell(&self.options.backup, &access))?;
        Ok(Box::new(Backup { tool, access, from: self.options.coordinates.clone(), known }))
    }

    async fn clean_up(&self, source: &SourceOptions) {
        let Some(script) = &self.options.cleanup else { return };
        let done = async {
            let access = Access::new(source)?;
            answer_of("the command base.command.cleanup", shell(script, &access), CLEAN_UP_LIMIT).await
        };
        if let Err(error) = done.await {
            tracing::error!(error = %error.chain(), "cleaning up after the base backup failed");
        }
    }
}

/// Runs the snapshot command while nothing is written, and tells where the server stood.
async fn snapshot_under_lock(
    script: &str,
    timeout: Duration,
    access: &Access,
    site: &Site<'_>,
) -> Result<Position, Trouble> {
    let mut asked = Connection::connect(site.source, PROGRAM).await?;
    server::nobody_is_long(&mut asked, site.options.long_query).await?;
    // Dropping the connection, whatever happens, gives the lock back.
    let mut lock = server::read_lock(site.source, site.options.lock_wait).await?;
    let position = server::end_of_log(&mut lock).await?;
    let taken = answer_of("the command base.command.snapshot", shell(script, access), timeout).await;
    let unlocked = lock.execute("UNLOCK TABLES").await;
    taken?;
    // A lock that was lost meanwhile held nothing back.
    unlocked.context(|| "give the read lock back".into())?;
    Ok(position)
}

/// A backup on its way.
struct Backup {
    tool: Tool,
    access: Access,
    from: CoordinatesFrom,
    known: Option<Position>,
}

impl Backup {
    async fn position(&self) -> Result<Position> {
        let nowhere = |pattern: &str, said: &str| {
            Error::failed(format!("the coordinates are not to be found: nothing fits {pattern:?} in {said:?}"))
                .definite()
                .hint("correct base.command.coordinates; `-v` logs all that the command says")
        };
        let last = |said: &str| super::tool::last_lines(said);
        match (&self.known, &self.from) {
            (Some(position), _) => Ok(position.clone()),
            (None, CoordinatesFrom::Stderr { pattern }) => {
                let said = self.tool.said();
                pattern::find(pattern, &said).ok_or_else(|| nowhere(pattern, &last(&said)))
            }
            (None, CoordinatesFrom::Output { command, pattern }) => {
                let name = "the command base.command.coordinates_command";
                let said = answer_of(name, shell(command, &self.access), COORDINATES_LIMIT).await?;
                pattern::find(pattern, &said).ok_or_else(|| nowhere(pattern, &last(&said)))
            }
            (None, CoordinatesFrom::Lock { .. }) => Err(Error::failed("the snapshot has no coordinates")),
        }
    }
}

#[async_trait]
impl Running for Backup {
    async fn read(&mut self, room: &mut [u8]) -> Result<usize, Trouble> {
        Ok(self.tool.read(room).await?)
    }

    async fn finish(&mut self, site: &Site<'_>) -> Result<Ending, Trouble> {
        let status = self.tool.wait().await?;
        if !status.success() {
            let words = self.tool.last_words();
            return Err(Error::failed(format!("the backup command failed ({status}): {words}")).into());
        }
        let position = self.position().await?;
        let mut asked = Connection::connect(site.source, PROGRAM).await?;
        let Proven { coordinates, .. } = prove(site, &mut asked, &position, None).await?;
        Ok(coordinates.into())
    }
}
