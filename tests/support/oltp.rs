//! Sysbench's write-only OLTP, without sysbench: tables, a procedure, and as much binlog of it as asked for.
//!
//! A transaction is one update of an indexed column, one of a text column, a delete and an insert of the same row: eleven
//! events of about 157 bytes on average in row format.

use super::lab::Mysqld;
use std::path::PathBuf;

/// Options for a server that shall write this fast, to be added to [`Mysqld::start`]'s own.
pub const FAST: &[&str] = &[
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=256M",
    "--innodb-redo-log-capacity=512M",
    "--max-binlog-size=1G",
];

const TABLES: u32 = 4;
const ROWS: u32 = 10_000;

/// Makes the database `oltp`: tables and procedures. Not into the binlog's measured part: the caller rotates.
pub fn prepare(server: &Mysqld) {
    let mut script = String::from(
        "DROP DATABASE IF EXISTS oltp; CREATE DATABASE oltp; USE oltp; SET SESSION cte_max_recursion_depth = 100000;
         CREATE TABLE words (id INT PRIMARY KEY, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL);
         INSERT INTO words WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 9999)
           SELECT i, LEFT(CONCAT_WS('-', g(i,1), g(i,2), g(i,3), g(i,4), g(i,5), g(i,6), g(i,7), g(i,8), g(i,9), g(i,10)), 119),
                  CONCAT_WS('-', g(i,11), g(i,12), g(i,13), g(i,14), g(i,15)) FROM n;\n",
    );
    script = script.replace(
        "CREATE TABLE words",
        "CREATE FUNCTION g(i INT, j INT) RETURNS CHAR(11) DETERMINISTIC\n\
         RETURN LPAD(CONV(LEFT(SHA2(i * 31 + j, 256), 15), 16, 10) % 100000000000, 11, '0'); CREATE TABLE words",
    );
    for table in 1..=TABLES {
        script.push_str(&format!(
            "CREATE TABLE sbtest{table} (id INT PRIMARY KEY, k INT NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL, KEY (k));
             INSERT INTO sbtest{table} SELECT id, id * 7 % {ROWS}, c, pad FROM words;
             DELIMITER //
             CREATE PROCEDURE run{table}(n INT) BEGIN
               DECLARE i INT DEFAULT 0; DECLARE a INT; DECLARE b INT; DECLARE d INT; DECLARE w CHAR(120); DECLARE x CHAR(120); DECLARE p CHAR(60);
               WHILE i < n DO
                 SET a = FLOOR(RAND() * {ROWS}), b = FLOOR(RAND() * {ROWS}), d = FLOOR(RAND() * {ROWS});
                 SELECT c INTO w FROM words WHERE id = a; SELECT c, pad INTO x, p FROM words WHERE id = b;
                 START TRANSACTION;
                 UPDATE sbtest{table} SET k = k + 1 WHERE id = a;
                 UPDATE sbtest{table} SET c = CONCAT(SUBSTR(w, 1 + i % 60), '-', LEFT(x, i % 60)) WHERE id = b;
                 DELETE FROM sbtest{table} WHERE id = d;
                 INSERT INTO sbtest{table} VALUES (d, a, CONCAT(SUBSTR(x, 1 + b % 60), '-', LEFT(w, b % 60)), p);
                 COMMIT;
                 SET i = i + 1;
               END WHILE;
             END//
             DELIMITER ;\n"
        ));
    }
    server.sql(&script);
}

/// Writes about `bytes` of OLTP binlog with one client a table, after [`prepare`]. Ends the file before and after: returns
/// the closed files that hold it.
pub fn generate(server: &Mysqld, bytes: u64) -> Vec<PathBuf> {
    server.sql("FLUSH BINARY LOGS");
    let first = server.binlogs().len() - 1;
    let each = (bytes / 1_730 / u64::from(TABLES)).max(1);
    std::thread::scope(|scope| {
        for table in 1..=TABLES {
            scope.spawn(move || server.sql(&format!("USE oltp; CALL run{table}({each});")));
        }
    });
    server.sql("FLUSH BINARY LOGS");
    let files = server.binlogs();
    files[first..files.len() - 1].to_vec()
}
