//! The marker in a data directory that is being restored: what lets an interrupted restore go on, and what says that
//! the directory is ours.
//!
//! Its name begins with a dot: mysqld initialises only a directory that is empty but for such names.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Context, Error, Result};
use crate::position::GtidSet;
use crate::timeline::Plan;

const NAME: &str = ".binvault-restore.json";

/// How far a restore has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// The base backup is not whole: begin anew.
    Loading,
    /// The base backup is in.
    Loaded,
}

/// What the marker says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    pub(super) archive: Uuid,
    pub(super) base: String,
    pub(super) head: String,
    pub(super) skip: GtidSet,
    pub(super) stage: Stage,
    /// The private server's socket, and our account there.
    pub(super) socket: PathBuf,
    pub(super) password: String,
    /// The keyring that this restore writes, if it writes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) keyring: Option<PathBuf>,
}

impl Marker {
    /// Whether it was begun for the same thing.
    pub(super) fn is_for(&self, archive: Uuid, plan: &Plan) -> bool {
        (self.archive, &self.base, &self.head, &self.skip) == (archive, &plan.base.id, &plan.head.name, &plan.skip)
    }

    /// Reads the marker of a directory, if it has one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn read(datadir: &Path) -> Result<Option<Self>> {
        let path = datadir.join(NAME);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::failed(format!("read {}", path.display())).source(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            Error::config(format!("{} cannot be understood", path.display()))
                .source(error)
                .hint("it was written by another version, or is damaged: remove the directory, and restore anew")
        })
    }

    /// Writes it, all or nothing, for our eyes only.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn write(&self, datadir: &Path) -> Result<()> {
        let (path, fresh) = (datadir.join(NAME), datadir.join(format!("{NAME}.new")));
        let what = || format!("write {}", path.display());
        let text = serde_json::to_vec_pretty(self).map_err(|error| Error::failed(what()).source(error))?;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh).context(what)?;
        file.write_all(&text).and_then(|()| file.sync_all()).context(what)?;
        std::fs::rename(&fresh, &path).context(what)
    }

    /// The restore is through.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn remove(datadir: &Path) -> Result<()> {
        let path = datadir.join(NAME);
        std::fs::remove_file(&path).context(|| format!("remove {}", path.display()))
    }

    /// Whether a file of the directory is a marker's.
    pub(super) fn is_named(name: &std::ffi::OsStr) -> bool {
        name.to_str().is_some_and(|name| name.starts_with(NAME))
    }
}
