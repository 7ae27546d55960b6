//! Verify: is what is archived there, whole, and good binlog?
//!
//! Without keys: every file's ranges are contiguous, files follow one another, every object's bytes have the digest
//! that their name says, every header can be read; every base backup has all its parts. With `--deep` and a key: every chunk
//! opens, gives exactly its bytes, overlapping chunks say the same, and the bytes are events whose lengths, positions and
//! CRC32s agree, with the transactions that the metadata tells; every part of a base backup opens and gives its bytes.
//!
//! What `prune` removes meanwhile is no finding.
//!
//! Owns: the findings. Does not own: how chunks make a file (`archive`), how events look (`mysql`).
//! Invariant: a problem is never only logged: it is a finding, and any finding makes the command fail.

mod bases;
mod deep;
mod walk;

use futures_util::stream::{self, StreamExt};
use serde::Serialize;

use crate::archive::{Archive, BASES_FOLDER, FileState, GapRecord, PrunedFile, Seam, StoredChunk};
use crate::chunk::OpenedChunk;
use crate::chunk::keys::Identities;
use crate::error::{Error, Kind, Result};
use crate::position::ServerUuid;

/// Objects read at a time, where nothing else is done meanwhile.
const READS_AT_A_TIME: usize = 4;

/// What is looked at, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// This server's part only.
    pub server: Option<ServerUuid>,
    /// Whether base backups are read too: often the larger part of an archive.
    pub bases: bool,
    /// How much of the machine it may take.
    pub manner: Manner,
}

/// How much of the machine a verification may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As much as speeds it up.
    Quick,
    /// One object at a time, beside more important work: each thread that holds objects keeps memory of its own.
    Gentle,
}

impl Manner {
    fn reads(self) -> usize {
        match self {
            Self::Quick => READS_AT_A_TIME,
            Self::Gentle => 1,
        }
    }
}

/// Findings kept; more are counted only.
const FINDINGS_MAX: usize = 1000;

/// How much had been found at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    findings: usize,
    left_out: usize,
    worst: Option<Kind>,
}

/// What is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The kind: `gap`, `corrupt`, `key`, `format`, `stranger` …
    pub kind: &'static str,
    /// The object, range or file.
    pub what: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The result.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Version of this schema.
    pub schema: u32,
    /// Whether chunks were opened and events walked.
    pub deep: bool,
    /// Servers looked at.
    pub servers: usize,
    /// Files looked at.
    pub files: usize,
    /// Chunks looked at.
    pub chunks: usize,
    /// Bytes of their objects.
    pub stored_bytes: u64,
    /// Raw bytes they cover without a hole.
    pub raw_bytes: u64,
    /// With `--deep`: events walked.
    pub events: u64,
    /// With `--deep`: transactions walked.
    pub transactions: u64,
    /// Base backups looked at.
    pub bases: usize,
    /// Bytes of their objects.
    pub base_bytes: u64,
    /// Places where a file goes on from an earlier one's middle, or begins anew as an agent has recorded: `status` tells them.
    pub breaks: usize,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Findings that did not fit.
    pub findings_left_out: usize,
    #[serde(skip)]
    worst: Option<Kind>,
}

impl Report {
    fn add(&mut self, kind: Kind, what: impl Into<String>, problem: impl Into<String>) {
        // Damage weighs more than a gap: it decides the exit code.
        if self.worst != Some(Kind::Corrupt) {
            self.worst = Some(kind);
        }
        if self.findings.len() >= FINDINGS_MAX {
            self.findings_left_out = self.findings_left_out.saturating_add(1);
            return;
        }
        let kind = match kind {
            Kind::Gap => "gap",
            Kind::Corrupt => "corrupt",
            Kind::Key => "key",
            Kind::Format => "format",
            _ => "unreadable",
        };
        self.findings.push(Finding { kind, what: what.into(), problem: problem.into() });
    }

    fn mark(&self) -> Mark {
        Mark { findings: self.findings.len(), left_out: self.findings_left_out, worst: self.worst }
    }

    /// Takes back what was found since.
    fn take_back(&mut self, mark: Mark) {
        self.findings.truncate(mark.findings);
        (self.findings_left_out, self.worst) = (mark.left_out, mark.worst);
    }

    fn add_error(&mut self, what: impl Into<String>, error: &Error) {
        self.add(error.kind(), what, error.chain());
    }

    /// The error that the command ends with, if anything was found.
    pub fn into_result(self) -> Result<Self> {
        match (self.worst, self.findings.first()) {
            (Some(kind), Some(first)) => {
                let more = self.findings.len().saturating_add(self.findings_left_out).saturating_sub(1);
                let rest = if more > 0 { format!(" (and {more} more)") } else { String::new() };
                let hint = match kind {
                    Kind::Key => "give the private key of one of the archive's recipients with --identity FILE",
                    Kind::Format => "use a newer binvault",
                    _ if first.what.starts_with(BASES_FOLDER) => {
                        "take a new base backup (`binvault base`); older ones, and restores of other times, are not touched by this one"
                    }
                    _ => {
                        "what is damaged or missing here may still be on the server: move damaged objects out of the \
                         archive, and `binvault run` fetches the bytes again"
                    }
                };
                Err(Error::new(kind, format!("{}: {}{rest}", first.what, first.problem)).hint(hint))
            }
            _ => Ok(self),
        }
    }
}

/// Told how many stored bytes were read.
pub type OnBytes<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// Verifies what the scope says.
///
/// # Errors
/// Only what keeps it from looking at all (the archive cannot be listed). What it finds is in the report.
pub async fn verify(
    archive: &Archive,
    scope: Scope,
    keys: Option<&Identities>,
    on_bytes: OnBytes<'_>,
) -> Result<Report> {
    let mut report = Report { schema: 1, deep: keys.is_some(), ..Report::default() };
    let records = archive.gaps().await?;
    let pruned = archive.pruned_files().await?;
    let servers = match scope.server {
        Some(server) => vec![server],
        None => archive.servers().await?,
    };
    for server in servers {
        report.servers = report.servers.saturating_add(1);
        let mut before: Option<FileState> = None;
        for incarnation in archive.incarnations(&server).await? {
            // What an interrupted `prune` has left of a file goes with the next one.
            let file = PrunedFile { server, file: incarnation };
            if pruned.contains(&file) {
                continue;
            }
            let mark = report.mark();
            let look = Look { archive, manner: scope.manner, keys, on_bytes, recorded: &records };
            if let Some(state) = look.file(&file, before.as_ref(), &mut report).await? {
                before = Some(state);
            }
            if report.mark() != mark && archive.pruned_files().await?.contains(&file) {
                report.take_back(mark);
            }
        }
    }
    if scope.bases {
        bases::verify_bases(archive, scope, keys, on_bytes, &mut report).await?;
    }
    Ok(report)
}

/// What the files of a server are looked at with.
struct Look<'a> {
    archive: &'a Archive,
    manner: Manner,
    keys: Option<&'a Identities>,
    on_bytes: OnBytes<'a>,
    /// The breaks.
    recorded: &'a [GapRecord],
}

impl Look<'_> {
    /// Looks at a file, behind the one before it.
    async fn file(
        &self,
        PrunedFile { server, file: incarnation }: &PrunedFile,
        before: Option<&FileState>,
        report: &mut Report,
    ) -> Result<Option<FileState>> {
        let &Self { archive, manner, keys, on_bytes, recorded } = self;
        let chunks = archive.chunks(server, incarnation).await?;
        report.files = report.files.saturating_add(1);
        report.chunks = report.chunks.saturating_add(chunks.chunks.len());
        report.stored_bytes = report.stored_bytes.saturating_add(chunks.stored_bytes());
        report.raw_bytes = report.raw_bytes.saturating_add(chunks.cover.contiguous_end);
        for stranger in &chunks.strangers {
            report.add(Kind::Corrupt, stranger.to_string(), "no chunk of binvault's");
        }
        for hole in &chunks.cover.holes {
            if recorded.iter().any(|gap| gap.explains_hole(server, incarnation, hole.start())) {
                report.breaks = report.breaks.saturating_add(1);
                continue;
            }
            report.add(Kind::Gap, format!("{server} {incarnation}"), format!("bytes {hole} are missing"));
        }
        match keys {
            Some(keys) => deep::verify_file(archive, &chunks, keys, on_bytes, report).await,
            None => digests(archive, &chunks.chunks, manner, on_bytes, report).await,
        }
        match archive.file_state_of(chunks, before).await {
            Ok(state) => {
                seam(&state, before.is_some(), recorded, report);
                Ok(Some(state))
            }
            Err(error) => {
                report.add_error(format!("{server} {incarnation}"), &error);
                Ok(None)
            }
        }
    }
}

/// Holds a file's link against the file before it.
fn seam(state: &FileState, has_former: bool, recorded: &[GapRecord], report: &mut Report) {
    let server = &state.chunks.server;
    let what = || format!("{server} {}", state.incarnation());
    match &state.seam {
        Seam::Joined | Seam::Pruned { .. } | Seam::Remains => {}
        Seam::Begins if !has_former => {}
        // What went on another way, and what is known and written down, is no news.
        Seam::Branches { .. } => report.breaks = report.breaks.saturating_add(1),
        _ if recorded.iter().any(|gap| gap.explains_seam(state)) => report.breaks = report.breaks.saturating_add(1),
        Seam::Begins => report.add(Kind::Gap, what(), "does not say which file it follows: archiving began anew here"),
        Seam::Unknown => report.add(Kind::Gap, what(), "its first chunk is missing"),
        Seam::Missing { wanted, have } => {
            let problem =
                format!("follows {}, which ended at {}; the archive has it up to {have}", wanted.file, wanted.end);
            report.add(Kind::Gap, what(), problem);
        }
    }
}

/// Reads every object and compares its digest.
async fn digests(
    archive: &Archive,
    chunks: &[StoredChunk],
    manner: Manner,
    on_bytes: OnBytes<'_>,
    report: &mut Report,
) {
    let mut checks = stream::iter(chunks)
        .map(|chunk| async move {
            let object = archive.object(chunk).await?;
            on_bytes(chunk.object.size);
            if manner == Manner::Gentle {
                // Some milliseconds.
                return OpenedChunk::check(&chunk.name, &object).map(|_| ());
            }
            let name = chunk.name.clone();
            let checked = tokio::task::spawn_blocking(move || OpenedChunk::check(&name, &object)).await;
            checked.map_err(|panic| Error::failed("a thread broke down").source(panic))?.map(|_| ())
        })
        .buffered(manner.reads());
    for chunk in chunks {
        match checks.next().await {
            Some(Err(error)) => report.add_error(chunk.name.to_string(), &error),
            Some(Ok(())) => {}
            None => break,
        }
    }
}
