//! Listing a folder store in the order S3 lists: by the bytes of the whole name, a page at a time.
//!
//! Invariants: the order is that of the names (a folder sorts as its name with the `/`, so `a.b` comes before `a/c`);
//! memory is bounded by the page, not by the folder: of each folder only the next names are kept; a folder without
//! objects is not seen, as in S3.

use std::collections::BTreeMap;
use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};

use super::super::{Key, LIST_PAGE_MAX, ListDepth, ListPage, ObjectMeta, key::KEY_BYTES_MAX};
use super::{TEMPORARY, modified_us};

/// An error and the folder it happened in.
type Failed = (PathBuf, io::Error);

/// One page of what lies under `prefix`, behind `after`.
pub(super) fn page(root: &Path, prefix: &str, depth: ListDepth, after: Option<&str>) -> Result<ListPage, Failed> {
    // A folder that is not there holds nothing, but a root that is not there is an error.
    fs::metadata(root).map_err(|error| (root.to_owned(), error))?;
    let mut walk = Walk { root, depth, limit: LIST_PAGE_MAX, last: None, page: ListPage::default() };
    let more = walk.folder(prefix, after)?;
    if more {
        walk.page.next = walk.last;
    }
    Ok(walk.page)
}

struct Walk<'a> {
    root: &'a Path,
    depth: ListDepth,
    limit: usize,
    /// The last name taken into the page.
    last: Option<String>,
    page: ListPage,
}

impl Walk<'_> {
    /// Walks one folder (`prefix` is empty or ends in `/`); says whether it stopped because the page is full.
    fn folder(&mut self, prefix: &str, after: Option<&str>) -> Result<bool, Failed> {
        let mut cursor: Option<String> = None;
        loop {
            let names = self.names(prefix, after, cursor.as_deref())?;
            let Some(last) = names.last_key_value().map(|(name, _)| name.clone()) else { return Ok(false) };
            let whole = names.len() < self.limit;
            for (name, kind) in names {
                if self.entry(&name, kind, after)? {
                    return Ok(true);
                }
            }
            if whole {
                return Ok(false);
            }
            cursor = Some(last);
        }
    }

    /// Takes one entry; says whether the page was full already.
    fn entry(&mut self, name: &str, kind: Kind, after: Option<&str>) -> Result<bool, Failed> {
        if kind == Kind::Folder && self.depth == ListDepth::Everything {
            return self.folder(name, after);
        }
        if kind == Kind::Folder && !self.holds_objects(name)? {
            return Ok(false);
        }
        let taken = match kind {
            Kind::Folder => None,
            Kind::File => match self.object(name)? {
                Some(object) => Some(object),
                // Removed since we read the folder.
                None => return Ok(false),
            },
        };
        if self.page.objects.len().saturating_add(self.page.folders.len()) >= self.limit {
            return Ok(true);
        }
        match taken {
            Some(object) => self.page.objects.push(object),
            None => self.page.folders.push(name.to_owned()),
        }
        self.last = Some(name.to_owned());
        Ok(false)
    }

    /// Whether there is any object under the folder; ends at the first.
    fn holds_objects(&self, prefix: &str) -> Result<bool, Failed> {
        let folder = self.root.join(prefix);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err((folder, error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| (folder.clone(), error))?;
            let file_type = entry.file_type().map_err(|error| (folder.clone(), error))?;
            let (Some(kind), Some(part)) =
                (kind_of(file_type, &entry.path()), entry.file_name().to_str().map(str::to_owned))
            else {
                continue;
            };
            let Ok(key) = Key::new(format!("{prefix}{part}")) else { continue };
            if kind == Kind::File || self.holds_objects(&format!("{key}/"))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn object(&self, name: &str) -> Result<Option<ObjectMeta>, Failed> {
        let path = self.root.join(name);
        let found = match fs::metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err((path, error)),
        };
        let Ok(key) = Key::new(name) else { return Ok(None) };
        Ok(Some(ObjectMeta { key, size: found.len(), modified_us: modified_us(&found) }))
    }

    /// The next names of a folder, whole and in order, at most as many as a page has entries: those behind `cursor`
    /// (taken from this folder before) that are, or may hold, something behind `after`.
    fn names(&self, prefix: &str, after: Option<&str>, cursor: Option<&str>) -> Result<BTreeMap<String, Kind>, Failed> {
        let folder = self.root.join(prefix);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Not there (any more), or a file: nothing lies under it.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(BTreeMap::new());
            }
            Err(error) => return Err((folder, error)),
        };
        let mut names = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(|error| (folder.clone(), error))?;
            let file_name = entry.file_name();
            let Some(part) = file_name.to_str() else { continue };
            if prefix.is_empty() && part == TEMPORARY {
                continue;
            }
            let file_type = entry.file_type().map_err(|error| (folder.clone(), error))?;
            let Some(kind) = kind_of(file_type, &entry.path()) else { continue };
            let name = match kind {
                Kind::File => format!("{prefix}{part}"),
                Kind::Folder => format!("{prefix}{part}/"),
            };
            let behind = after.is_none_or(|after| {
                name.as_str() > after
                    || (self.depth == ListDepth::Everything && after.starts_with(&name) && kind == Kind::Folder)
            });
            let fresh = cursor.is_none_or(|cursor| name.as_str() > cursor);
            let fits = names.len() < self.limit || names.last_key_value().is_some_and(|(last, _)| name < *last);
            if !behind || !fresh || !fits || name.len() > KEY_BYTES_MAX || Key::new(name.trim_end_matches('/')).is_err()
            {
                continue;
            }
            names.insert(name, kind);
            if names.len() > self.limit {
                names.pop_last();
            }
        }
        Ok(names)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

/// What an entry is; links are followed, everything that is neither file nor folder is nothing to us.
fn kind_of(file_type: FileType, path: &Path) -> Option<Kind> {
    if file_type.is_file() {
        return Some(Kind::File);
    }
    if file_type.is_dir() {
        return Some(Kind::Folder);
    }
    let target = fs::metadata(path).ok()?;
    if target.is_file() { Some(Kind::File) } else { target.is_dir().then_some(Kind::Folder) }
}
