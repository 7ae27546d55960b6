//! A small source with an archive and a base backup, for tests that need one and not a load.

use std::path::{Path, PathBuf};

use crate::place::base;
use crate::support::agent::{AgentConfig, PASSWORD};
use crate::support::lab::Mysqld;

/// Makes `shop.orders` with some rows, archives it, takes a base backup.
pub(crate) fn shop(hint: &str, options: &[&str]) -> (Mysqld, AgentConfig) {
    shop_with(hint, options, "")
}

/// As [`shop`], with further configuration.
pub(crate) fn shop_with(hint: &str, options: &[&str], extra: &str) -> (Mysqld, AgentConfig) {
    archived(hint, options, |source| AgentConfig::with_extra(source, extra))
}

/// As [`shop_with`], in an archive at this URL.
pub(crate) fn shop_at(hint: &str, url: &str, extra: &str) -> (Mysqld, AgentConfig) {
    archived(hint, &[], |source| AgentConfig::with(source, url, extra))
}

fn archived(hint: &str, options: &[&str], config: impl FnOnce(&Mysqld) -> AgentConfig) -> (Mysqld, AgentConfig) {
    let source = Mysqld::start(hint, options);
    source.create_agent_user("binvault", PASSWORD);
    source.grant_base("binvault");
    source.sql(
        "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(40));
         INSERT INTO shop.orders (what) VALUES ('one'), ('two'), ('three')",
    );
    let config = config(&source);
    config.archive_now();
    base(&config);
    (source, config)
}

/// Inserts rows, each in a transaction of its own.
pub(crate) fn orders(source: &Mysqld, names: &[&str]) {
    for name in names {
        source.sql(&format!("INSERT INTO shop.orders (what) VALUES ('{name}')"));
    }
}

/// The GTID of the last transaction.
pub(crate) fn last_gtid(source: &Mysqld) -> String {
    let set = source.value("SELECT @@GLOBAL.gtid_executed");
    let uuid = source.uuid();
    let own = set.split(',').map(str::trim).find(|part| part.starts_with(&uuid)).unwrap();
    format!("{uuid}:{}", own.rsplit(['-', ':']).next().unwrap())
}

/// The chunks of a file of the server, in order of their offsets.
pub(crate) fn chunks(archive: &Path, server: &Mysqld, file: &str) -> Vec<PathBuf> {
    let of_server = archive.join("chunks").join(server.uuid());
    let folders = std::fs::read_dir(of_server).unwrap().map(|entry| entry.unwrap().path());
    let folder = folders.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(file));
    let entries = std::fs::read_dir(folder.unwrap()).unwrap();
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}
