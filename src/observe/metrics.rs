//! The metrics, by name. `docs/metrics.md` says the same, and a test holds one against the other.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::process::{Process, process};
use super::{Observed, Outlook, seconds};
use crate::archive::{SemiSyncWord, SpoolWord};
use crate::ship::{Durable, Stage};
use crate::store::meter::Operation;

/// As Prometheus' exposition formats are called over HTTP.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics as text.
pub fn render(observed: &Observed) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(All(observed.clone())));
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct All(Observed);

impl Collector for All {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let Self(observed) = self;
        let mut sheet = Sheet(encoder);
        stream(&mut sheet, observed)?;
        server(&mut sheet, observed)?;
        if let Some(word) = &observed.semi_sync {
            protection(&mut sheet, word)?;
        }
        if let Some(word) = &observed.spool {
            spool(&mut sheet, word)?;
        }
        store(&mut sheet, observed)?;
        if let Some(outlook) = &observed.seen.outlook {
            archive(&mut sheet, outlook)?;
        }
        schedules(&mut sheet, observed)?;
        itself(&mut sheet, &process(), observed.seen.started_us)
    }
}

/// One metric after the other. Names of counters get their `_total` from the format.
struct Sheet<'a>(DescriptorEncoder<'a>);

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Sheet<'_> {
    fn metric<'s>(&'s mut self, name: &'s str, help: &str, kind: MetricType) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.metric(name, help, MetricType::Counter)?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Into<Option<f64>>) -> fmt::Result {
        let Some(value) = value.into() else { return Ok(()) };
        ConstGauge::new(value).encode(self.metric(name, help, MetricType::Gauge)?)
    }

    fn gauges(&mut self, name: &str, help: &str, samples: &[(Labels<'_>, f64)]) -> fmt::Result {
        let mut metric = self.metric(name, help, MetricType::Gauge)?;
        for (labels, value) in samples {
            ConstGauge::new(*value).encode(metric.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        histogram.encode(self.metric(name, help, MetricType::Histogram)?)
    }

    /// A moment, if it is known.
    fn moment(&mut self, name: &str, help: &str, us: Option<u64>) -> fmt::Result {
        self.gauge(name, help, us.filter(|us| *us > 0).map(seconds))
    }
}

fn switch(on: bool) -> f64 {
    f64::from(u8::from(on))
}

fn stream(sheet: &mut Sheet<'_>, observed: &Observed) -> fmt::Result {
    let (counts, seen, progress) = (observed.progress.snapshot(), &observed.seen, &observed.progress);
    sheet.gauges("binvault_info", "The agent's version.", &[(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)])?;
    sheet.gauge("binvault_streaming", "1 while the server's binlog flows.", switch(seen.streaming))?;
    sheet.counter("binvault_interruptions", "Times that streaming ended in trouble.", seen.interruptions)?;
    sheet.counter("binvault_received_bytes", "Bytes read from the server.", counts.received_bytes)?;
    sheet.counter("binvault_durable_bytes", "Raw binlog bytes made durable.", counts.raw_bytes)?;
    sheet.counter("binvault_object_bytes", "Bytes of the objects they are in.", counts.stored_bytes)?;
    sheet.counter("binvault_chunks", "Chunks made durable.", counts.chunks)?;
    sheet.counter("binvault_transactions", "Transactions made durable.", counts.transactions)?;
    sheet.counter("binvault_gaps", "Breaks in the history that were recorded.", seen.gaps)?;
    sheet.histogram("binvault_chunk_bytes", "Raw bytes of each chunk made durable.", &progress.chunk_bytes)?;
    sheet.histogram(
        "binvault_commit_to_durable_seconds",
        "Age of each chunk's oldest commit when it became durable.",
        &progress.commit_to_durable,
    )?;
    let name = "binvault_blocked_seconds";
    let mut metric = sheet.metric(name, "Time that a stage has waited for the next one.", MetricType::Counter)?;
    for (stage, word) in [(Stage::Receive, "receive"), (Stage::Seal, "seal"), (Stage::Upload, "upload")] {
        let blocked = seconds(counts.blocked_us.get(stage as usize).copied().unwrap_or(0));
        ConstCounter::new(blocked).encode(metric.encode_family(&[("stage", word)])?)?;
    }
    let Durable { position, commit } = progress.durable();
    if let Some(position) = position {
        let labels: Labels<'_> = &[("file", position.file.as_str())];
        let help = "Everything before this offset of the file is durable.";
        sheet.gauges("binvault_durable_position_bytes", help, &[(labels, position.offset as f64)])?;
    }
    let commit = (!commit.is_none()).then(|| commit.micros());
    sheet.moment("binvault_durable_commit_timestamp_seconds", "Highest commit time that is durable.", commit)
}

fn server(sheet: &mut Sheet<'_>, observed: &Observed) -> fmt::Result {
    let Some(answered) = &observed.seen.answered else { return Ok(()) };
    let labels: Labels<'_> = &[("file", answered.position.file.as_str())];
    let help = "Where the server's binlog ended when it was last asked.";
    sheet.gauges("binvault_server_position_bytes", help, &[(labels, answered.position.offset as f64)])?;
    sheet.moment("binvault_server_asked_timestamp_seconds", "When that was.", Some(answered.as_of_us))?;
    let number = |value: Option<u64>| value.map(|value| value as f64);
    sheet.gauge("binvault_lag_bytes", "Bytes that are not durable.", number(observed.lag_bytes()))?;
    sheet.gauge("binvault_lag_seconds", "How far the archive is behind.", observed.lag_seconds())?;
    let help = "Files that the server still has and that are durable as a whole.";
    sheet.gauge("binvault_purge_margin_files", help, number(answered.margin_files))?;
    let help = "Time until the server's expiry may reach what is not durable.";
    sheet.gauge("binvault_purge_horizon_seconds", help, observed.purge_horizon_seconds())?;
    if let Some(purged) = observed.seen.guard_purged {
        sheet.counter("binvault_guard_purged_files", "Binlog files that the guard has had purged.", purged)?;
    }
    Ok(())
}

/// Whether commits wait until they are durable.
fn protection(sheet: &mut Sheet<'_>, word: &SemiSyncWord) -> fmt::Result {
    let labels: Labels<'_> = &[("mode", &word.mode)];
    let help = "1 while each commit waits until it is durable.";
    sheet.gauges("binvault_commits_protected", help, &[(labels, switch(word.protected))])?;
    let help = "Since when that is so, or is not.";
    sheet.moment("binvault_commits_protected_since_timestamp_seconds", help, Some(word.since_us))?;
    let help = "When the server was last sent an acknowledgement.";
    sheet.moment("binvault_acknowledged_timestamp_seconds", help, word.last_ack_us)?;
    let help = "Commits not covered since protection was first reached.";
    sheet.counter("binvault_commits_uncovered", help, word.uncovered)
}

fn spool(sheet: &mut Sheet<'_>, SpoolWord { state, .. }: &SpoolWord) -> fmt::Result {
    let help = "Objects that are durable in the spool and not known to be in the store.";
    sheet.gauge("binvault_spool_objects", help, state.objects as f64)?;
    sheet.gauge("binvault_spool_bytes", "Their bytes.", state.bytes as f64)?;
    sheet.moment("binvault_spool_oldest_timestamp_seconds", "Since when the oldest is there.", state.oldest_us)
}

fn store(sheet: &mut Sheet<'_>, observed: &Observed) -> fmt::Result {
    let calls = Operation::ALL.map(|operation| (operation.as_str(), observed.meter.calls(operation)));
    let name = "binvault_store_request_seconds";
    let mut metric = sheet.metric(name, "Each try of a call to the store.", MetricType::Histogram)?;
    for (operation, calls) in &calls {
        calls.took.encode(metric.encode_family(&[("operation", *operation)])?)?;
    }
    let name = "binvault_store_retries";
    let mut metric = sheet.metric(name, "Tries that were not the first of their call.", MetricType::Counter)?;
    for (operation, calls) in &calls {
        ConstCounter::new(calls.retries()).encode(metric.encode_family(&[("operation", *operation)])?)?;
    }
    let mut metric = sheet.metric("binvault_store_errors", "Tries that failed.", MetricType::Counter)?;
    for (operation, calls) in &calls {
        for (kind, count) in calls.errors() {
            let labels = [("operation", *operation), ("kind", kind.as_str())];
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn archive(sheet: &mut Sheet<'_>, outlook: &Outlook) -> fmt::Result {
    let help = "When the archive was last looked at.";
    sheet.moment("binvault_archive_surveyed_timestamp_seconds", help, Some(outlook.as_of_us))?;
    let parts = |chunks: u64, bases: u64| -> [(Labels<'_>, f64); 2] {
        [(&[("part", "chunks")], chunks as f64), (&[("part", "bases")], bases as f64)]
    };
    let (chunks, bases) = (outlook.chunks, outlook.base_objects);
    sheet.gauges("binvault_archive_objects", "Objects in the archive.", &parts(chunks.0, bases.0))?;
    sheet.gauges("binvault_archive_bytes", "Their bytes.", &parts(chunks.1, bases.1))?;
    let help = "Recorded breaks by which something is missing or lost.";
    sheet.gauge("binvault_archive_gaps", help, outlook.gaps as f64)?;
    let help = "Those that no base backup was taken behind, and none leads across.";
    sheet.gauge("binvault_archive_gaps_without_base", help, outlook.gaps_without_base as f64)?;
    sheet.gauge("binvault_archive_holes", "What is missing, and no record explains.", outlook.holes as f64)?;
    let help = "The earliest moment from which on everything can be restored.";
    sheet.moment("binvault_restorable_from_timestamp_seconds", help, outlook.restorable_from_us)?;
    sheet.gauge("binvault_bases", "Finished base backups.", outlook.bases.len() as f64)?;
    let newest = outlook.bases.last().map(|base| base.started_us);
    sheet.moment("binvault_base_timestamp_seconds", "When the newest of them was begun.", newest)?;
    let Some(drill) = outlook.drills.last() else { return Ok(()) };
    sheet.moment("binvault_drill_timestamp_seconds", "When the newest drill was begun.", Some(drill.started_us))?;
    sheet.gauge("binvault_drill_ok", "Whether everything held in it.", switch(drill.ok))?;
    sheet.gauge("binvault_drill_seconds", "How long the restore in it took.", drill.seconds)
}

fn schedules(sheet: &mut Sheet<'_>, observed: &Observed) -> fmt::Result {
    let seen = &observed.seen;
    let help = "Estimate of what the archive costs a month.";
    sheet.gauge("binvault_archive_cost_per_month", help, observed.cost)?;
    sheet.moment("binvault_base_due_timestamp_seconds", "When the next base backup is due.", seen.base_due_us)?;
    sheet.counter("binvault_base_failures", "Scheduled base backups that failed.", seen.bases.failures)?;
    sheet.moment("binvault_prune_timestamp_seconds", "When the agent last pruned.", seen.prunes.done_us)?;
    sheet.counter("binvault_prune_failures", "Scheduled prunes that failed.", seen.prunes.failures)?;
    if let Some(verified) = &seen.verified {
        let help = "When the agent last verified the archive.";
        sheet.moment("binvault_verify_timestamp_seconds", help, Some(verified.at_us))?;
        sheet.gauge("binvault_verify_ok", "Whether everything held then.", switch(verified.problem.is_none()))?;
    }
    let Some(counts) = seen.notifications else { return Ok(()) };
    let mut metric = sheet.metric("binvault_notifications", "Notifications.", MetricType::Counter)?;
    for (result, count) in ["sent", "failed", "suppressed"].into_iter().zip(counts) {
        ConstCounter::new(count).encode(metric.encode_family(&[("result", result)])?)?;
    }
    Ok(())
}

fn itself(sheet: &mut Sheet<'_>, process: &Process, started_us: u64) -> fmt::Result {
    let Process { resident_bytes, cpu_seconds, open_fds, fds_max } = process;
    let number = |value: &Option<u64>| value.map(|value| value as f64);
    sheet.gauge("process_resident_memory_bytes", "Resident memory.", number(resident_bytes))?;
    sheet.gauge("process_open_fds", "Open file descriptors.", number(open_fds))?;
    sheet.gauge("process_max_fds", "Most of them.", number(fds_max))?;
    sheet.moment("process_start_time_seconds", "When the process began.", Some(started_us))?;
    let Some(cpu_seconds) = *cpu_seconds else { return Ok(()) };
    ConstCounter::new(cpu_seconds).encode(sheet.metric("process_cpu_seconds", "CPU time.", MetricType::Counter)?)
}
