//! What is wrong, and what is to be done about it: one judgement for the status page and for notifications. Pure.
//!
//! Invariant: what is not known is no reason for alarm, and none for calm: it is left out.

use serde::Serialize;

use super::{Observed, Outlook, Seen, since};

/// How urgent something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something may be lost, or cannot be restored.
    Now,
    /// It will be, if nobody does anything.
    Soon,
    /// Good to know.
    Info,
}

impl Severity {
    /// As the documents name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Soon => "soon",
            Self::Info => "info",
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Action {
    /// Its name; a contract, as the names of metrics are.
    pub id: &'static str,
    /// How urgent it is.
    pub severity: Severity,
    /// What is wrong.
    pub text: String,
    /// What helps.
    pub hint: Option<String>,
}

/// Streaming may be interrupted for so long before it is worth a word, in seconds.
const INTERRUPTED_SECONDS: f64 = 30.0;
/// The archive may be so far behind, in seconds.
const LAG_SECONDS: f64 = 120.0;
/// Objects may lie in the spool so long, in seconds.
const SPOOL_SECONDS: f64 = 300.0;

/// All that is wrong now, the most urgent first.
pub fn actions(observed: &Observed) -> Vec<Action> {
    let mut found = Vec::new();
    stream(observed, &mut found);
    protection(observed, &mut found);
    if let Some(outlook) = &observed.seen.outlook {
        archive(outlook, &observed.seen, &mut found);
    }
    schedules(&observed.seen, &mut found);
    found.sort_by_key(|action| action.severity);
    found
}

fn add(found: &mut Vec<Action>, id: &'static str, severity: Severity, text: String, hint: &str) {
    let hint = (!hint.is_empty()).then(|| hint.to_owned());
    found.push(Action { id, severity, text, hint });
}

fn stream(observed: &Observed, found: &mut Vec<Action>) {
    let seen = &observed.seen;
    let silent_s = since(seen.since_us);
    if !seen.streaming && silent_s >= INTERRUPTED_SECONDS {
        let (why, hint) = match &seen.trouble {
            Some(trouble) => (format!(": {}", trouble.text), trouble.hint.as_deref().unwrap_or_default()),
            None => (String::new(), ""),
        };
        let text = format!("the server's binlog has not flowed for {}{why}", span(silent_s));
        add(found, "interrupted", Severity::Now, text, hint);
    }
    let lag_s = observed.lag_seconds().unwrap_or(0.0);
    if lag_s >= LAG_SECONDS {
        let text = format!("the archive is {} behind the server", span(lag_s));
        add(found, "lag", Severity::Soon, text, "binvault check");
    }
    if let Some(horizon_s) = observed.purge_horizon_seconds()
        && lag_s > 0.0
        && horizon_s < lag_s
    {
        let text = format!("in {} the server may purge binlog that is not archived", span(horizon_s));
        add(found, "purge", Severity::Now, text, "raise binlog_expire_logs_seconds on the server");
    } else if seen.answered.as_ref().is_some_and(|answered| answered.margin_files == Some(0)) && lag_s >= LAG_SECONDS {
        let text = "the archive is still in the server's oldest binlog: what is purged next may not be archived";
        add(found, "purge", Severity::Soon, text.to_owned(), "raise binlog_expire_logs_seconds on the server");
    }
}

fn protection(observed: &Observed, found: &mut Vec<Action>) {
    if let Some(word) = observed.semi_sync.as_ref().filter(|word| !word.protected && word.ever) {
        let reason = word.reason.as_deref().unwrap_or("the agent has not joined yet");
        let text = format!("commits do not wait until they are durable: {reason}");
        add(found, "unprotected", Severity::Now, text, "binvault check");
    }
    let oldest_s = observed.spool.as_ref().and_then(|spool| spool.state.oldest_us).map(since);
    if let Some(oldest_s) = oldest_s.filter(|oldest_s| *oldest_s >= SPOOL_SECONDS) {
        let text = format!("what is in the spool has not reached the store for {}", span(oldest_s));
        add(found, "spool", Severity::Soon, text, "binvault check");
    }
}

fn archive(outlook: &Outlook, seen: &Seen, found: &mut Vec<Action>) {
    if outlook.gaps_without_base > 0 {
        let text = "the history has a gap, and no base backup was taken behind it: nothing since can be restored";
        add(found, "gap-without-base", Severity::Now, text.to_owned(), "binvault base");
    }
    if outlook.holes > 0 {
        let text = format!("{} files or ranges are missing in the archive", outlook.holes);
        add(found, "holes", Severity::Now, text, "binvault status");
    }
    if outlook.bases.is_empty() && seen.bases.trouble.is_none() {
        let (text, hint) = ("there is no base backup yet: nothing can be restored without one", "binvault base");
        add(found, "base-missing", Severity::Soon, text.to_owned(), hint);
    } else if outlook.restorable_from_us.is_none() && outlook.gaps_without_base == 0 {
        let text = "no base backup leads to the present: the last commit cannot be restored";
        add(found, "base-missing", Severity::Now, text.to_owned(), "binvault base");
    }
    match outlook.drills.last() {
        Some(drill) if !drill.ok => {
            let why = drill.problem.as_deref().unwrap_or("see its record");
            add(found, "drill", Severity::Now, format!("the last drill failed: {why}"), "binvault drill -i KEY");
        }
        None if !outlook.bases.is_empty() => {
            let text = "no restore has been proven yet";
            add(found, "drill", Severity::Info, text.to_owned(), "binvault drill -i KEY");
        }
        _ => {}
    }
    for unmet in &outlook.unmet {
        add(found, "objective", Severity::Soon, unmet.clone(), "");
    }
}

fn schedules(seen: &Seen, found: &mut Vec<Action>) {
    let failed = [
        ("base-failed", "the scheduled base backup failed", &seen.bases),
        ("prune-failed", "the scheduled prune failed", &seen.prunes),
        ("guard-failed", "the purge guard could not have binlogs purged", &seen.guard),
    ];
    for (id, what, counted) in failed {
        if let Some(trouble) = &counted.trouble {
            let hint = trouble.hint.as_deref().unwrap_or_default();
            add(found, id, Severity::Soon, format!("{what}: {}", trouble.text), hint);
        }
    }
    if let Some(problem) = seen.verified.as_ref().and_then(|verified| verified.problem.as_ref()) {
        add(found, "verify", Severity::Now, format!("the archive is damaged: {problem}"), "binvault verify");
    }
}

/// A time for people.
fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}
