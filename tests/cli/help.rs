//! Help texts, manual pages, completions, and the table of exit codes.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use binvault::error::Kind;

use super::support::agent::{binvault, said};
use super::support::repo;

const COMMANDS: &[&str] = &[
    "",
    "keygen",
    "init",
    "check",
    "drain",
    "run",
    "status",
    "base",
    "list",
    "find",
    "restore",
    "drill",
    "export",
    "prune",
    "verify",
    "serve",
    "completions",
    "man",
];

fn output_of(arguments: &[&str]) -> String {
    // Wrapped for a terminal of this width, whatever the one of the test.
    let out = binvault().env("COLUMNS", "110").args(arguments).output().unwrap();
    assert!(out.status.success(), "{arguments:?}: {}", said(&out));
    assert!(out.stderr.is_empty(), "{arguments:?} says on stderr: {}", said(&out));
    String::from_utf8(out.stdout).unwrap()
}

fn snapshot(command: &str) -> PathBuf {
    let name = if command.is_empty() { "binvault" } else { command };
    repo().join(format!("tests/cli/help/{name}.txt"))
}

#[test]
fn help_texts_are_those_written_down() {
    for command in COMMANDS {
        let arguments: Vec<&str> = [*command, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        let text = output_of(&arguments);
        let path = snapshot(command);
        if std::env::var_os("BINVAULT_UPDATE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            text,
            written,
            "{} differs; if that is meant: BINVAULT_UPDATE=1 cargo test --test cli",
            path.display()
        );
    }
}

#[test]
fn every_command_has_its_help_written_down() {
    let text = output_of(&["--help"]);
    let list = text.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut shown: Vec<&str> = list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    let mut known: Vec<&str> = COMMANDS.iter().copied().filter(|name| !name.is_empty()).collect();
    shown.sort_unstable();
    known.sort_unstable();
    assert_eq!(shown, known);
}

#[test]
fn the_help_tells_every_exit_code() {
    let text = output_of(&["--help"]);
    let codes = text.split("Exit codes:").nth(1).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let codes = format!(" {codes}");
    for kind in Kind::ALL {
        let code = format!(" {} ", kind.exit_code());
        assert!(codes.contains(&code), "{code} ({}) is missing: {codes}", kind.describe());
    }
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(output_of(&["--version"]), format!("binvault {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_are_there_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = output_of(&["completions", shell]);
        for command in COMMANDS {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
    }
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let script = output_of(&["completions", "bash"]);
    std::io::Write::write_all(&mut bash.stdin.take().unwrap(), script.as_bytes()).unwrap();
    let out = bash.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    assert_eq!(binvault().args(["completions", "tcsh"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn manual_pages_are_roff() {
    let page = output_of(&["man"]);
    assert!(page.contains(".TH binvault 1"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("man1");
    output_of(&["man", "--to", to.to_str().unwrap()]);
    for command in COMMANDS {
        let name = if command.is_empty() { "binvault.1".to_owned() } else { format!("binvault-{command}.1") };
        let page = std::fs::read_to_string(to.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains(".TH "), "{page}");
    }
}
