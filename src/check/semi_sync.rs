//! What the source's semi-synchronous settings mean for commits that shall wait until they are durable. Pure.

use super::survey::Survey;
use super::{Area, Finding, server};
use crate::config::{SemiSyncMode, SemiSyncOptions};
use crate::mysql::facts::ServerFacts;
use crate::mysql::semi_sync::SemiSyncSettings;

/// The source's time-out must be so many times our limit: else it may give up before we have left.
const TIMEOUT_TIMES: u64 = 2;
/// Files larger than this come to hold very many chunks where each commit may make one, bytes.
const FILE_BYTES_MAX: u64 = 128 << 20;

/// Judges the settings, if commits are to wait for us.
pub(super) fn judge(survey: &Survey, options: &SemiSyncOptions, findings: &mut Vec<Finding>) {
    if options.mode == SemiSyncMode::Off || survey.facts.version.is_mariadb {
        return;
    }
    let facts = &survey.facts;
    let Some(settings) = facts.semi_sync() else {
        findings.push(no_plugin(facts));
        return;
    };
    findings.push(enabled(facts, &settings));
    findings.push(no_replica(facts, &settings));
    findings.push(timeout(facts, &settings, options));
    findings.push(wait_point(facts, &settings));
    findings.push(replicas(survey, &settings));
    findings.extend(file_size(facts));
}

fn no_plugin(facts: &ServerFacts) -> Finding {
    let (role, replica) =
        if facts.version.is_mysql_at_least(8, 0, 26) { ("source", "replica") } else { ("master", "slave") };
    let set = |name: &str, value| server::set(&facts.version, &format!("rpl_semi_sync_{role}_{name}"), value);
    Finding::warning(Area::Server, "semi-sync", "the source has no plugin for semi-synchronous replication")
        .detail("commits do not wait for the archive: they are archived asynchronously")
        .fix(format!(
            "INSTALL PLUGIN rpl_semi_sync_{role} SONAME 'semisync_{role}.so';\n{}\n{}",
            set(&format!("wait_no_{replica}"), "OFF"),
            set("enabled", "ON")
        ))
}

/// The statement that sets one of the plugin's variables, under the name that it has here.
fn set(facts: &ServerFacts, settings: &SemiSyncSettings, name: &str, value: &str) -> String {
    server::set(&facts.version, &format!("{}_{name}", settings.prefix), value)
}

/// The word that the plugin has for a replica.
fn replica(settings: &SemiSyncSettings) -> &'static str {
    if settings.prefix.ends_with("master") { "slave" } else { "replica" }
}

fn enabled(facts: &ServerFacts, settings: &SemiSyncSettings) -> Finding {
    let title = |word| format!("{}_enabled is {word}", settings.prefix);
    if settings.enabled {
        return Finding::ok(Area::Server, "semi-sync", title("ON"));
    }
    Finding::warning(Area::Server, "semi-sync", title("OFF"))
        .detail("commits do not wait for the archive: they are archived asynchronously")
        .fix(set(facts, settings, "enabled", "ON"))
}

fn no_replica(facts: &ServerFacts, settings: &SemiSyncSettings) -> Finding {
    const ID: &str = "semi-sync-no-replica";
    let name = format!("wait_no_{}", replica(settings));
    let title = |word| format!("{}_{name} is {word}", settings.prefix);
    if !settings.wait_no_replica {
        return Finding::ok(Area::Server, ID, title("OFF"));
    }
    Finding::warning(Area::Server, ID, title("ON"))
        .detail(format!(
            "when the agent leaves (a slow store, a restart), the next commit still waits for the source's whole time-out \
             of {} ms; with OFF it is released at once",
            settings.timeout_ms
        ))
        .fix(set(facts, settings, &name, "OFF"))
}

fn timeout(facts: &ServerFacts, settings: &SemiSyncSettings, options: &SemiSyncOptions) -> Finding {
    const ID: &str = "semi-sync-timeout";
    let limit_ms = u64::try_from(options.wait_limit.as_millis()).unwrap_or(u64::MAX);
    let wanted_ms = limit_ms.saturating_mul(TIMEOUT_TIMES);
    let title =
        format!("{}_timeout is {} ms, semi_sync.wait_limit {limit_ms} ms", settings.prefix, settings.timeout_ms);
    if settings.timeout_ms >= wanted_ms {
        return Finding::ok(Area::Server, ID, title);
    }
    Finding::warning(Area::Server, ID, title)
        .detail("the source may stop waiting before the agent has left, and pay its time-out again each time it begins anew")
        .fix(set(facts, settings, "timeout", &wanted_ms.to_string()))
}

fn wait_point(facts: &ServerFacts, settings: &SemiSyncSettings) -> Finding {
    const ID: &str = "semi-sync-wait-point";
    let title = format!("{}_wait_point is {}", settings.prefix, settings.wait_point);
    if settings.wait_point.eq_ignore_ascii_case("AFTER_SYNC") {
        return Finding::ok(Area::Server, ID, title);
    }
    Finding::warning(Area::Server, ID, title)
        .detail("others can see a commit before it is durable, and act on what a crash then takes back")
        .fix(set(facts, settings, "wait_point", "AFTER_SYNC"))
}

/// An archive is no replica that can take over.
fn replicas(survey: &Survey, settings: &SemiSyncSettings) -> Finding {
    const ID: &str = "semi-sync-offsite";
    let name = format!("wait_for_{}_count", replica(settings));
    let title = format!("{}_{name} is {}", settings.prefix, settings.replica_count);
    let others = survey
        .replicas
        .as_ref()
        .map_or(0, |replicas| replicas.iter().filter(|replica| !replica.host.starts_with("binvault-")).count());
    if settings.replica_count >= 2 {
        return Finding::ok(Area::Server, ID, title);
    }
    let detail = "the archive's word is enough for a commit, so an acknowledged commit may be in no replica that could take \
                  over: a failover would lose it there, though the archive has it; and where another semi-synchronous \
                  replica is connected, its word is enough, and the archive may lack the commit";
    if others == 0 {
        return Finding::note(Area::Server, ID, title).detail(detail);
    }
    Finding::warning(Area::Server, ID, title)
        .detail(format!("{detail}; SHOW REPLICAS has {others} beside this agent"))
        .fix(format!(
            "-- if another semi-synchronous replica is always connected: then each commit waits for both\n{}",
            set(&survey.facts, settings, &name, "2")
        ))
}

fn file_size(facts: &ServerFacts) -> Option<Finding> {
    let bytes = facts.max_binlog_size.filter(|bytes| *bytes > FILE_BYTES_MAX)?;
    Some(
        Finding::note(Area::Server, "semi-sync-file-size", format!("max_binlog_size is {} MiB", bytes >> 20))
            .detail("where commits wait, a chunk may hold a single one: smaller files keep the number of chunks a file small")
            .fix(server::set(&facts.version, "max_binlog_size", &FILE_BYTES_MAX.to_string())),
    )
}
