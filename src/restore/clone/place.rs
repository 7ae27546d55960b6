//! Where a file of the donor's comes to lie. Pure.
//!
//! Invariants: a path is relative to the data directory and stays below it; it names data and nothing that a server takes
//! orders from (options, persisted variables, keyrings, markers); no file lands where the donor had it outside its data
//! directory.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::mysql::clone::descriptor::{File, SpaceId};

/// Parts of a path, at most.
const DEPTH_MAX: usize = 8;
/// Bytes of one part, at most.
const PART_BYTES_MAX: usize = 255;
/// The dump of the buffer pool, whatever the donor calls it.
const BUFFER_POOL: &str = "ib_buffer_pool";
/// In a tablespace's flags: a general one, which may hold several tables.
const SHARED: u32 = 1 << 11;
/// What a server takes orders from, or keeps for itself.
const RESERVED: &[&str] = &["#clone", "#innodb_redo", "#innodb_temp", "#ib_archive", "performance_schema"];

/// Whether a name points out of the donor's data directory.
pub(super) fn is_external(name: &str) -> bool {
    name.starts_with('/')
}

/// The place of a file, relative to the data directory.
///
/// # Errors
/// [`crate::error::Kind::Corrupt`] for a name that no server gives.
pub(super) fn place(file: &File) -> Result<PathBuf> {
    let name = file.name.as_deref().unwrap_or_default();
    if file.space == SpaceId::NONE {
        return Ok(PathBuf::from(BUFFER_POOL));
    }
    let path = relative(name, file)?;
    let kind = match path.extension().and_then(|extension| extension.to_str()) {
        Some("ibd") => !file.space.is_undo() && file.space != SpaceId::SYSTEM,
        Some("ibu") => file.space.is_undo(),
        None => file.space.is_undo() || file.space == SpaceId::SYSTEM,
        // The system tablespace's files have any name that innodb_data_file_path gives them.
        Some(extension) => file.space == SpaceId::SYSTEM && !matches!(extension, "cnf" | "my" | "pem" | "so"),
    };
    if !kind || (file.space == SpaceId::DICTIONARY) != (path == Path::new("mysql.ibd")) {
        return Err(odd(name, "it does not fit its tablespace"));
    }
    Ok(path)
}

/// The file of the system tablespace that `innodb_data_file_path` names.
///
/// # Errors
/// As [`place`].
pub(super) fn system_place(name: &str) -> Result<PathBuf> {
    let (state, space) = (crate::mysql::clone::descriptor::State::FileCopy, SpaceId::SYSTEM);
    place(&File {
        state,
        space,
        size: 0,
        allocated: 0,
        fsp_flags: 0,
        fs_block: 0,
        flags: 0,
        index: 0,
        first_chunk: 0,
        last_chunk: 0,
        name: Some(name.to_owned()),
        secret: None,
    })
}

fn relative(name: &str, file: &File) -> Result<PathBuf> {
    let mut parts = Vec::new();
    for part in Path::new(name).components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str().unwrap_or_default()),
            Component::ParentDir | Component::Prefix(_) => return Err(odd(name, "it leads upward")),
        }
    }
    if is_external(name) {
        // A table's file belongs into its schema's folder; all others are known by their names alone.
        let is_table = file.fsp_flags & SHARED == 0 && file.space != SpaceId::SYSTEM && !file.space.is_undo();
        let kept = if is_table { 2 } else { 1 };
        parts.drain(..parts.len().saturating_sub(kept));
        if parts.len() != kept {
            return Err(odd(name, "it has no folder"));
        }
    }
    if parts.is_empty() || parts.len() > DEPTH_MAX || name.ends_with('/') {
        return Err(odd(name, "it is no file's"));
    }
    for (depth, part) in parts.iter().enumerate() {
        let lower = part.to_ascii_lowercase();
        // Servers write names of schemas and tables in letters, digits, `_`, `$`, `@` and `#`; people name other files.
        if part.len() > PART_BYTES_MAX || part.starts_with('.') || part.chars().any(char::is_control) {
            return Err(odd(name, "no server names a file so"));
        }
        if depth == 0 && RESERVED.contains(&lower.as_str()) {
            return Err(odd(name, "the place is the server's own"));
        }
    }
    Ok(parts.iter().collect())
}

fn odd(name: &str, why: &str) -> Error {
    let shown: String = name.chars().take(200).collect();
    Error::corrupt(format!("the clone stream has a file named {shown:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::clone::descriptor::State;
    use proptest::prelude::*;

    fn file(space: u32, fsp_flags: u32, name: &str) -> File {
        File {
            state: State::FileCopy,
            size: 0,
            allocated: 0,
            fsp_flags,
            fs_block: 4096,
            flags: 0,
            space: SpaceId(space),
            index: 0,
            first_chunk: 0,
            last_chunk: 0,
            name: Some(name.to_owned()),
            secret: None,
        }
    }

    fn placed(space: u32, fsp_flags: u32, name: &str) -> Option<String> {
        place(&file(space, fsp_flags, name)).ok().map(|path| path.to_str().unwrap().to_owned())
    }

    const UNDO: u32 = 0xffff_ffef;

    #[test]
    fn files_keep_their_names_and_external_ones_come_home() {
        for (space, flags, name, wanted) in [
            (0, 0, "ibdata1", "ibdata1"),
            (0, 0, "/data/ibdata.1", "ibdata.1"),
            (0xffff_fffe, 0, "mysql.ibd", "mysql.ibd"),
            (0xffff_ffff, u32::MAX, "ib_buffer_pool", "ib_buffer_pool"),
            (0xffff_ffff, u32::MAX, "mysqld-auto.cnf", "ib_buffer_pool"),
            (UNDO, 0, "undo_001", "undo_001"),
            (UNDO - 1, 0, "/undo/mine.ibu", "mine.ibu"),
            (7, 0, "./shop/orders.ibd", "shop/orders.ibd"),
            (7, 0, "./shop/orders#p#p0.ibd", "shop/orders#p#p0.ibd"),
            (7, SHARED, "./ts1.ibd", "ts1.ibd"),
            (7, SHARED, "/far/away/ts1.ibd", "ts1.ibd"),
            (7, 1 << 10, "/far/away/shop/orders.ibd", "shop/orders.ibd"),
        ] {
            assert_eq!(placed(space, flags, name).as_deref(), Some(wanted), "{name}");
        }
    }

    #[test]
    fn names_that_no_server_gives_are_refused() {
        for (space, name) in [
            (7, "../x.ibd"),
            (7, "./shop/../../x.ibd"),
            (7, "/etc/../x.ibd"),
            (7, "/x.ibd"),
            (7, ""),
            (7, "/"),
            (7, "./"),
            (7, "shop/"),
            (7, "shop/x.ibd/"),
            (7, "shop/x"),
            (7, "shop/x.cnf"),
            (7, "mysqld-auto.cnf"),
            (7, "#clone/x.ibd"),
            (7, "#CLONE/x.ibd"),
            (7, "#innodb_redo/x.ibd"),
            (7, ".binvault-restore.json"),
            (7, ".hidden/x.ibd"),
            (7, "a/b/c/d/e/f/g/h/x.ibd"),
            (7, "sh\nop/x.ibd"),
            (7, "mysql.ibd"),
            (0xffff_fffe, "shop/mysql.ibd"),
            (0, "mysqld.my"),
            (0, "mysqld-auto.cnf"),
            (0, "shop/orders.ibd"),
            (UNDO, "shop/orders.ibd"),
        ] {
            assert_eq!(placed(space, 0, name), None, "{name}");
        }
        assert_eq!(placed(7, 0, &format!("{}.ibd", "x".repeat(300))), None);
    }

    proptest! {
        #[test]
        fn whatever_the_name_it_stays_below(name in "[./a#\\x00ü-]{0,40}(\\.ibd)?", space in any::<u32>(), flags in any::<u32>()) {
            if let Ok(path) = place(&file(space, flags, &name)) {
                prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{:?}", path);
                prop_assert!(path.components().count() > 0);
            }
        }
    }
}
