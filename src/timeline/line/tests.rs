//! Heads and lineages of made-up histories.

use std::sync::Arc;

use super::*;
use crate::archive::{Cover, FileChunks};
use crate::position::{BinlogFile, Incarnation};

const A: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const B: &str = "bbbbbbbb-0000-0000-0000-000000000002";

fn set(text: &str) -> GtidSet {
    text.replace("A:", &format!("{A}:")).replace("B:", &format!("{B}:")).parse().unwrap()
}

/// A line of one file, begun and last written at these seconds.
fn line(server: &str, begun_s: u32, last_s: u32, before: &str, executed: &str) -> Line {
    let server: ServerUuid = server.parse().unwrap();
    let incarnation = Incarnation { file: BinlogFile::new("binlog.000001").unwrap(), created_s: begun_s };
    let cover = Cover { contiguous_end: 1000, ..Cover::default() };
    let chunks = Arc::new(FileChunks { server, incarnation, chunks: Vec::new(), cover, strangers: Vec::new() });
    Line {
        server,
        files: vec![FileState { chunks, first: None, last: None, seam: Seam::Begins }],
        before: set(before),
        executed: set(executed),
        last_commit: CommitTime::from_seconds(last_s),
        written_until: CommitTime::from_seconds(begun_s.max(last_s)),
        after_gap: false,
    }
}

fn lines(lines: Vec<Line>) -> Lines {
    Lines::new(lines)
}

#[test]
fn a_gap_leaves_one_head_with_what_is_missing_in_between() {
    let all = lines(vec![line(A, 100, 200, "", "A:1-50"), line(A, 300, 400, "A:1-60", "A:1-90")]);
    assert_eq!(all.heads(), [1]);
    let lineage = all.lineage(1).unwrap();
    assert_eq!(lineage.iter().map(|segment| segment.line).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(lineage[0].missing_after, set("A:51-60"));
    assert_eq!(lineage[0].only, None);
}

#[test]
fn what_was_cut_off_by_a_restore_stays_a_head_and_out_of_the_new_lineage() {
    // A:31-50 holds the accident; B was restored to before it, and went on.
    let all = lines(vec![line(A, 100, 200, "", "A:1-50"), line(B, 300, 400, "A:1-30", "A:1-30,B:1-5")]);
    assert_eq!(all.heads(), [0, 1]);
    assert_eq!(all.latest().unwrap(), 1);
    let lineage = all.lineage(1).unwrap();
    assert_eq!(lineage[0], Segment { line: 0, only: Some(set("A:1-30")), missing_after: GtidSet::new() });
    assert_eq!(all.named("aaaa").unwrap(), 0);
    assert_eq!(all.lineage(0).unwrap().len(), 1);
}

#[test]
fn a_restored_server_that_has_not_committed_yet_is_the_latest_all_the_same() {
    let all = lines(vec![line(A, 100, 200, "", "A:1-50"), line(B, 300, 0, "A:1-30", "A:1-30")]);
    assert_eq!(all.heads(), [0, 1]);
    assert_eq!(all.latest().unwrap(), 1);
}

#[test]
fn a_failover_goes_on_from_the_old_primary() {
    let all = lines(vec![line(A, 100, 200, "", "A:1-50"), line(B, 150, 400, "A:1-20", "A:1-50,B:1-5")]);
    assert_eq!(all.heads(), [1]);
    let lineage = all.lineage(1).unwrap();
    assert_eq!(lineage[0].only, Some(set("A:1-20")));
}

#[test]
fn two_histories_that_live_at_the_same_time_must_be_chosen_from() {
    let all = lines(vec![line(A, 100, 400, "", "A:1-50"), line(B, 300, 390, "A:1-30", "A:1-30,B:1-5")]);
    let error = all.latest().unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.hint_text().unwrap().contains(&format!("--head {A}")), "{error:?}");
    assert!(all.named("").is_err() && all.named("c").is_err());
}

#[test]
fn after_a_reset_the_same_numbers_are_another_history() {
    let all = lines(vec![line(A, 100, 200, "", "A:1-50"), line(A, 300, 400, "", "A:1-10")]);
    assert_eq!(all.heads(), [0, 1]);
    assert_eq!(all.latest().unwrap(), 1);
    assert_eq!(all.lineage(1).unwrap().len(), 1);
    assert!(all.head(1).unwrap().name.starts_with(&format!("{A}/binlog.000001.")));
}

/// Found by `tests/sim`: the server's clock was an hour ahead when it began its first line.
#[test]
fn where_the_clock_was_set_back_the_order_of_a_servers_lines_tells() {
    let after_a_reset = lines(vec![line(A, 4000, 4010, "", "A:1-50"), line(A, 400, 500, "", "A:1-10")]);
    assert_eq!(after_a_reset.heads(), [0, 1]);
    assert_eq!(after_a_reset.latest().unwrap(), 1);
    let after_a_purge = lines(vec![line(A, 4000, 4010, "", "A:1-50"), line(A, 400, 500, "A:1-60", "A:1-90")]);
    assert_eq!(after_a_purge.heads(), [1]);
    // The numbers of the first line came again in the second, from which the third goes on.
    let again = [line(A, 4000, 4010, "", "A:1-3"), line(A, 400, 500, "", "A:1-8"), line(A, 600, 700, "A:1-3", "A:1-5")];
    let lineage = lines(again.to_vec()).lineage(2).unwrap();
    assert_eq!(lineage.iter().map(|segment| segment.line).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn without_gtids_a_server_goes_on_from_its_own_files_only() {
    let all = lines(vec![line(A, 100, 200, "", ""), line(A, 300, 400, "", ""), line(B, 100, 200, "", "")]);
    assert_eq!(all.heads(), [2, 1]);
    assert_eq!(all.candidates(), [0, 2, 1]);
    assert_eq!(all.lineage(1).unwrap().len(), 1);
}

#[test]
fn an_empty_archive_has_no_latest() {
    assert_eq!(lines(Vec::new()).latest().unwrap_err().kind(), Kind::Gap);
}
