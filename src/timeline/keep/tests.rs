//! What moments need, of lines that are made up.

use std::sync::Arc;

use super::*;
use crate::archive::{BaseContent, CloneFacts, Coordinates, Cover, FileChunks, FileState, Seam};
use crate::position::{BinlogFile, GtidSet};

const A: &str = "aaaaaaaa-0000-0000-0000-000000000000";
const B: &str = "bbbbbbbb-0000-0000-0000-000000000000";

fn set(text: &str) -> GtidSet {
    text.replace("A:", &format!("{A}:")).replace("B:", &format!("{B}:")).parse().unwrap()
}

fn incarnation(number: u64, created_s: u32) -> Incarnation {
    Incarnation { file: BinlogFile::new(&format!("b.{number:06}")).unwrap(), created_s }
}

/// A line whose files begin at these times; without metadata nothing is known but of its ends.
fn line(server: &str, files: &[u32], last_s: u32, before: &str, executed: &str) -> Line {
    let server = server.parse().unwrap();
    let file = |(index, created_s): (usize, &u32)| {
        let incarnation = incarnation(index as u64 + 1, *created_s);
        let cover = Cover { contiguous_end: 1000, ..Cover::default() };
        let chunks = Arc::new(FileChunks { server, incarnation, chunks: Vec::new(), cover, strangers: Vec::new() });
        FileState { chunks, first: None, last: None, seam: Seam::Begins }
    };
    Line {
        server,
        files: files.iter().enumerate().map(file).collect(),
        before: set(before),
        executed: set(executed),
        last_commit: CommitTime::from_seconds(last_s),
        written_until: CommitTime::from_seconds(files.first().map_or(last_s, |begun_s| last_s.max(*begun_s))),
        after_gap: false,
    }
}

fn base(server: &str, at_s: u32, number: u64, created_s: u32, executed: &str) -> BaseManifest {
    let finished_us = CommitTime::from_seconds(at_s).micros();
    BaseManifest {
        format: 1,
        archive: uuid::Uuid::nil(),
        id: format!("{at_s}"),
        engine: "clone".into(),
        content: BaseContent::Clone,
        server: server.parse().unwrap(),
        server_version: "9.7.4".into(),
        started_us: finished_us,
        finished_us,
        coordinates: Coordinates {
            file: incarnation(number, created_s).file,
            created_s: Some(created_s),
            position: 4,
            executed: set(executed),
            gtid_mode: if executed.is_empty() { "OFF" } else { "ON" }.into(),
        },
        raw_bytes: 0,
        stored_bytes: 0,
        tool: String::new(),
        left_out: Vec::new(),
        settings: std::collections::BTreeMap::new(),
        clone: Some(CloneFacts::default()),
        parts: Vec::new(),
    }
}

fn needed(lines: Vec<Line>, bases: &[BaseManifest], since_s: u32, spare: &[&str]) -> Needed {
    let spare = spare.iter().map(|id| (*id).to_owned()).collect();
    Lines::new(lines).needed_since(bases, &[], CommitTime::from_seconds(since_s).micros(), &spare).unwrap()
}

fn times(needed: &Needed) -> Vec<u32> {
    needed.files.iter().map(|(_, file)| file.created_s).collect()
}

fn ids(needed: &Needed) -> Vec<&str> {
    needed.bases.iter().map(String::as_str).collect()
}

/// Without GTIDs a base backup's own file is where playing begins.
fn history() -> (Vec<Line>, Vec<BaseManifest>) {
    let lines = vec![line(A, &[100, 200, 300, 400], 450, "", "")];
    let bases = [(150, 1, 100), (250, 2, 200), (350, 3, 300)].map(|(at, n, created)| base(A, at, n, created, ""));
    (lines, bases.to_vec())
}

#[test]
fn the_newest_base_backup_before_the_first_moment_and_what_follows_it_are_needed() {
    let (lines, bases) = history();
    let found = needed(lines.clone(), &bases, 300, &[]);
    assert_eq!((ids(&found), times(&found)), (vec!["250", "350"], vec![200, 300, 400]));
    assert_eq!(found.heads[0].base.as_deref(), Some("250"));
    // Exactly at one.
    assert_eq!(ids(&needed(lines.clone(), &bases, 350, &[])), ["350"]);
    // A head that is idle since long is a head all the same.
    let found = needed(lines, &bases, 9000, &[]);
    assert_eq!((ids(&found), times(&found)), (vec!["350"], vec![300, 400]));
}

#[test]
fn without_a_base_backup_before_the_first_moment_nothing_goes() {
    let (lines, bases) = history();
    let found = needed(lines.clone(), &bases, 120, &[]);
    assert_eq!((ids(&found), times(&found)), (vec!["150", "250", "350"], vec![100, 200, 300, 400]));
    assert_eq!(found.heads[0].base, None);
    assert_eq!(times(&needed(lines, &[], 400, &[])), [100, 200, 300, 400]);
}

#[test]
fn a_spare_base_backup_keeps_the_file_of_its_place() {
    let (lines, bases) = history();
    let found = needed(lines, &bases, 400, &["150"]);
    assert_eq!((ids(&found), times(&found)), (vec!["150", "350"], vec![100, 300, 400]));
}

#[test]
fn a_history_that_was_left_before_the_first_moment_is_needed_no_more() {
    // A:31-50 holds the accident; B was restored to before it, and went on.
    let lines = vec![line(A, &[100, 200], 250, "", "A:1-50"), line(B, &[300, 400], 450, "A:1-30", "A:1-30,B:1-5")];
    let bases = [base(A, 220, 2, 200, "A:1-20"), base(B, 320, 1, 300, "A:1-30,B:1")];
    let found = needed(lines.clone(), &bases, 330, &[]);
    assert_eq!((ids(&found), found.heads.len()), (vec!["320"], 1));
    assert_eq!(found.heads[0].head.server, B.parse().unwrap());
    // While its own moments are wanted, it is.
    assert_eq!(needed(lines, &bases, 240, &[]).heads.len(), 2);
}
