//! What an agent tells of itself while it runs: metrics in Prometheus' text format, over HTTP.
//!
//! Owns: names, units and meaning of the metrics (`docs/metrics.md`; they are a contract), and the answer to who asks.
//! Does not own: the numbers.
//!
//! Invariants: nothing is listened to unless it is configured; what has not been measured is left out, never told as zero;
//! nothing secret and nothing of the data is told.

mod http;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::archive::{SemiSyncWord, SpoolWord};
use crate::error::Result;
use crate::ship::{Durable, Snapshot, Stage};

/// What is told, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Counters since the agent's start.
    pub counts: Snapshot,
    /// The durable position.
    pub durable: Durable,
    /// Whether commits wait until they are durable; `None` where that is not asked for.
    pub semi_sync: Option<SemiSyncWord>,
    /// What is durable in the spool only; `None` without one.
    pub spool: Option<SpoolWord>,
    /// Breaks in the history that were recorded since the agent's start.
    pub gaps: u64,
}

/// Asked for with each request.
pub type Observe = Arc<dyn Fn() -> Observed + Send + Sync>;

/// Answers `GET /metrics` and `GET /healthz`, until dropped.
///
/// # Errors
/// [`crate::error::Kind::Config`] if the address cannot be listened at.
pub async fn serve(listen: SocketAddr, observe: Observe) -> Result<()> {
    http::serve(listen, observe).await
}

/// One metric after the other.
struct Text(String);

impl Text {
    fn metric(&mut self, name: &str, kind: &str, help: &str, samples: &[(&str, f64)]) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.0, "# HELP binvault_{name} {help}\n# TYPE binvault_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "binvault_{name}{labels} {value}");
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.metric(name, "counter", help, &[("", value as f64)]);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.metric(name, "gauge", help, &[("", value)]);
    }

    /// A moment, if it is known.
    fn moment(&mut self, name: &str, help: &str, us: Option<u64>) {
        if let Some(us) = us.filter(|us| *us > 0) {
            self.gauge(name, help, seconds(us));
        }
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// The metrics as text.
pub fn render(observed: &Observed) -> String {
    let Observed { counts, durable, semi_sync, spool, gaps } = observed;
    let mut text = Text(String::new());
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    text.metric("info", "gauge", "The agent's version.", &[(&version, 1.0)]);
    text.counter("received_bytes_total", "Bytes read from the server.", counts.received_bytes);
    text.counter("durable_bytes_total", "Raw binlog bytes made durable.", counts.raw_bytes);
    text.counter("object_bytes_total", "Bytes of the objects they are in.", counts.stored_bytes);
    text.counter("chunks_total", "Chunks made durable.", counts.chunks);
    text.counter("transactions_total", "Transactions made durable.", counts.transactions);
    text.counter("gaps_total", "Breaks in the history that were recorded.", *gaps);
    let blocked = |stage: Stage| seconds(counts.blocked_us.get(stage as usize).copied().unwrap_or(0));
    text.metric(
        "blocked_seconds_total",
        "counter",
        "Time that a stage has waited for the next one.",
        &[
            ("{stage=\"receive\"}", blocked(Stage::Receive)),
            ("{stage=\"seal\"}", blocked(Stage::Seal)),
            ("{stage=\"upload\"}", blocked(Stage::Upload)),
        ],
    );
    if let Some(position) = &durable.position {
        let file = format!("{{file=\"{}\"}}", position.file.as_str().replace(['"', '\\'], ""));
        text.metric(
            "durable_position_bytes",
            "gauge",
            "Everything before this offset of the file is durable.",
            &[(&file, position.offset as f64)],
        );
    }
    let commit = (!durable.commit.is_none()).then(|| durable.commit.micros());
    text.moment("durable_commit_timestamp_seconds", "Highest commit time that is durable.", commit);
    if let Some(word) = semi_sync {
        protection(word, &mut text);
    }
    if let Some(SpoolWord { state, .. }) = spool {
        text.gauge(
            "spool_objects",
            "Objects that are durable in the spool and not known to be in the store.",
            state.objects as f64,
        );
        text.gauge("spool_bytes", "Their bytes.", state.bytes as f64);
        text.moment("spool_oldest_timestamp_seconds", "Since when the oldest of them is there.", state.oldest_us);
    }
    text.0
}

/// Whether commits wait until they are durable.
fn protection(word: &SemiSyncWord, text: &mut Text) {
    let mode = format!("{{mode=\"{}\"}}", word.mode);
    let protected = f64::from(u8::from(word.protected));
    text.metric("commits_protected", "gauge", "1 while each commit waits until it is durable.", &[(&mode, protected)]);
    text.moment("commits_protected_since_timestamp_seconds", "Since when that is so, or is not.", Some(word.since_us));
    text.moment(
        "acknowledged_timestamp_seconds",
        "When the server was last sent an acknowledgement.",
        word.last_ack_us,
    );
    text.counter("commits_uncovered_total", "Commits not covered since protection was first reached.", word.uncovered);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{BinlogFile, CommitTime, Position};
    use crate::store::spool::SpoolState;

    #[test]
    fn what_is_known_is_told_and_nothing_else() {
        let bare = render(&Observed::default());
        assert!(bare.contains("binvault_chunks_total 0\n"), "{bare}");
        for absent in ["protected", "spool", "durable_position", "durable_commit"] {
            assert!(!bare.contains(absent), "{absent}: {bare}");
        }
        let position = Position { file: BinlogFile::new("b.000007").unwrap(), offset: 1234 };
        let word = SemiSyncWord {
            mode: "store".into(),
            protected: true,
            since_us: 5_500_000,
            uncovered: 3,
            ..SemiSyncWord::default()
        };
        let state = SpoolState { objects: 2, bytes: 99, oldest_us: Some(1_000_000) };
        let full = render(&Observed {
            durable: Durable { position: Some(position), commit: CommitTime::from_micros(2_000_000) },
            semi_sync: Some(word),
            spool: Some(SpoolWord { dir: "/s".into(), state }),
            gaps: 1,
            ..Observed::default()
        });
        for line in [
            "binvault_durable_position_bytes{file=\"b.000007\"} 1234",
            "binvault_durable_commit_timestamp_seconds 2",
            "binvault_commits_protected{mode=\"store\"} 1",
            "binvault_commits_protected_since_timestamp_seconds 5.5",
            "binvault_commits_uncovered_total 3",
            "binvault_spool_bytes 99",
            "binvault_gaps_total 1",
        ] {
            assert!(full.lines().any(|found| found == line), "{line}: {full}");
        }
        assert!(!full.contains("acknowledged_timestamp"), "never acknowledged: {full}");
    }
}
