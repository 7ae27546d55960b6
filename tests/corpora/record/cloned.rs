//! Of a clone: some of its answers, descriptors, pages and redo.

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Stdio};

use binvault::mysql::clone::descriptor::Descriptor;
use binvault::mysql::clone::packet::Response;
use binvault::mysql::clone::record::{MAGIC, RecordReader, record_head};
use binvault::mysql::clone::trx_sys::PositionScanner;

use super::{INPUT_BYTES_MAX, keep};
use crate::support::agent::AgentConfig;
use crate::support::lab::bin;

const PAGE_BYTES: usize = 16 << 10;
/// Of each kind so many are kept.
const EACH: usize = 2;

/// The donor's answers of the one base backup, unpacked by stock tools.
fn answers(config: &AgentConfig) -> Vec<Vec<u8>> {
    let script = "for part in $(ls bases/*/part-*); do $BIN/age -d -i \"$KEY\" $part | $BIN/zstd -dc; done";
    let mut shell = Command::new("bash");
    shell.args(["-c", script]).env("BIN", bin()).env("KEY", config.identity()).current_dir(config.archive());
    let out = shell.stderr(Stdio::inherit()).output().unwrap();
    assert!(out.status.success());
    let mut reader = RecordReader::new();
    reader.push(&out.stdout);
    std::iter::from_fn(|| reader.next().unwrap()).map(|record| record.to_vec()).collect()
}

/// What must be told apart for each to be kept.
fn kind(answer: &[u8]) -> String {
    match Response::parse(answer).unwrap() {
        Response::Descriptor { bytes, .. } => match Descriptor::parse(bytes).unwrap() {
            Descriptor::Locator => "locator".to_owned(),
            Descriptor::Task(_) => "task".to_owned(),
            Descriptor::State(change) => format!("state-{}", change.state as u32),
            Descriptor::File(file) => format!("file-{}-{:x}", file.state as u32, file.flags),
            Descriptor::Data(data) => format!("data-{}", data.state as u32),
        },
        _ => format!("answer-{}", answer[0]),
    }
}

/// Keeps some of everything.
pub(super) fn keep_all(config: &AgentConfig) {
    let answers = answers(config);
    let (mut seen, mut stream) = (HashMap::<String, usize>::new(), MAGIC.to_vec());
    let mut dropped = false;
    for answer in &answers {
        let kind = kind(answer);
        let count = seen.entry(kind.clone()).or_default();
        // Data go with what announces them, and every change of state is needed.
        let data = kind == "answer-3";
        let wanted = if data { !dropped } else { *count < EACH || kind.starts_with("state") };
        dropped = !wanted;
        if !wanted || (data && answer.len() > PAGE_BYTES + 1) {
            continue;
        }
        *count += 1;
        stream.extend(record_head(answer.len()).unwrap());
        stream.extend(answer);
        if data {
            continue;
        }
        keep("clone_packet", &format!("{kind}-{count}"), answer);
        if let Ok(Response::Descriptor { bytes, .. }) = Response::parse(answer) {
            keep("clone_descriptor", &format!("{kind}-{count}"), bytes);
        }
    }
    keep("clone_stream", "some-of-all", &stream);
    redo(&answers);
}

/// The transaction system's page, with a piece of redo that tells a place in the binlog.
fn redo(answers: &[Vec<u8>]) {
    let mut scanner = PositionScanner::new(u32::try_from(PAGE_BYTES).unwrap()).unwrap();
    let mut system = None;
    let mut page = Vec::new();
    let mut announced = None;
    for answer in answers {
        match Response::parse(answer).unwrap() {
            Response::Descriptor { bytes, .. } => match Descriptor::parse(bytes).unwrap() {
                Descriptor::File(file) if file.space.0 == 0 => system = Some(file.index),
                Descriptor::Data(data) => announced = Some(data),
                _ => {}
            },
            Response::Data(bytes) => {
                let data = announced.take().unwrap();
                let state = data.state as u32;
                if state == 2 && Some(data.file) == system && data.offset == 0 {
                    page = bytes[5 * PAGE_BYTES..6 * PAGE_BYTES].to_vec();
                }
                if state == 4 {
                    let piece = &bytes[..bytes.len().min(INPUT_BYTES_MAX - PAGE_BYTES)];
                    scanner.redo(data.file, data.offset, bytes);
                    keep("clone_redo", &format!("redo-{}", data.offset), &[&page[..], piece].concat());
                }
            }
            _ => {}
        }
    }
    println!("{:?}", scanner.finish(None).map(|found| found.in_redo.len()));
    assert!(fs::read_dir(crate::corpora().join("clone_redo")).unwrap().count() > 0);
}
