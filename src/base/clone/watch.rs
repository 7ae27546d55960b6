//! Follows what the donor sends: whether it makes sense, what it amounts to, and where in the binlog it stands. Pure.
//!
//! Owns: the order of states, data behind their descriptors, the figures of the manifest. Does not own: acknowledging,
//! storing.
//!
//! Invariants: a message that does not fit ends the backup; an encrypted file never comes without TLS; memory is a few
//! bytes a file.

use std::collections::BTreeMap;

use super::link::server_error;
use super::refuse::{needs_tls, refusal};
use crate::archive::CloneFacts;
use crate::base::engine::Trouble;
use crate::error::{Error, Kind, Result};
use crate::mysql::clone::descriptor::{Data, Descriptor, File, KEY_BYTES, Secret, SpaceId, State, StateChange};
use crate::mysql::clone::packet::{Locator, Response, innodb};
use crate::mysql::clone::trx_sys::{Notes, PAGE, PositionScanner, REDO_HEADER_BYTES};
use crate::mysql::clone::{INNODB, MESSAGE_BYTES_MAX};

/// Where the redo's key is in the header of its first file: behind a mark, the master key's number and its uuid.
const REDO_SECRET: usize = 1024 + 48 + 3 + 4 + 36;
/// A file that is made while files are copied begins with so many pages.
const NEW_FILE_PAGES: u64 = 7;

/// What a message means for whoever receives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Part of the backup.
    Keep,
    /// A sign of life: no part of it.
    Ignore,
    /// Part of it; a state begins.
    Begun(State),
    /// Part of it; a state has ended and waits to be acknowledged.
    Ended(StateChange),
    /// Part of it; the answer to the command is complete.
    Complete,
}

/// What has been seen.
pub(super) struct Watch {
    is_tls: bool,
    facts: CloneFacts,
    locator: Option<Locator>,
    /// The state that has begun last.
    state: Option<State>,
    /// It has not ended.
    open: bool,
    /// Data that were announced.
    announced: Option<Data>,
    /// Sizes of the data files by their number.
    files: BTreeMap<u32, u64>,
    /// And of the redo files.
    redo: BTreeMap<u32, u64>,
    external: BTreeMap<u32, String>,
    /// The number of the system tablespace's first file.
    system: Option<u32>,
    scanner: Option<PositionScanner>,
    redo_secret: Option<Secret>,
}

impl Watch {
    pub(super) fn new(is_tls: bool) -> Self {
        Self {
            is_tls,
            facts: CloneFacts::default(),
            locator: None,
            state: None,
            open: false,
            announced: None,
            files: BTreeMap::new(),
            redo: BTreeMap::new(),
            external: BTreeMap::new(),
            system: None,
            scanner: None,
            redo_secret: None,
        }
    }

    /// What InnoDB calls the snapshot by, once it was told.
    pub(super) fn locator(&self) -> Option<&Locator> {
        self.locator.as_ref()
    }

    /// The state that has begun last.
    pub(super) fn state(&self) -> Option<State> {
        self.state
    }

    /// Takes a message.
    ///
    /// # Errors
    /// The donor's, and whatever does not fit.
    pub(super) fn take(&mut self, message: &[u8]) -> Result<Step, Trouble> {
        let response = Response::parse(message)?;
        if self.announced.is_some() != matches!(response, Response::Data(_)) {
            return match response {
                Response::Error { code, message } => Err(refusal(server_error(code, message), "")),
                _ => {
                    Err(Error::corrupt("the donor sends data that it has not announced, or does not send what it has")
                        .into())
                }
            };
        }
        match response {
            Response::Locators { version, locators } => {
                self.facts.protocol = version;
                self.locator = innodb(&locators).cloned();
                if locators.iter().any(|locator| locator.engine != INNODB) {
                    return Err(other_engine().into());
                }
            }
            Response::Descriptor { engine, .. } if engine != INNODB => return Err(other_engine().into()),
            Response::Descriptor { bytes, .. } => return Ok(self.descriptor(Descriptor::parse(bytes)?)?),
            Response::Data(bytes) => self.data(bytes)?,
            Response::Config { name, value } => self.config(name, value),
            Response::Complete => return Ok(Step::Complete),
            Response::Error { code, message } => return Err(refusal(server_error(code, message), "")),
            Response::Plugin { .. } | Response::Collation(_) | Response::Unknown { .. } => {}
        }
        Ok(Step::Keep)
    }

    fn config(&mut self, name: &[u8], value: &[u8]) {
        let text = String::from_utf8_lossy(value).into_owned();
        match name {
            b"innodb_page_size" => {
                self.facts.innodb_page_size = text.parse().unwrap_or(0);
                self.scanner = PositionScanner::new(self.facts.innodb_page_size);
            }
            b"version_compile_os" => self.facts.compile_os = text,
            b"version_compile_machine" => self.facts.compile_machine = text,
            _ => {}
        }
    }

    fn descriptor(&mut self, descriptor: Descriptor) -> Result<Step> {
        match descriptor {
            Descriptor::Locator | Descriptor::Task(_) => {}
            Descriptor::State(change) if change.is_keep_alive() => return Ok(Step::Ignore),
            Descriptor::State(change) => return self.change(change),
            Descriptor::File(file) => self.file(file)?,
            Descriptor::Data(data) => {
                let fine =
                    Some(data.state) == self.state && (1..MESSAGE_BYTES_MAX as u64).contains(&u64::from(data.length));
                if !fine {
                    return Err(Error::corrupt(format!("the donor announces impossible data: {data:?}")));
                }
                self.announced = Some(data);
            }
        }
        Ok(Step::Keep)
    }

    /// A state begins or ends: each in its turn.
    fn change(&mut self, change: StateChange) -> Result<Step> {
        let next = match self.state {
            None => State::Init,
            Some(State::Init) => State::FileCopy,
            Some(State::FileCopy) => State::PageCopy,
            Some(State::PageCopy) => State::RedoCopy,
            Some(State::RedoCopy | State::Done) => State::Done,
        };
        if change.is_start() && change.state == next && !self.open {
            (self.state, self.open) = (Some(next), true);
            return Ok(Step::Begun(next));
        }
        // The first one has no beginning.
        let is_first = self.state.is_none() && change.state == State::Init;
        if change.is_end() && (is_first || (self.open && Some(change.state) == self.state)) {
            (self.state, self.open) = (Some(change.state), false);
            return Ok(Step::Ended(change));
        }
        Err(Error::corrupt(format!("the donor goes from {:?} to {change:?}", self.state)))
    }

    fn file(&mut self, file: File) -> Result<()> {
        if file.has(File::AES) || file.secret.is_some() {
            self.facts.encrypted = true;
            if !self.is_tls {
                return Err(needs_tls());
            }
        }
        if file.space == SpaceId::REDO || (self.state == Some(State::RedoCopy) && file.name.is_none()) {
            self.redo.insert(file.index, file.size);
            return Ok(());
        }
        if file.has(File::DELETED) {
            self.files.remove(&file.index);
            self.external.remove(&file.index);
            return Ok(());
        }
        if file.space == SpaceId::SYSTEM {
            self.system = Some(self.system.map_or(file.index, |first| first.min(file.index)));
        }
        match file.name {
            Some(name) if name.starts_with('/') => drop(self.external.insert(file.index, name)),
            Some(_) => drop(self.external.remove(&file.index)),
            None => {}
        }
        let least = NEW_FILE_PAGES.saturating_mul(u64::from(self.facts.innodb_page_size));
        let size = if file.state == State::FileCopy { file.size } else { file.size.max(least) };
        let known = self.files.entry(file.index).or_insert(size);
        *known = (*known).max(file.size);
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(data) = self.announced.take() else { return Ok(()) };
        if u64::from(data.length) != bytes.len() as u64 {
            return Err(Error::corrupt(format!(
                "the donor announced {} bytes, and sends {}",
                data.length,
                bytes.len()
            )));
        }
        let end = data.offset.checked_add(bytes.len() as u64);
        let end = end.ok_or_else(|| Error::corrupt("the donor sends data for beyond the end of any file"))?;
        let is_redo = data.state == State::RedoCopy;
        let sizes = if is_redo { &mut self.redo } else { &mut self.files };
        if let Some(size) = sizes.get_mut(&data.file) {
            *size = (*size).max(end).max(data.file_size);
        }
        let Some(scanner) = self.scanner.as_mut() else { return Ok(()) };
        if is_redo {
            if data.file == 0 && data.offset == 0 && end == REDO_HEADER_BYTES {
                self.redo_secret = redo_secret(bytes);
            }
            scanner.redo(data.file, data.offset, bytes);
        } else if self.system == Some(data.file)
            && let Some(page) = page_within(&data, bytes, self.facts.innodb_page_size)
        {
            scanner.page(page);
        }
        Ok(())
    }

    /// What it amounts to: figures, and the snapshot's notes of its position.
    ///
    /// # Errors
    /// If the snapshot is not complete, or its redo cannot be read.
    pub(super) fn finish(mut self) -> Result<(CloneFacts, Notes)> {
        if self.state != Some(State::Done) {
            let at = self.state.map_or_else(|| "its beginning".to_owned(), |state| state.to_string());
            return Err(Error::corrupt(format!("the donor says that the clone is complete, at {at}")));
        }
        let sizes = || self.files.values().chain(self.redo.values());
        self.facts.disk_bytes = sizes().fold(0, |sum, size| sum.saturating_add(*size));
        self.facts.files = sizes().count() as u64;
        self.facts.external = self.external.into_values().collect();
        let notes = match self.scanner {
            None => Notes::default(),
            Some(scanner) => scanner.finish(self.redo_secret.as_ref())?,
        };
        Ok((self.facts, notes))
    }
}

/// The page of the transaction system, if it is all in these bytes.
fn page_within<'a>(data: &Data, bytes: &'a [u8], page_bytes: u32) -> Option<&'a [u8]> {
    let page_bytes = u64::from(page_bytes);
    let start = PAGE.checked_mul(page_bytes)?.checked_sub(data.offset)?;
    let end = start.checked_add(page_bytes)?;
    bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

/// The redo's key and initialisation vector, in clear.
fn redo_secret(header: &[u8]) -> Option<Secret> {
    let (key, rest) = header.get(REDO_SECRET..)?.split_first_chunk::<KEY_BYTES>()?;
    Some(Secret { key: *key, iv: *rest.first_chunk::<KEY_BYTES>()? })
}

fn other_engine() -> Error {
    Error::new(Kind::Unfit, "the donor clones data of another storage engine than InnoDB")
        .hint("take base backups of this server by another engine (base.engine)")
}

#[cfg(test)]
mod tests;
