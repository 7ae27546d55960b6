//! What the model server answers to the agent's questions. One it does not know is a hole in the model, and said loudly.

use std::time::Duration;

use crate::server::{SERVER, Server};
use crate::talk::Session;
use crate::world::{World, lock};

/// An answer.
pub(crate) enum Answer {
    Ok,
    Rows(Vec<&'static str>, Vec<Vec<String>>),
    Error(u16, String),
}

/// Answers a statement.
pub(crate) fn answer(world: &World, text: &str, session: &mut Session) -> Answer {
    let server = lock(&world.server);
    if let Some(assignments) = text.strip_prefix("SET ") {
        set(assignments, session);
        return Answer::Ok;
    }
    if let Some(id) = text.strip_prefix("KILL ") {
        let line = id.parse().ok().and_then(|id: u32| lock(&world.lines).get(&id).cloned());
        return match line {
            Some(line) => {
                line.cut.cancel();
                Answer::Ok
            }
            None => Answer::Error(1094, format!("Unknown thread id: {id}")),
        };
    }
    if text.starts_with("SELECT UNIX_TIMESTAMP()") {
        let sets = [&server.executed, &server.purged].map(ToString::to_string);
        let row = [vec![World::now_us().to_string()], sets.to_vec()].concat();
        return Answer::Rows(vec!["time", "executed", "purged"], vec![row]);
    }
    let pairs = |rows| Answer::Rows(vec!["Variable_name", "Value"], rows);
    match text {
        "SELECT @@GLOBAL.gtid_executed" => Answer::Rows(vec!["executed"], vec![vec![server.executed.to_string()]]),
        "SELECT @@GLOBAL.gtid_purged" => Answer::Rows(vec!["purged"], vec![vec![server.purged.to_string()]]),
        "SELECT @@GLOBAL.read_only" => Answer::Rows(vec!["read_only"], vec![vec!["0".into()]]),
        text if text.starts_with("SHOW BINLOG EVENTS IN '") => {
            let file = text.split('\'').nth(1).and_then(|name| server.find(name));
            match file.map(|file| server.files[file].previous.to_string()) {
                Some(set) => Answer::Rows(vec!["Event_type", "Info"], vec![vec!["Previous_gtids".into(), set]]),
                None => Answer::Error(1220, "Could not find target log".into()),
            }
        }
        "SHOW GRANTS" => Answer::Rows(vec!["Grants"], vec![vec!["GRANT REPLICATION SLAVE ON *.* TO `a`@`%`".into()]]),
        "SHOW BINARY LOGS" => binary_logs(&server),
        "SHOW BINARY LOG STATUS" => status(&server),
        "SHOW PROCESSLIST" => {
            let dumps = server.dumps.keys().map(|id| vec![id.to_string(), "Binlog Dump GTID".into()]);
            Answer::Rows(vec!["Id", "Command"], dumps.collect())
        }
        text if text.starts_with("SHOW SESSION STATUS") => pairs(Vec::new()),
        "SHOW GLOBAL STATUS LIKE 'Com\\_reset'" => pairs(named(&[("Com_reset", server.resets.to_string())])),
        text if text.starts_with("SHOW GLOBAL STATUS LIKE 'Rpl") => pairs(plugin_status(&server)),
        text if text.starts_with("SHOW GLOBAL VARIABLES") => {
            let mut rows = plugin_variables(world, &server);
            if text.contains(" IN (") {
                rows.extend(variables(&server));
            }
            pairs(rows)
        }
        other => panic!("the model has no answer to {other:?}"),
    }
}

fn set(assignments: &str, session: &mut Session) {
    for assignment in assignments.split(", ") {
        let Some((name, value)) = assignment.split_once(" = ") else { continue };
        match name {
            "@source_heartbeat_period" => session.heartbeat = value.parse().ok().map(Duration::from_nanos),
            "@replica_uuid" => session.replica = value.trim_matches('\'').parse().ok(),
            "@rpl_semi_sync_replica" => session.semi_sync = value == "1",
            _ => {}
        }
    }
}

fn binary_logs(server: &Server) -> Answer {
    let row = |index: &usize| vec![server.files[*index].name(), server.files[*index].kept.to_string(), "No".into()];
    Answer::Rows(vec!["Log_name", "File_size", "Encrypted"], server.listed.iter().map(row).collect())
}

fn status(server: &Server) -> Answer {
    let (file, end) = server.end();
    let row =
        vec![server.files[file].name(), end.to_string(), String::new(), String::new(), server.executed.to_string()];
    Answer::Rows(vec!["File", "Position", "Binlog_Do_DB", "Binlog_Ignore_DB", "Executed_Gtid_Set"], vec![row])
}

fn named(pairs: &[(&str, String)]) -> Vec<Vec<String>> {
    pairs.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]).collect()
}

fn variables(server: &Server) -> Vec<Vec<String>> {
    named(&[
        ("server_uuid", SERVER.to_string()),
        ("server_id", "1".into()),
        ("log_bin", "ON".into()),
        ("log_bin_basename", "/var/lib/mysql/binlog".into()),
        ("binlog_format", "ROW".into()),
        ("sync_binlog", "1".into()),
        ("gtid_mode", if server.gtid_mode { "ON" } else { "OFF" }.into()),
        ("binlog_checksum", "CRC32".into()),
        ("binlog_encryption", "OFF".into()),
    ])
}

fn plugin_variables(world: &World, server: &Server) -> Vec<Vec<String>> {
    if server.plugin.is_none() {
        return Vec::new();
    }
    named(&[
        ("rpl_semi_sync_source_enabled", "ON".into()),
        ("rpl_semi_sync_source_timeout", world.commit_limit.as_millis().to_string()),
        ("rpl_semi_sync_source_wait_for_replica_count", "1".into()),
        ("rpl_semi_sync_source_wait_no_replica", "OFF".into()),
        ("rpl_semi_sync_source_wait_point", "AFTER_SYNC".into()),
    ])
}

fn plugin_status(server: &Server) -> Vec<Vec<String>> {
    let Some(plugin) = &server.plugin else { return Vec::new() };
    let clients = server.dumps.values().filter(|dump| dump.semi_sync).count();
    named(&[
        ("Rpl_semi_sync_source_status", if plugin.is_on { "ON" } else { "OFF" }.into()),
        ("Rpl_semi_sync_source_clients", clients.to_string()),
        ("Rpl_semi_sync_source_no_times", plugin.times_off.to_string()),
        ("Rpl_semi_sync_source_wait_sessions", plugin.waits().to_string()),
        ("Rpl_semi_sync_source_yes_tx", plugin.acknowledged.to_string()),
        ("Rpl_semi_sync_source_no_tx", plugin.unacknowledged.to_string()),
    ])
}
