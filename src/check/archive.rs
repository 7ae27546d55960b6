//! The store and the archive in it: there, readable, writable, honouring put-if-absent, and fast enough.
//!
//! One small object under `checks/` is written and removed again. Neither `binvault.json` nor a missing folder is made.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Area, Finding};
use crate::archive::Archive;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::store::{self, Key, ListDepth, Put, SharedStore, StoreError, StoreErrorKind, StoreOptions};

/// Limit on everything asked of the store.
const WHOLE_LIMIT: Duration = Duration::from_secs(60);
/// Limit on one call, milliseconds.
const CALL_LIMIT_MS: u64 = 10_000;
/// Passing trouble is believed to pass for so long, milliseconds.
const RETRY_LIMIT_MS: u64 = 8_000;
/// A put slower than this makes the archive lag, microseconds.
const SLOW_PUT_US: u128 = 2_000_000;
/// Entries of the archive's top folder that are looked at; more than these are not ours.
const TOP_ENTRIES_MAX: usize = 10_000;
/// Free space below which a folder is no place for an archive, bytes.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// Free space below which somebody should know, bytes.
const FREE_BYTES_LOW: u64 = 1 << 30;

/// What could be opened.
#[derive(Debug)]
pub(super) struct Examined {
    /// The archive; `None` if there is none yet, or none that can be read.
    pub(super) archive: Option<Archive>,
}

/// Examines the store. `None` if it cannot be opened or does not answer.
pub(super) async fn examine(options: Result<StoreOptions>, findings: &mut Vec<Finding>) -> Option<Examined> {
    let mut options = match options {
        Ok(options) => options,
        Err(error) => {
            findings.push(Finding::failure(Area::Archive, "archive-settings", &error));
            return None;
        }
    };
    options.disk.create = false;
    options.call_timeout_ms = options.call_timeout_ms.min(CALL_LIMIT_MS);
    options.retry.elapsed_max_ms = Some(RETRY_LIMIT_MS);
    options.s3.operation_timeout_ms = options.s3.operation_timeout_ms.min(CALL_LIMIT_MS);
    options.s3.attempt_timeout_ms = options.s3.attempt_timeout_ms.min(CALL_LIMIT_MS);
    let cancel = CancellationToken::new();
    match clock::with_timeout(WHOLE_LIMIT, Box::pin(ask(&options, &cancel, findings))).await {
        Some(examined) => examined,
        None => {
            cancel.cancel();
            let what = format!("{} did not answer every question within {} s", options.url, WHOLE_LIMIT.as_secs());
            findings.push(Finding::error(Area::Archive, "archive-reachable", Kind::Store, what));
            None
        }
    }
}

async fn ask(options: &StoreOptions, cancel: &CancellationToken, findings: &mut Vec<Finding>) -> Option<Examined> {
    findings.extend(ca_roots(options).await);
    let folder =
        options.url.strip_prefix("file://").map(|path| Path::new(path.strip_prefix("localhost").unwrap_or(path)));
    let store = match store::open(options, cancel).await {
        Ok(store) => store,
        Err(error) => {
            findings.push(not_opened(folder, error));
            return None;
        }
    };
    // The first question: is it there, and may it be listed?
    let top = match store::list_collect(store.as_ref(), "", ListDepth::OneLevel, TOP_ENTRIES_MAX).await {
        Ok(top) => top,
        Err(error) => {
            findings.push(Finding::failure(Area::Archive, "archive-reachable", &Error::from(error)));
            return None;
        }
    };
    findings.push(Finding::ok(
        Area::Archive,
        "archive-reachable",
        format!("{} answers and can be listed", store.url()),
    ));
    let archive = identity(&store, &top, findings).await;
    probe(&store, findings).await;
    if let Some(folder) = folder {
        findings.extend(free_space(folder));
        findings.push(
            Finding::note(Area::Archive, "archive-offsite", "the archive is a folder")
                .detail("it is offsite only if the folder lies on another machine's disks"),
        );
    }
    Some(Examined { archive })
}

/// A folder that is not there is made by the first run, if the one it lies in is.
fn not_opened(folder: Option<&Path>, error: StoreError) -> Finding {
    let parent = folder.and_then(Path::parent);
    if let (StoreErrorKind::NoBucket, Some(folder), Some(parent)) = (error.kind, folder, parent) {
        use rustix::fs::{Access, access};
        if access(parent, Access::WRITE_OK | Access::EXEC_OK).is_ok() {
            return Finding::note(
                Area::Archive,
                "archive-reachable",
                format!("there is no folder {} yet", folder.display()),
            )
            .detail("the first `binvault run` makes it, and the archive in it");
        }
        let shown = folder.display();
        return Finding::failure(Area::Archive, "archive-reachable", &Error::from(error)).fix(format!(
            "install -d -m 0750 -o binvault -g binvault '{shown}'   # the account that the agent runs as"
        ));
    }
    Finding::failure(Area::Archive, "archive-reachable", &Error::from(error))
}

/// Which archive it is.
async fn identity(store: &SharedStore, top: &store::Listing, findings: &mut Vec<Finding>) -> Option<Archive> {
    const ID: &str = "archive-identity";
    let error = match Archive::open(SharedStore::clone(store), false).await {
        Ok(archive) => {
            let identity = archive.identity();
            let title = format!("archive {}, format {}, made {}", identity.archive, identity.format, identity.created);
            findings.push(Finding::ok(Area::Archive, ID, title));
            return Some(archive);
        }
        Err(error) => error,
    };
    if error.kind() != Kind::Config {
        findings.push(Finding::failure(Area::Archive, ID, &error));
        return None;
    }
    if top.folders.iter().any(|folder| folder == "chunks/") {
        findings.push(
            Finding::error(Area::Archive, ID, Kind::Corrupt, "there are chunks, but no binvault.json")
                .detail(
                    "the object that says which archive this is has been removed; a run would take it for a new one",
                )
                .fix("# bring binvault.json back from a version or a copy of the store"),
        );
        return None;
    }
    let strangers = top.objects.len().saturating_add(top.folders.iter().filter(|folder| *folder != "checks/").count());
    findings.push(if strangers > 0 {
        Finding::warning(
            Area::Archive,
            ID,
            format!("no archive is there yet, but {strangers} other objects and folders"),
        )
        .detail("an archive should have a place of its own")
        .fix("[archive]\nurl = \"…\"   # with a prefix or a folder of its own")
    } else {
        Finding::note(Area::Archive, ID, "no archive is there yet").detail("the first `binvault run` makes it")
    });
    None
}

/// Writes, writes again, reads, lists and removes an object.
async fn probe(store: &SharedStore, findings: &mut Vec<Finding>) {
    // Bodies of one length: the store's own check of a name that is taken compares sizes.
    let (first, second) = (Bytes::from_static(b"binvault check 1\n"), Bytes::from_static(b"binvault check 2\n"));
    let failed = |id, error: StoreError| Finding::failure(Area::Archive, id, &Error::from(error));
    let Ok(key) = Key::new(format!("checks/{}", Uuid::new_v4())) else { return };
    let begun = clock::monotonic();
    match store.put_new(&key, first.clone()).await {
        Err(error) => return findings.push(failed("archive-write", error)),
        Ok(Put::AlreadyThere) => {
            return findings.push(
                Finding::error(
                    Area::Archive,
                    "archive-write",
                    Kind::Store,
                    format!("{key} is taken, a name just made up"),
                )
                .detail("the store says of objects that are not there that they are"),
            );
        }
        Ok(Put::Created) => {}
    }
    let took = begun.elapsed();
    findings.push(Finding::ok(Area::Archive, "archive-write", "objects can be written"));
    let title = format!("a small object is durable after {} ms", took.as_millis());
    findings.push(if took.as_micros() > SLOW_PUT_US {
        Finding::warning(Area::Archive, "archive-latency", title)
            .detail("so far behind the server is the archive at least; more uploads at a time do not shorten it")
            .fix("[archive]\nurl = \"…\"   # in a region nearer by")
    } else {
        Finding::ok(Area::Archive, "archive-latency", title)
    });
    let again = store.put_new(&key, second).await;
    match store::get_all(store.as_ref(), &key, 1 << 10).await {
        Err(error) => findings.push(failed("archive-read", error)),
        Ok(body) => {
            let unchanged = body == first;
            findings.push(if unchanged || matches!(again, Ok(Put::Created)) {
                Finding::ok(Area::Archive, "archive-read", "objects are read back as written")
            } else {
                let title = format!("{key} is not read as it was written");
                Finding::error(Area::Archive, "archive-read", Kind::Corrupt, title)
            });
            findings.push(put_if_absent(store, again, unchanged));
        }
    }
    match store::list_collect(store.as_ref(), "checks/", ListDepth::Everything, TOP_ENTRIES_MAX).await {
        Err(error) => findings.push(failed("archive-list", error)),
        Ok(listing) if listing.objects.iter().any(|object| object.key == key) => {
            findings.push(Finding::ok(Area::Archive, "archive-list", "a new object is listed at once"));
        }
        Ok(_) => findings.push(
            Finding::error(Area::Archive, "archive-list", Kind::Store, "a new object does not show in the listing")
                .detail("the resume point is found by listing: the store must list what it has acknowledged"),
        ),
    }
    findings.push(match store.delete(&key).await {
        Ok(()) => Finding::ok(Area::Archive, "archive-delete", "the probe was removed"),
        Err(error) => Finding::note(Area::Archive, "archive-delete", "objects cannot be removed").detail(format!(
            "{key} stays behind ({}); archiving needs no removal, `prune` does",
            Error::from(error).chain()
        )),
    });
}

fn put_if_absent(store: &SharedStore, again: Result<Put, StoreError>, unchanged: bool) -> Finding {
    const ID: &str = "put-if-absent";
    let harmless = "names carry digests, so the agent does no harm even here; \
                    but nothing keeps others from writing over the archive";
    match again {
        Ok(Put::AlreadyThere) if unchanged && store.put_new_is_atomic() => {
            Finding::ok(Area::Archive, ID, "the store refuses to write over an object")
        }
        Ok(Put::AlreadyThere) if unchanged => {
            Finding::note(Area::Archive, ID, "the store does not know put-if-absent: each put looks first").detail(harmless)
        }
        Ok(_) => Finding::warning(Area::Archive, ID, "the store ignores put-if-absent and writes over objects")
            .detail(harmless)
            .fix("[archive]\nput_if_absent = \"never\"   # look before each put; and switch on versioning or Object Lock"),
        Err(error) => Finding::failure(Area::Archive, ID, &Error::from(error)),
    }
}

fn free_space(folder: &Path) -> Option<Finding> {
    let found = rustix::fs::statvfs(folder).ok()?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let title = format!("{} MiB are free in {}", free >> 20, folder.display());
    Some(match free {
        0..FREE_BYTES_MIN => Finding::error(Area::Archive, "archive-space", Kind::Store, title).fix("# make room"),
        FREE_BYTES_MIN..FREE_BYTES_LOW => Finding::warning(Area::Archive, "archive-space", title).fix("# make room"),
        _ => Finding::ok(Area::Archive, "archive-space", title),
    })
}

/// Whether this system can verify the certificate of an S3 endpoint.
async fn ca_roots(options: &StoreOptions) -> Option<Finding> {
    const ID: &str = "archive-ca";
    let https = options.s3.endpoint.as_deref().is_none_or(|endpoint| endpoint.starts_with("https://"));
    if !options.url.starts_with("s3://") || !https || options.s3.ca_file.is_some() {
        return None;
    }
    let count = tokio::task::spawn_blocking(|| rustls_native_certs::load_native_certs().certs.len()).await.ok()?;
    Some(if count > 0 {
        Finding::ok(Area::Archive, ID, format!("{count} CA certificates to verify the store with"))
    } else {
        Finding::error(Area::Archive, ID, Kind::Config, "this system has no CA certificates to verify the store with")
            .fix("apt-get install ca-certificates   # or [archive] ca_file = \"/path/of/ca.pem\"")
    })
}
