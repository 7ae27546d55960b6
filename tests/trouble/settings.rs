//! Configuration and secrets: what is wrong is named, what is secret is not.

use super::support::agent::{binvault, said};
use super::*;

#[test]
fn a_configuration_that_is_not_understood_is_refused_by_name() {
    let server = quiet();
    let config = AgentConfig::new(&server);
    let text = std::fs::read_to_string(config.path()).unwrap();
    let recipients = format!("recipients = [\"{}\"]", config.recipient());
    for (from, to, word) in [
        ("[source]", "[source]\nurll = \"x\"", "urll"),
        ("[source]", "[sauce]\n[source]", "sauce"),
        ("[source]", "[agent]\nuploads = 0\n[source]", "agent.uploads"),
        ("[source]", "[agent]\nchunk_size = \"eight\"\n[source]", "eight"),
        ("[source]", "[source", "line 1"),
        ("mysql://", "postgres://", "mysql://"),
        ("file://", "ftp://", "ftp://"),
        ("/password\"", "/no-such-password\"", "no-such-password"),
        (&recipients, "", "recipient"),
        (&recipients, "recipients = [\"age1wrong\"]", "age1wrong"),
    ] {
        config.rewrite(&text);
        config.edit(from, to);
        let said = config.fails(&["run"], 2);
        let error = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("no error: {said}"));
        assert!(error.contains(word), "{word:?}: {said}");
        assert!(!config.archive().exists(), "nothing is made before the configuration is right: {said}");
    }
    config.rewrite(&text);
    mended(&config, &server);
}

#[test]
fn a_private_key_in_place_of_a_public_one_is_refused_and_not_shown() {
    let server = quiet();
    let config = AgentConfig::new(&server);
    let key = std::fs::read_to_string(config.identity()).unwrap();
    let secret = key.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap();
    config.edit(config.recipient(), secret);
    let said = config.fails(&["-vv", "run"], 2);
    one_error(&said, &["a private key"]);
    assert!(!said.contains(&secret[15..30]), "{said}");
}

#[test]
fn missing_files_and_wrong_usage_are_told_apart_from_failures() {
    for (arguments, word) in [
        (&["-c", "/no/such/file.toml", "run"][..], "/no/such/file.toml"),
        (&["run"], "is configured"),
        (&["status"], "no archive is configured"),
        (&["frobnicate"], "frobnicate"),
        (&["run", "--twice"], "--twice"),
        (&["export"], "--to"),
        (&[], "Usage"),
    ] {
        let out = binvault().args(arguments).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{arguments:?}: {}", said(&out));
        assert!(String::from_utf8_lossy(&out.stderr).contains(word), "{arguments:?}: {}", said(&out));
    }
    let server = quiet();
    let config = AgentConfig::new(&server);
    for arguments in [&["status"][..], &["list"], &["verify"]] {
        // No folder at all is a store that is not there; an empty folder is no archive.
        config.fails(arguments, 9);
    }
    std::fs::create_dir(config.archive()).unwrap();
    for arguments in [&["status"][..], &["list"], &["verify"]] {
        one_error(&config.fails(arguments, 2), &["no archive"]);
    }
}

/// Each way to give the password, with the agent saying as much as it can.
#[test]
fn the_password_is_never_shown_at_any_level() {
    let server = quiet();
    let mut config = AgentConfig::new(&server);
    let text = std::fs::read_to_string(config.path()).unwrap();
    let file = format!("password_file = \"{}\"", config.dir().join("password").display());
    let in_url = text.replace(&file, "").replace("binvault@", &format!("binvault:{PASSWORD}@"));
    let in_file = text.replace(&file, &format!("password = \"{PASSWORD}\""));
    for (number, toml) in [text.clone(), in_url, in_file].iter().enumerate() {
        config.rewrite(&toml.replace("/archive\"", &format!("/archive-{number}\"")));
        for level in [&["run", "--once"][..], &["-v", "run", "--once"], &["-vv", "run", "--once"], &["-vv", "status"]] {
            let out = config.output(level);
            assert!(out.status.success(), "{}", said(&out));
            assert!(!said(&out).contains(PASSWORD), "{level:?}: {}", said(&out));
        }
        let mut agent = config.spawn_with(&["-vv", "run"]);
        agent.wait_caught_up(&server);
        let command_line = std::fs::read(format!("/proc/{}/cmdline", agent.pid())).unwrap();
        assert!(!String::from_utf8_lossy(&command_line).contains(PASSWORD));
        let log = agent.log();
        assert!(log.contains("TRACE") || log.contains("DEBUG"), "it was to say much: {log}");
        assert!(!log.contains(PASSWORD), "{log}");
        agent.terminate();
    }
    config.rewrite(&text.replace(&file, "").replace("/archive\"", "/archive-3\""));
    config.env("BINVAULT_SOURCE__PASSWORD", PASSWORD);
    let out = config.output(&["-vv", "run", "--once"]);
    assert!(out.status.success() && !said(&out).contains(PASSWORD), "{}", said(&out));
    // And wrong ones are not shown either.
    config.env("BINVAULT_SOURCE__PASSWORD", "Another-Secret-1");
    let out = config.output(&["-vv", "run", "--once"]);
    assert_eq!(out.status.code(), Some(4));
    assert!(!said(&out).contains("Another-Secret-1"), "{}", said(&out));
}
