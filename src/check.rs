//! `binvault check`: is everything fit to archive this server into that archive with those keys?
//!
//! ```text
//!   server ─► survey ─┐                      ┌─► network, server, account, agent
//!                     ├─► judge (pure) ──────┤
//!   store ──► probe ──┘                      └─► archive, keys                      ─► Report
//! ```
//!
//! Owns: what is asked, what it means, and the exact statement or setting that mends it.
//! Does not own: how a report is printed (`cli`), or acting on it.
//!
//! Invariants: nothing is changed on the server; in the store only one object under `checks/` is written, and removed
//! again; no archive and no folder is made; every question has a limit in time; what cannot be asked is a finding, and
//! the rest is asked all the same.
//!
//! # The report as JSON (stable; fields may be added)
//!
//! ```text
//!   {"fit": true,                  no finding of level "error"
//!    "exit_code": 0,               else that of the first error, as documented for the program
//!    "errors": 0, "warnings": 1,
//!    "findings": [
//!      {"id": "sync-binlog",       stable, kebab-case; one id is one matter, whatever its level
//!       "area": "server",          network | server | account | agent | archive | keys
//!       "level": "warning",        ok | note | warning | error
//!       "title": "…", "detail": "…",
//!       "fix": "SET PERSIST …"}]}  statement or setting that mends it, or null
//! ```
//!
//! Findings come area by area, in the order above. Only an `error` makes an installation unfit; a `warning` is a risk
//! somebody should know of; a `note` is information.

mod archive;
mod clone;
mod history;
mod judge;
mod keys;
mod protection;
mod semi_sync;
mod server;
mod spool;
mod survey;
mod upkeep;

use serde::{Serialize, Serializer};

use crate::base::{BaseOptions, EngineName};
use crate::chunk::keys::{Identities, Recipients};
use crate::config::{AgentOptions, Config, Objectives, PurgeOptions, SemiSyncOptions};
use crate::error::{Error, Kind, Result};
use crate::mysql::SourceOptions;
use crate::notify::NotifyOptions;
use crate::store::StoreOptions;
use crate::store::spool::SpoolOptions;

/// What to check. Each part is a result, so that a setting that cannot be used is a finding like any other.
#[derive(Debug)]
pub struct CheckOptions {
    /// The server; `None` checks the archive and the keys alone.
    pub source: Option<Result<SourceOptions>>,
    /// The agent, whose identity must be free.
    pub agent: Result<AgentOptions>,
    /// How base backups are taken.
    pub base: Result<BaseOptions>,
    /// Whether commits shall wait for us.
    pub semi_sync: Result<SemiSyncOptions>,
    /// The folder in front of the store.
    pub spool: Result<Option<SpoolOptions>>,
    /// The archive's store.
    pub store: Result<StoreOptions>,
    /// Whom chunks are sealed to.
    pub recipients: Result<Recipients>,
    /// What the archive should be good for.
    pub objectives: Objectives,
    /// What may be purged on the server.
    pub purge: Result<Option<PurgeOptions>>,
    /// Whom to tell.
    pub notify: Result<Option<NotifyOptions>>,
    /// The private keys at hand; `None` leaves opening untested.
    pub identities: Option<Result<Identities>>,
}

impl CheckOptions {
    /// What a configuration says. A missing folder of a `file://` archive is not made.
    pub fn new(config: &Config, identities: Option<Result<Identities>>) -> Self {
        Self {
            source: config.has_source().then(|| config.source()),
            agent: config.agent(false),
            base: config.base(None),
            semi_sync: config.semi_sync(),
            spool: config.spool(),
            store: config.store(false),
            recipients: config.recipients(),
            objectives: config.objectives(),
            purge: config.purge_guard(),
            notify: config.notify(),
            identities,
        }
    }
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// The way to the server: address, TLS.
    Network,
    /// The server and its settings.
    Server,
    /// Our account there.
    Account,
    /// This agent's place among the server's replicas.
    Agent,
    /// The store and the archive in it.
    Archive,
    /// Public and private keys.
    Keys,
}

impl Area {
    /// The name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Server => "server",
            Self::Account => "account",
            Self::Agent => "agent",
            Self::Archive => "archive",
            Self::Keys => "keys",
        }
    }
}

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// A risk.
    Warning,
    /// Archiving will not work, or would lose data.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Stable name in kebab-case.
    pub id: &'static str,
    /// What it is about.
    pub area: Area,
    /// How much it weighs.
    pub level: Level,
    /// One line.
    pub title: String,
    /// Why it matters, or what exactly was found; may be empty.
    pub detail: String,
    /// The statement or setting that mends it, ready to paste.
    pub fix: Option<String>,
    #[serde(skip)]
    kind: Kind,
}

impl Finding {
    fn new(level: Level, area: Area, id: &'static str, title: impl Into<String>) -> Self {
        Self { id, area, level, title: title.into(), detail: String::new(), fix: None, kind: Kind::Unfit }
    }

    fn ok(area: Area, id: &'static str, title: impl Into<String>) -> Self {
        Self::new(Level::Ok, area, id, title)
    }

    fn note(area: Area, id: &'static str, title: impl Into<String>) -> Self {
        Self::new(Level::Note, area, id, title)
    }

    fn warning(area: Area, id: &'static str, title: impl Into<String>) -> Self {
        Self::new(Level::Warning, area, id, title)
    }

    fn error(area: Area, id: &'static str, kind: Kind, title: impl Into<String>) -> Self {
        Self { kind, ..Self::new(Level::Error, area, id, title) }
    }

    /// An error of the program as a finding: its text, its causes, and its hint as what to do.
    fn failure(area: Area, id: &'static str, error: &Error) -> Self {
        let title = error.to_string();
        let chain = error.chain();
        let detail = chain.strip_prefix(&title).unwrap_or(&chain).trim_start_matches(": ").to_owned();
        Self { detail, fix: error.hint_text().map(str::to_owned), ..Self::error(area, id, error.kind(), title) }
    }

    #[must_use]
    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    #[must_use]
    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The kind of error it is, which gives the exit code; tells nothing below [`Level::Error`].
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

/// Everything found, area by area.
#[derive(Debug, Clone)]
pub struct Report {
    /// The findings, good ones included.
    pub findings: Vec<Finding>,
}

impl Report {
    fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.area);
        Self { findings }
    }

    /// Whether the agent can run: there is no error.
    pub fn is_fit(&self) -> bool {
        self.count(Level::Error) == 0
    }

    /// How many findings have this level.
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// The finding of this name, if there is one.
    pub fn find(&self, id: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.id == id)
    }

    /// The kind of the first error.
    pub fn kind(&self) -> Option<Kind> {
        self.findings.iter().find(|finding| finding.level == Level::Error).map(Finding::kind)
    }

    /// What a process that made this report ends with: 0, or the code of the first error.
    pub fn exit_code(&self) -> u8 {
        self.kind().map_or(0, Kind::exit_code)
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'a> {
            fit: bool,
            exit_code: u8,
            errors: usize,
            warnings: usize,
            findings: &'a [Finding],
        }
        Written {
            fit: self.is_fit(),
            exit_code: self.exit_code(),
            errors: self.count(Level::Error),
            warnings: self.count(Level::Warning),
            findings: &self.findings,
        }
        .serialize(to)
    }
}

/// Looks at everything that can be looked at. Takes at most about a minute and a half, on a store and a server that
/// both hang; a second where they answer.
pub async fn check(options: CheckOptions) -> Report {
    let CheckOptions {
        source,
        agent,
        base,
        semi_sync,
        spool,
        store,
        recipients,
        objectives,
        purge,
        notify,
        identities,
    } = options;
    let mut findings = Vec::new();
    let (archive, surveyed) = tokio::join!(
        Box::pin(archive::examine(store, &mut findings)),
        Box::pin(survey::survey(source.as_ref().and_then(|source| source.as_ref().ok()), asks_for_clone(&base))),
    );
    let asked = surveyed.as_ref().and_then(|survey| survey.as_ref().ok());
    if let Some(archive) = archive.as_ref().and_then(|examined| examined.archive.as_ref()) {
        protection::judge(archive, &objectives, asked, &mut findings).await;
    }
    if let Ok(Some(options)) = &spool {
        spool::judge(options, archive.as_ref(), semi_sync.as_ref().ok(), asked, &mut findings).await;
    }
    upkeep::judge(&purge, &notify, asked, &mut findings);
    match (&source, surveyed) {
        (None, _) => findings.push(
            Finding::note(Area::Network, "source", "no source is configured: only archive and keys are checked")
                .fix("[source]\nurl = \"mysql://binvault@HOST:3306\""),
        ),
        (Some(Err(error)), _) => findings.push(Finding::failure(Area::Network, "source", error)),
        (Some(Ok(source)), Some(Err(error))) => findings.push(judge::not_connected(source, &error)),
        (Some(Ok(source)), Some(Ok(mut survey))) => {
            if let Ok(options) = &semi_sync {
                semi_sync::judge(&survey, options, &mut findings);
            }
            judge::judge(&survey, agent.as_ref().ok(), archive.as_ref(), &mut findings);
            clone::judge(&survey, base.as_ref().ok().and_then(|base| base.engine), &mut findings);
            if let Some(archive) = &archive {
                history::judge(&mut survey, source, archive, &mut findings).await;
            }
        }
        (Some(Ok(_)), None) => {}
    }
    if let Err(error) = &semi_sync {
        findings.push(Finding::failure(Area::Agent, "semi-sync-settings", error));
    }
    if let Err(error) = &spool {
        findings.push(Finding::failure(Area::Agent, "spool", error));
    }
    if let Err(error) = &agent {
        findings.push(Finding::failure(Area::Agent, "agent-settings", error));
    }
    keys::judge(&recipients, identities, archive.as_ref(), &mut findings).await;
    Report::new(findings)
}

/// Whether a clone is wanted, or is what would be taken if the server gives one.
fn asks_for_clone(base: &Result<BaseOptions>) -> bool {
    base.as_ref().is_ok_and(|base| matches!(base.engine, None | Some(EngineName::Clone)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_in_the_order_of_areas_gives_the_exit_code() {
        let fine = Report::new(vec![Finding::warning(Area::Keys, "recipients", "one")]);
        assert_eq!((fine.is_fit(), fine.exit_code()), (true, 0));
        let unfit = Report::new(vec![
            Finding::error(Area::Archive, "archive-write", Kind::Store, "read-only"),
            Finding::error(Area::Network, "source", Kind::Unreachable, "gone"),
        ]);
        assert_eq!((unfit.is_fit(), unfit.exit_code()), (false, 3));
    }

    #[test]
    fn the_json_has_the_documented_shape() {
        let finding = Finding::warning(Area::Server, "sync-binlog", "t").detail("d").fix("f");
        let json = serde_json::to_value(Report::new(vec![finding])).unwrap();
        let wanted = serde_json::json!({
            "fit": true, "exit_code": 0, "errors": 0, "warnings": 1,
            "findings": [{"id": "sync-binlog", "area": "server", "level": "warning", "title": "t", "detail": "d", "fix": "f"}],
        });
        assert_eq!(json, wanted);
    }
}
