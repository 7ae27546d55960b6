//! Objects that were made to do harm, by somebody who has the bucket's credentials, and the public key.

use std::fs;
use std::path::{Path, PathBuf};

use binvault::chunk::compress::{CompressOptions, Compressor};
use binvault::chunk::keys::Recipients;
use binvault::chunk::{ChunkMeta, ChunkName, HeaderRead, digest_hex, read_header, seal};
use serde_json::{Value, json};

use super::{server, with_key, words};
use crate::support::agent::{AgentConfig, said};
use crate::support::lab::{Mysqld, bin};

/// The archive of a small server: the configuration, and the chunk of its first file.
fn archived(hint: &str) -> (Mysqld, AgentConfig, PathBuf) {
    let server = server(hint);
    let config = AgentConfig::with_extra(&server, "[base]\nengine = \"clone\"\n");
    config.archive_now();
    let folder = |path: &Path| {
        let mut all: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all.remove(0)
    };
    let chunk = folder(&folder(&folder(&config.archive().join("chunks"))));
    (server, config, chunk)
}

fn meta(object: &[u8]) -> ChunkMeta {
    let HeaderRead::Whole(meta) = read_header(object).unwrap() else { panic!("cut short") };
    *meta
}

/// Nothing comes of an archive with a bad object: the error says which one it is.
fn refused(config: &AgentConfig, name: &str, keyless: bool) {
    if keyless {
        let said = config.fails(&["verify"], 10);
        assert!(said.contains(name), "{said}");
    }
    let said = config.fails(&words(&with_key(config, &["verify", "--deep"])), 10);
    assert!(said.contains(name), "{said}");
}

/// Puts an object in a chunk's place, under the name that fits its digest.
fn put_in_place(chunk: &Path, meta: &ChunkMeta, object: &[u8]) -> PathBuf {
    let name = ChunkName {
        server: meta.server,
        incarnation: meta.incarnation(),
        range: meta.range().unwrap(),
        high_commit: meta.high_commit_us,
        digest: digest_hex(object),
    };
    let path = chunk.with_file_name(name.to_string().rsplit('/').next().unwrap());
    fs::remove_file(chunk).unwrap();
    fs::write(&path, object).unwrap();
    path
}

fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn a_bomb_that_was_sealed_to_the_right_key_is_not_unpacked() {
    let (_server, config, chunk) = archived("bomb");
    let meta = meta(&fs::read(&chunk).unwrap());
    let mut compressor = Compressor::new(CompressOptions { level: 1, long_window_log: None }).unwrap();
    let mut frame = Vec::new();
    compressor.frame(&vec![0; 16 << 20], &mut frame).unwrap();
    // 16 GiB.
    let bomb = frame.repeat(1024);
    let recipients = Recipients::parse(&[config.recipient()]).unwrap();
    let sealed = seal(&meta, &recipients, &bomb, Vec::new()).unwrap();
    let forged = put_in_place(&chunk, &meta, &sealed.object);
    refused(&config, file_name(&forged), false);
    let to = config.dir().join("exported");
    let said = config.fails(&words(&with_key(&config, &["export", "--to", to.to_str().unwrap()])), 10);
    assert!(said.contains(file_name(&forged)), "{said}");
    // What is written of it is no more than the chunk may have, and not under a file's name.
    let written = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>();
    assert!(written <= 1 << 20, "{written}");
}

#[test]
fn a_header_that_is_cut_short_is_told_without_a_key() {
    let (_server, config, chunk) = archived("cut");
    let object = fs::read(&chunk).unwrap();
    let forged = put_in_place(&chunk, &meta(&object), &object[..200]);
    refused(&config, file_name(&forged), true);
}

#[test]
fn names_of_absurd_ranges_and_times_are_told_without_a_key() {
    let (_server, config, chunk) = archived("absurd");
    let name = file_name(&chunk).to_owned();
    let (range, rest) = name.split_once('.').unwrap();
    let (commit, digest) = rest.split_at("20261122T101530.000001Z".len());
    for (range, commit) in [
        ("0000000000000000-18446744073709551615", commit),
        ("0000000000000000-0000000000000001", commit),
        ("9223372036854775807-9223372036854775808", commit),
        (range, "99991231T235959.999999Z"),
    ] {
        let forged = chunk.with_file_name(format!("{range}.{commit}{digest}"));
        fs::copy(&chunk, &forged).unwrap();
        refused(&config, file_name(&forged), true);
        // Where it counts at all, whoever reads it says so.
        for command in [&["status", "--offline"][..], &["list"]] {
            let out = config.output(command);
            let told = out.status.code() == Some(10) && said(&out).contains(file_name(&forged));
            assert!(out.status.success() || told, "{}", said(&out));
        }
        // It never is exported as if it were right: left out, or an error.
        let to = tempfile::tempdir().unwrap();
        let arguments = with_key(&config, &["export", "--to", to.path().to_str().unwrap()]);
        let code = config.output(&words(&arguments)).status.code();
        assert!(matches!(code, Some(0 | 10 | 12)), "{code:?}");
        fs::remove_file(forged).unwrap();
    }
    config.verify_deep();
}

#[test]
fn manifests_that_mean_other_parts_or_are_absurd_stand_in_nobodys_way() {
    let (_server, config, _) = archived("manifest");
    let base: Value = serde_json::from_str(&config.ok(&["base", "--json"])).unwrap();
    let id = base["base"]["id"].as_str().unwrap();
    let bases = config.archive().join("bases");
    let good: Value = serde_json::from_slice(&fs::read(bases.join(id).join("manifest.json")).unwrap()).unwrap();
    let forge = |id: &str, change: &dyn Fn(&mut Value)| {
        let mut manifest = good.clone();
        manifest["id"] = id.into();
        change(&mut manifest);
        fs::create_dir(bases.join(id)).unwrap();
        fs::write(bases.join(id).join("manifest.json"), manifest.to_string()).unwrap();
    };
    forge("outside", &|manifest| manifest["parts"][0]["object"] = "../../binvault.json".into());
    forge("other", &|manifest| {
        manifest["parts"][0]["object"] = format!("../{id}/{}", good["parts"][0]["object"].as_str().unwrap()).into();
    });
    forge("huge", &|manifest| manifest["raw_bytes"] = u64::MAX.into());
    forge("sum", &|manifest| manifest["parts"][0]["raw_bytes"] = u64::MAX.into());
    forge("none", &|manifest| manifest["parts"] = json!([]));
    fs::create_dir(bases.join("giant")).unwrap();
    fs::File::create(bases.join("giant/manifest.json")).unwrap().set_len(1 << 40).unwrap();
    // Parts of another backup, under names that are fine: they are told when they are read.
    forge("swapped", &|_| {});
    for part in fs::read_dir(bases.join(id)).unwrap().map(|entry| entry.unwrap().path()) {
        if file_name(&part) != "manifest.json" {
            fs::copy(&part, bases.join("swapped").join(file_name(&part))).unwrap();
        }
    }
    let list: Value = serde_json::from_str(&config.ok(&["list", "--json"])).unwrap();
    let ids = |name: &str| -> Vec<String> {
        list[name].as_array().unwrap().iter().map(|base| base["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("bases").len(), 2, "{list}");
    assert_eq!(ids("unreadable_bases"), ["giant", "huge", "none", "other", "outside", "sum"]);
    let (mysqld, datadir) = (bin().join("mysqld"), config.dir().join("restored"));
    let place = ["--datadir", datadir.to_str().unwrap(), "--mysqld", mysqld.to_str().unwrap()];
    let restore = [&["restore", "--to", "latest", "--base", "swapped"][..], &place].concat();
    let said = config.fails(&words(&with_key(&config, &restore)), 10);
    assert!(said.contains("part-000001") && said.contains("swapped"), "{said}");
    // `verify` tells them all, without a key.
    let report = verify(&config, 10);
    let found = report["findings"].as_array().unwrap();
    let about = |what: &str| found.iter().filter(|finding| finding["what"].as_str().unwrap().contains(what)).count();
    for bad in ["giant", "huge", "none", "other", "outside", "sum"] {
        assert_eq!(about(&format!("bases/{bad}/manifest.json")), 1, "{bad}: {report:#}");
    }
    let parts = good["parts"].as_array().unwrap().len();
    assert_eq!((about("bases/swapped/part-"), found.len()), (parts, parts + 6), "{report:#}");
    config.ok(&["verify", "--no-bases"]);
}

fn verify(config: &AgentConfig, code: i32) -> Value {
    let out = config.output(&["verify", "--json"]);
    assert_eq!(out.status.code(), Some(code), "{}", said(&out));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn a_base_backup_that_is_damaged_is_told_without_a_key() {
    let (_server, config, _) = archived("basedamage");
    config.edit("engine = \"clone\"", "engine = \"clone\"\npart_size = \"1MiB\"");
    let base: Value = serde_json::from_str(&config.ok(&["base", "--json"])).unwrap();
    let folder = config.archive().join("bases").join(base["base"]["id"].as_str().unwrap());
    let mut parts: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    parts.sort();
    parts.retain(|part| file_name(part) != "manifest.json");
    assert!(parts.len() >= 3, "{parts:?}");
    let report = verify(&config, 0);
    let bytes: u64 = parts.iter().map(|part| fs::metadata(part).unwrap().len()).sum();
    assert_eq!((report["bases"].as_u64(), report["base_bytes"].as_u64()), (Some(1), Some(bytes)), "{report}");
    let deep = config.verify_deep();
    assert!(deep.contains(", 1 base backup, ") && deep.contains("whole"), "{deep}");

    let good: Vec<Vec<u8>> = parts.iter().map(|part| fs::read(part).unwrap()).collect();
    let mut flipped = good[0].clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&parts[0], flipped).unwrap();
    fs::write(&parts[1], &good[1][..good[1].len() - 1]).unwrap();
    fs::remove_file(&parts[2]).unwrap();
    let report = verify(&config, 10);
    let found: Vec<&str> =
        report["findings"].as_array().unwrap().iter().map(|finding| finding["what"].as_str().unwrap()).collect();
    assert_eq!(found.len(), 3, "{report:#}");
    for (what, part) in found.iter().zip(&parts) {
        assert!(what.ends_with(file_name(part)), "{what}");
    }
    refused(&config, file_name(&parts[0]), true);
    for (part, bytes) in parts.iter().zip(&good) {
        fs::write(part, bytes).unwrap();
    }
    config.verify_deep();
}

#[test]
fn beacons_are_information_and_never_steer_a_terminal() {
    let (_server, config, _) = archived("beacon");
    let agents = config.archive().join("agents");
    let beacon = fs::read_dir(&agents).unwrap().next().unwrap().unwrap().path();
    let mut forged: Value = serde_json::from_slice(&fs::read(beacon).unwrap()).unwrap();
    for name in ["agent", "server_version", "version", "oldest_file"] {
        forged[name] = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m".into();
    }
    forged["as_of_us"] = u64::MAX.into();
    forged["server_position"] = json!({ "file": "binlog.999999", "offset": u64::MAX });
    fs::write(agents.join("absurd.json"), forged.to_string()).unwrap();
    fs::write(agents.join("no.json"), "{\"agent\": ").unwrap();
    fs::File::create(agents.join("giant.json")).unwrap().set_len(1 << 40).unwrap();
    let text = config.ok(&["status", "--offline"]);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    let status = config.status().unwrap();
    assert!(status["servers"][0]["durable"]["offset"].as_u64().unwrap() > 0, "{status}");
    // The agent goes on from the chunks.
    config.archive_now();
    config.verify_deep();
}
