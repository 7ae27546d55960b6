//! Are two binlog files the same, byte for byte? And if not, where and how do they part?
//!
//! Invariant: nothing is forgiven but one bit, `LOG_EVENT_BINLOG_IN_USE_F` in the flags of the format description event of
//! a file that is open or was not closed: the server sends it cleared, and clears it in place at close.

use super::lab::Mysqld;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// The offset of the low byte of the first event's flags: 4 bytes of magic, then 17 of the event's header.
const IN_USE_AT: u64 = 21;
const IN_USE: u8 = 1;

/// How much of the two files is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of both: closed files.
    Whole,
    /// The server's file may have grown since; what was exported must be its beginning.
    Prefix,
}

/// The first difference between `exported` and the `server`'s file, told in words; `None` where they agree.
pub fn difference(server: &Path, exported: &Path, extent: Extent) -> Option<String> {
    let open = |path: &Path| File::open(path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    let (mut left, mut right) =
        (BufReader::with_capacity(1 << 20, open(server)), BufReader::with_capacity(1 << 20, open(exported)));
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0_u64;
    loop {
        let (n, m) = (fill(&mut left, &mut a), fill(&mut right, &mut b));
        let common = n.min(m);
        for i in 0..common {
            let here = at + i as u64;
            let forgiven = here == IN_USE_AT && (a[i] ^ b[i]) == IN_USE;
            if a[i] != b[i] && !forgiven {
                let window = |bytes: &[u8]| hex(&bytes[i.saturating_sub(8)..common.min(i + 24)]);
                return Some(format!(
                    "{} and {} differ first at offset {here}{}\n  server:   {}\n  exported: {}",
                    server.display(),
                    exported.display(),
                    event_at(server, here),
                    window(&a),
                    window(&b)
                ));
            }
        }
        at += common as u64;
        if n != m {
            let fine = extent == Extent::Prefix && m < n;
            let size = |path: &Path| path.metadata().map_or(0, |meta| meta.len());
            return (!fine).then(|| {
                format!(
                    "{} has {} bytes, {} has {}: the same up to {at}{}",
                    server.display(),
                    size(server),
                    exported.display(),
                    size(exported),
                    event_at(server, at)
                )
            });
        }
        if n == 0 {
            return None;
        }
    }
}

/// Panics unless the two are the same.
pub fn assert_same(server: &Path, exported: &Path, extent: Extent) {
    if let Some(text) = difference(server, exported, extent) {
        panic!("{text}");
    }
}

/// Holds every file of `server`'s index against the file of the same name in `dir`. The last one is live while the server
/// runs: there `dir`'s may be shorter. Returns the number of bytes compared.
pub fn assert_exported(server: &Mysqld, dir: &Path) -> u64 {
    assert_exported_files(server, &server.binlogs(), dir)
}

/// As [`assert_exported`], for some of the files.
pub fn assert_exported_files(server: &Mysqld, files: &[PathBuf], dir: &Path) -> u64 {
    let live = server.is_running().then(|| server.binlogs().pop()).flatten();
    let mut bytes = 0;
    for file in files {
        let exported = dir.join(file.file_name().expect("a file name"));
        let is_live = live.as_ref() == Some(file);
        assert_same(file, &exported, if is_live { Extent::Prefix } else { Extent::Whole });
        bytes += exported.metadata().unwrap().len();
    }
    bytes
}

/// As [`assert_exported`] for a server whose binlogs are encrypted at rest: held against what the stock tool fetches.
pub fn assert_exported_as_sent(server: &Mysqld, dir: &Path) -> u64 {
    let names: Vec<String> =
        server.binlogs().iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    let sent = server.scratch().join("sent/");
    drop(std::fs::remove_dir_all(&sent));
    std::fs::create_dir_all(&sent).unwrap();
    let out = server
        .remote_mysqlbinlog()
        .args(["--raw", &format!("--result-file={}/", sent.display())])
        .args(&names)
        .output()
        .expect("run mysqlbinlog");
    assert!(out.status.success(), "mysqlbinlog --raw: {}", String::from_utf8_lossy(&out.stderr));
    let mut bytes = 0;
    for (i, name) in names.iter().enumerate() {
        let last = i + 1 == names.len();
        assert_same(&sent.join(name), &dir.join(name), if last { Extent::Prefix } else { Extent::Whole });
        bytes += dir.join(name).metadata().unwrap().len();
    }
    bytes
}

/// Fills the buffer as far as the input goes.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> usize {
    let mut have = 0;
    while have < buffer.len() {
        match input.read(&mut buffer[have..]).expect("read a file that is compared") {
            0 => break,
            n => have += n,
        }
    }
    have
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// Says which event of a plain binlog file an offset lies in.
fn event_at(path: &Path, offset: u64) -> String {
    use std::os::unix::fs::FileExt as _;
    let file = File::open(path).expect("open a file that is compared");
    let mut at = 4_u64;
    let mut head = [0; 19];
    while file.read_exact_at(&mut head, at).is_ok() {
        let length = u64::from(u32::from_le_bytes([head[9], head[10], head[11], head[12]]));
        if length < 19 {
            return String::from(" (not inside a plain binlog event)");
        }
        if offset < at + length {
            return format!(
                ", byte {} of the event of type {} that starts at {at} ({length} bytes)",
                offset - at,
                head[4]
            );
        }
        at += length;
    }
    String::from(" (behind the last event)")
}
