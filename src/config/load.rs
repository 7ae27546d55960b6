//! Reading the file and laying the environment over it.

use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::RawConfig;
use crate::error::{Error, Result};

const PREFIX: &str = "BINVAULT_";
/// Variables of the program that are no settings.
const OTHERS: [&str; 3] = ["BINVAULT_CONFIG", "BINVAULT_IDENTITY", "BINVAULT_FAILPOINT"];
/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the configuration: the file, if one is given, then `BINVAULT_SECTION__NAME` variables
/// over it (`BINVAULT_BASE__COMMAND__BACKUP` for a section in a section).
///
/// # Errors
/// [`crate::error::Kind::Config`] if the file cannot be read or has a name or value that is not understood.
pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<RawConfig> {
    let mut table = match file {
        Some(file) => read(file)?,
        None => Table::new(),
    };
    let from_file: RawConfig = check(&table, || file.map(|f| f.display().to_string()).unwrap_or_default())?;
    let mut overlaid = false;
    for (name, value) in environment {
        let Some(path) = name.strip_prefix(PREFIX).filter(|_| !OTHERS.contains(&name.as_str())) else { continue };
        let parts: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        let Some((key, sections)) = parts.split_last().filter(|(_, sections)| !sections.is_empty()) else { continue };
        let mut place = &mut table;
        for section in sections {
            let entry = place.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = entry else {
                return Err(Error::config(format!("{section} in the configuration is no section")));
            };
            place = inner;
        }
        place.insert(key.clone(), Value::String(value));
        // One at a time, so that the variable can be named.
        check::<RawConfig>(&table, || format!("environment variable {name}"))?;
        overlaid = true;
    }
    if overlaid { check(&table, String::new) } else { Ok(from_file) }
}

fn read(file: &Path) -> Result<Table> {
    use std::io::Read;

    let failed = |why: std::io::Error| {
        Error::config(format!("read the configuration {}", file.display()))
            .source(why)
            .hint("`binvault init` writes a commented one; name another with -c FILE or BINVAULT_CONFIG")
    };
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    parse(&text, file)
}

fn parse(text: &str, file: &Path) -> Result<Table> {
    text.parse::<Table>().map_err(|why| {
        // toml's own text quotes the line, which may be the one with a password: name only the place.
        let line = why.span().map_or(1, |span| text.get(..span.start).unwrap_or("").lines().count().max(1));
        Error::config(format!("{}, line {line}: {}", file.display(), why.message()))
    })
}

/// Reads a file's text alone: the door of `fuzzing`.
///
/// # Errors
/// As [`load`].
pub(crate) fn read_text(text: &str) -> Result<RawConfig> {
    check(&parse(text, Path::new("a text"))?, String::new)
}

/// toml's errors can quote values; its `message()` only names what is wrong and where.
fn check<T: DeserializeOwned>(table: &Table, from: impl FnOnce() -> String) -> Result<T> {
    table.clone().try_into::<T>().map_err(|why: toml::de::Error| {
        Error::config(format!("{}: {}", from(), why.message())).hint("`binvault init` writes a file with every setting")
    })
}
