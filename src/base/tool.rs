//! A program being run: its bytes, what it says, how it ends, and that it ends with us.
//!
//! Invariants: it runs in a process group of its own, which is killed when the [`Tool`] is dropped before it was waited
//! for; what is kept of its stderr is bounded.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::task::AbortOnDropHandle;

use crate::clock;
use crate::error::{Error, Kind, Result};

/// What is kept of a tool's words, from their end, in bytes.
const SAID_BYTES_MAX: usize = 1 << 20;
/// Once a tool has ended, how long its stderr may stay open (a child of its own may hold it).
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Largest answer of a small command, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A running program.
#[derive(Debug)]
pub(super) struct Tool {
    name: String,
    child: Child,
    /// `None` once it was waited for.
    group: Option<Pid>,
    stdout: ChildStdout,
    said: Arc<Mutex<Vec<u8>>>,
    listening: AbortOnDropHandle<()>,
}

impl Tool {
    /// Starts it; `name` is for messages.
    ///
    /// # Errors
    /// [`Kind::Config`] if it cannot be started.
    pub(super) fn start(name: &str, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let cannot = |why: std::io::Error| {
            Error::config(format!("start {name}"))
                .source(why)
                .hint("is the program installed and on the PATH that binvault runs with? the configuration takes a full path too")
        };
        let mut child = command.spawn().map_err(cannot)?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Error::failed(format!("{name} has no output")));
        };
        let said = Arc::new(Mutex::new(Vec::new()));
        let (kept, whose) = (Arc::clone(&said), name.to_owned());
        let listening = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut piece = vec![0_u8; 8 << 10];
            while let Ok(got @ 1..) = stderr.read(&mut piece).await {
                let piece = piece.get(..got).unwrap_or(&[]);
                tracing::debug!(tool = %whose, "{}", String::from_utf8_lossy(piece).trim_end());
                if let Ok(mut kept) = kept.lock() {
                    keep_tail(&mut kept, piece, SAID_BYTES_MAX);
                }
            }
        }));
        Ok(Self { name: name.to_owned(), child, group, stdout, said, listening })
    }

    /// Reads from its stdout; 0 at the end.
    ///
    /// # Errors
    /// If the pipe cannot be read.
    pub(super) async fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let read = self.stdout.read(into).await;
        read.map_err(|error| Error::failed(format!("read from {}", self.name)).source(error))
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus> {
        let status = self.child.wait().await;
        let status = status.map_err(|error| Error::failed(format!("wait for {}", self.name)).source(error))?;
        self.group = None;
        let _ = clock::with_timeout(LAST_WORDS, &mut self.listening).await;
        Ok(status)
    }

    /// The end of what it has said on stderr.
    pub(super) fn said(&self) -> String {
        let said = self.said.lock().map(|said| said.clone()).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }

    /// The last lines of it, for an error.
    pub(super) fn last_words(&self) -> String {
        last_lines(&self.said())
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            // It may have ended by itself a moment ago.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs a small command to its end and gives what it printed.
///
/// # Errors
/// [`Kind::Config`] if it cannot be started; [`Kind::Failed`] if it fails, takes longer than `limit` (it is killed
/// then) or prints more than [`ANSWER_BYTES_MAX`].
pub(super) async fn answer_of(name: &str, command: Command, limit: Duration) -> Result<String> {
    let mut tool = Tool::start(name, command)?;
    let run = async {
        let mut answer = Vec::new();
        let mut pipe = BufReader::new(&mut tool.stdout).take(ANSWER_BYTES_MAX as u64 + 1);
        let read = pipe.read_to_end(&mut answer).await;
        read.map_err(|error| Error::failed(format!("read from {name}")).source(error))?;
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(Error::failed(format!("{name} prints more than {ANSWER_BYTES_MAX} bytes")));
        }
        let status = tool.wait().await?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&answer).into_owned());
        }
        Err(Error::new(Kind::Failed, format!("{name} failed ({status}): {}", tool.last_words())))
    };
    match clock::with_timeout(limit, run).await {
        Some(done) => done,
        None => Err(Error::failed(format!("{name} did not end within {} s and was killed", limit.as_secs()))),
    }
}

/// Appends, and forgets from the front what is more than `bytes_max`.
pub(super) fn keep_tail(kept: &mut Vec<u8>, piece: &[u8], bytes_max: usize) {
    let piece = piece.get(piece.len().saturating_sub(bytes_max)..).unwrap_or(piece);
    let over = kept.len().saturating_add(piece.len()).saturating_sub(bytes_max);
    kept.drain(..over.min(kept.len()));
    kept.extend_from_slice(piece);
}

/// The last few lines of a text, on one line, cut to a readable length.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or(&[]).join("; ");
    let skip = last.chars().count().saturating_sub(600);
    let cut: String = last.chars().skip(skip).collect();
    if cut.is_empty() { "it said nothing".to_owned() } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_tool_is_heard_and_waited_for() {
        let mut tool = Tool::start("a test", sh("echo out; echo first >&2; echo last >&2; exit 3")).unwrap();
        let mut bytes = [0; 10];
        assert_eq!(tool.read(&mut bytes).await.unwrap(), 4);
        assert_eq!(tool.read(&mut bytes).await.unwrap(), 0);
        assert_eq!(tool.wait().await.unwrap().code(), Some(3));
        assert_eq!(tool.last_words(), "first; last");
        let error = Tool::start("nothing", Command::new("/no/such/program")).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
    }

    #[tokio::test]
    async fn a_small_command_is_bounded_in_time_and_told_when_it_fails() {
        assert_eq!(answer_of("a test", sh("echo yes"), Duration::from_secs(9)).await.unwrap(), "yes\n");
        let error = answer_of("a test", sh("echo why >&2; exit 1"), Duration::from_secs(9)).await.unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
        let since = clock::monotonic();
        let slow = answer_of("a test", sh("sleep 60 & sleep 60"), Duration::from_millis(200)).await;
        assert!(slow.unwrap_err().to_string().contains("killed"));
        assert!(since.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn tails_are_bounded() {
        let mut kept = Vec::new();
        for piece in [&b"abc"[..], b"defg", b"h"] {
            keep_tail(&mut kept, piece, 5);
        }
        assert_eq!(kept, b"defgh");
        keep_tail(&mut kept, b"0123456789", 5);
        assert_eq!(kept, b"56789");
    }
}
