//! Finding coordinates in what a tool says: a text with `{file}` and `{position}` in it. Pure.
//!
//! White space in the pattern stands for any white space, or none beside a field; everything else for itself. The last
//! place where the pattern fits counts: tools say more than one position, and the last is the backup's.

use crate::position::{BinlogFile, Position};

/// One piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Space,
    File,
    Number,
}

/// The last position in `text` that fits the pattern.
pub(super) fn find(pattern: &str, text: &str) -> Option<Position> {
    let pieces = pieces(pattern.trim());
    let starts = text.char_indices().rev().map(|(at, _)| at);
    starts.filter_map(|at| text.get(at..)).find_map(|rest| fit(&pieces, rest))
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("{file}") {
            pieces.push(Piece::File);
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix("{position}") {
            pieces.push(Piece::Number);
            rest = behind;
        } else if first.is_whitespace() {
            pieces.push(Piece::Space);
            rest = rest.trim_start();
        } else {
            let behind = rest.get(first.len_utf8()..).unwrap_or("");
            match pieces.last_mut() {
                Some(Piece::Text(text)) => text.push(first),
                _ => pieces.push(Piece::Text(first.to_string())),
            }
            rest = behind;
        }
    }
    pieces
}

/// Whether all pieces fit at the start of `rest`.
fn fit(pieces: &[Piece], mut rest: &str) -> Option<Position> {
    let (mut file, mut offset) = (None, None);
    for piece in pieces {
        let taken = match piece {
            Piece::Text(text) => rest.starts_with(text.as_str()).then_some(text.len())?,
            Piece::Space => rest.len().checked_sub(rest.trim_start().len())?,
            Piece::File => {
                let in_name = |c: char| !c.is_whitespace() && !matches!(c, '\'' | '"' | ',' | ';' | ':' | '`');
                let length = rest.find(|c| !in_name(c)).unwrap_or(rest.len());
                // The name alone, should the tool tell a path.
                let name = rest.get(..length)?.rsplit('/').next()?;
                file = Some(BinlogFile::new(name).ok()?);
                length
            }
            Piece::Number => {
                let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                offset = Some(rest.get(..length)?.parse().ok()?);
                length
            }
        };
        rest = rest.get(taken..)?;
    }
    Some(Position { file: file?, offset: offset? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tools_say_it_in_their_own_words() {
        let found = |pattern: &str, text: &str| find(pattern, text).map(|position| position.to_string());
        let xtrabackup = "241122 10:00:00 Backup created\nMySQL binlog position: filename 'binlog.000003', position '157', \
            GTID of the last change '3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5'\ncompleted OK!\n";
        assert_eq!(found("filename '{file}', position '{position}'", xtrabackup).as_deref(), Some("binlog.000003:157"));
        let mydumper =
            "Started dump at: now\nSHOW MASTER STATUS:\n\tLog: mysql-bin.1000000\n\tPos: 1609\n\tGTID:x:1-7\n";
        assert_eq!(found("Log: {file} Pos: {position}", mydumper).as_deref(), Some("mysql-bin.1000000:1609"));
        assert_eq!(found("at {file}:{position}", "at a.1:4, at /var/lib/b.2:99.").as_deref(), Some("b.2:99"));
        assert_eq!(found("at {file}:{position}", "at b:4"), None);
        assert_eq!(found("at {file}:{position}", "at b.1:99999999999999999999"), None);
        assert_eq!(found("{position} in {file}", "ü 7 in b.1").as_deref(), Some("b.1:7"));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_not(pattern in "\\PC{0,40}", text in "\\PC{0,200}") {
            let _ = find(&pattern, &text);
            let _ = find("{file}{position}", &text);
        }

        #[test]
        fn what_is_said_is_found(number in 1_u32..999_999, offset: u64, before in "[ -~]{0,50}", after in "[a-z ]{0,50}") {
            let text = format!("{before}log=binlog.{number:06} pos={offset} {after}");
            let found = find("log={file} pos={position}", &text).unwrap();
            prop_assert_eq!((found.file.number(), found.offset), (u64::from(number), offset));
        }
    }
}
