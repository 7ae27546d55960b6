//! The commands of README and `docs/` are run as they are printed, on a real server and a real archive, page by page, as
//! somebody would who reads them; and every mention of a command is one that the program knows.
//!
//! `shell` says what is exchanged and what cannot be run here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]

mod page;
mod pages;
mod shell;
#[path = "../support/mod.rs"]
mod support;

use page::{blocks, mentions, pages};
use support::agent::{binvault, said};

#[test]
fn every_command_of_the_pages_does_what_they_say() {
    let mut scene = pages::Scene::new();
    scene.readme();
    scene.keys();
    scene.format();
    scene.install();
    scene.upgrade();
    scene.runbooks();
    scene.retention();
    scene.base_backups();
    scene.restore();
    for page in pages() {
        for block in blocks(&page) {
            assert!(scene.shell.ran(&block), "nobody runs {}:{}:\n{}", block.page, block.line, block.text);
        }
    }
    scene.shell.judge_what_was_not_run();
}

#[test]
fn every_mention_of_a_command_is_one_that_the_program_knows() {
    let mentions = mentions();
    assert!(mentions.len() > 50, "only {} were found", mentions.len());
    for (page, mention) in mentions {
        let words: Vec<&str> = mention.split_whitespace().skip(1).map(|word| word.trim_matches('"')).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.starts_with('[')).collect();
        // `…` stands for a value, or for whatever follows; a flag at the end may be named without its value.
        let filled = words.iter().map(|word| if word.contains('…') { "value" } else { word }).collect();
        let left_out = words.iter().copied().filter(|word| !word.contains('…')).collect();
        let ended = words.iter().copied().chain(["value"]).collect();
        let ask = |words: &Vec<&str>| binvault().args(words).arg("--help").output().unwrap();
        let tries: [Vec<&str>; 3] = [filled, left_out, ended];
        let known = tries.iter().any(|words| ask(words).status.success());
        assert!(known, "{page}: `{mention}`: {}", said(&ask(&words)));
    }
}
