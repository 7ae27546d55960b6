//! A shell in a folder of its own, in which the commands of a page run as they are printed.
//!
//! Names of places and things are exchanged for real ones (`/etc/`, `NAME`, `age1…`); the folder has programs in front of
//! the system's: `binvault`, which ends `run` and `serve` in good order once they do their work; the stock tools of
//! the lab; and what cannot run here (`systemctl`, `apt-get`, `cargo`, `chown` to another account), which only looks
//! whether what it is given exists. `make` only says what it would do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::page::{Block, unit_exists};
use crate::support::lab;
use crate::support::repo;

/// Stock programs.
const TOOLS: [&str; 6] = ["mysql", "mysqldump", "mysqlbinlog", "mysqladmin", "age", "zstd"];

/// What needs a service manager, root, or a build.
const NOT_RUN: [&str; 5] = ["systemctl", "journalctl", "apt-get", "cargo", "chown"];

const BINVAULT: &str = r#"
case " $* " in
*" run "* | *" serve "*)
  "$program" "$@" 2> "$HOME/long" &
  pid=$!
  for _ in $(seq 600); do
    grep -qE 'INFO .*archiving (begins|goes on)|INFO serving' "$HOME/long" && break
    kill -0 $pid || break
    sleep 0.1
  done
  sleep 2
  kill -TERM $pid
  wait $pid; code=$?
  cat "$HOME/long" >&2
  exit $code ;;
*" init -o binvault.toml "*)
  "$program" "$@" && exec cp "$HOME/filled.toml" binvault.toml ;;
*" keygen -o binvault.key "*)
  "$program" "$@" || exit
  # Filled in by hand, as the page says.
  [ ! -e "$HOME/filled.toml" ] || sed -i "s/age1[0-9a-z]*/$(sed -n 's/^# public key: //p' binvault.key)/" "$HOME/filled.toml" ;;
*) exec "$program" "$@" ;;
esac
"#;

/// Not every machine has it: then what is asked of it here goes without.
const CURL: &str = r#"
[ ! -x /usr/bin/curl ] || exec /usr/bin/curl "$@"
[ "$1" = -s ] || exit 2
address=${2#http://}; host=${address%%/*}
exec 3<> "/dev/tcp/${host%:*}/${host#*:}"
printf 'GET /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' "${address#*/}" >&3
sed '1,/^\r$/d' <&3
"#;

pub(crate) struct Shell {
    root: PathBuf,
    /// What is printed, and what is meant; in order.
    means: Vec<(String, String)>,
    ran: Vec<(String, usize)>,
}

impl Shell {
    pub(crate) fn new(root: &Path) -> Self {
        let shell = Self { root: root.to_owned(), means: Vec::new(), ran: Vec::new() };
        fs::create_dir(root.join("bin")).unwrap();
        for name in TOOLS {
            shell.program(name, &format!("exec '{}' \"$@\"", lab::bin().join(name).display()));
        }
        let program = env!("CARGO_BIN_EXE_binvault");
        shell.program("binvault", &format!("program='{program}'\n{BINVAULT}"));
        shell.program("curl", CURL);
        for name in NOT_RUN {
            shell.program(name, &format!("echo \"{name} $*\" >> \"$HOME/not-run\""));
        }
        shell.program("make", &format!("exec /usr/bin/make -n -C '{}' \"$@\"", repo().display()));
        for folder in ["etc/systemd/system", "usr/bin", "usr/share/man/man1", "usr/share/bash-completion/completions"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for folder in ["root", "var/lib", "work"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        shell
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.root.join("bin").join(name);
        fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What a word of the pages stands for, from here on.
    pub(crate) fn means(&mut self, printed: &str, meant: &str) {
        self.means.retain(|(known, _)| known != printed);
        self.means.push((printed.to_owned(), meant.to_owned()));
    }

    /// Whom `mysql` talks to without being told.
    pub(crate) fn talk_to(&self, server: &lab::Mysqld) {
        let options = format!("[client]\nuser=root\nsocket={}\n", server.socket().display());
        fs::write(self.root.join(".my.cnf"), options).unwrap();
    }

    /// A page begins in this folder, with a clean environment.
    pub(crate) fn begin(&self, folder: &str) {
        let environment = self.root.join("environment");
        fs::write(environment, format!("cd '{}'\n", self.root.join(folder).display())).unwrap();
    }

    /// Runs a block as printed; what it said on stdout. Folder and environment go on to the next one.
    pub(crate) fn run(&mut self, block: &Block) -> String {
        self.ran.push((block.page.clone(), block.line));
        self.script(&block.text, &format!("{}:{}", block.page, block.line))
    }

    /// Runs commands that stand in no page.
    pub(crate) fn script(&self, text: &str, name: &str) -> String {
        let mut text = text.to_owned();
        for (printed, meant) in &self.means {
            text = text.replace(printed, meant);
        }
        let script = format!(
            "set -eo pipefail\n. '{0}'\n{text}\n{{ export -p; echo \"cd '$PWD'\"; }} > '{0}'\n",
            self.root.join("environment").display()
        );
        let mut command = Command::new("bash");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BINVAULT_")) {
            command.env_remove(name);
        }
        let path = format!("{}:{}", self.root.join("bin").display(), std::env::var("PATH").unwrap());
        command.arg("-c").arg(&script).env("PATH", path).env("HOME", &self.root).stdin(Stdio::null());
        let out = command.output().expect("run bash");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{name} ended with {}:\n{text}\n{said}\n{errors}", out.status);
        said
    }

    /// Which blocks were run.
    pub(crate) fn ran(&self, block: &Block) -> bool {
        self.ran.contains(&(block.page.clone(), block.line))
    }

    /// What needs a service manager or root was asked of things that are there.
    pub(crate) fn judge_what_was_not_run(&self) {
        let units = repo().join("systemd");
        let asked = fs::read_to_string(self.root.join("not-run")).unwrap();
        for line in asked.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            for unit in words.iter().filter(|word| word.contains('@')) {
                assert!(unit_exists(&units, unit), "{line}: no such unit");
            }
        }
        for name in NOT_RUN {
            assert!(asked.lines().any(|line| line.starts_with(name)), "no page says {name}");
        }
    }
}
