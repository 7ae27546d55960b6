//! How a tool gets to the server: the account and TLS settings as an option file that only it can see.
//!
//! Invariants: the password is never on a command line, in an environment or on a disk: the file is memory that this
//! process and its children share (`memfd`), mode 0600.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};
use secrecy::{ExposeSecret, SecretString};
use tokio::process::Command;

use crate::error::{Context, Result};
use crate::mysql::tls::Plan;
use crate::mysql::{Address, SourceOptions, TlsMode};

/// Files in memory for a tool to read.
#[derive(Debug)]
pub(super) struct Access {
    options: File,
    password: File,
    address: Address,
    user: String,
}

impl Access {
    /// Makes them.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn new(source: &SourceOptions) -> Result<Self> {
        let password = source.password.as_ref().map_or("", |password| password.expose_secret());
        Ok(Self {
            options: in_memory("binvault-options", &option_file(source))?,
            password: in_memory("binvault-password", &SecretString::from(password))?,
            address: source.address.clone(),
            user: source.user.clone(),
        })
    }

    /// Path of an option file with a `[client]` section, good for children of this process.
    pub(super) fn option_file(&self) -> PathBuf {
        path(&self.options)
    }

    /// Tells a configured command where the server is, by its environment.
    pub(super) fn tell(&self, command: &mut Command) {
        command.env("BINVAULT_DEFAULTS_FILE", path(&self.options));
        command.env("BINVAULT_PASSWORD_FILE", path(&self.password));
        command.env("BINVAULT_SOURCE_USER", &self.user);
        match &self.address {
            Address::Socket(socket) => command.env("BINVAULT_SOURCE_SOCKET", socket),
            Address::Tcp { host, port } => {
                command.env("BINVAULT_SOURCE_HOST", host).env("BINVAULT_SOURCE_PORT", port.to_string())
            }
        };
    }
}

fn path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A file in memory that children inherit.
fn in_memory(name: &str, content: &SecretString) -> Result<File> {
    let failed = || "keep the account's settings in memory for the tool".to_owned();
    let file = memfd_create(name, MemfdFlags::empty()).map_err(std::io::Error::from).context(failed)?;
    // MySQL's programs ignore an option file that others may write.
    fchmod(&file, Mode::RUSR | Mode::WUSR).map_err(std::io::Error::from).context(failed)?;
    let mut file = File::from(file);
    file.write_all(content.expose_secret().as_bytes()).context(failed)?;
    Ok(file)
}

/// What `[client]` must say.
fn option_file(source: &SourceOptions) -> SecretString {
    let mut text = String::from("[client]\n");
    let mut add = |name: &str, value: &str| text.push_str(&format!("{name}={}\n", quoted(value)));
    add("user", &source.user);
    add("password", source.password.as_ref().map_or("", |password| password.expose_secret()));
    let is_local = match &source.address {
        Address::Socket(socket) => {
            add("protocol", "SOCKET");
            add("socket", &socket.display().to_string());
            true
        }
        Address::Tcp { host, port } => {
            // Without this `localhost` means a socket.
            add("protocol", "TCP");
            add("host", host);
            add("port", &port.to_string());
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    };
    let tls = &source.tls;
    let mode = match tls.plan(matches!(source.address, Address::Socket(_)), is_local) {
        Plan::Clear => "DISABLED",
        Plan::IfOffered => "PREFERRED",
        Plan::Demand(TlsMode::VerifyCa) => "VERIFY_CA",
        Plan::Demand(TlsMode::VerifyFull) => "VERIFY_IDENTITY",
        Plan::Demand(_) => "REQUIRED",
    };
    add("ssl-mode", mode);
    if mode == "DISABLED" {
        // The password then travels encrypted with the server's key. Unknown to tools before 8.0.
        add("loose-get-server-public-key", "1");
    }
    for (name, file) in [("ssl-ca", &tls.ca), ("ssl-cert", &tls.cert), ("ssl-key", &tls.key)] {
        if let Some(file) = file {
            add(name, &file.display().to_string());
        }
    }
    SecretString::from(text)
}

/// A value as MySQL's option files take it. A value that needs no quotes gets none: other readers of such files (GLib's)
/// know no quotes.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._:@%+,-".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::TlsOptions;

    fn source(address: Address) -> SourceOptions {
        SourceOptions::new(address, "vault", Some(SecretString::from("p\"a#s\\s 'w")))
    }

    #[test]
    fn the_option_file_says_what_the_connection_would_do() {
        let tcp = |host: &str| source(Address::Tcp { host: host.into(), port: 3307 });
        let text = option_file(&tcp("db.example")).expose_secret().to_owned();
        assert!(text.contains("host=db.example\nport=3307\nssl-mode=REQUIRED\n"), "{text}");
        assert!(text.contains("password=\"p\\\"a#s\\\\s 'w\"\n"), "{text}");
        assert!(option_file(&tcp("::1")).expose_secret().contains("ssl-mode=PREFERRED"));
        let socket = option_file(&source(Address::Socket("/run/my sql.sock".into()))).expose_secret().to_owned();
        assert!(socket.contains("socket=\"/run/my sql.sock\"\nssl-mode=DISABLED\n"), "{socket}");
        let mut verified = tcp("db.example");
        verified.tls = TlsOptions { mode: TlsMode::VerifyFull, ca: Some("/ca.pem".into()), ..TlsOptions::default() };
        let text = option_file(&verified).expose_secret().to_owned();
        assert!(text.ends_with("ssl-mode=VERIFY_IDENTITY\nssl-ca=/ca.pem\n"), "{text}");
    }

    #[test]
    fn children_can_read_it_and_nobody_else() {
        use std::os::unix::fs::PermissionsExt;

        let access = Access::new(&source(Address::Socket("/s".into()))).unwrap();
        assert_eq!(access.options.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let seen = std::process::Command::new("cat").arg(access.option_file()).output().unwrap();
        assert!(String::from_utf8(seen.stdout).unwrap().starts_with("[client]\nuser=vault\n"));
        assert!(!format!("{access:?}").contains("p\\\""));
    }
}
