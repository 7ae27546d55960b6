//! A store in a folder: one file an object, at the object's own name.
//!
//! Owns: atomic, durable writes; reading; removing; sweeping. `disk/list.rs` owns the listing, `disk/files.rs` what is done to
//! single files, `disk/spares.rs` the files that are written again.
//!
//! How a write goes: a temporary file in `<root>/.tmp/` → write → fdatasync → rename that refuses an existing name →
//! fsync of the folder. So a name that can be seen names a whole, durable file, and a crash leaves at worst a
//! temporary file, which [`Store::sweep`] removes. A folder made on the way is fsynced into its parent before the
//! first write in it is acknowledged.
//!
//! Limits: a component of a name has at most 255 bytes (the kernel's limit); `a` and `a/b` cannot both be objects;
//! names beginning in `.tmp/` are the store's own. Files that are not objects (names that are no [`Key`]) are not seen.

mod files;
mod list;
mod spares;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;

use self::files::{FILE_MODE, classify, make_folder, modified_us, open_object, rename, sync_folder};
use self::spares::Spares;
use super::{Key, ListDepth, ListPage, ObjectMeta, Put, Store, StoreError, StoreErrorKind};
use crate::{clock, threads};

pub use self::spares::SpareOptions;

/// The folder, under the root, of files that are being written.
const TEMPORARY: &str = ".tmp";

/// How many folders are remembered as durable; past it the memory starts over (each costs a few fsyncs once more).
const DURABLE_FOLDERS_MAX: usize = 4096;

/// How a folder is opened.
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// Make the root folder if only its parent exists. Commands that only read should say `false`.
    pub create: bool,
    /// Files of removed objects that are kept, to be written again: where small objects come and go. Then no other process
    /// may read the folder's objects.
    pub spares: SpareOptions,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self { create: true, spares: SpareOptions::default() }
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
    spares: Spares,
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
        let spares = Spares::new(options.spares);
        let disk = Disk { root, counter: AtomicU64::new(0), instance, durable: Mutex::default(), spares };
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
        let path = self.disk.path(key)?;
        if self.disk.spares.are_kept() && self.disk.spares.keep(&path, self.disk.temporary()) {
            return Ok(());
        }
        let removed = fs::remove_file(path).map_err(|error| self.disk.read_error("remove", key, error));
        removed.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
    }

    /// Behind some removals: their files may be written again. On a thread that may block.
    pub(super) fn settle_blocking(&self) {
        self.disk.spares.settle();
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

    /// A name for a temporary file that nobody has.
    fn temporary(&self) -> PathBuf {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        self.root.join(TEMPORARY).join(format!("{}-{number}", self.instance))
    }

    fn new_temporary(&self) -> io::Result<(PathBuf, File)> {
        let path = self.temporary();
        let open = || fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_folder(&self.root.join(TEMPORARY))?;
                open()?
            }
            other => other?,
        };
        Ok((path, file))
    }

    /// Writes a temporary file, durably; none stays behind on failure.
    fn write_temporary(&self, body: &[u8]) -> io::Result<PathBuf> {
        let (path, mut file) = self.spares.take().map_or_else(|| self.new_temporary(), Ok)?;
        // One that is written again may be longer.
        let written = file.write_all(body).and_then(|()| file.set_len(body.len() as u64));
        let written = written.map(|()| {
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
                (&file).take(wanted).read_to_end(&mut body)?;
            }
            // A file that has lost its name may be another object's by now.
            if self.spares.are_kept() && fs::metadata(&path)?.ino() != file.metadata()?.ino() {
                return Err(io::ErrorKind::NotFound.into());
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[tokio::test]
    async fn what_is_removed_is_written_again_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let options = DiskOptions { spares: SpareOptions { files: 2, bytes: 1000 }, ..DiskOptions::default() };
        let store = DiskStore::open(&root, &options).await.unwrap();
        let key = |number: usize| Key::new(format!("a/{number}")).unwrap();
        let inode = |number: usize| fs::metadata(root.join(format!("a/{number}"))).unwrap().ino();
        let kept = || fs::read_dir(root.join(TEMPORARY)).unwrap().count();
        for (number, bytes) in [(0, 600), (1, 600), (2, 300), (3, 10)] {
            store.put_blocking(&key(number), &vec![b'x'; bytes]).unwrap();
        }
        let (first, third) = (inode(0), inode(2));
        for number in 0..4 {
            store.remove_blocking(&key(number)).unwrap();
            store.remove_blocking(&key(number)).unwrap();
        }
        // Until it is durable that their names are gone, they rest.
        store.put_blocking(&key(8), b"new").unwrap();
        assert!(![first, third].contains(&inode(8)));
        store.settle_blocking();
        assert_eq!(kept(), 2, "the first and the third: the second goes beyond the bytes, the fourth beyond the files");
        // The newest first; a shorter body leaves nothing of the old one, a longer one is whole.
        store.put_blocking(&key(4), b"short").unwrap();
        store.put_blocking(&key(5), &vec![b'y'; 5000]).unwrap();
        assert_eq!((inode(4), inode(5), kept()), (third, first, 0));
        assert_eq!(store.get_range(&key(4), 0, 1 << 20).await.unwrap(), "short");
        assert_eq!(store.get_range(&key(5), 0, 1 << 20).await.unwrap(), vec![b'y'; 5000]);
        // A file with a second name is somebody's.
        fs::hard_link(root.join("a/4"), root.join("copy")).unwrap();
        store.remove_blocking(&key(4)).unwrap();
        assert_eq!((kept(), fs::read(root.join("copy")).unwrap()), (0, b"short".to_vec()));
        // One that somebody has swept is made anew.
        store.put_blocking(&key(6), b"z").unwrap();
        store.remove_blocking(&key(6)).unwrap();
        store.settle_blocking();
        assert_eq!(store.sweep(0).await.unwrap(), 1);
        store.put_blocking(&key(7), b"anew").unwrap();
        assert_eq!(store.get_range(&key(7), 0, 10).await.unwrap(), "anew");
    }

    /// A reader never gets the bytes of another object, however often files change their names.
    #[test]
    fn a_reader_meanwhile_gets_the_object_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let options = DiskOptions { spares: SpareOptions { files: 4, bytes: 1 << 20 }, ..DiskOptions::default() };
        let store = runtime.block_on(DiskStore::open(folder.path().join("root"), &options)).unwrap();
        let newest = AtomicU64::new(0);
        let bytes_of = |number: u64| number.to_le_bytes().repeat(4000);
        let key = |number: u64| Key::new(number.to_string()).unwrap();
        let whole = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 0..1000 {
                    store.put_blocking(&key(number), &bytes_of(number)).unwrap();
                    newest.store(number, Ordering::Release);
                    std::thread::yield_now();
                    store.remove_blocking(&key(number)).unwrap();
                    store.settle_blocking();
                }
            });
            let mut whole = 0;
            while !writer.is_finished() {
                let number = newest.load(Ordering::Acquire);
                match store.disk.get(&key(number), 0, 1 << 20) {
                    Ok(body) if body == bytes_of(number) => whole += 1,
                    Ok(_) => panic!("another object's bytes in {number}"),
                    Err(error) => assert!(error.is_not_found(), "{error}"),
                }
            }
            whole
        });
        assert!(whole > 0, "no object was met");
    }
}
