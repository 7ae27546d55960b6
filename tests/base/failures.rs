//! What fails leaves no manifest, says why, and takes nothing away.

use crate::s3;
use crate::scene::{GRANTS, config, counts, fake, folder, s3_config, server, some_data, take, tool_line};
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;
use crate::support::wait_until;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Runs `base` with a fake tool; what it said.
fn with_tool(server: &Mysqld, place: &Path, script: &str, code: i32) -> (AgentConfig, String) {
    let tool = fake(place, script);
    let config = config(server, &format!("{}part_size = \"64KiB\"", tool_line(&tool)));
    let said = config.fails(&["base"], code);
    (config, said)
}

#[test]
fn a_half_dump_is_no_backup() {
    let (server, place) = (server("half", &[]), folder());
    some_data(&server);
    for (script, wanted) in [
        // Ends well and is cut short; ends badly and is whole; dies; says nothing; is another tool altogether.
        ("$REAL \"$@\" | head -c 300000; exit 0", "-- Dump completed"),
        ("$REAL \"$@\"; echo 'disk on fire' >&2; exit 3", "disk on fire"),
        ("$REAL \"$@\" | head -c 300000; kill -9 $$", "signal: 9"),
        ("exit 0", "without telling coordinates"),
        ("echo hello; sleep 0.2; exit 1", "mysqldump failed"),
    ] {
        let (config, said) = with_tool(&server, place.path(), script, 1);
        assert!(said.contains(wanted), "{script}: {said}");
        let (finished, unfinished) = counts(&config);
        assert_eq!(finished, 0, "{script}");
        let parts = files(&config.archive().join("bases"));
        assert!(!parts.iter().any(|path| path.ends_with("manifest.json")), "{parts:?}");
        assert_eq!(unfinished, usize::from(!parts.is_empty()), "what was stored is shown");
        // And the next one stands beside it.
        config.edit(fake(place.path(), "").to_str().unwrap(), crate::scene::mysqldump().to_str().unwrap());
        take(&config);
        assert_eq!(counts(&config), (1, unfinished));
        assert!(parts.iter().all(|path| path.exists()), "nothing is deleted");
    }
}

#[test]
fn a_position_that_is_none_is_noticed() {
    let (server, place) = (server("liar", &[]), folder());
    some_data(&server);
    for (change, wanted) in [
        ("s/LOG_POS=[0-9]*/LOG_POS=300/", "no event ends"),
        ("s/LOG_POS=[0-9]*/LOG_POS=99999999/", "ends at"),
        ("s/GTID_PURGED=\\(.*\\):1-/GTID_PURGED=\\1:2-/", "the binlog says"),
    ] {
        let script = format!("$REAL \"$@\" | sed -u '1,60{{{change}}}'; exit 0");
        let (config, said) = with_tool(&server, place.path(), &script, 10);
        assert!(said.contains(wanted), "{change}: {said}");
        assert_eq!(counts(&config).0, 0);
    }
}

#[test]
fn a_killed_tool_and_a_killed_agent_leave_nothing_finished() {
    let (server, place) = (server("killed", &[]), folder());
    some_data(&server);
    server.sql("INSERT INTO d.t (v) SELECT v FROM d.t; INSERT INTO d.t (v) SELECT v FROM d.t");
    let pid = place.path().join("pid");
    let script = format!(
        "exec 3>&1; $REAL \"$@\" >&3 & echo $! > {pid}.new; mv {pid}.new {pid}; wait $!; exit $?",
        pid = pid.display()
    );
    let tool = fake(place.path(), &script);
    let store = s3::Server::start();
    let config = s3_config(&server, &store, &format!("{}part_size = \"64KiB\"", tool_line(&tool)));
    take(&config);
    store.switches.delay_ms.store(300, Ordering::SeqCst);
    for whom in ["tool", "agent"] {
        std::fs::remove_file(&pid).unwrap();
        let puts = store.switches.puts.load(Ordering::SeqCst);
        let agent = config.spawn_with(&["base"]);
        wait_until("parts are stored", Duration::from_secs(60), || {
            store.switches.puts.load(Ordering::SeqCst) > puts + 1 && pid.exists()
        });
        if whom == "tool" {
            let pid: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            assert_eq!(agent.wait(Duration::from_secs(60)).code(), Some(1));
        } else {
            agent.kill();
        }
    }
    store.switches.delay_ms.store(0, Ordering::SeqCst);
    assert_eq!(counts(&config), (1, 2));
}

#[test]
fn a_store_that_fails_ends_the_backup_with_its_own_code() {
    let server = server("store", &[]);
    some_data(&server);
    let store = s3::Server::start();
    let config = s3_config(&server, &store, "part_size = \"64KiB\"");
    take(&config);
    store.switches.read_only.store(true, Ordering::SeqCst);
    let said = config.fails(&["base"], 9);
    assert!(said.contains("part-00000") && said.contains("HINT: "), "{said}");
    store.switches.read_only.store(false, Ordering::SeqCst);
    assert_eq!(counts(&config).0, 1);
    // A passing trouble is passed over.
    store.switches.internal_error.store(3, Ordering::SeqCst);
    config.edit("give_up_after = \"1s\"", "give_up_after = \"60s\"");
    take(&config);
    assert_eq!(counts(&config).0, 2);
}

#[test]
fn what_cannot_be_taken_is_said_before_anything_is_done() {
    let (server, place) = (server("refusals", &[]), folder());
    some_data(&server);
    let config = config(&server, "");
    let said = config.fails(&["base", "--engine", "xtrabackup"], 2);
    assert!(said.contains("mysqldump or command"), "{said}");
    let said = config.fails(&["base", "--engine", "command"], 2);
    assert!(said.contains("base.command.backup"), "{said}");
    let maria = fake(place.path(), "");
    std::fs::write(&maria, "#!/bin/sh\necho 'mysqldump from 11.4.2-MariaDB, client 10.19 for Linux'\n").unwrap();
    for (program, wanted) in [("/no/such/mysqldump", "is the program installed"), (maria.to_str().unwrap(), "MariaDB")]
    {
        let text = std::fs::read_to_string(config.path()).unwrap();
        config.edit(crate::scene::mysqldump().to_str().unwrap(), program);
        let said = config.fails(&["base"], 2);
        assert!(said.contains(wanted) && said.contains("HINT: "), "{said}");
        assert!(config.fails(&["base", "--dry-run"], 2).contains(wanted));
        config.rewrite(&text);
    }
    server.sql("SET SESSION sql_log_bin = 0; REVOKE RELOAD, SELECT ON *.* FROM binvault@'%'");
    let said = config.fails(&["base"], 4);
    assert!(said.contains("HINT: GRANT SELECT, RELOAD"), "{said}");
    assert_eq!(counts(&config).0, 0);
    server.sql(&format!("SET SESSION sql_log_bin = 0; GRANT {GRANTS} ON *.* TO binvault@'%'"));
    let planned: serde_json::Value = serde_json::from_str(&config.ok(&["base", "--dry-run", "--json"])).unwrap();
    assert!(planned["estimated_bytes"].as_u64().unwrap() > 100_000, "{planned}");
    assert_eq!(counts(&config).0, 0, "a plan takes nothing");
}
