//! A store in a folder: one file an object, at the object's own name.
//!
//! Owns: atomic, durable writes; reading; removing; sweeping. `disk/list.rs` owns the listing.
//!
//! How a write goes: a temporary file in `<root>/.tmp/` → write → fdatasync → rename that refuses an existing name →
//! fsync of the folder. So a name that can be seen names a whole, durable file, and a crash leaves at worst a
//! temporary file, which [`Store::sweep`] removes. A folder made on the way is fsynced into its parent before the
//! first write in it is acknowledged.
//!
//! Limits: a component of a name has at most 255 bytes (the kernel's limit); `a` and `a/b` cannot both be objects;
//! names beginning in `.tmp/` are the store's own. Files that are not objects (names that are no [`Key`]) are not seen.

mod list;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{Key, ListDepth, ListPage, ObjectMeta, Put, Store, StoreError, StoreErrorKind};
use crate::{clock, threads};

/// The folder, under the root, of files that are being written.
const TEMPORARY: &str = ".tmp";

/// Files: the owner writes, the group may read. The objects are encrypted; the names are not.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// How many folders are remembered as durable; past it the memory starts over (each costs a few fsyncs once more).
const DURABLE_FOLDERS_MAX: usize = 4096;

/// How a folder is opened.
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// Make the root folder if only its parent exists. Commands that only read should say `false`.
    pub create: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self { create: true }
    }
}

/// A folder as a store.
#[derive(Debug)]
pub struct DiskStore {
    disk: Arc<Disk>,
}

#[derive(Debug)]
struct Disk {
    root: PathBuf,
    /// Distinguishes the temporary files of this store object from each other; the process id and the start time
    /// distinguish them from others'.
    counter: AtomicU64,
    instance: String,
    /// Folders known to exist and to be durable up to the root.
    durable: Mutex<HashSet<PathBuf>>,
}

impl DiskStore {
    /// Opens the folder; makes it if its parent exists and the options allow.
    ///
    /// # Errors
    /// `NoBucket` if it is not there, `Denied` if it cannot be used as a folder.
    pub async fn open(root: impl Into<PathBuf>, options: &DiskOptions) -> Result<Self, StoreError> {
        let root = root.into();
        let create = options.create;
        let instance = format!("{}-{:x}", std::process::id(), clock::now_us());
        let disk = Disk { root, counter: AtomicU64::new(0), instance, durable: Mutex::default() };
        let disk = Arc::new(disk);
        let store = Self { disk };
        store.blocking(move |disk| disk.open_root(create)).await?;
        Ok(store)
    }

    /// As [`Store::put_new`], on a thread that may block.
    pub(super) fn put_blocking(&self, key: &Key, body: &[u8]) -> Result<Put, StoreError> {
        self.disk.put(key, body, false)
    }

    /// Removes an object, but a crash may bring it back. On a thread that may block.
    pub(super) fn remove_blocking(&self, key: &Key) -> Result<(), StoreError> {
        let removed = fs::remove_file(self.disk.path(key)?).map_err(|error| self.disk.read_error("remove", key, error));
        removed.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let disk = Arc::clone(&self.disk);
        threads::run(move || work(&disk)).await.unwrap_or_else(|error| {
            Err(StoreError::new(StoreErrorKind::Transient, "a disk task was cut off").with_source(error))
        })
    }
}

#[async_trait]
impl Store for DiskStore {
    fn url(&self) -> String {
        format!("file://{}", self.disk.root.display())
    }

    async fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        let key = key.clone();
        self.blocking(move |disk| disk.put(&key, &body, false)).await
    }

    async fn put_over(&self, key: &Key, body: Bytes) -> Result<(), StoreError> {
        let key = key.clone();
        self.blocking(move |disk| disk.put(&key, &body, true).map(|_| ())).await
    }

    async fn get_range(&self, key: &Key, start: u64, length: u64) -> Result<Bytes, StoreError> {
        let key = key.clone();
        self.blocking(move |disk| disk.get(&key, start, length)).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let key = key.clone();
        self.blocking(move |disk| disk.head(&key)).await
    }

    async fn list_page(&self, prefix: &str, depth: ListDepth, after: Option<&str>) -> Result<ListPage, StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.blocking(move |disk| {
            list::page(&disk.root, &prefix, depth, after.as_deref())
                .map_err(|(path, error)| disk.error(&format!("list {}", path.display()), error))
        })
        .await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let key = key.clone();
        self.blocking(move |disk| disk.delete(&key)).await
    }

    async fn sweep(&self, age_seconds: u64) -> Result<u64, StoreError> {
        self.blocking(move |disk| disk.sweep(age_seconds)).await
    }
}

impl Disk {
    fn open_root(&self, create: bool) -> Result<(), StoreError> {
        let shown = self.root.display();
        match fs::metadata(&self.root) {
            Ok(found) if found.is_dir() => return Ok(()),
            Ok(_) => return Err(StoreError::new(StoreErrorKind::Denied, format!("{shown} is not a folder"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.error(&format!("open folder {shown}"), error)),
        }
        if !create {
            return Err(StoreError::new(StoreErrorKind::NoBucket, format!("there is no folder {shown}")));
        }
        match make_folder(&self.root) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let message = format!("there is neither a folder {shown} nor the one it would lie in");
                return Err(StoreError::new(StoreErrorKind::NoBucket, message));
            }
            Err(error) => return Err(self.error(&format!("make folder {shown}"), error)),
        }
        let parent = self.root.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.map_or(Ok(()), sync_folder).map_err(|error| self.error(&format!("make folder {shown}"), error))
    }

    fn path(&self, key: &Key) -> Result<PathBuf, StoreError> {
        if key.as_str().split('/').next() == Some(TEMPORARY) {
            let message = format!("{key}: names in {TEMPORARY}/ are the store's own");
            return Err(StoreError::new(StoreErrorKind::Config, message));
        }
        Ok(self.root.join(key.as_str()))
    }

    /// Says what failed, and whether the root itself is gone (an unmounted volume, say).
    fn error(&self, doing: &str, error: io::Error) -> StoreError {
        if error.kind() == io::ErrorKind::NotFound && fs::metadata(&self.root).is_err() {
            let message = format!("{doing}: the folder {} is gone", self.root.display());
            return StoreError::new(StoreErrorKind::NoBucket, message).with_source(error);
        }
        StoreError::new(classify(&error), doing).with_source(error)
    }

    fn put(&self, key: &Key, body: &[u8], over: bool) -> Result<Put, StoreError> {
        let path = self.path(key)?;
        let failed = |error| self.error(&format!("write {}", path.display()), error);
        if !over && fs::symlink_metadata(&path).is_ok() {
            return self.already_there(&path).map_err(failed);
        }
        let temporary = self.write_temporary(body).map_err(failed)?;
        let result = self.place(&temporary, &path, over);
        if !matches!(result, Ok(Put::Created)) {
            // Best effort: what stays is swept later.
            drop(fs::remove_file(&temporary));
        }
        match result {
            Ok(Put::AlreadyThere) => self.already_there(&path).map_err(failed),
            other => other.map_err(failed),
        }
    }

    /// Writes a new temporary file, durably; none stays behind on failure.
    fn write_temporary(&self, body: &[u8]) -> io::Result<PathBuf> {
        let folder = self.root.join(TEMPORARY);
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}-{number}", self.instance));
        let open = || fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path);
        let mut file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_folder(&folder)?;
                open()?
            }
            other => other?,
        };
        let written = file.write_all(body).map(|()| {
            // By our clock, as everything is, whosever the disk is. One that keeps its own does no harm.
            drop(file.set_modified(UNIX_EPOCH + Duration::from_micros(clock::now_us())));
        });
        let written = written.and_then(|()| file.sync_data());
        if let Err(error) = written {
            drop(fs::remove_file(&path));
            return Err(error);
        }
        Ok(path)
    }

    /// Gives the temporary file its name, durably.
    fn place(&self, temporary: &Path, path: &Path, over: bool) -> io::Result<Put> {
        let folder = path.parent().unwrap_or(&self.root);
        self.ensure_durable(folder)?;
        let put = match rename(temporary, path, over) {
            // Somebody removed the folder since we last looked: make it once more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.remembered().clear();
                self.ensure_durable(folder)?;
                rename(temporary, path, over)?
            }
            other => other?,
        };
        if put == Put::Created {
            sync_folder(folder)?;
        }
        Ok(put)
    }

    /// The object is there, but its writer may have died before the last fsync: make it durable before we say so.
    fn already_there(&self, path: &Path) -> io::Result<Put> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        file.sync_all()?;
        let folder = path.parent().unwrap_or(&self.root);
        sync_folder(folder)?;
        self.ensure_durable(folder)?;
        Ok(Put::AlreadyThere)
    }

    /// Makes a folder and every one above it up to the root, and syncs each into its parent. Even one that exists is
    /// synced once: whoever made it may not have come to that.
    fn ensure_durable(&self, folder: &Path) -> io::Result<()> {
        if folder == self.root || self.remembered().contains(folder) {
            return Ok(());
        }
        let parent = folder.parent().unwrap_or(&self.root);
        self.ensure_durable(parent)?;
        make_folder(folder)?;
        sync_folder(parent)?;
        let mut remembered = self.remembered();
        if remembered.len() >= DURABLE_FOLDERS_MAX {
            remembered.clear();
        }
        remembered.insert(folder.to_owned());
        Ok(())
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &Key, start: u64, length: u64) -> Result<Bytes, StoreError> {
        let path = self.path(key)?;
        let read = || -> io::Result<Bytes> {
            let mut file = open_object(&path)?;
            let left = file.metadata()?.len().saturating_sub(start);
            let wanted = left.min(length);
            let mut body = Vec::with_capacity(usize::try_from(wanted).map_err(io::Error::other)?);
            if wanted > 0 {
                file.seek(SeekFrom::Start(start))?;
                file.take(wanted).read_to_end(&mut body)?;
            }
            Ok(Bytes::from(body))
        };
        read().map_err(|error| self.read_error("read", key, error))
    }

    fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let path = self.path(key)?;
        let found = fs::metadata(&path)
            .and_then(|found| if found.is_file() { Ok(found) } else { Err(io::ErrorKind::NotFound.into()) });
        let found = found.map_err(|error| self.read_error("look at", key, error))?;
        Ok(ObjectMeta { key: key.clone(), size: found.len(), modified_us: modified_us(&found) })
    }

    fn read_error(&self, doing: &str, key: &Key, error: io::Error) -> StoreError {
        let doing = format!("{doing} {}", self.root.join(key.as_str()).display());
        // A component of the name is a file: then there is no such object.
        let missing = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        if missing && fs::metadata(&self.root).is_ok_and(|root| root.is_dir()) {
            return StoreError::new(StoreErrorKind::NotFound, doing).with_source(error);
        }
        self.error(&doing, error)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let result = fs::remove_file(&path).and_then(|()| sync_folder(path.parent().unwrap_or(&self.root)));
        match result.map_err(|error| self.read_error("remove", key, error)) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    fn sweep(&self, age_seconds: u64) -> Result<u64, StoreError> {
        let folder = self.root.join(TEMPORARY);
        let oldest = clock::now_us().saturating_sub(age_seconds.saturating_mul(1_000_000));
        let sweep = || -> io::Result<u64> {
            let mut swept = 0_u64;
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                // Another agent may sweep, or finish, at the same time: what is gone is gone.
                let Ok(found) = entry.metadata() else { continue };
                let old = modified_us(&found).is_some_and(|modified| modified <= oldest);
                if found.is_file() && old && fs::remove_file(entry.path()).is_ok() {
                    swept = swept.saturating_add(1);
                }
            }
            Ok(swept)
        };
        match sweep() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            other => other.map_err(|error| self.error(&format!("sweep {}", folder.display()), error)),
        }
    }
}

/// Opens what must be a file; a folder is no object.
fn open_object(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Makes one folder; one that exists is fine.
fn make_folder(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::metadata(path)?.is_dir() {
                Ok(())
            } else {
                Err(io::ErrorKind::NotADirectory.into())
            }
        }
        other => other,
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Renames, either over what is there or only if nothing is.
fn rename(from: &Path, to: &Path, over: bool) -> io::Result<Put> {
    if over {
        fs::rename(from, to)?;
        return Ok(Put::Created);
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Put::Created),
        Err(Errno::EXIST) => Ok(Put::AlreadyThere),
        // Not every filesystem (NFS, some FUSE) and kernel knows the flag: a hard link refuses an existing name too.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link(from, to),
        Err(errno) => Err(errno.into()),
    }
}

/// The other way to take a name only if it is free.
fn link(from: &Path, to: &Path) -> io::Result<Put> {
    match fs::hard_link(from, to) {
        Ok(()) => {
            // The object stands; a temporary name that stays behind is swept later.
            drop(fs::remove_file(from));
            Ok(Put::Created)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Put::AlreadyThere),
        Err(error) => Err(error),
    }
}

fn modified_us(found: &fs::Metadata) -> Option<u64> {
    let since = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_micros()).ok()
}

fn classify(error: &io::Error) -> StoreErrorKind {
    match error.kind() {
        // FileTooLarge: a limit on the size of files (ulimit -f) that an object meets.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => StoreErrorKind::Full,
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory => StoreErrorKind::Denied,
        io::ErrorKind::InvalidFilename => StoreErrorKind::Config,
        // Interrupted, stale handles, too many open files, input/output errors of a network mount.
        _ => StoreErrorKind::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_kernel_have_their_kind() {
        let kind = |errno: Errno| classify(&io::Error::from(errno));
        assert_eq!(kind(Errno::NOSPC), StoreErrorKind::Full);
        assert_eq!(kind(Errno::DQUOT), StoreErrorKind::Full);
        assert_eq!(kind(Errno::ACCESS), StoreErrorKind::Denied);
        assert_eq!(kind(Errno::PERM), StoreErrorKind::Denied);
        assert_eq!(kind(Errno::ROFS), StoreErrorKind::Denied);
        assert_eq!(kind(Errno::NOTDIR), StoreErrorKind::Denied);
        assert_eq!(kind(Errno::NAMETOOLONG), StoreErrorKind::Config);
        assert_eq!(kind(Errno::IO), StoreErrorKind::Transient);
        assert_eq!(kind(Errno::STALE), StoreErrorKind::Transient);
    }

    #[test]
    fn a_hard_link_takes_a_free_name_only() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two, name) = (folder.path().join("1"), folder.path().join("2"), folder.path().join("name"));
        fs::write(&one, "one").unwrap();
        fs::write(&two, "two").unwrap();
        assert_eq!(link(&one, &name).unwrap(), Put::Created);
        assert_eq!(link(&two, &name).unwrap(), Put::AlreadyThere);
        assert_eq!(fs::read(&name).unwrap(), b"one");
        assert!(fs::symlink_metadata(&one).is_err(), "the temporary name stayed");
    }

    #[tokio::test]
    async fn a_write_leaves_no_temporary_file_and_a_sweep_takes_what_a_crash_left() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::open(folder.path().join("root"), &DiskOptions::default()).await.unwrap();
        let key = Key::new("chunks/a/1").unwrap();
        store.put_new(&key, Bytes::from_static(b"x")).await.unwrap();
        store.put_new(&key, Bytes::from_static(b"x")).await.unwrap();
        store.put_over(&key, Bytes::from_static(b"y")).await.unwrap();
        let temporary = folder.path().join("root").join(TEMPORARY);
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);

        fs::write(temporary.join("left"), "half").unwrap();
        assert_eq!(store.sweep(3600).await.unwrap(), 0, "a young file may still be written");
        assert_eq!(store.sweep(0).await.unwrap(), 1);
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
        let listed = store.list_page("", ListDepth::Everything, None).await.unwrap();
        assert_eq!(listed.objects.len(), 1);
    }

    #[tokio::test]
    async fn files_and_folders_are_not_for_everybody() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let store = DiskStore::open(&root, &DiskOptions::default()).await.unwrap();
        store.put_new(&Key::new("a/b").unwrap(), Bytes::from_static(b"x")).await.unwrap();
        for name in ["", "a", "a/b", TEMPORARY] {
            let mode = fs::metadata(root.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o027, 0, "{name} has mode {mode:o}");
        }
    }
}
