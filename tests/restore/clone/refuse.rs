//! What a clone is not restored into, and bases that do not hold: refused before anything is written, or found out behind it.

use std::path::Path;

use serde_json::{Value, json};

use super::scene::{Scene, clone, plain, with_program};
use crate::oracle::fingerprint;
use crate::place::{Restored, base, try_restore};
use crate::scene::{last_gtid, orders};
use crate::support::agent::{AgentConfig, said};
use crate::support::keyring;
use crate::support::lab::{Mysqld, tool};

/// Changes the manifest of a base backup.
pub(super) fn edit(config: &AgentConfig, id: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let path = config.archive().join("bases").join(id).join("manifest.json");
    let former = std::fs::read(&path).unwrap();
    let mut manifest: Value = serde_json::from_slice(&former).unwrap();
    change(&mut manifest);
    std::fs::write(&path, manifest.to_string()).unwrap();
    former
}

/// A restore that must fail, and must not have written anything.
fn refused(config: &AgentConfig, more: &[&str], code: i32, says: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let datadir = dir.path().join("data");
    let out = try_restore(config, "latest", &datadir, more);
    assert_eq!(out.status.code(), Some(code), "{}", said(&out));
    let text = said(&out);
    for word in says.iter().chain(&["HINT:"]) {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    assert!(!datadir.exists() && !dir.path().join("data.keyring").exists(), "something was written");
}

#[test]
fn a_clone_is_for_a_data_directory_of_the_same_kind() {
    let (source, config) = plain("rclonefit", 10, &[]);
    let (id, manifest) = clone(&config);
    orders(&source, &["four"]);
    config.archive_now();

    // Another series, another machine, a setting that can be none: found out beforehand.
    let put_back = |former: Vec<u8>| {
        std::fs::write(config.archive().join("bases").join(&id).join("manifest.json"), former).unwrap()
    };
    let former = edit(&config, &id, |manifest| manifest["server_version"] = json!("8.4.2"));
    refused(&config, &[], 5, &["is a clone of a 8.4.2", "same series"]);
    std::fs::write(config.archive().join("bases").join(&id).join("manifest.json"), &former).unwrap();
    edit(&config, &id, |manifest| manifest["clone"]["compile_machine"] = json!("aarch64"));
    refused(&config, &[], 5, &["on aarch64"]);
    put_back(former.clone());
    edit(&config, &id, |manifest| manifest["settings"]["innodb_data_file_path"] = json!("../ibdata1:12M:autoextend"));
    refused(&config, &[], 10, &["innodb_data_file_path"]);
    put_back(former.clone());

    // A manifest that says less than there is: found out while files are written; one that says another place: behind it.
    edit(&config, &id, |manifest| manifest["clone"]["innodb_page_size"] = json!(8192));
    let dir = tempfile::tempdir().unwrap();
    let out = try_restore(&config, "latest", &dir.path().join("data"), &[]);
    assert_eq!(out.status.code(), Some(10), "{}", said(&out));
    assert!(said(&out).contains("by the manifest 8192"), "{}", said(&out));
    put_back(former.clone());
    // One transaction more than the snapshot has.
    let gtid = last_gtid(&source);
    let executed = manifest["coordinates"]["executed"].as_str().unwrap();
    let more = source.value(&format!("SELECT GTID_SUBTRACT(CONCAT('{executed}', ',{gtid}'), '')")).replace('\n', "");
    edit(&config, &id, |manifest| manifest["coordinates"]["executed"] = json!(more));
    let dir = tempfile::tempdir().unwrap();
    let out = try_restore(&config, "latest", &dir.path().join("data"), &[]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    let text = said(&out);
    assert!(text.contains(&format!("{gtid} are missing")) && text.contains("is not what"), "{text}");
    put_back(former);

    // As it was, it holds.
    let restored = Restored::to(&config, "latest", &["--check-tables"]);
    assert_eq!(fingerprint(|sql| restored.sql(sql)), fingerprint(|sql| source.sql(sql)));
    restored.assert_clean();
}

#[test]
fn a_running_server_gets_another_base() {
    let (source, config) = plain("rclonesrv", 10, &[]);
    let target = Mysqld::start("rclonesrvto", &["--server-id=9"]);
    let dump = base(&config);
    orders(&source, &["four"]);
    let (id, _) = clone(&config);
    orders(&source, &["five"]);
    config.archive_now();
    let (socket, key) = (target.socket().display().to_string(), config.identity().display().to_string());
    let client = tool("mysql").get_program().to_str().unwrap().to_owned();
    let place = ["restore", "--to", "latest", "--server", &socket, "--mysql", &client, "--identity", &key, "--json"];

    let text = config.fails(&[&place[..], &["--base", &id]].concat(), 12);
    assert!(text.contains("cannot be put into a running server") && text.contains("--datadir"), "{text}");
    assert_eq!(target.value("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'shop'"), "0");

    // The later one, for a data directory; the one that serves, for a server.
    let plan = config.ok(&["restore", "--to", "latest", "--dry-run", "--identity", &key, "--json"]);
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["base"].as_str(), Some(id.as_str()));
    let report: Value = serde_json::from_str(&config.ok(&place)).unwrap();
    assert_eq!(report["base"].as_str(), Some(dump.as_str()));
    assert_eq!(fingerprint(|sql| target.sql(sql)), fingerprint(|sql| source.sql(sql)));
}

#[test]
fn keys_need_a_keyring_and_a_place_of_their_own() {
    let scene = Scene::new("rclonekeys");
    let (source, config) = (&scene.source, &scene.config);
    config.archive_now();
    let (_, manifest) = clone(config);
    assert_eq!(manifest["clone"]["encrypted"], true);
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(40)) ENCRYPTION='Y'");
    orders(source, &["one"]);
    config.archive_now();
    let dir = tempfile::tempdir().unwrap();
    let datadir = dir.path().join("data");
    let run = |program: &str, more: &[&str]| {
        let arguments = with_program(config, "latest", &datadir, program, more);
        config.output(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };

    // Somebody else's keyring stays as it is.
    let keyring = dir.path().join("data.keyring");
    std::fs::write(&keyring, "mine").unwrap();
    let out = run(&scene.mysqld(), &[]);
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    assert!(said(&out).contains("there is a keyring at") && said(&out).contains("--keyring"), "{}", said(&out));
    assert!(!datadir.exists() && std::fs::read(&keyring).unwrap() == b"mine");

    // A program that loads no keyring cannot read the data, and is told how it would; the next run begins anew.
    let mine = dir.path().join("mine.keyring");
    let without = tool("mysqld").get_program().to_str().unwrap().to_owned();
    let out = run(&without, &["--keyring", mine.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("read_local_manifest"), "{}", said(&out));
    assert!(mine.exists());

    // One that knows one place only gets it there.
    let programs = tempfile::Builder::new().prefix("bvp").tempdir().unwrap();
    let program = keyring::program(programs.path()).display().to_string();
    let global = programs.path().join("keys");
    let out = run(&program, &["--keyring", global.to_str().unwrap(), "--json", "--keep-running"]);
    assert!(out.status.success(), "{}", said(&out));
    assert!(!mine.exists(), "the keyring of the run before is left over");
    let restored = Restored::of(&out);
    assert_eq!(restored.sql("SELECT what FROM shop.orders"), "one\n");
    // The master key is the server's own from now on.
    restored.sql("ALTER INSTANCE ROTATE INNODB MASTER KEY");
    assert_mode(&global);
    drop(restored);
    drill(&scene);
}

/// Nobody else may read a keyring.
fn assert_mode(path: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

/// A drill works on a clone with keys, and leaves nothing.
fn drill(scene: &Scene) {
    let folder = tempfile::tempdir().unwrap();
    let config = &scene.config;
    let text = std::fs::read_to_string(config.path()).unwrap();
    config.rewrite(&format!(
        "{text}\n[restore]\nmysqld = \"{}\"\nmysqld_options = [\"--innodb-redo-log-capacity=64M\"]\n[drill]\nfolder = \"{}\"\n",
        scene.mysqld(),
        folder.path().display()
    ));
    let key = config.identity().display().to_string();
    let record: Value = serde_json::from_str(&config.ok(&["drill", "--json", "--identity", &key])).unwrap();
    assert_eq!((&record["ok"], &record["problem"]), (&true.into(), &Value::Null), "{record:#}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a drill left something");
}
