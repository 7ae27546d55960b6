//! What is done to single files and folders, with the manners of durable writing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::super::{Put, StoreErrorKind};

/// Files: the owner writes, the group may read. The objects are encrypted; the names are not.
pub(super) const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// Opens what must be a file; a folder is no object.
pub(super) fn open_object(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Makes one folder; one that exists is fine.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
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

pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Renames, either over what is there or only if nothing is.
pub(super) fn rename(from: &Path, to: &Path, over: bool) -> io::Result<Put> {
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

pub(super) fn modified_us(found: &fs::Metadata) -> Option<u64> {
    let since = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_micros()).ok()
}

pub(super) fn classify(error: &io::Error) -> StoreErrorKind {
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
}
