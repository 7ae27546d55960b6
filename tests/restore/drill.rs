//! Drills: a proven restore that leaves nothing behind but its record, which `status` and `list` show.

use serde_json::Value;

use crate::scene::{orders, shop_with};
use crate::support::agent::{AgentConfig, said};
use crate::support::lab::{self, tool};

fn drill(config: &AgentConfig, more: &[&str], code: i32) -> (Value, String) {
    let key = config.identity().display().to_string();
    let out = config.output(&[&["drill", "--json", "--identity", &key], more].concat());
    assert_eq!(out.status.code(), Some(code), "{}", said(&out));
    (serde_json::from_slice(&out.stdout).unwrap(), said(&out))
}

/// An objective, as `status` judges it.
fn objective(status: &Value, name: &str) -> Value {
    let all = status["protection"]["objectives"].as_array().unwrap();
    all.iter().find(|objective| objective["name"] == name).cloned().unwrap_or(Value::Null)
}

#[test]
fn drills_are_proven_looked_into_and_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!(
        "[restore]\nmysqld = \"{}\"\nmysqld_options = [\"--innodb-redo-log-capacity=64M\"]\n\
         [drill]\nfolder = \"{}\"\nassertions = [\n\
           {{ sql = \"SELECT COUNT(*) = 5 FROM shop.orders\" }},\n\
           {{ sql = \"SELECT what FROM shop.orders ORDER BY id\", expect = \"one\" }},\n]\n\
         [objectives]\nrpo = \"1h\"\nrto = \"2h\"\n",
        tool("mysqld").get_program().to_str().unwrap(),
        folder.path().display()
    );
    let (source, config) = shop_with("rdrill", &[], &settings);
    orders(&source, &["four", "five"]);
    config.archive_now();
    assert!(lab::bin().join("mysql").is_file(), "the client beside the server is the one that is taken");
    let nothing_left = || assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a drill left something");

    // Before the first one nothing is known of the time.
    let status = config.status().unwrap();
    assert_eq!((&status["protection"]["verified"], &objective(&status, "rto")["met"]), (&Value::Null, &Value::Null));
    assert!(objective(&status, "rto")["by"].as_str().unwrap().contains("binvault drill"), "{status:#}");

    let (record, _) = drill(&config, &[], 0);
    assert_eq!((&record["ok"], &record["problem"]), (&true.into(), &Value::Null), "{record:#}");
    assert_eq!((&record["tables"], &record["assertions"]), (&1.into(), &2.into()), "CHECK TABLE and assertions");
    let executed = source.value("SELECT @@GLOBAL.gtid_executed").replace('\n', "");
    assert_eq!(record["executed"].as_str().unwrap(), executed, "the drill's target is the latest");
    assert_eq!(record["transactions"], 2);
    nothing_left();
    let status = config.status().unwrap();
    let protection = &status["protection"];
    assert_eq!((&protection["verified"]["ok"], &protection["last_drill"]["ok"]), (&true.into(), &true.into()));
    assert_eq!(protection["verified"]["seconds"], record["seconds"]);
    assert_eq!((&objective(&status, "rto")["met"], &objective(&status, "rpo")["met"]), (&true.into(), &true.into()));
    assert_eq!(objective(&status, "rto")["measured_seconds"], record["seconds"]);
    let list: Value = serde_json::from_str(&config.ok(&["list", "--json"])).unwrap();
    assert!(list["bases"][0]["last_verified"].is_string(), "{list:#}");

    // An assertion that does not hold: failed, recorded; what was verified before stays verified.
    config.edit("COUNT(*) = 5", "COUNT(*) = 6");
    let (record, text) = drill(&config, &[], 1);
    assert_eq!((&record["ok"], &record["assertions"]), (&false.into(), &1.into()), "{record:#}");
    assert!(record["problem"].as_str().unwrap().contains("COUNT(*) = 6") && text.contains("COUNT(*) = 6"), "{text}");
    nothing_left();
    // A drill to where nobody can come: failed before anything was made, and recorded, too.
    let (record, _) = drill(&config, &["--to", "gtid:11111111-2222-3333-4444-555555555555:7"], 12);
    assert_eq!((&record["ok"], &record["executed"]), (&false.into(), &Value::Null), "{record:#}");
    nothing_left();
    let status = config.status().unwrap();
    assert_eq!(status["protection"]["last_drill"]["ok"], false);
    assert_eq!(status["protection"]["verified"]["ok"], true);

    // Objectives that are missed.
    config.edit("rpo = \"1h\"", "rpo = \"1ms\"");
    config.edit("rto = \"2h\"", "rto = \"10ms\"");
    let status = config.status().unwrap();
    assert_eq!((&objective(&status, "rto")["met"], &objective(&status, "rpo")["met"]), (&false.into(), &false.into()));
    let shown = config.ok(&["status", "--offline"]);
    assert!(shown.contains("rto") && shown.contains("MISSED"), "{shown}");
}
