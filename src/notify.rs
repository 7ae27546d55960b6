//! Notifications: a POST to a web hook, when something goes wrong and when it is well again.
//!
//! Owns: the two shapes of a message, the request, its limits. Does not own: what is worth a message (`observe`), how often
//! (`run`).
//!
//! Invariants: the hook's URL is a secret (a Slack hook is one), and is never shown beyond its host; a hook that hangs is
//! given up within [`LIMIT`] a try; whatever fails here is logged and counted, and nothing else stops for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::retry::{RetryOptions, Stopped, retry};

/// How long one try may take.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Tries of one message.
const TRIES: u32 = 3;

/// What a message looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// A JSON object with everything.
    Json,
    /// What Slack, Mattermost and the like take.
    Slack,
}

/// Where messages go, and how.
#[derive(Debug, Clone)]
pub struct NotifyOptions {
    /// The hook.
    pub url: SecretString,
    /// What a message looks like.
    pub template: Template,
    /// Of one kind there is no more than one message in this time.
    pub min_interval: Duration,
    /// Further roots to trust, PEM.
    pub ca: Vec<rustls_pki_types::CertificateDer<'static>>,
}

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `raised`, `cleared`, or `happened`.
    pub event: &'static str,
    /// What it is about, as `/status` names it.
    pub id: String,
    /// `now`, `soon` or `info`.
    pub severity: String,
    /// For people.
    pub text: String,
    /// What helps.
    pub hint: Option<String>,
    /// `agent.id`.
    pub agent: String,
    /// The server's uuid, if it is known.
    pub server: Option<String>,
    /// The archive's URL.
    pub archive: String,
    /// When, RFC 3339.
    pub at: String,
}

impl Message {
    /// As the hook takes it.
    fn body(&self, template: Template) -> Bytes {
        let value = match template {
            Template::Json => {
                let mut value = json!(self);
                value["schema"] = json!(1);
                value
            }
            Template::Slack => json!({ "text": self.line() }),
        };
        Bytes::from(value.to_string())
    }

    /// In one paragraph, with what these services take for mark-up made harmless.
    fn line(&self) -> String {
        let plain = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let word = match (self.event, self.severity.as_str()) {
            ("cleared", _) => "well again",
            (_, "now") => "ALARM",
            (_, "soon") => "warning",
            _ => "note",
        };
        let hint = self.hint.as_ref().map(|hint| format!("\n`{}`", plain(hint).replace('`', "'"))).unwrap_or_default();
        format!("*binvault {}*: {word}: {}{hint}", plain(&self.agent), plain(&self.text))
    }
}

/// Sends messages.
#[derive(Debug, Clone)]
pub struct Notifier {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    template: Template,
}

impl Notifier {
    /// # Errors
    /// [`Kind::Config`] if the URL is none, or a root cannot be used.
    pub fn new(options: &NotifyOptions) -> Result<Self> {
        let wrong = |why: &str| Error::config(format!("notify.url {why}")).hint("write it as https://host/path");
        let uri: Uri = options.url.expose_secret().trim().parse().map_err(|_| wrong("is no URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(wrong("does not begin with https:// or http:// and a host"));
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for root in &options.ca {
            roots.add(root.clone()).map_err(|why| Error::config("notify.ca_file cannot be used").source(why))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|why| Error::failed("TLS cannot be set up").source(why))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), uri, template: options.template })
    }

    /// The hook's host: all that may be shown of it.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or("?")
    }

    /// Sends a message; tries again where that may help.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] if nobody took it.
    pub async fn send(&self, message: &Message, stop: &CancellationToken) -> Result<()> {
        let body = message.body(self.template);
        let options = RetryOptions { first_ms: 500, attempts_max: Some(TRIES), ..RetryOptions::default() };
        let describe = || format!("notify {}", self.host());
        let sent = retry(|| self.post(body.clone()), &options, |_| true, describe, stop).await;
        sent.map_err(|stopped| match stopped {
            Stopped::Failed { error, .. } | Stopped::Cancelled(Some(error)) => error,
            Stopped::Cancelled(None) => Error::new(Kind::Unreachable, "the agent was told to stop"),
        })
    }

    async fn post(&self, body: Bytes) -> Result<()> {
        let failed = |why: String| Error::new(Kind::Unreachable, format!("{}: {why}", self.host()));
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("binvault/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|why| failed(why.to_string()))?;
        let answer = clock::with_timeout(LIMIT, self.client.request(request)).await;
        let answer = answer.ok_or_else(|| failed(format!("no answer within {} s", LIMIT.as_secs())))?;
        match answer.map_err(|why| failed("the request failed".to_owned()).source(why))?.status() {
            status if status.is_success() => Ok(()),
            StatusCode::TOO_MANY_REQUESTS => Err(failed("it asks to slow down".to_owned())),
            status => Err(failed(format!("it answered {status}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            event: "raised",
            id: "lag".into(),
            severity: "soon".into(),
            text: "5 min behind <db&1>".into(),
            hint: Some("binvault check".into()),
            agent: "main".into(),
            server: None,
            archive: "file:///a".into(),
            at: "2026-11-28T00:00:00.000000Z".into(),
        }
    }

    #[test]
    fn a_message_has_two_shapes() {
        let json: serde_json::Value = serde_json::from_slice(&message().body(Template::Json)).unwrap();
        assert_eq!((&json["schema"], &json["id"], &json["server"]), (&json!(1), &json!("lag"), &json!(null)));
        let slack: serde_json::Value = serde_json::from_slice(&message().body(Template::Slack)).unwrap();
        assert_eq!(slack, json!({"text": "*binvault main*: warning: 5 min behind &lt;db&amp;1&gt;\n`binvault check`"}));
    }

    #[test]
    fn what_is_no_url_is_refused_and_never_shown() {
        let options = |url: &str| NotifyOptions {
            url: url.to_owned().into(),
            template: Template::Json,
            min_interval: Duration::ZERO,
            ca: Vec::new(),
        };
        for bad in ["", "hooks.example.org/SECRET", "ftp://x/SECRET", "https:///SECRET"] {
            let error = Notifier::new(&options(bad)).unwrap_err();
            assert_eq!(error.kind(), Kind::Config, "{bad}");
            assert!(!format!("{error:?}{}", error.chain()).contains("SECRET"), "{error:?}");
        }
        let good = options("https://hooks.example.org/SECRET");
        assert_eq!(Notifier::new(&good).unwrap().host(), "hooks.example.org");
        assert!(!format!("{good:?}").contains("SECRET"));
    }
}
