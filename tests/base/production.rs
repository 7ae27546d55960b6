//! Production goes on: locks are waited for briefly, long statements not disturbed, DDL and XA noticed.

use crate::scene::{config, counts, fake, folder, server, some_data, take, tool_line};
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;
use crate::support::wait_until;
use std::process::{Child, Stdio};
use std::time::Duration;

/// A client that runs a script and stays until its input is closed.
struct Session(Child);

impl Session {
    fn start(server: &Mysqld, script: &str) -> Self {
        let mut client = server.client();
        let mut child = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), format!("{script};\n").as_bytes()).unwrap();
        std::io::Write::flush(child.stdin.as_mut().unwrap()).unwrap();
        Self(child)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// Waits until the process list has a line with this text.
fn wait_for_statement(server: &Mysqld, text: &str) {
    wait_until(text, Duration::from_secs(20), || server.sql("SHOW FULL PROCESSLIST").contains(text));
}

fn seconds_of(work: impl FnOnce()) -> f64 {
    let start = binvault::clock::monotonic();
    work();
    start.elapsed().as_secs_f64()
}

#[test]
fn a_long_statement_is_neither_waited_for_nor_disturbed() {
    let server = server("long", &[]);
    some_data(&server);
    let config = config(&server, "long_query = \"1s\"");
    let long = Session::start(&server, "SELECT SLEEP(60), id FROM d.t LIMIT 1");
    wait_for_statement(&server, "SLEEP(60)");
    std::thread::sleep(Duration::from_millis(2100));
    let said = config.fails(&["base"], 1);
    assert!(said.contains("has been running for") && said.contains("HINT: "), "{said}");
    // No lock was tried: nobody waits behind the long statement.
    let others =
        seconds_of(|| drop(server.sql("SELECT COUNT(*) FROM d.t WHERE v > ''; INSERT INTO d.t (v) VALUES ('a')")));
    assert!(others < 5.0, "others waited {others} s");
    assert_eq!(counts(&config), (0, 0), "nothing was begun");
    let id = server.value("SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(60)%'");
    server.sql(&format!("KILL {id}"));
    drop(long);
    take(&config);
}

#[test]
fn a_lock_is_waited_for_briefly_and_tried_again() {
    let server = server("locks", &[]);
    some_data(&server);
    server.sql("CREATE TABLE d.other (i INT PRIMARY KEY)");
    let config = config(&server, "lock_wait = \"1s\"\ngive_up_after = \"60s\"");
    let holder = Session::start(&server, "LOCK TABLES d.t WRITE; SELECT 'locked'");
    wait_until("the table is locked", Duration::from_secs(10), || {
        server.try_sql("SET lock_wait_timeout = 1; SELECT COUNT(*) FROM d.t").is_err()
    });
    let agent = config.spawn_with(&["-v", "base"]);
    wait_until("a try has failed", Duration::from_secs(30), || agent.log().contains("lock_wait"));
    // The next try is seconds away: production is not held up by the one that failed.
    let others = seconds_of(|| drop(server.sql("INSERT INTO d.other VALUES (1)")));
    assert!(others < 5.0, "others waited {others} s");
    holder.end();
    assert_eq!(agent.wait(Duration::from_secs(60)).code(), Some(0));
    assert_eq!(counts(&config).0, 1);
}

/// A configuration whose dumps stop for a while behind their beginning; `then` says when they go on.
fn slow(server: &Mysqld, place: &std::path::Path, base: &str) -> AgentConfig {
    let script = "$REAL \"$@\" | { dd bs=16k count=1 iflag=fullblock 2> /dev/null; touch DIR/begun; \
        until [ -f DIR/go ]; do sleep 0.05; done; cat; }; exit ${PIPESTATUS[0]}";
    let tool = fake(place, &script.replace("DIR", place.to_str().unwrap()));
    config(server, &format!("{}{base}", tool_line(&tool)))
}

#[test]
fn definitions_that_change_meanwhile_are_noticed_and_the_dump_begins_again() {
    let (server, place) = (server("ddl", &[]), folder());
    some_data(&server);
    let (begun, go) = (place.path().join("begun"), place.path().join("go"));
    let config = slow(&server, place.path(), "give_up_after = \"60s\"");
    let agent = config.spawn_with(&["-v", "base"]);
    wait_until("the dump has begun", Duration::from_secs(30), || begun.exists());
    // Harmless: rows, accounts, a new table.
    server
        .sql("INSERT INTO d.t (v) VALUES ('x'); CREATE USER u; GRANT SELECT ON d.* TO u; CREATE TABLE d.fresh (i INT)");
    assert!(!agent.log().contains("a definition"), "{}", agent.log());
    server.sql("DROP TABLE d.fresh");
    wait_until("the change is noticed", Duration::from_secs(30), || agent.log().contains("a definition was changed"));
    assert!(agent.log().contains("DROP TABLE"), "{}", agent.log());
    std::fs::write(&go, "").unwrap();
    assert_eq!(agent.wait(Duration::from_secs(60)).code(), Some(0));
    assert_eq!(counts(&config).0, 1);
}

#[test]
fn a_table_without_snapshots_may_not_be_written_meanwhile() {
    for format in ["ROW", "STATEMENT"] {
        let (server, place) = (server("myisam", &[]), folder());
        some_data(&server);
        server.sql("CREATE TABLE d.m (i INT) ENGINE = MyISAM; INSERT INTO d.m VALUES (1)");
        let (begun, go) = (place.path().join("begun"), place.path().join("go"));
        let config = slow(&server, place.path(), "give_up_after = \"60s\"\nddl = \"lock\"");
        let agent = config.spawn_with(&["-v", "base"]);
        wait_until("the dump has begun", Duration::from_secs(30), || begun.exists());
        server.sql(&format!(
            "SET SESSION binlog_format = {format}; INSERT INTO d.t (v) VALUES ('a'); INSERT INTO d.m VALUES (2)"
        ));
        wait_until("it is noticed", Duration::from_secs(30), || agent.log().contains("d.m, whose engine"));
        std::fs::write(&go, "").unwrap();
        assert_eq!(agent.wait(Duration::from_secs(60)).code(), Some(0));
        assert_eq!(counts(&config).0, 1);
    }
}

#[test]
fn definitions_can_be_held_back_and_one_backup_is_taken_at_a_time() {
    let (server, place) = (server("hold", &[]), folder());
    some_data(&server);
    let (begun, go) = (place.path().join("begun"), place.path().join("go"));
    let config = slow(&server, place.path(), "ddl = \"lock\"");
    let agent = config.spawn_with(&["base"]);
    wait_until("the dump has begun", Duration::from_secs(30), || begun.exists());
    let held = server.try_sql("SET lock_wait_timeout = 1; ALTER TABLE d.t ADD COLUMN w INT").unwrap_err();
    assert!(held.0.contains("1205"), "{}", held.0);
    server.sql("INSERT INTO d.t (v) VALUES ('rows go on')");
    let said = config.fails(&["base"], 8);
    assert!(said.contains("another base backup"), "{said}");
    std::fs::write(&go, "").unwrap();
    assert_eq!(agent.wait(Duration::from_secs(60)).code(), Some(0));
    server.sql("ALTER TABLE d.t ADD COLUMN w INT");
    assert_eq!(counts(&config), (1, 0));
}

#[test]
fn an_xa_transaction_that_is_prepared_makes_the_dump_wait() {
    let server = server("xa", &[]);
    some_data(&server);
    let config = config(&server, "");
    server.sql("XA START 'left', 'over', 7; INSERT INTO d.t (v) VALUES ('xa'); XA END 'left', 'over', 7; XA PREPARE 'left', 'over', 7");
    let said = config.fails(&["base"], 1);
    assert!(said.contains("x'6c656674',x'6f766572',7"), "{said}");
    assert_eq!(counts(&config).0, 0);
    server.sql("XA COMMIT 'left', 'over', 7");
    take(&config);
}
