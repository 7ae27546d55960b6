//! The model of a MySQL server: its binlogs, what it has executed, and what happens to it. No I/O, no time of its own.
//!
//! It never forgets: files that were purged or reset, and tails lost in a crash, stay known, so that every archived byte
//! can be held against the one it must be.

use std::collections::BTreeMap;

use binvault::clock::Instant;
use binvault::position::{Gtid, GtidSet, Incarnation, Sid, Tag};
use uuid::Uuid;

use crate::event::Writer;
use crate::semi_sync::Plugin;

/// The server's identity.
pub(crate) const SERVER: Uuid = Uuid::from_u128(0x5e4e_4000_0000_4000_8000_0000_0000_0001);
/// What its binlogs are called.
pub(crate) const BASE: &str = "binlog";

/// A binlog file.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) number: u64,
    pub(crate) created_s: u32,
    pub(crate) written: Writer,
    /// Bytes that are there still; the others were lost in a crash.
    pub(crate) kept: u64,
    pub(crate) closed: bool,
    /// Its last event says so; a crash leaves none.
    pub(crate) says_so: bool,
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) previous: GtidSet,
    pub(crate) epoch: usize,
}

impl File {
    pub(crate) fn name(&self) -> String {
        format!("{BASE}.{:06}", self.number)
    }

    /// Its transactions, without those that a crash has lost.
    fn there(&self) -> impl Iterator<Item = &Transaction> {
        self.transactions.iter().filter(|transaction| transaction.end <= self.kept)
    }
}

/// A transaction in a file.
#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    /// Unlike a GTID it never comes again.
    pub(crate) id: u64,
    pub(crate) gtid: Option<Gtid>,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) commit_us: u64,
}

/// A time in which the history only grew.
#[derive(Debug)]
pub(crate) struct Epoch {
    /// What the database held at its beginning.
    pub(crate) before: Vec<u64>,
}

/// A dump that runs.
#[derive(Debug)]
pub(crate) struct Dump {
    pub(crate) replica: Option<Uuid>,
    pub(crate) begun: Instant,
    pub(crate) file: usize,
    pub(crate) semi_sync: bool,
}

/// The server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) up: bool,
    /// All files ever.
    pub(crate) files: Vec<File>,
    /// Those in the index, oldest first.
    pub(crate) listed: Vec<usize>,
    pub(crate) epochs: Vec<Epoch>,
    pub(crate) executed: GtidSet,
    pub(crate) purged: GtidSet,
    pub(crate) dumps: BTreeMap<u32, Dump>,
    /// How many were ever begun.
    pub(crate) dumps_begun: u64,
    pub(crate) plugin: Option<Plugin>,
    pub(crate) gtid_mode: bool,
    /// How often it was reset.
    pub(crate) resets: u64,
    checksums: bool,
    last_id: u64,
    next_gno: u64,
}

impl Server {
    /// A fresh server, running.
    pub(crate) fn new(now_us: u64, gtid_mode: bool, checksums: bool, plugin: Option<Plugin>) -> Self {
        let mut server = Self {
            up: true,
            files: Vec::new(),
            listed: Vec::new(),
            epochs: vec![Epoch { before: Vec::new() }],
            executed: GtidSet::new(),
            purged: GtidSet::new(),
            dumps: BTreeMap::new(),
            dumps_begun: 0,
            plugin,
            gtid_mode,
            resets: 0,
            checksums,
            last_id: 0,
            next_gno: 1,
        };
        server.open_file(now_us);
        server
    }

    fn open_file(&mut self, now_us: u64) {
        let number = self.listed.last().map_or(1, |last| self.files[*last].number + 1);
        // An incarnation is told apart by whole seconds: that a name comes back in one is beyond what is promised.
        let mut created_s = u32::try_from(now_us / 1_000_000).unwrap();
        while self.files.iter().any(|file| file.number == number && file.created_s == created_s) {
            created_s += 1;
        }
        let previous = self.logged_and_purged();
        let written = Writer::file(created_s, self.checksums, &previous);
        let epoch = self.epochs.len() - 1;
        let kept = written.bytes.len() as u64;
        self.files.push(File {
            number,
            created_s,
            written,
            kept,
            closed: false,
            says_so: false,
            transactions: Vec::new(),
            previous,
            epoch,
        });
        self.listed.push(self.files.len() - 1);
    }

    /// Everything in the binlogs or purged, be it executed yet or not.
    pub(crate) fn logged_and_purged(&self) -> GtidSet {
        let mut set = self.purged.clone();
        for transaction in self.listed.iter().flat_map(|index| self.files[*index].there()) {
            set.extend(transaction);
        }
        set
    }

    /// Index of the file that is written.
    pub(crate) fn active(&self) -> usize {
        *self.listed.last().unwrap()
    }

    /// The file being written, and its end.
    pub(crate) fn end(&self) -> (usize, u64) {
        (self.active(), self.files[self.active()].kept)
    }

    /// The listed file of a name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.listed.iter().copied().find(|index| self.files[*index].name() == name)
    }

    /// Writes a transaction into the log. Its GTID is executed only when [`Server::execute`] says so.
    pub(crate) fn log(&mut self, now_us: u64, rows: &[Vec<u8>]) -> (Option<Gtid>, usize, u64) {
        let active = self.active();
        self.last_id += 1;
        let sid = Sid { uuid: SERVER, tag: Tag::NONE };
        let gtid = self.gtid_mode.then_some(Gtid { sid, gno: self.next_gno });
        self.next_gno += 1;
        let file = &mut self.files[active];
        let start = file.kept;
        file.written.at(now_us);
        file.written.transaction(gtid.as_ref(), now_us, rows);
        file.kept = file.written.bytes.len() as u64;
        let transaction =
            Transaction { id: self.last_id, gtid: gtid.clone(), start, end: file.kept, commit_us: now_us };
        file.transactions.push(transaction);
        (gtid, active, file.kept)
    }

    /// The transaction is committed in the engine, unless a crash or a reset came between.
    pub(crate) fn execute(&mut self, gtid: Option<&Gtid>, file: usize, end: u64) {
        let there = self.epochs.len() == self.files[file].epoch + 1 && self.files[file].kept >= end;
        if let Some(gtid) = gtid.filter(|_| there) {
            self.executed.add(gtid);
        }
    }

    /// FLUSH BINARY LOGS.
    pub(crate) fn rotate(&mut self, now_us: u64) {
        let active = self.active();
        let next = format!("{BASE}.{:06}", self.files[active].number + 1);
        self.close(|written| {
            written.at(now_us);
            written.rotate(&next);
        });
        self.open_file(now_us);
    }

    fn close(&mut self, last: impl FnOnce(&mut Writer)) {
        let active = self.active();
        let file = &mut self.files[active];
        last(&mut file.written);
        file.kept = file.written.bytes.len() as u64;
        (file.closed, file.says_so) = (true, true);
    }

    /// A shutdown in good order.
    pub(crate) fn shut_down(&mut self, now_us: u64) {
        self.close(|written| {
            written.at(now_us);
            written.stop();
        });
        self.up = false;
        self.executed = self.logged_and_purged();
    }

    /// The host dies, and with it the last transactions of the file being written: they were exposed, never synced.
    pub(crate) fn crash(&mut self, lost: usize) {
        self.up = false;
        let active = self.active();
        let file = &mut self.files[active];
        file.closed = true;
        let keep = file.transactions.len().saturating_sub(lost);
        if keep < file.transactions.len() {
            let head = file.written.starts[2];
            file.kept = keep.checked_sub(1).map_or(head, |last| file.transactions[last].end);
            let before = self.state_at(active, self.files[active].kept);
            self.epochs.push(Epoch { before });
        }
        self.executed = self.logged_and_purged();
        self.next_gno = self.first_free();
    }

    fn first_free(&self) -> u64 {
        let runs = self.executed.intervals().flat_map(|(_, runs)| runs);
        runs.map(|run| run.last + 1).max().unwrap_or(1)
    }

    /// It comes up again.
    pub(crate) fn start(&mut self, now_us: u64) {
        self.up = true;
        self.open_file(now_us);
    }

    /// PURGE BINARY LOGS of the oldest files, but those that are read or written.
    pub(crate) fn purge(&mut self, files: usize) {
        let busy = self.dumps.values().map(|dump| dump.file).min().unwrap_or(usize::MAX);
        for _ in 0..files {
            if self.listed.len() < 2 || self.listed[0] >= busy {
                return;
            }
            let gone = self.listed.remove(0);
            for transaction in self.files[gone].there() {
                self.purged.extend(transaction);
            }
        }
    }

    /// RESET BINARY LOGS AND GTIDS. The data stay.
    pub(crate) fn reset(&mut self, now_us: u64) {
        self.resets += 1;
        let before = self.state();
        self.begin_anew(before, GtidSet::new(), now_us);
    }

    /// The server is set up again under its old identity, from a copy that lacks the last transactions.
    pub(crate) fn clone_again(&mut self, lacks: usize, now_us: u64) {
        let mut before = self.state();
        let lost = before.split_off(before.len().saturating_sub(lacks));
        let mut lacking = GtidSet::new();
        for transaction in self.files.iter().flat_map(|file| &file.transactions).filter(|one| lost.contains(&one.id)) {
            lacking.extend(transaction);
        }
        let executed = self.logged_and_purged().minus(&lacking);
        self.begin_anew(before, executed, now_us);
    }

    fn begin_anew(&mut self, before: Vec<u64>, executed: GtidSet, now_us: u64) {
        self.epochs.push(Epoch { before });
        self.listed.clear();
        self.purged = executed.clone();
        self.executed = executed;
        self.next_gno = self.first_free();
        self.open_file(now_us);
    }

    /// The file of an incarnation, be it there or not.
    pub(crate) fn incarnation(&self, wanted: &Incarnation) -> Option<usize> {
        let is_it = |file: &File| file.created_s == wanted.created_s && file.name() == wanted.file.as_str();
        self.files.iter().position(is_it)
    }

    /// What the database holds now.
    pub(crate) fn state(&self) -> Vec<u64> {
        let (file, end) = self.end();
        self.state_at(file, end)
    }

    /// What the database held when its log stood there.
    pub(crate) fn state_at(&self, file: usize, offset: u64) -> Vec<u64> {
        let epoch = self.files[file].epoch;
        let mut state = self.epochs[epoch].before.clone();
        for (index, one) in self.files.iter().enumerate().take(file + 1).filter(|(_, one)| one.epoch == epoch) {
            let within = one.transactions.iter().filter(|transaction| index < file || transaction.end <= offset);
            state.extend(within.map(|transaction| transaction.id));
        }
        state
    }
}

/// Adds a transaction to a set.
trait Extend {
    fn extend(&mut self, transaction: &Transaction);
}

impl Extend for GtidSet {
    fn extend(&mut self, transaction: &Transaction) {
        if let Some(gtid) = &transaction.gtid {
            self.add(gtid);
        }
    }
}
