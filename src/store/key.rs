//! The name of an object: a relative path that cannot leave the archive, whoever wrote it.

use std::fmt;

use super::{StoreError, StoreErrorKind};

/// The longest name a store must take, in bytes (S3's own limit).
pub const KEY_BYTES_MAX: usize = 1024;

/// An object's name, relative to the archive's root: `a/b/c`, no empty, `.` or `..` component, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`StoreErrorKind::Corrupt`] if the name could point outside the archive or is no name at all.
    pub fn new(name: impl Into<String>) -> Result<Self, StoreError> {
        let name = name.into();
        let fine = !name.is_empty()
            && name.len() <= KEY_BYTES_MAX
            && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
            && !name.chars().any(|c| c.is_control() || c == '\\');
        if fine {
            Ok(Self(name))
        } else {
            let shown: String = name.chars().take(80).collect();
            Err(StoreError::new(StoreErrorKind::Corrupt, format!("{shown:?} is no object name")))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part behind the last `/`.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Keys sort and compare as their names do, so a map of keys can be asked by name.
impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_archive() {
        for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a\\b", "a\nb", &"x".repeat(1025)] {
            assert!(Key::new(bad).is_err(), "{bad:?} was taken");
        }
        for good in ["a", "a/b.c", "chunks/0a-1/binlog.000001.20261122T000000Z/x", "a..b/c"] {
            assert!(Key::new(good).is_ok(), "{good:?} was refused");
        }
    }
}
