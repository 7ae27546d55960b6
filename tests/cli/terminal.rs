//! Pipes, terminals, stdout and stderr.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use super::json::archived;
use super::support::agent::said;

#[test]
fn run_says_nothing_on_stdout() {
    let (_server, config) = archived();
    for arguments in [&["run", "--once"][..], &["-vv", "run", "--once"]] {
        let out = config.output(arguments);
        assert!(out.status.success() && out.stdout.is_empty(), "{}", said(&out));
        assert!(!out.stderr.is_empty());
    }
}

#[test]
fn there_are_no_colours_and_no_bars_where_there_is_no_terminal() {
    let (_server, config) = archived();
    let key = config.identity();
    let (key, to) = (key.to_str().unwrap(), config.dir().join("plain"));
    for arguments in [
        &["run", "--once"][..],
        &["-v", "run", "--once"],
        &["status"],
        &["list"],
        &["verify"],
        &["verify", "--deep", "--identity", key],
        &["find", "--identity", key],
        &["export", "--to", to.to_str().unwrap(), "--identity", key],
        &["--help"],
        &["export", "--to", "/nowhere"],
    ] {
        let out = config.output(arguments);
        assert!(!out.stdout.contains(&0x1b) && !out.stderr.contains(&0x1b), "{arguments:?}: {}", said(&out));
        assert!(!out.stderr.contains(&b'\r'), "{arguments:?}: {}", said(&out));
    }
}

#[test]
fn results_and_errors_go_their_own_ways() {
    let (_server, config) = archived();
    let out = config.output(&["status"]);
    assert!(out.status.success() && !out.stdout.is_empty() && out.stderr.is_empty(), "{}", said(&out));
    let out = config.output(&["export", "--to", "/nowhere", "--json"]);
    assert!(!out.status.success() && out.stdout.is_empty(), "{}", said(&out));
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(error.starts_with("error: ") && error.contains("\nHINT: "), "{error}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (_server, config) = archived();
    let key = config.identity();
    let find = ["find", "--identity", key.to_str().unwrap()];
    for arguments in [&["list"][..], &["list", "--json"], &["status"], &find, &["man"], &["completions", "bash"]] {
        let mut child = config.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(!said(&out).contains("panicked"), "{arguments:?}: {}", said(&out));
        assert!(out.status.success(), "{arguments:?} ended with {}: {}", out.status, said(&out));
        // And one that was never there.
        let mut child = config.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{arguments:?} ended with {}: {}", out.status, said(&out));
    }
}
