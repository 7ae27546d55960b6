//! `[serve]`: the archive as a replication source.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::values::{Flag, Span, de, one_secret};
use crate::error::{Error, Result};
use crate::mysql::source::{Account, Security, acceptor};

/// `[serve]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawServe {
    /// Address and port to listen on.
    pub listen: String,
    /// The account that replicas use.
    pub user: String,
    /// Its password, in clear in the file: `password_file` is better.
    pub password: Option<SecretString>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// PEM file of our certificate chain.
    pub tls_cert: Option<PathBuf>,
    /// PEM file of its key.
    pub tls_key: Option<PathBuf>,
    /// Let clients from other hosts in without TLS.
    pub plaintext: Flag,
    /// Most replicas at a time.
    #[serde(deserialize_with = "de::number")]
    pub replicas_max: usize,
    /// Our server id; derived from the archive's if left out.
    #[serde(deserialize_with = "de::number_opt")]
    pub server_id: Option<u32>,
    /// Pause between looks into the archive.
    pub poll_interval: Span,
}

impl Default for RawServe {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:3307".into(),
            user: "replica".into(),
            password: None,
            password_file: None,
            tls_cert: None,
            tls_key: None,
            plaintext: Flag(false),
            replicas_max: 16,
            server_id: None,
            poll_interval: Span::seconds(2),
        }
    }
}

/// How to be a source.
#[derive(Debug, Clone)]
pub struct ServeSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Who is let in.
    pub account: Account,
    /// How connections are protected.
    pub security: Security,
    /// Most replicas at a time.
    pub replicas_max: usize,
    /// Our server id, if configured.
    pub server_id: Option<u32>,
    /// Pause between looks into the archive.
    pub poll_interval: Duration,
}

/// Longest account name and password that `CHANGE REPLICATION SOURCE` takes.
const REPLICA_TEXT_MAX: usize = 32;

impl RawServe {
    /// Checks it; `listen` from the command line wins.
    pub(super) fn settings(&self, listen: Option<&str>) -> Result<ServeSettings> {
        let text = listen.unwrap_or(&self.listen);
        let listen: SocketAddr = text.parse().map_err(|error: std::net::AddrParseError| {
            Error::config(format!("serve.listen {text:?} is no address"))
                .source(error)
                .hint("write it as 127.0.0.1:3307, 0.0.0.0:3307 or [::]:3307")
        })?;
        let security = self.security(listen)?;
        let password = one_secret("serve.password", &self.password, self.password_file.as_deref())?;
        let password = password.filter(|password| !password.expose_secret().is_empty()).ok_or_else(|| {
            Error::config("no password for replicas is configured")
                .hint("set serve.password_file to a file with a password of up to 32 characters")
        })?;
        if password.expose_secret().chars().count() > REPLICA_TEXT_MAX || self.user.chars().count() > REPLICA_TEXT_MAX {
            return Err(Error::config("serve.user and serve.password must have at most 32 characters each")
                .hint("CHANGE REPLICATION SOURCE takes no longer ones"));
        }
        if !(1..=1000).contains(&self.replicas_max) {
            return Err(Error::config("serve.replicas_max must be from 1 to 1000"));
        }
        Ok(ServeSettings {
            listen,
            account: Account { user: self.user.clone(), password },
            security,
            replicas_max: self.replicas_max,
            server_id: self.server_id.filter(|id| *id > 0),
            poll_interval: self.poll_interval.at_least(Duration::from_millis(100), "serve.poll_interval")?,
        })
    }

    fn security(&self, listen: SocketAddr) -> Result<Security> {
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Some(acceptor(cert, key)?),
            (None, None) => None,
            _ => return Err(Error::config("serve.tls_cert and serve.tls_key go together, but only one is given")),
        };
        if tls.is_none() && !self.plaintext.0 && !listen.ip().to_canonical().is_loopback() {
            return Err(Error::config(format!("serving on {listen} without TLS would send the binlog in clear"))
                .hint("set serve.tls_cert and serve.tls_key, or say serve.plaintext = true if the network is safe"));
        }
        Ok(Security { tls, remote_needs_tls: !self.plaintext.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> RawServe {
        RawServe { password: Some(SecretString::from("secret")), ..RawServe::default() }
    }

    #[test]
    fn off_the_local_host_plaintext_must_be_said() {
        assert_eq!(raw().settings(None).unwrap().listen.port(), 3307);
        let error = raw().settings(Some("0.0.0.0:3307")).unwrap_err();
        assert!(error.to_string().contains("in clear") && error.hint_text().unwrap().contains("plaintext"));
        let said = RawServe { plaintext: Flag(true), ..raw() };
        assert!(!said.settings(Some("0.0.0.0:3307")).unwrap().security.remote_needs_tls);
        assert!(raw().settings(Some("[::1]:0")).unwrap().security.remote_needs_tls);
    }

    #[test]
    fn what_no_replica_could_use_is_refused() {
        assert!(RawServe::default().settings(None).unwrap_err().to_string().contains("no password"));
        let long = Some(SecretString::from("x".repeat(33)));
        assert!(RawServe { password: long, ..raw() }.settings(None).is_err());
        assert!(RawServe { tls_cert: Some("/c".into()), ..raw() }.settings(None).is_err());
        assert!(RawServe { replicas_max: 0, ..raw() }.settings(None).is_err());
        assert!(raw().settings(Some("localhost")).is_err());
    }
}
