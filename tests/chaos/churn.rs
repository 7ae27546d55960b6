//! What else is written beside the rows of the OLTP clients: big transactions, changes of definitions, new binlog files.
//!
//! Invariant: it passes through the load's gate, so that nothing is written while that is held.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::support::dice::Dice;
use crate::support::lab::Mysqld;
use crate::support::load::Gate;

/// Changes of definitions; `%` is the number of a table. Errors are taken as they come: a table may not be there.
const DDL: &[&str] = &[
    "CREATE TABLE chaos.d% (id INT PRIMARY KEY AUTO_INCREMENT, v VARBINARY(300), n INT)",
    "CREATE TABLE chaos.d% (id INT PRIMARY KEY AUTO_INCREMENT, v VARBINARY(300), n INT) PARTITION BY HASH (id) PARTITIONS 3",
    "INSERT INTO chaos.d% (v, n) SELECT RANDOM_BYTES(200), k FROM oltp.sbtest1 LIMIT 500",
    "INSERT INTO chaos.d% (v, n) SELECT RANDOM_BYTES(200), k FROM oltp.sbtest2 LIMIT 50",
    "ALTER TABLE chaos.d% ADD COLUMN extra INT DEFAULT 5, ALGORITHM = INSTANT",
    "ALTER TABLE chaos.d% DROP COLUMN extra",
    "ALTER TABLE chaos.d% ADD INDEX by_n (n)",
    "ALTER TABLE chaos.d% FORCE",
    "TRUNCATE chaos.d%",
    "RENAME TABLE chaos.d% TO chaos.other%",
    "DROP TABLE chaos.other%",
    "DROP TABLE chaos.d%",
    "CREATE VIEW chaos.w% AS SELECT COUNT(*) FROM oltp.sbtest1",
    "DROP VIEW chaos.w%",
];

/// Tables whose definitions change.
const TABLES: u64 = 4;

/// How often each comes: a change of definitions, a big transaction, a new file, and the same compressed.
const DECK: &[(u64, Act)] =
    &[(12, Act::Definition), (1, Act::Big), (1, Act::Compressed), (1, Act::Emptied), (2, Act::Flush)];

#[derive(Debug, Clone, Copy)]
enum Act {
    Definition,
    Big,
    Compressed,
    Emptied,
    Flush,
}

/// What runs until it is dropped.
pub(crate) struct Churn {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Churn {
    pub(crate) fn start(server: &Mysqld, gate: Gate, mut dice: Dice) -> Self {
        server.sql(
            "CREATE DATABASE chaos;
             CREATE TABLE chaos.big (id INT PRIMARY KEY AUTO_INCREMENT, v VARBINARY(1100) NOT NULL)",
        );
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (until, counter, socket) = (Arc::clone(&stop), Arc::clone(&done), server.socket());
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::SeqCst) {
                let script = script(&mut dice);
                let mut client = crate::lab::tool("mysql");
                client.args(["-uroot", "--force", "-e", &script]).arg(format!("--socket={}", socket.display()));
                client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                // A server that is down, or a table that is not there, is nothing to this one.
                if gate.pass(|| client.status().unwrap()).success() {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
                std::thread::sleep(dice.millis(100, 1500));
            }
        });
        Self { stop, done, thread: Some(thread) }
    }

    /// Waits for its end; how much it did.
    pub(crate) fn stop(mut self) -> u64 {
        self.end();
        self.done.load(Ordering::SeqCst)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.end();
    }
}

/// So many rows of a KiB that do not compress, in one transaction.
fn big(rows: u64) -> String {
    format!(
        "SET SESSION cte_max_recursion_depth = 1000000;
         INSERT INTO chaos.big (v) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
           SELECT CONCAT(RANDOM_BYTES(1000), i) FROM n"
    )
}

fn script(dice: &mut Dice) -> String {
    match dice.weighted(DECK) {
        Act::Definition => dice.pick(DDL).replace('%', &dice.between(1, TABLES).to_string()),
        Act::Big => big(dice.between(500, 20_000)),
        Act::Compressed => {
            let rows = dice.between(100, 3_000);
            format!("SET SESSION binlog_transaction_compression = ON; {}", big(rows))
        }
        // Its rows are as many bytes again: they go without.
        Act::Emptied => "TRUNCATE chaos.big".to_owned(),
        Act::Flush => "FLUSH BINARY LOGS".to_owned(),
    }
}
