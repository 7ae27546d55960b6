//! What people see: errors, sizes, bars.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::error::{Error, Result};

/// A text that tells a terminal nothing: much of what is shown was written by others, in an archive or on a server.
fn plain(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(steers) { Cow::Owned(text.replace(steers, "?")) } else { Cow::Borrowed(text) }
}

/// Writes a line to stdout. A reader that has gone away (`| head`) is no error.
pub(super) fn line(text: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(plain(text.as_ref()).as_bytes()).and_then(|()| out.write_all(b"\n"));
}

/// Writes a result as one JSON document.
///
/// # Errors
/// Only if it cannot be written as JSON, which would be a bug.
pub(super) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::failed("write JSON").source(error))?;
    line(text);
    Ok(())
}

/// Prints an error with its causes, and what to do, to stderr.
pub(super) fn print_error(error: &Error) {
    let mut out = std::io::stderr().lock();
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (red, bold, end) = if colour { ("\x1b[31;1m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    let mut text = format!("{red}error:{end} {}\n", plain(&error.chain()));
    if let Some(hint) = error.hint_text() {
        text.push_str(&format!("{bold}HINT:{end} {}\n", plain(hint)));
    }
    let _ = out.write_all(text.as_bytes());
}

/// `1.4 MiB`
pub(super) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// `3.2 s`, `2 min 5 s`, `4 h 10 min`
pub(super) fn seconds(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    match whole {
        0..=59 => format!("{seconds:.1} s"),
        60..=3599 => format!("{} min {} s", whole / 60, whole % 60),
        3600..=172_799 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} days", whole / 86_400),
    }
}

/// Columns of the terminal that stdout is; `None` if it is none.
pub(super) fn columns() -> Option<usize> {
    let out = std::io::stdout();
    let size = if out.is_terminal() { rustix::termios::tcgetwinsize(&out).ok() } else { None };
    size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// A bar over bytes on stderr; invisible where stderr is no terminal.
pub(super) fn bar(what: &'static str, total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total).with_message(what);
    let template = "{msg} {bar:30.cyan/blue} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} ETA {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// A bar that counts things.
pub(super) fn count_bar(what: &'static str, total: u64) -> ProgressBar {
    let bar = bar(what, total);
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30.cyan/blue} {pos}/{len} ETA {eta}") {
        bar.set_style(style);
    }
    bar
}

/// A word to people, on stderr: it is no result.
pub(super) fn note(text: impl AsRef<str>) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(plain(text.as_ref()).as_bytes()).and_then(|()| out.write_all(b"\n"));
}
