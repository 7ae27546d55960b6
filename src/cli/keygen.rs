//! `keygen`, `init`, `man`: commands that need no archive.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::ExposeSecret;

use super::output;
use crate::chunk::keys::generate;
use crate::clock;
use crate::config::sample;
use crate::error::{Context, Error, Result};
use crate::position::CommitTime;

/// `binvault keygen`
#[derive(Debug, Args)]
pub(super) struct KeygenArgs {
    /// Where the private key goes; never overwritten; `-` for stdout (the recipient then goes to stderr)
    #[arg(short, long, value_name = "FILE", default_value = "binvault.key")]
    output: PathBuf,
}

/// `binvault init`
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Where the configuration goes; never overwritten
    #[arg(short, long, value_name = "FILE", default_value = "binvault.toml")]
    output: PathBuf,
    /// The MySQL server
    #[arg(long, value_name = "URL", default_value = "mysql://binvault@127.0.0.1:3306")]
    source: String,
    /// The archive
    #[arg(long, value_name = "URL", default_value = "file:///var/lib/binvault")]
    to: String,
    /// Public key that chunks are sealed to, as `binvault keygen` prints it
    #[arg(long, value_name = "age1…", default_value = "age1…")]
    recipient: String,
}

pub(super) fn keygen(args: &KeygenArgs) -> Result<()> {
    let (secret, recipient) = generate();
    let created = CommitTime::from_micros(clock::now_us()).rfc3339();
    let text = format!("# created: {created}\n# public key: {recipient}\n{}\n", secret.expose_secret());
    if args.output == Path::new("-") {
        output::line(text.trim_end());
        output::note(recipient);
        return Ok(());
    }
    write_new(&args.output, &text, 0o600)?;
    output::note(format!(
        "wrote the private key to {}: it opens the archive, and nothing else does.\n\
         Keep it (and a copy) away from the database host; the line below is for archive.recipients.",
        args.output.display()
    ));
    output::line(recipient);
    Ok(())
}

pub(super) fn init(args: &InitArgs) -> Result<()> {
    write_new(&args.output, &sample(&args.source, &args.to, &args.recipient), 0o640)?;
    output::line(format!("wrote {}", args.output.display()));
    output::note(format!(
        "next: fill in source, archive and recipients, then `binvault -c {} check`",
        args.output.display()
    ));
    Ok(())
}

pub(super) fn man(command: clap::Command, to: Option<&Path>) -> Result<()> {
    match to {
        Some(folder) => {
            std::fs::create_dir_all(folder).context(|| format!("make {}", folder.display()))?;
            clap_mangen::generate_to(command, folder).context(|| format!("write manual pages to {}", folder.display()))
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page).context(|| "make the manual page".into())?;
            output::line(String::from_utf8_lossy(&page).trim_end());
            Ok(())
        }
    }
}

/// Writes a file that must not exist yet.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = opened.map_err(|error| {
        let exists = error.kind() == ErrorKind::AlreadyExists;
        let failed = Error::config(format!("write {}", path.display())).source(error);
        if exists { failed.hint("it is never overwritten: name another with -o FILE") } else { failed }
    })?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).context(|| format!("write {}", path.display()))
}
