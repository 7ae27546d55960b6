//! `[notify]`: whom to tell when something goes wrong.

use std::path::PathBuf;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::SecretString;
use serde::Deserialize;

use super::Config;
use super::values::{self, Span};
use crate::error::{Error, Result};
use crate::notify::{Notifier, NotifyOptions, Template};

/// `[notify]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawNotify {
    /// The web hook.
    pub url: Option<SecretString>,
    /// A file that holds it.
    pub url_file: Option<PathBuf>,
    /// `json` or `slack`.
    pub template: Option<String>,
    /// Time between two messages of a kind.
    pub min_interval: Span,
    /// Further roots to trust.
    pub ca_file: Option<PathBuf>,
}

impl Default for RawNotify {
    fn default() -> Self {
        Self { url: None, url_file: None, template: None, min_interval: Span::seconds(300), ca_file: None }
    }
}

impl Config {
    /// Whom to tell, if anybody.
    ///
    /// # Errors
    /// If a value cannot be used, or a file cannot be read.
    pub fn notify(&self) -> Result<Option<NotifyOptions>> {
        let raw = &self.raw.notify;
        let template = values::named(
            "notify.template",
            Some(raw.template.as_deref().unwrap_or("json")),
            &[("json", Template::Json), ("slack", Template::Slack)],
        )?;
        let Some(url) = values::one_secret("notify.url", &raw.url, raw.url_file.as_deref())? else { return Ok(None) };
        let mut ca = Vec::new();
        if let Some(path) = &raw.ca_file {
            let wrong = |why| Error::config(format!("notify.ca_file {} cannot be read", path.display())).source(why);
            for root in CertificateDer::pem_file_iter(path).map_err(wrong)? {
                ca.push(root.map_err(wrong)?);
            }
        }
        let min_interval = raw.min_interval.at_least(Duration::from_secs(1), "notify.min_interval")?;
        let options = NotifyOptions { url, template, min_interval, ca };
        Notifier::new(&options)?;
        Ok(Some(options))
    }
}
