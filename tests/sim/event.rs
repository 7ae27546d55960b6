//! Binlog events as a MySQL 9.7 writes them, byte by byte, so that the archiver reads what it reads in life.

use binvault::mysql::event::{MAGIC, types};
use binvault::position::{Gtid, GtidSet};

const SERVER_ID: u32 = 1;
/// What the server calls itself.
pub(crate) const VERSION: &str = "9.7.4";
const ROWS: u8 = 30;
const HEADER: usize = 19;
const CRC: usize = 4;

/// Writes events one behind the other, as into a file.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
    /// Where events begin, and where the last one ends.
    pub(crate) starts: Vec<u64>,
    now_s: u32,
    checksums: bool,
}

impl Writer {
    /// A file's first events.
    pub(crate) fn file(created_s: u32, checksums: bool, previous: &GtidSet) -> Self {
        let mut writer = Self { bytes: MAGIC.to_vec(), starts: vec![4], now_s: created_s, checksums };
        let mut body = 4_u16.to_le_bytes().to_vec();
        let mut version = [0; 50];
        version[..VERSION.len()].copy_from_slice(VERSION.as_bytes());
        body.extend(version);
        body.extend(0_u32.to_le_bytes());
        body.push(19);
        body.extend([0; 41]);
        body.push(u8::from(checksums));
        // The description itself has a checksum in any case.
        writer.checksums = true;
        writer.event(types::FORMAT_DESCRIPTION, &body);
        writer.checksums = checksums;
        writer.event(types::PREVIOUS_GTIDS, &encode(previous));
        writer
    }

    pub(crate) fn at(&mut self, now_us: u64) {
        self.now_s = u32::try_from(now_us / 1_000_000).unwrap();
    }

    fn event(&mut self, kind: u8, body: &[u8]) {
        let length = self.length(body.len());
        let from = self.bytes.len();
        self.bytes.extend(self.now_s.to_le_bytes());
        self.bytes.push(kind);
        self.bytes.extend(SERVER_ID.to_le_bytes());
        self.bytes.extend(u32::try_from(length).unwrap().to_le_bytes());
        self.bytes.extend(u32::try_from(from + length).unwrap().to_le_bytes());
        self.bytes.extend(0_u16.to_le_bytes());
        self.bytes.extend(body);
        if self.checksums {
            let crc = crc32fast::hash(&self.bytes[from..]);
            self.bytes.extend(crc.to_le_bytes());
        }
        self.starts.push(self.bytes.len() as u64);
    }

    fn length(&self, body: usize) -> usize {
        HEADER + body + if self.checksums { CRC } else { 0 }
    }

    pub(crate) fn rotate(&mut self, next: &str) {
        self.event(types::ROTATE, &[&4_u64.to_le_bytes()[..], next.as_bytes()].concat());
    }

    pub(crate) fn stop(&mut self) {
        self.event(types::STOP, &[]);
    }

    /// A whole transaction; `rows` are the bodies of what it changes. Without a GTID it is an anonymous one.
    pub(crate) fn transaction(&mut self, gtid: Option<&Gtid>, commit_us: u64, rows: &[Vec<u8>]) {
        let begin = query("BEGIN");
        let inside = rows.iter().map(|row| self.length(row.len())).sum::<usize>();
        let rest = self.length(begin.len()) + inside + self.length(8);
        // The length counts itself: it takes 3 bytes up to 65535, else 4.
        let fixed = self.length(1 + 16 + 8 + 17 + 7 + 4) + rest;
        let told = |width: usize| (fixed + width) as u64;
        let told = if told(3) <= 0xffff { (0xfc, told(3), 2) } else { (0xfd, told(4), 3) };
        let mut body = vec![1];
        body.extend(gtid.map_or([0; 16], |gtid| gtid.sid.uuid.into_bytes()));
        body.extend(gtid.map_or(0, |gtid| gtid.gno).to_le_bytes());
        body.push(2);
        body.extend([0; 16]);
        body.extend(&commit_us.to_le_bytes()[..7]);
        body.push(told.0);
        body.extend(&told.1.to_le_bytes()[..told.2]);
        body.extend(90704_u32.to_le_bytes());
        self.event(if gtid.is_some() { types::GTID } else { types::ANONYMOUS_GTID }, &body);
        self.event(types::QUERY, &begin);
        for row in rows {
            self.event(ROWS, row);
        }
        self.event(types::XID, &commit_us.to_le_bytes());
    }
}

fn query(text: &str) -> Vec<u8> {
    [&[0; 13][..], b"\0", text.as_bytes()].concat()
}

/// As in a PREVIOUS_GTIDS event.
fn encode(set: &GtidSet) -> Vec<u8> {
    let sids: Vec<_> = set.intervals().collect();
    let mut out = (sids.len() as u64).to_le_bytes().to_vec();
    for (sid, runs) in sids {
        out.extend(sid.uuid.as_bytes());
        out.extend((runs.len() as u64).to_le_bytes());
        for run in runs {
            out.extend(run.first.to_le_bytes());
            out.extend((run.last + 1).to_le_bytes());
        }
    }
    out
}
