//! What goes on at a donor while it is cloned: rows of every kind of table change, and tables come, go, and change places.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::scene::KINDS;
use crate::support::dice::Dice;
use crate::support::lab::Mysqld;
use crate::support::wait_until;

/// Definitions change in this order, over and over; `%` counts the rounds of it. Errors are taken as they come: a table
/// that is made anew elsewhere may not be there.
const DDL: &[&str] = &[
    "CREATE TABLE kinds.d% LIKE kinds.plain; INSERT INTO kinds.d% SELECT * FROM kinds.plain LIMIT 300",
    "CREATE TABLE kinds.z% LIKE kinds.zip; INSERT INTO kinds.z% SELECT * FROM kinds.plain LIMIT 300",
    "CREATE TABLE kinds.s% LIKE kinds.secret; INSERT INTO kinds.s% SELECT * FROM kinds.secret LIMIT 300",
    "CREATE TABLE kinds.p% LIKE kinds.pagezlib; INSERT INTO kinds.p% SELECT * FROM kinds.plain LIMIT 300",
    "CREATE TABLE kinds.sz% LIKE kinds.secretzip; INSERT INTO kinds.sz% SELECT * FROM kinds.plain LIMIT 100",
    "RENAME TABLE kinds.d% TO kinds.r%",
    "RENAME TABLE kinds.swap_a TO kinds.swap_t, kinds.swap_b TO kinds.swap_a, kinds.swap_t TO kinds.swap_b",
    "TRUNCATE kinds.emptied; INSERT INTO kinds.emptied SELECT * FROM kinds.plain LIMIT 200",
    "ALTER TABLE kinds.rebuilt FORCE",
    "ALTER TABLE kinds.zip ENGINE=InnoDB",
    "ALTER TABLE kinds.secret FORCE",
    "ALTER TABLE kinds.pagelz4 ENGINE=InnoDB",
    "ALTER TABLE kinds.ranged ADD PARTITION (PARTITION q% VALUES LESS THAN (1000000 + % * 10))",
    "INSERT INTO kinds.ranged SELECT 1000000 + % * 10 - 1, 1, 'x'",
    "ALTER TABLE kinds.ranged TRUNCATE PARTITION r0; INSERT INTO kinds.ranged SELECT * FROM kinds.plain WHERE id < 500",
    "ALTER TABLE kinds.ranged REORGANIZE PARTITION r1 INTO (PARTITION r1 VALUES LESS THAN (1000000))",
    "ALTER TABLE kinds.ranged DROP PARTITION q%",
    "ALTER TABLE kinds.plain ADD INDEX added (k, id); ALTER TABLE kinds.plain DROP INDEX added",
    "ALTER TABLE kinds.plain ADD COLUMN extra INT DEFAULT 5, ALGORITHM=INSTANT; ALTER TABLE kinds.plain DROP COLUMN extra",
    "CREATE TABLE kinds.f% LIKE kinds.words; INSERT INTO kinds.f% SELECT * FROM kinds.words LIMIT 100",
    "OPTIMIZE TABLE kinds.words",
    "CREATE TABLESPACE ts% ADD DATAFILE 'ts%.ibd'; CREATE TABLE kinds.g% (id INT PRIMARY KEY) TABLESPACE ts%",
    "INSERT INTO kinds.g% VALUES (%), (1)",
    "DROP TABLE kinds.g%; DROP TABLESPACE ts%",
    "CREATE DATABASE db%; CREATE TABLE db%.t LIKE kinds.plain; RENAME TABLE db%.t TO kinds.moved_%; DROP DATABASE db%",
    "DROP TABLE kinds.z%, kinds.s%, kinds.f%",
    "ALTER TABLE kinds.p% ENCRYPTION='Y'",
    "DROP TABLE kinds.r%, kinds.moved_%",
];

/// Unlike the rest these leave nothing in a binlog.
const UNDO: &[&str] = &["ALTER UNDO TABLESPACE undo_mine SET INACTIVE", "ALTER UNDO TABLESPACE undo_mine SET ACTIVE"];

/// Transactions a client does before it waits for an answer.
const BATCH: usize = 10;

/// Makes the tables whose definitions change; once.
pub(crate) fn prepare(server: &Mysqld) {
    let mut script = String::new();
    for name in ["swap_a", "swap_b", "emptied", "rebuilt"] {
        script.push_str(&format!(
            "CREATE TABLE kinds.{name} LIKE kinds.plain; INSERT INTO kinds.{name} SELECT * FROM kinds.plain;\n"
        ));
    }
    script.push_str("DELETE FROM kinds.swap_b WHERE id % 3 = 0;\n");
    script.push_str(
        "CREATE TABLE kinds.ranged (id INT PRIMARY KEY, k INT NOT NULL, body VARCHAR(2000) NOT NULL) PARTITION BY RANGE (id)
           (PARTITION r0 VALUES LESS THAN (500), PARTITION r1 VALUES LESS THAN (1000000));
         INSERT INTO kinds.ranged SELECT id, k, body FROM kinds.plain;\n",
    );
    server.sql(&script);
}

/// Two clients that change rows and one that changes definitions, until told to stop.
pub(crate) struct Churn {
    stop: Arc<AtomicBool>,
    done: Arc<[AtomicU64; 2]>,
    clients: Vec<JoinHandle<()>>,
}

impl Churn {
    pub(crate) fn start(server: &Mysqld, dice: &mut Dice, round: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new([AtomicU64::new(0), AtomicU64::new(0)]));
        let mut clients = Vec::new();
        for client in 0..3_u64 {
            let mut command = server.client();
            command.arg("--force").stderr(Stdio::null());
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            let mut dice = dice.fork();
            clients.push(std::thread::spawn(move || {
                let mut step = 0;
                let next = move || {
                    step += 1;
                    if client == 2 { definition(round, step - 1) } else { rows(&mut dice) }
                };
                let counter = &done[usize::from(client == 2)];
                talk(command, next, &stop, counter);
            }));
        }
        Self { stop, done, clients }
    }

    /// Waits until so many more batches of rows, and changes of definitions, are through.
    pub(crate) fn wait(&self, rows: u64, definitions: u64) {
        let target = [self.done[0].load(Ordering::Relaxed) + rows, self.done[1].load(Ordering::Relaxed) + definitions];
        wait_until("the churn goes on", Duration::from_secs(300), || {
            self.done.iter().zip(target).all(|(done, target)| done.load(Ordering::Relaxed) >= target)
        });
    }

    /// How many changes of definitions are through.
    pub(crate) fn definitions(&self) -> u64 {
        self.done[1].load(Ordering::Relaxed)
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            drop(client.join());
        }
    }
}

/// The step's change of definitions.
fn definition(round: usize, step: usize) -> String {
    let number = round * 1000 + step / DDL.len();
    let text = DDL[step % DDL.len()].replace('%', &number.to_string());
    let undo = if step.is_multiple_of(DDL.len()) { UNDO[(step / DDL.len()) % 2] } else { "DO 1" };
    format!("{text};\n{undo};\n")
}

/// A batch of transactions in tables of all kinds.
fn rows(dice: &mut Dice) -> String {
    let mut script = String::new();
    for _ in 0..BATCH {
        script.push_str("START TRANSACTION;\n");
        for _ in 0..3 {
            let (name, _) = KINDS[dice.index(KINDS.len())];
            let (id, k) = (1 + dice.index(3000), dice.index(1000));
            script.push_str(&match dice.index(4) {
                0 => format!("DELETE FROM kinds.{name} WHERE id = {id};\n"),
                1 => format!("UPDATE kinds.{name} SET k = k + 1 WHERE id BETWEEN {id} AND {};\n", id + 5),
                _ => format!(
                    "REPLACE INTO kinds.{name} (id, k, body) VALUES ({id}, {k}, CONCAT_WS(' ', 'word', {k}, REPEAT(SHA2({id} + {k}, 256), {})));\n",
                    dice.index(12)
                ),
            });
        }
        script.push_str(if dice.index(10) == 0 { "ROLLBACK;\n" } else { "COMMIT;\n" });
    }
    script
}

/// One client's life.
fn talk(mut command: std::process::Command, mut next: impl FnMut() -> String, stop: &AtomicBool, done: &AtomicU64) {
    let mut client = command.spawn().expect("start the mysql client");
    let mut input = client.stdin.take().unwrap();
    let mut answers = BufReader::new(client.stdout.take().unwrap());
    while !stop.load(Ordering::Relaxed) {
        let sent = writeln!(input, "{}SELECT 'through';", next()).and_then(|()| input.flush());
        assert!(sent.is_ok(), "the client has ended");
        let mut line = String::new();
        while line.trim() != "through" {
            line.clear();
            assert!(answers.read_line(&mut line).unwrap() > 0, "the server has gone");
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    drop(input);
    drop(client.wait());
}

/// The stock client's own word that a file is a table of this kind: so that the scene is what it says.
pub(crate) fn assert_kinds(server: &Mysqld) {
    let encrypted = server.value("SELECT COUNT(*) FROM information_schema.innodb_tablespaces WHERE encryption = 'Y'");
    assert!(encrypted.parse::<u32>().unwrap() >= 8, "{encrypted} encrypted tablespaces");
    let zipped = server.value("SELECT COUNT(*) FROM information_schema.innodb_tablespaces WHERE zip_page_size > 0");
    assert!(zipped.parse::<u32>().unwrap() >= 4, "{zipped} compressed tablespaces");
}
