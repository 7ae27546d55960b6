//! What each page needs before its commands can run, and what must be true behind them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::page::{Block, blocks};
use crate::shell::Shell;
use crate::support::agent::{AgentConfig, PASSWORD};
use crate::support::http::{self, free_port};
use crate::support::lab::{Mysqld, bin};
use crate::support::{repo, wait_until};

/// A shop whose orders were dropped, and its archive.
pub(crate) struct Scene {
    pub(crate) shell: Shell,
    server: Mysqld,
    root: PathBuf,
    /// Filled by [`Scene::readme`].
    dropped: String,
    metrics: u16,
    _folder: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let server = Mysqld::start("docs", &["--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1"]);
        server.create_agent_user("binvault", PASSWORD);
        server.grant_base("binvault");
        server.sql(
            "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(40));
             INSERT INTO shop.orders (what) VALUES ('one'), ('two'), ('three')",
        );
        let folder = tempfile::Builder::new().prefix("binvault-docs").tempdir().unwrap();
        let root = folder.path().to_owned();
        let mut shell = Shell::new(&root);
        let at = |folder: &str| format!("{}/{folder}/", root.display());
        shell.means("mysql://binvault@127.0.0.1:3306", &format!("mysql://binvault@127.0.0.1:{}", server.port()));
        shell.means("s3://bucket/orders", &format!("file://{}", root.join("archive").display()));
        shell.means("/etc/", &at("etc"));
        shell.means("/usr/", &at("usr"));
        shell.means("/var/lib/", &at("var/lib"));
        shell.means("/root/", &at("root"));
        shell.means("target/release/binvault", env!("CARGO_BIN_EXE_binvault"));
        shell.means("cp systemd/", &format!("cp {}/systemd/", repo().display()));
        shell.means("NAME", "orders");
        let metrics = free_port();
        shell.means("127.0.0.1:9188", &format!("127.0.0.1:{metrics}"));
        shell.begin("work");
        Self { shell, server, root, dropped: String::new(), metrics, _folder: folder }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A configuration that a reader would fill in.
    fn filled(&self, recipient: &str) -> String {
        let Self { server, root, metrics, .. } = self;
        fs::write(root.join("password"), PASSWORD).unwrap();
        let (root, port) = (root.display(), server.port());
        format!(
            "[source]\nurl = \"mysql://binvault@127.0.0.1:{port}\"\npassword_file = \"{root}/password\"\n\
             [archive]\nurl = \"file://{root}/archive\"\nrecipients = [\"{recipient}\"]\n\
             [base]\nengine = \"mysqldump\"\n[restore]\nmysqld = \"{}\"\n\
             [retention]\nkeep = \"30d\"\n[spool]\ndir = \"{root}/spool\"\n[metrics]\nlisten = \"127.0.0.1:{metrics}\"\n\
             [serve]\nlisten = \"127.0.0.1:{}\"\nuser = \"replica\"\npassword_file = \"{root}/password\"\n",
            bin().join("mysqld").display(),
            free_port(),
        )
    }

    /// Runs the next block of a page, which must contain this.
    fn next(&mut self, blocks: &mut std::vec::IntoIter<Block>, contains: &str) -> String {
        let block = blocks.next().unwrap_or_else(|| panic!("no further block, wanted is {contains:?}"));
        assert!(block.text.contains(contains), "{}:{} is not the block with {contains:?}", block.page, block.line);
        self.shell.run(&block)
    }

    fn orders(&self, names: &[&str]) {
        for name in names {
            self.server.sql(&format!("INSERT INTO shop.orders (what) VALUES ('{name}')"));
        }
    }

    pub(crate) fn readme(&mut self) {
        let mut blocks = blocks("README.md").into_iter();
        let would = self.next(&mut blocks, "make demo");
        assert!(would.contains("demo.sh") && would.contains("cargo test"), "{would}");
        fs::write(self.at("filled.toml"), self.filled("age1")).unwrap();
        self.next(&mut blocks, "binvault keygen");
        // An accident.
        self.shell.script("binvault -c binvault.toml base", "a first base backup");
        self.orders(&["four", "five"]);
        let moment = self.server.value("SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%fZ')");
        self.orders(&["six"]);
        self.server.sql("DROP TABLE shop.orders");
        let uuid = self.server.uuid();
        let executed = self.server.value("SELECT @@GLOBAL.gtid_executed");
        self.dropped = format!("{uuid}:{}", executed.rsplit(['-', ':']).next().unwrap().trim());
        self.server.sql("CREATE TABLE shop.ruins (id INT PRIMARY KEY); FLUSH BINARY LOGS");
        self.shell.script("binvault -c binvault.toml run --once", "what came behind it");
        self.shell.means("UUID:N", &self.dropped);
        self.shell.means("20 minutes ago", &moment);

        let said = self.next(&mut blocks, "verify --deep");
        assert!(said.contains("every chunk opened") && said.contains("nothing is older"), "{said}");
        let exported = self.at("work/DIR").join(self.server.binlogs()[0].file_name().unwrap());
        assert!(exported.is_file(), "{said}");
        let said = self.next(&mut blocks, "binvault -c binvault.toml restore");
        assert!(said.contains(&self.dropped) && said.contains("PROVEN"), "{said}");
        assert!(self.at("var/lib/mysql-restored/mysql.ibd").is_file());
        assert_eq!(blocks.count(), 0);
        // The pages that follow look for all of it elsewhere.
        fs::remove_dir_all(self.at("var/lib/mysql-restored")).unwrap();
        let (etc, root) = (self.at("etc/binvault"), self.at("root"));
        fs::create_dir(&etc).unwrap();
        fs::copy(self.at("work/binvault.toml"), etc.join("binvault.toml")).unwrap();
        fs::copy(self.at("work/binvault.key"), root.join("binvault.key")).unwrap();
        fs::remove_file(self.at("filled.toml")).unwrap();
    }

    pub(crate) fn keys(&mut self) {
        fs::create_dir(self.at("keys")).unwrap();
        self.shell.begin("keys");
        let said = self.next(&mut blocks("docs/keys.md").into_iter(), "keygen -o -");
        let made = fs::read_to_string(self.at("keys/binvault.key")).unwrap();
        assert!(made.contains("AGE-SECRET-KEY-1") && said.contains("AGE-SECRET-KEY-1"));
    }

    pub(crate) fn format(&mut self) {
        let file = self.folder_of(&self.at("archive/chunks").join(self.server.uuid()), "");
        let chunk = self.folder_of(&file, "");
        let of = |path: &Path| path.display().to_string();
        self.shell.means("-i KEY", &format!("-i {}", of(&self.at("root/binvault.key"))));
        self.shell.means("CHUNK", &of(&chunk));
        self.shell.means("cd chunks/SERVER_UUID/binlog.000042.20261122T101530Z", &format!("cd {}", of(&file)));
        self.shell.begin("archive");
        let mut blocks = blocks("docs/FORMAT.md").into_iter();
        self.next(&mut blocks, "age -d");
        let server = &self.server.binlogs()[0];
        for block in ["mysqlbinlog --verify", "oflag=seek_bytes"] {
            let said = self.next(&mut blocks, block);
            assert!(block.contains("seek") || said.contains("good"), "{said}");
            let made = file.join("binlog.000042");
            let (made, is) = (fs::read(made).unwrap(), fs::read(server).unwrap());
            assert!(is == made, "{} of {} bytes", made.len(), is.len());
            fs::remove_file(file.join("binlog.000042")).unwrap();
        }
        let digest = self.next(&mut blocks, "sha256sum");
        assert!(chunk.to_str().unwrap().contains(digest.trim()), "{digest}");
        self.shell.means("CHUNK", "CHUNK");
    }

    /// The first entry of a folder whose name begins so.
    fn folder_of(&self, folder: &Path, beginning: &str) -> PathBuf {
        let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.retain(|entry| entry.file_name().unwrap().to_str().unwrap().starts_with(beginning));
        entries.sort();
        entries.remove(0)
    }

    pub(crate) fn install(&mut self) {
        let recipient = fs::read_to_string(self.at("root/binvault.key")).unwrap();
        let recipient = recipient.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned();
        self.shell.means("age1…", &recipient);
        self.shell.begin("work");
        let mut blocks = blocks("docs/install.md").into_iter();
        self.next(&mut blocks, "binvault man");
        for made in
            ["usr/bin/binvault", "usr/share/man/man1/binvault.1", "usr/share/bash-completion/completions/binvault"]
        {
            assert!(fs::metadata(self.at(made)).is_ok_and(|made| made.len() > 0), "{made}");
        }
        let would = self.next(&mut blocks, "make deb");
        assert!(would.contains("deb.sh"), "{would}");
        let would = self.next(&mut blocks, "make static");
        assert!(would.contains("static.sh"), "{would}");
        self.next(&mut blocks, "binvault init");
        fs::write(self.at("etc/binvault/orders.password"), PASSWORD).unwrap();
        let said = self.next(&mut blocks, "binvault -c /etc/binvault/orders.toml check");
        assert!(said.contains("server"), "{said}");
        self.next(&mut blocks, "binvault-drill@");
        // The page has it name its policy before.
        fs::write(self.at("etc/binvault/orders.toml"), self.filled(&recipient)).unwrap();
        self.next(&mut blocks, "prune --dry-run");
        assert_eq!(blocks.count(), 0);
    }

    pub(crate) fn upgrade(&mut self) {
        self.shell.begin("work");
        self.next(&mut blocks("docs/upgrade.md").into_iter(), "install -m 0755");
    }

    /// While an agent runs.
    pub(crate) fn runbooks(&mut self) {
        let config = AgentConfig::new(&self.server);
        config.rewrite(&fs::read_to_string(self.at("etc/binvault/orders.toml")).unwrap());
        let agent = config.spawn();
        wait_until("the agent streams", Duration::from_secs(60), || http::status(self.metrics, "/readyz") == 200);
        self.shell.begin("work");
        let said = self.next(&mut blocks("docs/runbooks.md").into_iter(), "journalctl");
        assert!(said.contains("agent") && said.contains(&self.server.uuid()), "{said}");
        agent.terminate();
    }

    pub(crate) fn retention(&mut self) {
        self.shell.begin("work");
        let said = self.next(&mut blocks("docs/retention.md").into_iter(), "prune\n");
        assert!(said.contains("nothing is older"), "{said}");
    }

    pub(crate) fn base_backups(&mut self) {
        self.shell.begin("archive");
        self.shell.script("export BINVAULT_CONFIG=/etc/binvault/orders.toml", "set-up");
        let mut blocks = blocks("docs/base-backups.md").into_iter();
        let said = self.next(&mut blocks, "binvault base --dry-run");
        assert!(said.contains("mysqldump"), "{said}");
        let empty = Mysqld::start("docsdump", &["--server-id=3"]);
        self.shell.talk_to(&empty);
        let base = self.folder_of(&self.at("archive/bases"), "");
        self.shell.means("bases/ID/", &format!("bases/{}/", base.file_name().unwrap().to_str().unwrap()));
        self.shell.means("-i key ", &format!("-i {} ", self.at("root/binvault.key").display()));
        self.next(&mut blocks, "mysql --binary-mode");
        assert_eq!(empty.value("SELECT COUNT(*) FROM shop.orders"), "3");
        assert_eq!(blocks.count(), 0);
    }

    pub(crate) fn restore(&mut self) {
        let next = Mysqld::start("docsnext", &["--server-id=2"]);
        next.sql(&format!(
            "SET SESSION sql_log_bin = 0; CREATE USER root@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';
             GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION"
        ));
        fs::write(self.at("pw"), PASSWORD).unwrap();
        let gtid = format!("gtid:{}", self.dropped);
        self.shell.means("gtid:…", &gtid);
        self.shell.means("3e11fa47-71ca-11e1-9e33-c80aa9429562:4711", &self.dropped.clone());
        let hour = |shift: &str| {
            self.server.value(&format!("SELECT DATE_FORMAT(NOW() {shift} INTERVAL 1 HOUR, '%Y-%m-%d %H:%i')"))
        };
        self.shell.means("2026-11-22 14:00", &hour("-"));
        self.shell.means("2026-11-22 14:10", &hour("+"));
        self.shell.means("mysql://root@10.0.0.7:3306", &format!("mysql://root@127.0.0.1:{}", next.port()));
        self.shell.means("--listen 10.0.0.5", "--listen 127.0.0.1");
        self.shell.begin("");
        let mut blocks = blocks("docs/restore.md").into_iter();
        self.next(&mut blocks, "export BINVAULT_CONFIG");
        self.next(&mut blocks, "binvault status");
        let found = self.next(&mut blocks, "binvault find");
        assert!(found.matches(&self.dropped).count() >= 3, "{found}");
        let plan = self.next(&mut blocks, "--before --dry-run");
        assert!(plan.contains(&self.dropped) || plan.contains("base"), "{plan}");
        let said = self.next(&mut blocks, "--datadir");
        assert!(said.contains("PROVEN"), "{said}");
        let said = self.next(&mut blocks, "--server");
        assert!(said.contains("PROVEN"), "{said}");
        assert_eq!(next.value("SELECT COUNT(*) FROM shop.orders"), "6");

        // What goes on is that server.
        self.shell.talk_to(&next);
        let toml = self.at("etc/binvault/binvault.toml");
        let (was, is) = (format!(":{}\"", self.server.port()), format!(":{}\"", next.port()));
        fs::write(&toml, fs::read_to_string(&toml).unwrap().replacen(&was, &is, 1)).unwrap();
        self.next(&mut blocks, "binvault run --adopt");
        assert_eq!(next.value("SELECT @@GLOBAL.event_scheduler"), "ON");
        self.stock_tools(&mut blocks);
        let said = self.next(&mut blocks, "binvault drill");
        assert!(said.contains("PROVEN") || said.contains("proven"), "{said}");
        assert_eq!(blocks.count(), 0);
    }

    /// Without binvault: a base backup, and the binlog up to before the accident.
    fn stock_tools(&mut self, blocks: &mut std::vec::IntoIter<Block>) {
        let empty = Mysqld::start("docsstock", &["--server-id=4"]);
        self.shell.talk_to(&empty);
        let events = self.server.sql("SHOW BINLOG EVENTS IN 'binlog.000001'");
        let drop = format!("'{}'", self.dropped);
        let stop = events.lines().find(|line| line.contains(&drop)).unwrap().split('\t').nth(1).unwrap().to_owned();
        let base = self.folder_of(&self.at("archive/bases"), "");
        let base = base.file_name().unwrap().to_str().unwrap().to_owned();
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(self.at("archive/bases").join(&base).join("manifest.json")).unwrap())
                .unwrap();
        assert_eq!(manifest["coordinates"]["file"], "binlog.000001");
        self.shell.means("archive/bases/ID/", &format!("archive/bases/{base}/"));
        self.shell.means("/SERVER/", &format!("/{}/", self.server.uuid()));
        self.shell.means("binlog.000042 binlog.000043", "binlog.000001");
        self.shell.means("binlog.000042", "binlog.000001");
        self.shell.means("=POS", &format!("={}", manifest["coordinates"]["position"]));
        self.shell.means("=STOP", &format!("={stop}"));
        self.shell.means("-i binvault.key", &format!("-i {}", self.at("root/binvault.key").display()));
        let said = self.next(blocks, "zstd -dc");
        assert!(said.contains("SOURCE_LOG_POS"), "{said}");
        assert_eq!(
            empty.value("SELECT GROUP_CONCAT(what ORDER BY id) FROM shop.orders"),
            "one,two,three,four,five,six"
        );
    }
}
