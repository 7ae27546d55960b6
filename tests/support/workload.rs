//! Everything that a server may write into its binlog, by kind: small SQL scripts for the stock client.
//!
//! Owns: the scripts. Each makes its own database, is deterministic in shape, and leaves the server as it found it, so
//! that they can be run one after the other, in any order, more than once.
//! Does not own: starting servers, comparing files.

use super::lab::Mysqld;
use std::io::Write as _;

/// One kind of workload.
#[derive(Clone, Copy)]
pub struct Workload {
    /// Its name, also that of its database (`w_NAME`).
    pub name: &'static str,
    /// A word that the stock `mysqlbinlog --verbose --base64-output=decode-rows` must print for what it left in the binlog: the
    /// proof that the workload is what it says.
    pub shows: &'static str,
    run: fn(&Mysqld),
}

impl Workload {
    /// Runs it.
    pub fn run(&self, server: &Mysqld) {
        server.sql(&format!("DROP DATABASE IF EXISTS w_{0}; CREATE DATABASE w_{0}", self.name));
        (self.run)(server);
    }
}

/// The small kinds: the whole list takes seconds.
pub const SMALL: &[Workload] = &[
    Workload { name: "row", shows: "### UPDATE", run: |s| by_format(s, "ROW") },
    Workload { name: "statement", shows: "UPDATE t SET a = a + 1", run: |s| by_format(s, "STATEMENT") },
    Workload { name: "mixed", shows: "### INSERT", run: |s| by_format(s, "MIXED") },
    Workload { name: "ddl", shows: "RENAME TABLE", run: |s| script(s, "ddl", DDL) },
    Workload { name: "types", shows: "VECTOR", run: |s| script(s, "types", TYPES) },
    Workload { name: "json_partial", shows: "JSON_REPLACE", run: |s| script(s, "json_partial", JSON_PARTIAL) },
    Workload { name: "xa", shows: "XA COMMIT", run: |s| script(s, "xa", XA) },
    Workload { name: "compressed", shows: "Transaction_Payload", run: |s| script(s, "compressed", COMPRESSED) },
    Workload { name: "tagged", shows: ":nightly:", run: |s| script(s, "tagged", TAGGED) },
    Workload { name: "anonymous", shows: "Anonymous_GTID", run: anonymous },
    Workload { name: "savepoints", shows: "SAVEPOINT", run: |s| script(s, "savepoints", SAVEPOINTS) },
    Workload { name: "temporary", shows: "CREATE TEMPORARY TABLE", run: |s| script(s, "temporary", TEMPORARY) },
    Workload { name: "no_checksum", shows: "w_no_checksum", run: |s| script(s, "no_checksum", NO_CHECKSUM) },
    Workload { name: "rotation", shows: "w_rotation", run: rotation },
    Workload { name: "load_data", shows: "LOAD DATA", run: load_data },
    Workload { name: "routines", shows: "CREATE DEFINER", run: |s| script(s, "routines", ROUTINES) },
    Workload { name: "accounts", shows: "GRANT", run: |s| script(s, "accounts", ACCOUNTS) },
    Workload { name: "partitions", shows: "REORGANIZE PARTITION", run: |s| script(s, "partitions", PARTITIONS) },
    Workload { name: "generated", shows: "GENERATED ALWAYS", run: |s| script(s, "generated", GENERATED) },
    Workload { name: "both_formats", shows: "Rows_query", run: |s| script(s, "both_formats", BOTH_FORMATS) },
    Workload { name: "minimal_image", shows: "### SET", run: |s| script(s, "minimal_image", MINIMAL_IMAGE) },
    Workload { name: "cascades", shows: "### DELETE FROM", run: |s| script(s, "cascades", CASCADES) },
];

/// The big kinds: half a gigabyte and more of binlog together.
pub const BIG: &[Workload] = &[
    Workload { name: "tiny", shows: "Xid", run: |s| tiny(s, 30_000) },
    Workload { name: "row_17m", shows: "### INSERT", run: |s| big_row(s, "row_17m", 17) },
    Workload { name: "row_210m", shows: "### INSERT", run: |s| big_row(s, "row_210m", 210) },
    Workload { name: "transaction_300m", shows: "Xid", run: transaction_300m },
];

/// A workload by its name.
pub fn named(name: &str) -> Workload {
    *SMALL.iter().chain(BIG).find(|workload| workload.name == name).unwrap_or_else(|| panic!("no workload {name}"))
}

fn script(server: &Mysqld, name: &str, text: &str) {
    server.sql(&format!("USE w_{name};\n{text}"));
}

fn by_format(server: &Mysqld, format: &str) {
    script(
        server,
        &format.to_lowercase(),
        &format!(
            "SET SESSION binlog_format = {format};
             CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, a INT, b VARCHAR(200), KEY (a));
             SET @seed = 7;
             INSERT INTO t (a, b) VALUES (1, 'one'), (2, 'two'), (@seed, REPEAT('x', 150));
             INSERT INTO t (a, b) SELECT a + 10, CONCAT(b, '!') FROM t ORDER BY id;
             UPDATE t SET a = a + 1 WHERE id > 1;
             INSERT INTO t (a, b) VALUES (RAND(5) * 1000, IF('{format}' = 'STATEMENT', 'x', UUID()));
             BEGIN; DELETE FROM t WHERE a = 2; REPLACE INTO t VALUES (1, 99, 'again');
             INSERT INTO t VALUES (2, 1, 'twice') ON DUPLICATE KEY UPDATE b = 'updated'; COMMIT;
             BEGIN; INSERT INTO t (a, b) VALUES (0, 'never'); ROLLBACK;
             UPDATE t SET b = 'nobody' WHERE id = 100000; TRUNCATE TABLE t;
             INSERT INTO t (a, b) VALUES (LAST_INSERT_ID() + 1, 'after');"
        ),
    );
}

const DDL: &str = "
    CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(20)) COMMENT 'ä comment with 🦀';
    CREATE TABLE b LIKE a;
    CREATE TABLE c AS SELECT * FROM a;
    INSERT INTO a VALUES (1, 'x');
    ALTER TABLE a ADD COLUMN n INT DEFAULT 5, ALGORITHM = INSTANT;
    ALTER TABLE a MODIFY v VARCHAR(300), ADD INDEX (v);
    INSERT INTO a VALUES (2, 'y', 6);
    ALTER TABLE a DROP COLUMN n;
    RENAME TABLE b TO b2, c TO c2;
    CREATE VIEW w AS SELECT id FROM a; DROP VIEW w;
    CREATE INDEX i ON b2 (v); DROP INDEX i ON b2;
    CREATE TABLE m (i INT) ENGINE = MyISAM; INSERT INTO m VALUES (1), (2);
    ALTER TABLE a ENGINE = InnoDB; ANALYZE TABLE a; OPTIMIZE TABLE m; CHECK TABLE a;
    ALTER DATABASE w_ddl CHARACTER SET latin1;
    SET NAMES latin1; CREATE TABLE `t\u{e4}b` (`c\u{f6}l` INT); SET NAMES utf8mb4;
    DROP TABLE IF EXISTS nothing, m; TRUNCATE a; FLUSH TABLES;
";

const TYPES: &str = "
    CREATE TABLE t (
      id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT,
      i1 TINYINT, i2 SMALLINT UNSIGNED, i3 MEDIUMINT, i4 INT ZEROFILL, i8 BIGINT, b1 BOOL, bits BIT(37),
      d DECIMAL(65,30), d2 DECIMAL(5,0) UNSIGNED, f FLOAT, g DOUBLE,
      dt DATE, tm TIME(6), dtm DATETIME(3), ts TIMESTAMP(6) NULL, y YEAR,
      c CHAR(255) CHARACTER SET utf8mb4, v VARCHAR(5000), bin BINARY(16), vb VARBINARY(300),
      tt TINYTEXT, tx TEXT, mt MEDIUMTEXT, lt LONGTEXT, tb TINYBLOB, bl BLOB, mb MEDIUMBLOB, lb LONGBLOB,
      e ENUM('a','b','ü'), s SET('x','y','z'), j JSON,
      geo GEOMETRY SRID 0, p POINT, ls LINESTRING, po POLYGON, vec VECTOR(8),
      inv INT INVISIBLE DEFAULT 3
    );
    INSERT INTO t () VALUES ();
    INSERT INTO t (i1,i2,i3,i4,i8,b1,bits,d,d2,f,g,dt,tm,dtm,ts,y,c,v,bin,vb,tt,tx,mt,lt,tb,bl,mb,lb,e,s,j,geo,p,ls,po,vec) VALUES
      (-128, 65535, -8388608, 7, -9223372036854775808, TRUE, b'1011', -123456789.000000000000000000000000000001, 99999,
       -1.5e-30, 1.7976931348623157e308, '9999-12-31', '-838:59:59.000000', '1000-01-01 00:00:00.123', '2038-01-19 03:14:07.999999',
       2155, REPEAT('🦀', 255), REPEAT('v', 5000), UNHEX(REPEAT('00', 16)), UNHEX(REPEAT('FF', 300)), 'tiny', REPEAT('t', 60000),
       REPEAT('m', 70000), REPEAT('l', 100000), x'00', x'0001', REPEAT(x'02', 66000), REPEAT(x'03', 70000), 'ü', 'x,z',
       '{\"a\": [1, 2.5, null, true, \"text\"], \"big\": 18446744073709551615, \"nested\": {\"deep\": {}}}',
       ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 2), LINESTRING(0 0, 1 1))'), POINT(1, 2),
       ST_GeomFromText('LINESTRING(0 0, 1 1, 2 2)'), ST_GeomFromText('POLYGON((0 0, 0 3, 3 3, 0 0))'),
       STRING_TO_VECTOR('[1,2,3,4,5,6,7,8]'));
    INSERT INTO t (v, j, dtm) SELECT 'copy', j, NOW(3) FROM t;
    UPDATE t SET i1 = 127, v = NULL, j = '[]', e = 1, vec = NULL WHERE id = 2;
    SET SESSION sql_mode = ''; INSERT INTO t (dt, e) VALUES ('0000-00-00', 0); SET SESSION sql_mode = DEFAULT;
    DELETE FROM t WHERE id = 1;
    SET GLOBAL binlog_row_metadata = FULL; UPDATE t SET i8 = id; SET GLOBAL binlog_row_metadata = DEFAULT;
";

const JSON_PARTIAL: &str = "
    SET SESSION binlog_row_value_options = PARTIAL_JSON, SESSION binlog_row_image = MINIMAL;
    CREATE TABLE t (id INT PRIMARY KEY, j JSON, k JSON);
    INSERT INTO t VALUES (1, JSON_OBJECT('name', REPEAT('n', 3000), 'n', 1, 'list', JSON_ARRAY(1,2,3)), '{}'), (2, '{\"n\": 1, \"x\": \"y\"}', NULL);
    UPDATE t SET j = JSON_SET(j, '$.n', 2);
    UPDATE t SET j = JSON_REPLACE(j, '$.name', 'short') WHERE id = 1;
    UPDATE t SET j = JSON_REMOVE(j, '$.x'), k = '[1]' WHERE id = 2;
    UPDATE t SET j = JSON_SET(j, '$.list[1]', 'b', '$.fresh', JSON_OBJECT()) WHERE id = 1;
";

const XA: &str = "
    CREATE TABLE t (id INT PRIMARY KEY, v TEXT);
    XA START 'committed'; INSERT INTO t VALUES (1, 'a'); UPDATE t SET v = 'b'; XA END 'committed';
    XA PREPARE 'committed';
    XA COMMIT 'committed';
    XA START 'one', 'phase', 3; INSERT INTO t VALUES (2, 'c'); XA END 'one', 'phase', 3; XA COMMIT 'one', 'phase', 3 ONE PHASE;
    XA START 'rolled'; INSERT INTO t VALUES (3, 'd'); XA END 'rolled'; XA PREPARE 'rolled'; XA ROLLBACK 'rolled';
    XA START 'early'; INSERT INTO t VALUES (4, 'e'); XA END 'early'; XA ROLLBACK 'early';
    XA START 'empty'; XA END 'empty'; XA PREPARE 'empty'; XA COMMIT 'empty';
    XA START X'00ff', X'0102', 9; INSERT INTO t VALUES (5, REPEAT('x', 9000)); XA END X'00ff', X'0102', 9;
    XA PREPARE X'00ff', X'0102', 9; XA COMMIT X'00ff', X'0102', 9;
";

const COMPRESSED: &str = "
    CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT);
    SET SESSION binlog_transaction_compression = ON, SESSION binlog_transaction_compression_level_zstd = 5;
    INSERT INTO t (v) VALUES (REPEAT('compress me ', 50000));
    BEGIN; INSERT INTO t (v) VALUES ('a'), ('b'); UPDATE t SET v = CONCAT(v, v); DELETE FROM t WHERE id = 3; COMMIT;
    INSERT INTO t (v) VALUES ('x');
    SET SESSION binlog_format = STATEMENT; UPDATE t SET v = 'statements too'; SET SESSION binlog_format = ROW;
    INSERT INTO t (v) SELECT REPEAT(HEX(RANDOM_BYTES(500)), 2000) FROM t;
    XA START 'zip'; INSERT INTO t (v) VALUES (REPEAT('xa', 9999)); XA END 'zip'; XA PREPARE 'zip'; XA COMMIT 'zip';
    SET SESSION binlog_transaction_compression = OFF; INSERT INTO t (v) VALUES ('plain again');
";

const TAGGED: &str = "
    CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT);
    SET gtid_next = 'AUTOMATIC:nightly'; INSERT INTO t (v) VALUES (1); INSERT INTO t (v) VALUES (2);
    SET gtid_next = 'AUTOMATIC:a_tag_of_thirty_two_characters'; INSERT INTO t (v) VALUES (3);
    SET gtid_next = 'AUTOMATIC'; INSERT INTO t (v) VALUES (4);
    SET gtid_next = 'AUTOMATIC:nightly'; ALTER TABLE t ADD w INT; SET gtid_next = 'AUTOMATIC';
    SET @n = CONCAT(UUID(), ':by_hand:17'); SET gtid_next = @n; INSERT INTO t (v) VALUES (5); SET gtid_next = 'AUTOMATIC';
    SET @n = CONCAT(UUID(), ':99'); SET gtid_next = @n; BEGIN; COMMIT; SET gtid_next = 'AUTOMATIC';
";

const SAVEPOINTS: &str = "
    CREATE TABLE t (id INT PRIMARY KEY, v INT); CREATE TABLE m (i INT) ENGINE = MyISAM;
    SET SESSION binlog_format = STATEMENT;
    BEGIN; INSERT INTO t VALUES (1, 1); SAVEPOINT a; INSERT INTO t VALUES (2, 2); SAVEPOINT `b c`; INSERT INTO t VALUES (3, 3);
    ROLLBACK TO `b c`; INSERT INTO t VALUES (4, 4); ROLLBACK TO a; RELEASE SAVEPOINT a; INSERT INTO t VALUES (5, 5); COMMIT;
    SET SESSION binlog_format = ROW;
    BEGIN; INSERT INTO t VALUES (6, 6); SAVEPOINT a; INSERT INTO t VALUES (7, 7); ROLLBACK TO a; INSERT INTO t VALUES (8, 8); COMMIT;
";

const TEMPORARY: &str = "
    SET SESSION binlog_format = STATEMENT;
    CREATE TEMPORARY TABLE tmp (id INT PRIMARY KEY, v INT); INSERT INTO tmp VALUES (1, 10), (2, 20);
    CREATE TABLE t SELECT * FROM tmp; UPDATE tmp SET v = v + 1;
    FLUSH BINARY LOGS;
    INSERT INTO t SELECT id + 10, v FROM tmp; ALTER TABLE tmp ADD w INT; DROP TEMPORARY TABLE tmp;
    CREATE TEMPORARY TABLE left_open (i INT); INSERT INTO left_open VALUES (1);
";

const NO_CHECKSUM: &str = "
    SET GLOBAL binlog_checksum = NONE;
    CREATE TABLE t (id INT PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, REPEAT('a', 9000)), (2, 'b');
    UPDATE t SET v = REPEAT('c', 100); FLUSH BINARY LOGS; DELETE FROM t WHERE id = 2;
    SET GLOBAL binlog_checksum = CRC32; INSERT INTO t VALUES (3, 'sums again');
";

const ROUTINES: &str = "
    CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT); CREATE TABLE audit (what VARCHAR(20), n INT);
    DELIMITER //
    CREATE PROCEDURE fill(n INT) BEGIN DECLARE i INT DEFAULT 0; WHILE i < n DO INSERT INTO t (v) VALUES (i); SET i = i + 1; END WHILE; END//
    CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2//
    CREATE TRIGGER after_insert AFTER INSERT ON t FOR EACH ROW INSERT INTO audit VALUES ('insert', NEW.id)//
    CREATE TRIGGER before_update BEFORE UPDATE ON t FOR EACH ROW SET NEW.v = twice(NEW.v)//
    CREATE EVENT never ON SCHEDULE EVERY 1 YEAR DISABLE DO DELETE FROM audit//
    DELIMITER ;
    CALL fill(20); UPDATE t SET v = v + 1 WHERE id < 5;
    SET SESSION binlog_format = STATEMENT; CALL fill(3); SET SESSION binlog_format = ROW;
    ALTER EVENT never COMMENT 'soon'; DROP EVENT never; DROP TRIGGER before_update; DROP FUNCTION twice; DROP PROCEDURE fill;
";

const ACCOUNTS: &str = "
    DROP USER IF EXISTS lab_a@localhost, lab_b@'%'; DROP ROLE IF EXISTS lab_role;
    CREATE USER lab_a@localhost IDENTIFIED BY 'Secret-of-a', lab_b@'%' IDENTIFIED BY RANDOM PASSWORD REQUIRE SSL;
    CREATE ROLE lab_role; GRANT SELECT, INSERT ON w_accounts.* TO lab_role; GRANT lab_role TO lab_a@localhost;
    SET DEFAULT ROLE lab_role TO lab_a@localhost; ALTER USER lab_a@localhost IDENTIFIED BY 'Another-one' ACCOUNT LOCK;
    REVOKE INSERT ON w_accounts.* FROM lab_role; RENAME USER lab_b@'%' TO lab_b@localhost;
    DROP USER lab_a@localhost, lab_b@localhost; DROP ROLE lab_role;
";

const PARTITIONS: &str = "
    CREATE TABLE t (id INT, d DATE, v INT, PRIMARY KEY (id, d)) PARTITION BY RANGE (YEAR(d))
      (PARTITION p0 VALUES LESS THAN (2020), PARTITION p1 VALUES LESS THAN (2025), PARTITION pm VALUES LESS THAN MAXVALUE);
    INSERT INTO t VALUES (1, '2019-01-01', 1), (2, '2021-01-01', 2), (3, '2030-01-01', 3);
    UPDATE t SET d = '2022-02-02' WHERE id = 1;
    ALTER TABLE t REORGANIZE PARTITION pm INTO (PARTITION p2 VALUES LESS THAN (2031), PARTITION pm VALUES LESS THAN MAXVALUE);
    ALTER TABLE t TRUNCATE PARTITION p1; ALTER TABLE t DROP PARTITION p0;
    CREATE TABLE x (id INT, d DATE, v INT, PRIMARY KEY (id, d)); ALTER TABLE t EXCHANGE PARTITION p2 WITH TABLE x;
    CREATE TABLE h (id INT PRIMARY KEY) PARTITION BY KEY () PARTITIONS 4; INSERT INTO h VALUES (1), (2), (3), (4);
    ALTER TABLE h ADD PARTITION PARTITIONS 2; ALTER TABLE h REMOVE PARTITIONING;
";

const GENERATED: &str = "
    CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, a INT, b INT GENERATED ALWAYS AS (a * 2) STORED,
      c INT GENERATED ALWAYS AS (a + 1) VIRTUAL, j JSON, n VARCHAR(50) AS (j->>'$.name') VIRTUAL,
      u BINARY(16) DEFAULT (UUID_TO_BIN(UUID())), KEY (n), KEY f ((a + 1)), CHECK (a < 1000000));
    INSERT INTO t (a, j) VALUES (1, '{\"name\": \"x\"}'), (2, NULL); UPDATE t SET a = a + 1, j = '{\"name\": \"y\"}'; DELETE FROM t WHERE id = 1;
    CREATE TABLE no_key (a INT) ; INSERT INTO no_key VALUES (1), (1), (2); UPDATE no_key SET a = 3 WHERE a = 1;
";

const BOTH_FORMATS: &str = "
    CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(50));
    SET SESSION binlog_rows_query_log_events = ON; INSERT INTO t VALUES (1, 'with its query'); SET SESSION binlog_rows_query_log_events = OFF;
    SET SESSION binlog_format = MIXED;
    BEGIN; INSERT INTO t VALUES (2, 'statement'); INSERT INTO t VALUES (3, UUID()); UPDATE t SET v = 'x' WHERE id = 1; COMMIT;
    SET @user_variable = 'ü', SESSION auto_increment_increment = 3, SESSION time_zone = '+05:30'; INSERT INTO t VALUES (4, @user_variable);
    SET timestamp = 1000000000.123456; INSERT INTO t VALUES (5, NOW(6)); SET timestamp = DEFAULT;
    SET SESSION binlog_format = ROW; INSERT INTO t SELECT id + 100, v FROM t;
";

const MINIMAL_IMAGE: &str = "
    CREATE TABLE t (id INT PRIMARY KEY, a INT, b TEXT); INSERT INTO t VALUES (1, 1, 'b'), (2, 2, NULL);
    SET SESSION binlog_row_image = MINIMAL; UPDATE t SET a = 9 WHERE id = 1; DELETE FROM t WHERE id = 2;
    SET SESSION binlog_row_image = NOBLOB; INSERT INTO t VALUES (3, 3, 'c'); UPDATE t SET a = 4; SET SESSION binlog_row_image = FULL;
";

const CASCADES: &str = "
    CREATE TABLE p (id INT PRIMARY KEY); CREATE TABLE c (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE);
    INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (1, 1), (2, 1), (3, 2); DELETE FROM p WHERE id = 1;
    SET foreign_key_checks = 0; INSERT INTO c VALUES (4, 77); SET foreign_key_checks = 1;
    INSERT IGNORE INTO p VALUES (2), (3); LOCK TABLES p WRITE; INSERT INTO p VALUES (4); UNLOCK TABLES;
";

/// GTID_MODE goes down to OFF and up again, step by step, with transactions at every step.
fn anonymous(server: &Mysqld) {
    script(
        server,
        "anonymous",
        "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, mode VARCHAR(20));
         SET GLOBAL gtid_mode = ON_PERMISSIVE; INSERT INTO t (mode) VALUES ('on permissive');
         SET GLOBAL gtid_mode = OFF_PERMISSIVE; INSERT INTO t (mode) VALUES ('off permissive');
         SET GLOBAL gtid_mode = OFF; INSERT INTO t (mode) VALUES ('off'); BEGIN; UPDATE t SET mode = CONCAT(mode, '!'); COMMIT;
         FLUSH BINARY LOGS; CREATE TABLE u (i INT); INSERT INTO t (mode) VALUES ('off, next file');
         SET GLOBAL gtid_mode = OFF_PERMISSIVE; INSERT INTO t (mode) VALUES ('off permissive again');
         SET GLOBAL gtid_mode = ON_PERMISSIVE; INSERT INTO t (mode) VALUES ('on permissive again');
         SET GLOBAL gtid_mode = ON; INSERT INTO t (mode) VALUES ('on again');",
    );
}

/// Files end by hand, by size, and in the middle of other sessions' work.
fn rotation(server: &Mysqld) {
    script(
        server,
        "rotation",
        "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v VARBINARY(4000));
         SET @size = @@GLOBAL.max_binlog_size; SET GLOBAL max_binlog_size = 8192;",
    );
    for _ in 0..12 {
        script(
            server,
            "rotation",
            "INSERT INTO t (v) VALUES (REPEAT('r', 3000)); INSERT INTO t (v) SELECT v FROM t LIMIT 2;",
        );
    }
    script(
        server,
        "rotation",
        "SET GLOBAL max_binlog_size = 1073741824; FLUSH BINARY LOGS; FLUSH BINARY LOGS; FLUSH LOGS; FLUSH PRIVILEGES;
         FLUSH TABLES WITH READ LOCK; UNLOCK TABLES; INSERT INTO t (v) VALUES ('last'); FLUSH LOCAL BINARY LOGS;",
    );
}

fn load_data(server: &Mysqld) {
    let path = server.scratch().join("rows.tsv");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    for i in 0..20_000 {
        writeln!(file, "{i}\trow number {i}\t{}", "x".repeat(i % 97)).unwrap();
    }
    file.flush().unwrap();
    drop(file);
    let path = path.display();
    script(
        server,
        "load_data",
        &format!(
            "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(50), b VARCHAR(100)); LOAD DATA INFILE '{path}' INTO TABLE t;
             CREATE TABLE u LIKE t; LOAD DATA LOCAL INFILE '{path}' INTO TABLE u LINES TERMINATED BY '\\n' (id, a, @b) SET b = UPPER(@b);
             SET SESSION binlog_format = STATEMENT; CREATE TABLE v LIKE t; LOAD DATA INFILE '{path}' INTO TABLE v; SET SESSION binlog_format = ROW;"
        ),
    );
}

/// `count` commits of one small row each, by four sessions at once, so that group commit has something to group.
fn tiny(server: &Mysqld, count: u32) {
    script(
        server,
        "tiny",
        "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT);
         DELIMITER //
         CREATE PROCEDURE many(n INT) BEGIN DECLARE i INT DEFAULT 0;
           WHILE i < n DO INSERT INTO t (v) VALUES (i); SET i = i + 1; END WHILE; END//
         DELIMITER ;",
    );
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| script(server, "tiny", &format!("CALL many({});", count / 4)));
        }
    });
}

/// One row of `mib` MiB that no compressor can shrink: one row event, larger than a packet.
fn big_row(server: &Mysqld, name: &str, mib: u32) {
    script(
        server,
        name,
        &format!(
            "CREATE TABLE t (id INT PRIMARY KEY, v LONGBLOB); SET SESSION block_encryption_mode = 'aes-128-cbc';
             INSERT INTO t VALUES (1, 'small');
             INSERT INTO t VALUES (2, AES_ENCRYPT(REPEAT('a', {}), 'a key of 16 byte', '0123456789abcdef'));
             INSERT INTO t VALUES (3, 'small again'); TRUNCATE TABLE t;",
            mib << 20
        ),
    );
}

/// One transaction of 300 MB in events of ordinary size.
fn transaction_300m(server: &Mysqld) {
    script(
        server,
        "transaction_300m",
        "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v VARBINARY(8000));
         SET SESSION block_encryption_mode = 'aes-128-cbc', SESSION cte_max_recursion_depth = 50000;
         INSERT INTO t (v) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 39000)
           SELECT AES_ENCRYPT(REPEAT('b', 7700), 'a key of 16 byte', LPAD(i, 16, '0')) FROM n;
         TRUNCATE TABLE t;",
    );
}
