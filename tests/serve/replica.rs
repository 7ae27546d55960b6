//! A server that replicates from us.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::lab::Mysqld;
use crate::support::wait_until;

const LIMIT: Duration = Duration::from_secs(120);

/// Options of a server that shall replicate: an id of its own, parallel workers.
pub const REPLICA: &[&str] =
    &["--server-id=99", "--skip-replica-start", "--event-scheduler=OFF", "--replica-parallel-workers=4"];

/// Points a server at a source; does not start.
pub fn point(replica: &Mysqld, address: SocketAddr, user: &str, password: &str, more: &str) {
    replica.sql(&format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{}', SOURCE_PORT = {}, SOURCE_USER = '{user}', \
         SOURCE_PASSWORD = '{password}', SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 100, {more}",
        address.ip(),
        address.port()
    ));
}

/// Waits until the replica has executed all of a set.
pub fn wait_executed(replica: &Mysqld, gtids: &str) {
    let seconds = LIMIT.as_secs();
    let done = replica.value(&format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{gtids}', {seconds})"));
    assert_eq!(done, "0", "not all executed: {}\n{}", replica.value("SELECT @@gtid_executed"), status(replica));
}

/// One column of SHOW REPLICA STATUS.
pub fn column(replica: &Mysqld, name: &str) -> String {
    let wanted = format!("{name}: ");
    let text = status(replica);
    let found = text.lines().find_map(|line| line.trim().strip_prefix(wanted.as_str()).map(str::to_owned));
    found.unwrap_or_default()
}

fn status(replica: &Mysqld) -> String {
    let mut client = replica.client();
    let out = client.args(["--column-names", "--vertical", "--execute=SHOW REPLICA STATUS"]).output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Waits for the receiving thread to stop with an error, and returns that.
pub fn wait_io_error(replica: &Mysqld) -> String {
    let mut error = String::new();
    wait_until("the receiving thread stops with an error", LIMIT, || {
        error = column(replica, "Last_IO_Error");
        column(replica, "Replica_IO_Running") == "No" && !error.is_empty()
    });
    error
}

/// Waits until everything that was received is applied.
pub fn wait_applied(replica: &Mysqld) {
    wait_until("all that was received is applied", LIMIT, || {
        assert_eq!(column(replica, "Last_SQL_Errno"), "0", "{}", status(replica));
        column(replica, "Replica_SQL_Running_State").contains("waiting for more updates")
    });
}

/// Both have the same tables with the same content.
pub fn assert_same_tables(source: &Mysqld, replica: &Mysqld) {
    let (wanted, got) = (checksums(source), checksums(replica));
    assert!(!wanted.is_empty());
    for (wanted, got) in wanted.iter().zip(&got) {
        assert_eq!(wanted, got);
    }
    assert_eq!(wanted.len(), got.len());
}

/// Every table of the users', with its checksum.
fn checksums(server: &Mysqld) -> Vec<String> {
    let tables = server.value(
        "SET SESSION group_concat_max_len = 1000000; SELECT GROUP_CONCAT(CONCAT('`', table_schema, '`.`', table_name, '`') \
         ORDER BY 1) FROM information_schema.tables WHERE table_type = 'BASE TABLE' AND table_schema NOT IN \
         ('mysql', 'sys', 'information_schema', 'performance_schema')",
    );
    assert_ne!(tables, "NULL", "no tables at all");
    let mut lines: Vec<String> = server.sql(&format!("CHECKSUM TABLE {tables}")).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
