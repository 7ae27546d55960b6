//! What a statement in the binlog means to a dump that is being taken. Pure.
//!
//! A dump by `mysqldump` reads rows as of one moment, but lists tables and reads views, routines, triggers and events as
//! they are when it comes to them. Tables that were made, rebuilt or emptied since the moment are noticed by the server
//! ("Table definition has changed"); other changes of definitions are not, and then dump and binlog do not fit.

use mysql_common::binlog::events::{StatusVarVal, StatusVarsIterator};

/// Judgement on one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It does no harm, or the tool itself notices.
    Harmless,
    /// It changes definitions under the dump: its first words.
    Spoils(String),
    /// XA START of this transaction.
    XaStart(String),
    /// XA COMMIT or XA ROLLBACK of this transaction, prepared before.
    XaEnd(String),
}

/// The statement's text in the body of a query event (behind the header; it may be cut at the end).
pub(super) fn query_text(body: &[u8]) -> Option<&[u8]> {
    let schema = usize::from(*body.get(8)?);
    let status = usize::from(u16::from_le_bytes([*body.get(11)?, *body.get(12)?]));
    body.get(13_usize.checked_add(status)?.checked_add(schema)?.checked_add(1)?..)
}

/// Whether the statement in the body of a query event was committed in InnoDB, which then knows its GTID: an atomic change of
/// definitions (8.0 and later) carries the number of its transaction there. BEGIN, OPTIMIZE TABLE, or a CREATE TABLE IF NOT
/// EXISTS that found one does not (seen on 9.7).
pub(super) fn is_innodbs(body: &[u8]) -> bool {
    let status = || {
        let bytes = usize::from(u16::from_le_bytes([*body.get(11)?, *body.get(12)?]));
        body.get(13..13_usize.checked_add(bytes)?)
    };
    let mut variables = StatusVarsIterator::new(status().unwrap_or(&[]));
    variables.any(|variable| matches!(variable.get_value(), Ok(StatusVarVal::DdlLoggedWithXid(_))))
}

/// Judges a statement by its beginning.
pub(super) fn judge(text: &[u8]) -> Meaning {
    let text = String::from_utf8_lossy(text.get(..text.len().min(1024)).unwrap_or(text));
    let plain = without_comments(&text);
    let words: Vec<String> = plain.split_whitespace().take(4).map(str::to_ascii_uppercase).collect();
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    match (word(0), word(1)) {
        ("XA", "START" | "BEGIN") => Meaning::XaStart(xid_in(&plain)),
        ("XA", "COMMIT" | "ROLLBACK") => Meaning::XaEnd(xid_in(&plain)),
        // Rows of accounts are read as of the moment, like all others.
        ("CREATE" | "ALTER" | "DROP" | "RENAME", "USER" | "ROLE" | "INSTANCE" | "RESOURCE" | "PREPARE") => {
            Meaning::Harmless
        }
        // Reading a table that is younger than the moment fails.
        ("CREATE", "TABLE") | ("CREATE" | "DROP", "TEMPORARY") => Meaning::Harmless,
        ("CREATE" | "ALTER" | "DROP" | "RENAME", _) => Meaning::Spoils(words.join(" ")),
        _ => Meaning::Harmless,
    }
}

/// `XA START X'61',X'',1` → `x'61',x'',1`
fn xid_in(text: &str) -> String {
    let behind: Vec<&str> = text.split_whitespace().skip(2).collect();
    behind.concat().to_ascii_lowercase()
}

/// A table, by schema and name.
pub(super) type TableName = (String, String);

/// The table that a table map event is of, from its body.
pub(super) fn mapped_table(body: &[u8]) -> Option<TableName> {
    // An id of six bytes and two of flags; then both names with their length before and a zero behind.
    let (length, rest) = body.get(8..)?.split_first()?;
    let (schema, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, rest) = rest.get(1..)?.split_first()?;
    let table = rest.get(..usize::from(*length))?;
    Some((String::from_utf8_lossy(schema).into_owned(), String::from_utf8_lossy(table).into_owned()))
}

/// Whether a statement may be about a table of this name: the name stands in it.
pub(super) fn names_table(text: &[u8], table: &str) -> bool {
    let text = String::from_utf8_lossy(text).to_lowercase();
    let in_name = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let wanted = table.to_lowercase();
    text.match_indices(&wanted).any(|(at, found)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let behind = text.get(at.saturating_add(found.len())..).and_then(|behind| behind.chars().next());
        !before.is_some_and(in_name) && !behind.is_some_and(in_name)
    })
}

/// An XA transaction's id in the form of the binlog, from the columns of XA RECOVER.
pub(super) fn xid_of(format: &str, gtrid_bytes: usize, data: &[u8]) -> Option<String> {
    use std::fmt::Write;

    let (gtrid, bqual) = data.split_at_checked(gtrid_bytes)?;
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    Some(format!("x'{}',x'{}',{format}", hex(gtrid), hex(bqual)))
}

/// The text without comments; what stands in a comment for newer servers (`/*!80000 … */`) counts as text.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("/*").or_else(|| rest.find("*/")) {
        let (before, comment) = rest.split_at(at);
        // The closing sign of a version comment may stand before the next comment.
        out.push_str(&before.replace("*/", " "));
        if let Some(versioned) = comment.strip_prefix("/*!") {
            rest = versioned.trim_start_matches(|c: char| c.is_ascii_digit());
        } else if comment.starts_with("*/") {
            rest = comment.get(2..).unwrap_or("");
        } else {
            rest = comment.find("*/").and_then(|end| comment.get(end.checked_add(2)?..)).unwrap_or("");
        }
        out.push(' ');
    }
    out.push_str(rest);
    out.lines().filter(|line| !line.trim_start().starts_with(['#'])).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_innodb_has_committed_says_so() {
        // Behind 13 bytes: flags, SQL mode, catalog, and (in a change of definitions) the transaction's number.
        let body = |status: &[u8]| {
            let bytes = u16::try_from(status.len()).unwrap().to_le_bytes();
            [&[0; 8][..], &[4, 0, 0], &bytes, status, b"shop\0OPTIMIZE TABLE t"].concat()
        };
        let plain = [&[0, 0, 0, 0, 0, 1][..], &[0; 8], &[6, 3], b"std"].concat();
        let atomic = [&plain[..], &[17, 9, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert!(!is_innodbs(&body(&plain)));
        assert!(is_innodbs(&body(&atomic)));
        assert_eq!(query_text(&body(&atomic)), Some(&b"OPTIMIZE TABLE t"[..]));
    }

    #[test]
    fn definitions_that_change_unnoticed_spoil_a_dump() {
        for text in [
            "DROP TABLE `t` /* generated by server */",
            "rename table a to b",
            "ALTER TABLE t ADD INDEX (v)",
            "/* a comment */ ALTER TABLE t RENAME u",
            "CREATE DEFINER=`root`@`localhost` PROCEDURE p() SELECT 1",
            "CREATE ALGORITHM=UNDEFINED DEFINER=`x`@`%` SQL SECURITY DEFINER VIEW `w` AS select 1",
            "create or replace view w as select 1",
            "CREATE DATABASE d",
            "DROP EVENT IF EXISTS e",
            "CREATE INDEX i ON t (v)",
            "/*!50001 DROP VIEW w */",
        ] {
            assert!(matches!(judge(text.as_bytes()), Meaning::Spoils(_)), "{text}");
        }
        for text in [
            "BEGIN",
            "INSERT INTO t VALUES ('DROP TABLE x')",
            "CREATE TABLE t (i int)",
            "CREATE TEMPORARY TABLE t (i int)",
            "DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `tmp`",
            "TRUNCATE TABLE t",
            "CREATE USER 'a'@'%'",
            "GRANT SELECT ON *.* TO a",
            "ANALYZE TABLE t",
            "",
        ] {
            assert_eq!(judge(text.as_bytes()), Meaning::Harmless, "{text}");
        }
        assert_eq!(judge(b"DROP TABLE a, b, c"), Meaning::Spoils("DROP TABLE A, B,".into()));
    }

    #[test]
    fn xa_transactions_are_told_apart_by_the_same_text() {
        let id = "x'6f6e65',x'7068617365',3".to_owned();
        assert_eq!(judge(b"XA START X'6f6e65',X'7068617365',3"), Meaning::XaStart(id.clone()));
        assert_eq!(judge(b"XA COMMIT X'6f6e65', X'7068617365', 3"), Meaning::XaEnd(id.clone()));
        assert_eq!(xid_of("3", 3, b"onephase").as_ref(), Some(&id));
        assert_eq!(xid_of("3", 30, b"onephase"), None);
        assert_eq!(judge(b"XA END X'6f6e65',X'7068617365',3"), Meaning::Harmless);
    }

    #[test]
    fn tables_are_recognised() {
        let body = [&[1, 2, 3, 4, 5, 6, 1, 0][..], b"\x02db\0\x05table\0\x01\x03"].concat();
        assert_eq!(mapped_table(&body), Some(("db".into(), "table".into())));
        assert_eq!(mapped_table(&body[..14]), None);
        for text in ["INSERT INTO Logs VALUES (1)", "update `x`.`logs` set a = 1", "DELETE FROM logs"] {
            assert!(names_table(text.as_bytes(), "logs"), "{text}");
        }
        for text in ["INSERT INTO blogs VALUES (1)", "BEGIN", "INSERT INTO logs_2 VALUES (1)"] {
            assert!(!names_table(text.as_bytes(), "logs"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(body in prop::collection::vec(any::<u8>(), 0..300), text in "[ -~/*!\n]{0,100}") {
            let _ = (query_text(&body).map(judge), is_innodbs(&body));
            let _ = (mapped_table(&body), names_table(&body, &text));
            let _ = judge(text.as_bytes());
        }
    }
}
