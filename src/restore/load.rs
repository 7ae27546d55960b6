//! Putting back the base backup.

use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, Command};

use super::site::Site;
use super::{RestoreOptions, Step, clone, stopped};
use crate::archive::{BaseContent, read_base};
use crate::error::{Context, Error, Kind, Result};

/// How to put back what no stock client understands.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// A shell command that reads the base backup from its input and puts it into the server that the environment names
    /// (`BINVAULT_SOCKET`, `BINVAULT_USER`, `BINVAULT_PASSWORD`, `BINVAULT_DATADIR`).
    pub command: Option<String>,
    /// The command fills the data directory before the server is started; else it loads a running server.
    pub into_datadir: bool,
}

/// Bytes of a tool's error output that are kept.
const COMPLAINT_BYTES: u64 = 8 << 10;

/// Loads the base backup of the plan, and tells the site that it is in.
pub(super) async fn load(options: &RestoreOptions, site: &mut dyn Site) -> Result<()> {
    let base = &options.plan.base;
    if base.content == BaseContent::Clone {
        return load_clone(options, site).await;
    }
    let as_files = base.content == BaseContent::Stream && options.load.into_datadir;
    if !as_files {
        site.begin().await?;
    }
    let (what, mut command) = match base.content {
        BaseContent::Sql => {
            let mut client = site.client()?;
            // Without --force the first error ends it; in binary mode nothing in the data is a client's command.
            client.args(["--binary-mode", "--max-allowed-packet=1G", "--init-command=SET SESSION sql_log_bin = 0"]);
            ("mysql", client)
        }
        BaseContent::Stream => {
            let line = options.load.command.as_ref().ok_or_else(|| {
                Error::new(Kind::Config, format!("base backup {} was written by a command ({})", base.id, base.tool))
                    .hint("say how to put it back: base.command.restore = \"…\" in the configuration")
            })?;
            let mut shell = Command::new("/bin/sh");
            shell.arg("-c").arg(line);
            ("base.command.restore", shell)
        }
        BaseContent::Clone | BaseContent::Other => {
            return Err(Error::new(Kind::Format, format!("base backup {} was taken by a newer binvault", base.id))
                .hint("use that version to restore it, or choose another with --base"));
        }
    };
    command.envs(site.environment()).process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context(|| format!("run {what} ({:?})", command.as_std().get_program()))?;
    let (Some(mut input), Some(errors)) = (child.stdin.take(), child.stderr.take()) else {
        return Err(Error::failed("a child without pipes"));
    };
    let mut done = 0_u64;
    let on_bytes = |bytes: u64| {
        done = done.saturating_add(bytes);
        (options.on_step)(&Step::Load { bytes: done, total: base.raw_bytes });
    };
    let feed = async {
        let fed = read_base(&options.archive, base, Arc::clone(&options.read.keys), &mut input, on_bytes).await;
        // The end of its input is what lets it end; a half base must not look like a whole one.
        let closed = if fed.is_ok() { input.shutdown().await } else { Ok(()) };
        drop(input);
        (fed, closed)
    };
    let work = async { tokio::join!(feed, complaint(errors)) };
    let Some(((fed, closed), complaint)) = options.stop.run_until_cancelled(work).await else {
        drop(child.kill().await);
        return Err(stopped());
    };
    if fed.as_ref().is_err_and(|error| matches!(error.kind(), Kind::Corrupt | Kind::Key | Kind::Store | Kind::Gap)) {
        drop(child.kill().await);
        return fed;
    }
    let status = child.wait().await.context(|| format!("wait for {what}"))?;
    if !status.success() {
        return Err(Error::failed(format!("{what} ended with {status}: {complaint}{}", place(site))));
    }
    // A pipe that it closed early although it ended well: it did not take everything.
    fed.and_then(|()| closed.context(|| format!("hand {what} its input")))?;
    if as_files {
        site.begin_on_files().await?;
    }
    site.loaded(&base.coordinates.executed).await
}

/// Makes the files of a clone, lets the server recover them, and asks it what it has.
async fn load_clone(options: &RestoreOptions, site: &mut dyn Site) -> Result<()> {
    let destination = site.destination()?;
    clone::fill(options, &destination).await?;
    site.begin_on_files().await?;
    let executed = clone::confirm(&options.plan, &destination.datadir, site).await?;
    site.loaded(&executed).await
}

fn place(site: &dyn Site) -> String {
    let words = site.last_words();
    if words.is_empty() { String::new() } else { format!(" (server: {words})") }
}

/// What a tool said on its error output: the beginning, on one line; the rest is read and dropped.
async fn complaint(errors: ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut errors = errors.take(COMPLAINT_BYTES);
    drop(errors.read_to_end(&mut kept).await);
    let mut rest = errors.into_inner();
    drop(tokio::io::copy(&mut rest, &mut tokio::io::sink()).await);
    let text = String::from_utf8_lossy(&kept).into_owned();
    text.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join(" | ")
}
