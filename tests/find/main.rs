//! `find`, held against what the stock `mysqlbinlog -vv` says of the server's own files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]

mod bounds;
mod oracle;
mod question;
#[path = "../support/mod.rs"]
mod support;
mod whole;

use std::sync::OnceLock;

use serde_json::Value;

use support::agent::{AgentConfig, said};
use support::lab::Mysqld;
use support::workload::named;

/// Everything that can stand in a binlog with GTIDs, and this suite's own.
const KINDS: &[&str] = &[
    "row",
    "statement",
    "ddl",
    "types",
    "json_partial",
    "xa",
    "compressed",
    "tagged",
    "savepoints",
    "temporary",
    "no_checksum",
    "rotation",
    "load_data",
    "routines",
    "accounts",
    "partitions",
    "generated",
    "both_formats",
    "minimal_image",
    "cascades",
];

/// The accident, and what stands around it.
const ACCIDENT: &str = "
    CREATE DATABASE shop; USE shop;
    CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(200)); CREATE TABLE items LIKE orders; CREATE TABLE old LIKE orders;
    INSERT INTO orders (v) VALUES ('a'), ('b'), ('c'); INSERT INTO items (v) VALUES ('i'), ('j');
    BEGIN; INSERT INTO orders (v) VALUES ('d'); UPDATE items SET v = 'k'; DELETE FROM orders WHERE id < 3; UPDATE orders SET v = 'z'; COMMIT;
    UPDATE orders JOIN items USING (id) SET orders.v = 'both', items.v = 'both';
    RENAME TABLE old TO `older one`; ALTER TABLE items DROP COLUMN v; TRUNCATE items;
    DROP TABLE orders;
    CREATE TABLE behind (id INT); INSERT INTO behind VALUES (1); DROP DATABASE shop;
";

/// A server that nobody writes to any more, and its archive in small chunks.
struct Archived {
    server: Mysqld,
    config: AgentConfig,
}

/// With GTIDs; shared by the tests, which only read.
fn with_gtids() -> &'static Archived {
    static SHARED: OnceLock<Archived> = OnceLock::new();
    SHARED.get_or_init(|| {
        let server = Mysqld::start("find", &[]);
        for kind in KINDS {
            named(kind).run(&server);
        }
        server.sql(ACCIDENT);
        archive(server)
    })
}

fn archive(server: Mysqld) -> Archived {
    let config = AgentConfig::with_extra(&server, "[agent]\nchunk_size = \"64KiB\"\n");
    config.archive_now();
    Archived { server, config }
}

impl Archived {
    /// The document of `find --json ARGUMENTS`.
    fn find(&self, arguments: &[&str]) -> Value {
        let out = self.config.output(&self.arguments(arguments, &["--json"]));
        assert!(out.status.success(), "{arguments:?}: {}", said(&out));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// What `find ARGUMENTS` prints.
    fn text(&self, arguments: &[&str]) -> String {
        self.config.ok(&self.arguments(arguments, &[]))
    }

    fn arguments<'a>(&self, arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
        // Kept for the process: a test's few bytes.
        let key: &'static str = Box::leak(self.config.identity().to_str().unwrap().to_owned().into_boxed_str());
        [&["find", "--identity", key], arguments, more].concat()
    }
}

/// The transactions of a document.
fn transactions(document: &Value) -> &Vec<Value> {
    document["transactions"].as_array().unwrap()
}

/// `FILE:START` of each.
fn places(document: &Value) -> Vec<String> {
    let place = |t: &Value| format!("{}:{}", t["file"].as_str().unwrap(), t["start"]);
    transactions(document).iter().map(place).collect()
}
