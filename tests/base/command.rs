//! Any tool that writes a backup to stdout: real ones, by script.

use crate::scene::{counts, mysqldump, server, some_data, take};
use crate::stock::{checksums, gtids_before, loaded, place, replay, unpack};
use crate::support::agent::AgentConfig;
use crate::support::lab::{Mysqld, tool};
use crate::support::load::{Load, Pace};
use crate::support::{lab_dir, repo};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The folder of mydumper's programs, fetched at the first call.
fn mydumper() -> PathBuf {
    let out = Command::new(repo().join("tests/lab/mysql.sh"))
        .args(["get", "mydumper"])
        .env("BINVAULT_LAB", lab_dir())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(out.status.success(), "tests/lab/mysql.sh get mydumper: see its message above");
    PathBuf::from(String::from_utf8(out.stdout).unwrap().lines().last().unwrap())
}

/// A configuration for the command engine; `toml` stands in `[base.command]`, in literal strings.
fn config(server: &Mysqld, toml: &str) -> AgentConfig {
    AgentConfig::with_extra(
        server,
        &format!(
            "[base]\nengine = \"command\"\ngive_up_after = \"1s\"\npart_size = \"128KiB\"\n[base.command]\n{toml}\n"
        ),
    )
}

/// Unpacks, loads and replays a backup, and holds the result against the source.
fn judge(source: &Mysqld, config: &AgentConfig, base: &serde_json::Value, hint: &str) {
    let (file, offset) = place(&base["position"]);
    let count = gtids_before(source, &file, offset);
    assert_eq!(base["executed"].as_str().unwrap(), format!("{}:1-{count}", source.uuid()));
    let bytes = config.dir().join("bytes");
    unpack(config, base["id"].as_str().unwrap(), &bytes);
    let target = if hint == "mydumper" {
        let target = Mysqld::start("mydumper-to", &["--server-id=99"]);
        let folder = config.dir().join("unpacked");
        std::fs::create_dir(&folder).unwrap();
        assert!(Command::new("tar").arg("-xf").arg(&bytes).arg("-C").arg(&folder).status().unwrap().success());
        let mut loader = Command::new(mydumper().join("myloader"));
        loader.args(["-u", "root", "-S"]).arg(target.socket()).arg("-d").arg(folder.join("dump"));
        let out = loader.output().unwrap();
        assert!(out.status.success(), "myloader: {}", String::from_utf8_lossy(&out.stderr));
        target
    } else {
        loaded("command-to", &bytes, &[])
    };
    replay(source, &target, &file, offset);
    assert_eq!(checksums(&target), checksums(source));
}

#[test]
fn mydumper_under_a_snapshots_lock_while_others_write() {
    let source = server("mydumper", &[]);
    let load = Load::start(&source, 2, Pace::PerSecond(400));
    load.wait_for(100);
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump");
    // What reads the server is done under the lock, so that it is of one moment; sending it comes behind.
    let config = config(
        &source,
        &format!(
            "snapshot = '''{0}/mydumper --user \"$BINVAULT_SOURCE_USER\" --password \"$(cat \"$BINVAULT_PASSWORD_FILE\")\" \
             --host \"$BINVAULT_SOURCE_HOST\" --port \"$BINVAULT_SOURCE_PORT\" --no-locks --regex \"^oltp\\.\" \
             --outputdir {1}'''\nsnapshot_timeout = \"60s\"\n\
             backup = 'tar -cf - -C {2} dump'\ncleanup = 'rm -rf {1}'",
            mydumper().display(),
            dump.display(),
            folder.path().display(),
        ),
    );
    let document = take(&config);
    assert!(!dump.exists(), "not cleaned up");
    load.wait_for(100);
    load.stop();
    assert_eq!(document["engine"], "command");
    judge(&source, &config, &document["base"], "mydumper");
    config.archive_now();
    let base = &crate::scene::list(&config)["bases"][0];
    assert_eq!((&base["engine"], &base["covered"]), (&"command".into(), &true.into()), "{base}");

    // A snapshot that fails, and one that takes too long: nothing is taken, the lock is given back, all is cleaned up.
    for (from, to, wanted) in [
        ("mydumper --user", "mydumper --no-such-option --user", "base.command.snapshot failed"),
        ("snapshot_timeout = \"60s\"", "snapshot_timeout = \"1s\"", "was killed"),
    ] {
        config.edit(from, to);
        if wanted == "was killed" {
            config.edit("mydumper --no-such-option", "mydumper");
            config.edit("snapshot = '''", "snapshot = '''sleep 30; ");
        }
        let said = config.fails(&["base"], 1);
        assert!(said.contains(wanted), "{said}");
        assert!(!dump.exists(), "not cleaned up");
        source
            .sql("INSERT INTO oltp.sbtest1 VALUES (1000000, 1, 'c', 'p'); DELETE FROM oltp.sbtest1 WHERE id = 1000000");
    }
    assert_eq!(counts(&config).0, 1);
}

/// mysqldump as any other tool: it tells its position in the dump, which the script shows on stderr, or in a file.
#[test]
fn a_tool_that_tells_its_position_itself() {
    let source = server("tells", &[]);
    some_data(&source);
    let load = Load::start(&source, 1, Pace::PerSecond(200));
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    let dump = format!(
        "{} --defaults-file=$BINVAULT_DEFAULTS_FILE --single-transaction --source-data=2 --all-databases --routines --events \
         --set-gtid-purged=ON --ignore-table=mysql.help_topic | tee {}",
        mysqldump().display(),
        told.display()
    );
    let pattern = "coordinates = \"SOURCE_LOG_FILE='{file}', SOURCE_LOG_POS={position};\"";
    for (what, script) in [
        ("stderr", format!("backup = '''{dump} && grep CHANGE {} >&2'''\n{pattern}", told.display())),
        (
            "command",
            format!("backup = '''{dump}'''\ncoordinates_command = '''grep CHANGE {}'''\n{pattern}", told.display()),
        ),
    ] {
        let config = config(&source, &script);
        load.wait_for(50);
        let document = take(&config);
        if what == "command" {
            continue;
        }
        load.wait_for(50);
        source.sql("FLUSH TABLES WITH READ LOCK; UNLOCK TABLES");
        let base = &document["base"];
        let (file, offset) = place(&base["position"]);
        assert_eq!(
            base["executed"].as_str().unwrap(),
            format!("{}:1-{}", source.uuid(), gtids_before(&source, &file, offset))
        );
    }
    load.stop();
    let config = config(&source, &format!("backup = '''{dump} && grep CHANGE {} >&2'''\n{pattern}", told.display()));
    let document = take(&config);
    source.sql("INSERT INTO d.t (v) VALUES ('behind')");
    judge(&source, &config, &document["base"], "sql");

    for (from, to, wanted, code) in [
        ("SOURCE_LOG_FILE", "NO_SUCH_WORD", "nothing fits", 1),
        ("NO_SUCH_WORD", "SOURCE_LOG_FILE", "the backup command failed", 1),
    ] {
        config.edit(from, to);
        if code == 1 && wanted.contains("failed") {
            config.edit("--single-transaction", "--no-such-option --single-transaction");
            config.edit("| tee", "> /dev/null || exit 5; echo | tee");
        }
        let said = config.fails(&["base"], code);
        assert!(said.contains(wanted), "{said}");
    }
    assert_eq!(counts(&config).0, 1);
    let version = tool("mysqldump").arg("--version").output().unwrap();
    assert!(version.status.success());
}
