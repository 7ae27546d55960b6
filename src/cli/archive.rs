//! What several commands need: the archive, opened for reading, and private keys.

use std::path::PathBuf;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::archive::Archive;
use crate::chunk::keys::Identities;
use crate::config::{Config, read_secret};
use crate::error::{Error, Kind, Result};
use crate::position::ServerUuid;
use crate::store;

/// Private keys.
#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// File with a private key (AGE-SECRET-KEY-1…); may be given several times
    #[arg(short, long, env = "BINVAULT_IDENTITY", value_name = "FILE", value_delimiter = ',')]
    pub(super) identity: Vec<PathBuf>,
}

impl KeyArgs {
    /// Reads the keys given, or those the configuration names.
    ///
    /// # Errors
    /// [`Kind::Key`] if there is none, or one cannot be read.
    pub(super) fn read(&self, config: &Config) -> Result<Identities> {
        let files = if self.identity.is_empty() { config.identities() } else { &self.identity };
        let mut all: Option<Identities> = None;
        for file in files {
            let keys = Identities::parse(&file.display().to_string(), &read_secret(file)?)?;
            match all.as_mut() {
                Some(all) => all.extend(keys),
                None => all = Some(keys),
            }
        }
        all.ok_or_else(|| {
            Error::new(Kind::Key, "opening chunks needs a private key, and none is given")
                .hint("give the file that `binvault keygen` wrote with --identity FILE or BINVAULT_IDENTITY")
        })
    }
}

/// Opens the configured archive; never makes one.
///
/// # Errors
/// If there is none.
pub(super) async fn open(config: &Config) -> Result<Archive> {
    let store = store::open(&config.store(false)?, &CancellationToken::new()).await?;
    Archive::open(store, false).await
}

/// Reads a server's uuid from the command line.
pub(super) fn parse_server(text: &str) -> Result<ServerUuid, String> {
    text.parse().map_err(|error: crate::position::ParseError| error.to_string())
}
