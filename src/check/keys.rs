//! Keys: that there are recipients, and that the private keys at hand open what is sealed to them.

use std::io::Read;
use std::time::Duration;

use super::archive::Examined;
use super::{Area, Finding};
use crate::archive::{Archive, StoredChunk};
use crate::chunk::compress::{CompressOptions, Compressor};
use crate::chunk::keys::{Identities, Recipients};
use crate::chunk::{ChunkMeta, ChunkName, Executed, FORMAT_VERSION, OpenedChunk, seal};
use crate::clock;
use crate::error::{Context, Error, Kind, Result};
use crate::position::{BinlogFile, ChecksumAlgorithm, CommitTime, GtidSet, ServerUuid};

/// Largest chunk that is fetched for a trial, bytes: twice what a chunk can be configured to hold.
const TRIAL_BYTES_MAX: u64 = 32 << 20;
/// Limit on fetching it.
const LIMIT: Duration = Duration::from_secs(60);
/// What is sealed for a trial.
const TRIAL: &[u8] = b"binvault check";

/// Judges recipients and identities.
pub(super) async fn judge(
    recipients: &Result<Recipients>,
    identities: Option<Result<Identities>>,
    examined: Option<&Examined>,
    findings: &mut Vec<Finding>,
) {
    findings.push(public(recipients));
    let identities = match identities {
        None => {
            findings.push(
                Finding::note(
                    Area::Keys,
                    "identity",
                    "no private key is given: that chunks can be opened is not tested",
                )
                .detail("which is right on the database host; where the key is kept, test it")
                .fix("binvault check --identity FILE"),
            );
            return;
        }
        Some(Err(error)) => return findings.push(Finding::failure(Area::Keys, "identity", &error)),
        Some(Ok(identities)) => identities,
    };
    if let Ok(recipients) = recipients {
        findings.push(match trial(recipients, &identities) {
            Ok(()) => Finding::ok(Area::Keys, "identity", "the private key opens what is sealed from now on"),
            Err(error) if error.kind() == Kind::Key => {
                let public = identities.recipients().texts().join("\", \"");
                Finding::error(
                    Area::Keys,
                    "identity",
                    Kind::Key,
                    "the private key does not open what is sealed from now on",
                )
                .detail("archive.recipients does not name its public half")
                .fix(format!("[archive]\nrecipients = [\"{public}\"]   # beside those that are there"))
            }
            Err(error) => Finding::failure(Area::Keys, "identity", &error),
        });
    }
    if let Some(archive) = examined.and_then(|examined| examined.archive.as_ref()) {
        let found = clock::with_timeout(LIMIT, Box::pin(newest(archive, identities))).await;
        findings.extend(found.unwrap_or_else(|| {
            let title = "the archive's newest chunk could not be fetched in time";
            Some(Finding::error(Area::Keys, "identity-archive", Kind::Store, title))
        }));
    }
}

fn public(recipients: &Result<Recipients>) -> Finding {
    let texts = match recipients {
        Err(error) => {
            let finding = Finding::failure(Area::Keys, "recipients", error);
            return finding.fix("binvault keygen -o key.txt   # then: [archive] recipients = [\"age1…\"]");
        }
        Ok(recipients) => recipients.texts(),
    };
    let mut distinct = texts.clone();
    distinct.sort();
    distinct.dedup();
    if let [only] = distinct.as_slice() {
        return Finding::warning(Area::Keys, "recipients", "chunks are sealed to a single key")
            .detail("whoever loses its private half loses the whole archive; keep a second one elsewhere")
            .fix(format!("binvault keygen -o second.txt   # then: [archive] recipients = [\"{only}\", \"age1…\"]"));
    }
    Finding::ok(Area::Keys, "recipients", format!("chunks are sealed to {} keys", distinct.len()))
}

/// Seals something small and opens it.
fn trial(recipients: &Recipients, identities: &Identities) -> Result<()> {
    let file = BinlogFile::new("check.000001").map_err(|error| Error::failed("name a trial").source(error))?;
    let meta = ChunkMeta {
        format: FORMAT_VERSION,
        archive: uuid::Uuid::nil(),
        server: ServerUuid(uuid::Uuid::nil()),
        file,
        created_s: 0,
        start: 0,
        end: TRIAL.len() as u64,
        first_commit_us: CommitTime::NONE,
        last_commit_us: CommitTime::NONE,
        high_commit_us: CommitTime::NONE,
        transactions: 0,
        gtids: GtidSet::new(),
        executed: Executed::Whole(GtidSet::new()),
        previous: None,
        unlogged: GtidSet::new(),
        follows: None,
        starts_inside: false,
        open: None,
        resume: 0,
        closes: None,
        checksum: ChecksumAlgorithm::Crc32,
        server_version: String::new(),
    };
    let mut frame = Vec::new();
    Compressor::new(CompressOptions { level: 1, long_window_log: None })?.frame(TRIAL, &mut frame)?;
    let sealed = seal(&meta, recipients, &frame, Vec::new())?;
    open(&sealed.name, &sealed.object, identities)
}

/// Opens a chunk and reads it to its end.
fn open(name: &ChunkName, object: &[u8], identities: &Identities) -> Result<()> {
    let mut opened = OpenedChunk::new(name, object, identities)?;
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        match opened.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(Error::corrupt("read the chunk").source(error)),
        }
    }
}

/// Opens the newest chunk of the archive.
async fn newest(archive: &Archive, identities: Identities) -> Option<Finding> {
    const ID: &str = "identity-archive";
    let chunk = match newest_chunk(archive).await {
        Ok(chunk) => chunk?,
        Err(error) => return Some(Finding::failure(Area::Keys, ID, &error)),
    };
    let key = chunk.object.key.clone();
    if chunk.object.size > TRIAL_BYTES_MAX {
        return Some(Finding::note(Area::Keys, ID, format!("{key} is too large for a trial")));
    }
    let object = match archive.object(&chunk).await {
        Ok(object) => object,
        Err(error) => return Some(Finding::failure(Area::Keys, ID, &error)),
    };
    let opened = tokio::task::spawn_blocking(move || open(&chunk.name, &object, &identities)).await;
    let opened = opened.unwrap_or_else(|panic| Err(Error::failed("a thread broke down").source(panic)));
    Some(match opened.context(|| format!("open {key}")) {
        Ok(()) => Finding::ok(Area::Keys, ID, "the private key opens the archive's newest chunk"),
        Err(error) => Finding::failure(Area::Keys, ID, &error),
    })
}

/// The newest chunk by commit time, of the last file of each server.
async fn newest_chunk(archive: &Archive) -> Result<Option<StoredChunk>> {
    let mut newest: Option<StoredChunk> = None;
    for server in archive.servers().await? {
        let Some(last) = archive.incarnations(&server).await?.pop() else { continue };
        let chunks = archive.chunks(&server, &last).await?.chunks;
        newest = chunks.into_iter().chain(newest).max_by_key(|chunk| chunk.name.high_commit);
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::chunk::keys::generate;

    #[test]
    fn a_key_opens_what_is_sealed_to_it_alone() {
        let pair = || {
            let (secret, public) = generate();
            let text = secrecy::SecretString::from(secret.expose_secret().to_owned());
            (Identities::parse("key", &text).unwrap(), Recipients::parse(&[public]).unwrap())
        };
        let ((ours, public), (theirs, _)) = (pair(), pair());
        trial(&public, &ours).unwrap();
        assert_eq!(trial(&public, &theirs).unwrap_err().kind(), Kind::Key);
    }
}
