//! The base backups' part: every part is there, is the object that its name says and the part that the manifest wants; with
//! a key, it opens and gives exactly its bytes.
//!
//! Does not own: whether the bytes make a server. That is what a drill proves.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use super::{Manner, OnBytes, Report, Scope};
use crate::archive::{Archive, BASE_MANIFEST, BASES_FOLDER, BaseManifest, WantedPart, wanted_parts};
use crate::chunk::keys::Identities;
use crate::error::{Error, Kind, Result};

/// Looks at every base backup, or at one server's.
pub(super) async fn verify_bases(
    archive: &Archive,
    scope: Scope,
    keys: Option<&Identities>,
    on_bytes: OnBytes<'_>,
    report: &mut Report,
) -> Result<()> {
    let keys = keys.map(|keys| Arc::new(keys.clone()));
    let bases = archive.bases().await?;
    for base in &bases.unreadable {
        report.add(base.kind(), what(&base.id), &base.problem);
    }
    let wanted = bases.complete.iter().filter(|base| scope.server.is_none_or(|server| base.server == server));
    for base in wanted {
        let before = report.mark();
        report.bases = report.bases.saturating_add(1);
        report.base_bytes = report.base_bytes.saturating_add(base.stored_bytes);
        verify_base(archive, base, scope.manner, keys.as_ref(), on_bytes, report).await;
        if report.mark() != before && was_removed(archive, base).await? {
            report.take_back(before);
        }
    }
    Ok(())
}

/// The manifest's name: what is wrong with it is wrong with the whole backup.
fn what(id: &str) -> String {
    format!("{BASES_FOLDER}{id}/{BASE_MANIFEST}")
}

/// Whether it is no backup any more: `prune` takes the manifest first.
async fn was_removed(archive: &Archive, base: &BaseManifest) -> Result<bool> {
    match archive.base(&base.id).await {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == Kind::Config => Ok(true),
        Err(error) if error.kind() == Kind::Corrupt => Ok(false),
        Err(error) => Err(error),
    }
}

async fn verify_base(
    archive: &Archive,
    base: &BaseManifest,
    manner: Manner,
    keys: Option<&Arc<Identities>>,
    on_bytes: OnBytes<'_>,
    report: &mut Report,
) {
    let parts = match wanted_parts(archive, base) {
        Ok(parts) => parts,
        Err(error) => return report.add_error(what(&base.id), &error),
    };
    let mut checks = stream::iter(parts)
        .map(|part| async move {
            let key = part.key.to_string();
            let bytes = part.stored_bytes;
            let checked = verify_part(archive, part, manner, keys.cloned()).await;
            on_bytes(bytes);
            (key, checked)
        })
        .buffered(manner.reads());
    while let Some((key, checked)) = checks.next().await {
        if let Err(error) = checked {
            report.add_error(key, &error);
        }
    }
}

async fn verify_part(archive: &Archive, part: WantedPart, manner: Manner, keys: Option<Arc<Identities>>) -> Result<()> {
    let object = part.fetch(archive).await?;
    if manner == Manner::Gentle && keys.is_none() {
        // Some milliseconds.
        return part.check(&object);
    }
    let work = move || match keys {
        Some(keys) => part.open(&object, &keys, |_| true),
        None => part.check(&object),
    };
    tokio::task::spawn_blocking(work).await.map_err(|panic| Error::failed("a thread broke down").source(panic))?
}
