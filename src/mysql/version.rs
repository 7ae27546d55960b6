//! The server's version, as it calls itself in its greeting.

use std::fmt;

/// A server's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// As the server says it, without MariaDB's false `5.5.5-` in front.
    pub text: String,
    /// First number; 0 if the text cannot be read.
    pub major: u16,
    /// Second number.
    pub minor: u16,
    /// Third number.
    pub patch: u16,
    /// Whether this is MariaDB, whose numbers mean other things.
    pub is_mariadb: bool,
}

impl Version {
    /// Reads a version text; never fails, an unreadable number is 0.
    pub fn parse(text: &str) -> Self {
        let is_mariadb = text.to_ascii_lowercase().contains("mariadb");
        // MariaDB 10 and 11.0 put this in front for replicas that compare version numbers as MySQL's.
        let text = if is_mariadb { text.strip_prefix("5.5.5-").unwrap_or(text) } else { text };
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u16>().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        let (major, minor, patch) = (next(), next(), next());
        Self { text: text.to_owned(), major, minor, patch, is_mariadb }
    }

    /// Whether this is MySQL (or a kin such as Percona Server), not MariaDB, of at least this version.
    pub fn is_mysql_at_least(&self, major: u16, minor: u16, patch: u16) -> bool {
        !self.is_mariadb && (self.major, self.minor, self.patch) >= (major, minor, patch)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_servers_say_them() {
        let cases = [
            ("9.7.4", (9, 7, 4), false),
            ("8.0.46-37.1", (8, 0, 46), false),
            ("5.7.44-log", (5, 7, 44), false),
            ("5.5.5-10.11.6-MariaDB-0+deb12u1", (10, 11, 6), true),
            ("11.8.6-MariaDB-ubu2404", (11, 8, 6), true),
            ("99999999.1.2", (0, 1, 2), false),
            ("", (0, 0, 0), false),
        ];
        for (text, numbers, mariadb) in cases {
            let version = Version::parse(text);
            assert_eq!((version.major, version.minor, version.patch), numbers, "{text}");
            assert_eq!(version.is_mariadb, mariadb, "{text}");
        }
    }

    #[test]
    fn mariadb_is_never_a_new_mysql() {
        assert!(Version::parse("8.2.0").is_mysql_at_least(8, 2, 0));
        assert!(!Version::parse("8.1.99").is_mysql_at_least(8, 2, 0));
        assert!(!Version::parse("11.8.6-MariaDB").is_mysql_at_least(5, 6, 0));
    }
}
