//! Whether the spool's folder can be used, and what it protects from. Pure but for looking at the folder.

use std::path::Path;

use rustix::fs::{Access, access, statvfs};

use super::archive::Examined;
use super::survey::Survey;
use super::{Area, Finding};
use crate::archive::CHUNKS;
use crate::config::{SemiSyncMode, SemiSyncOptions};
use crate::error::{Error, Kind};
use crate::store::spool::{Spool, SpoolOptions};

const ID: &str = "spool";

/// Judges the folder, and for commits that wait for it where it is.
pub(super) async fn judge(
    options: &SpoolOptions,
    archive: Option<&Examined>,
    semi_sync: Option<&SemiSyncOptions>,
    survey: Option<&Survey>,
    findings: &mut Vec<Finding>,
) {
    findings.push(folder(options, archive).await);
    findings.extend(room(options));
    if semi_sync.is_some_and(|options| options.mode == SemiSyncMode::Spool) {
        findings.extend(survey.map(place));
    }
}

async fn folder(options: &SpoolOptions, archive: Option<&Examined>) -> Finding {
    let dir = options.dir.display();
    let error = |title: String| Finding::error(Area::Agent, ID, Kind::Config, title);
    if !options.dir.is_dir() {
        let parent = options.dir.parent().unwrap_or(&options.dir);
        return if may_write(parent) {
            Finding::ok(Area::Agent, ID, format!("the spool {dir} is made at the first start"))
        } else {
            error(format!("the spool {dir} is not there, and cannot be made"))
                .fix(format!("install -d -m 0750 -o binvault {dir}"))
        };
    }
    if !may_write(&options.dir) {
        return error(format!("the spool {dir} cannot be written")).fix(format!("chown binvault {dir}"));
    }
    let found = match Spool::look(&options.dir, CHUNKS).await {
        Ok(found) => found,
        Err(failed) => return Finding::failure(Area::Agent, ID, &Error::from(failed)),
    };
    let Some((owner, state)) = found else {
        return Finding::ok(Area::Agent, ID, format!("the spool {dir} is empty"));
    };
    let ours = archive.and_then(|examined| examined.archive.as_ref()).map(|archive| archive.id().to_string());
    if let Some(ours) = ours.filter(|ours| *ours != owner) {
        return error(format!("the spool {dir} is of archive {owner}, this one is {ours}"))
            .detail("what is in it never goes into another archive")
            .fix("give each archive a spool.dir of its own");
    }
    let title = format!("the spool {dir} holds {} objects, {} KiB", state.objects, state.bytes.div_ceil(1 << 10));
    Finding::ok(Area::Agent, ID, title)
}

fn may_write(dir: &Path) -> bool {
    access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// Whether the disk has room for as much as the spool may take.
fn room(options: &SpoolOptions) -> Option<Finding> {
    const ID: &str = "spool-room";
    let stat = options.dir.ancestors().find_map(|dir| statvfs(dir).ok())?;
    let (free, wanted) = (stat.f_bavail.saturating_mul(stat.f_frsize) >> 20, options.bytes_max >> 20);
    let title = format!("spool.max_size is {wanted} MiB, the disk has {free} MiB free");
    if free >= wanted {
        return Some(Finding::ok(Area::Agent, ID, title));
    }
    Some(
        Finding::warning(Area::Agent, ID, title)
            .detail("in a long outage of the store the disk fills up before the spool has taken what it may")
            .fix(format!("[spool]\nmax_size = \"{}MiB\"", free / 10 * 8)),
    )
}

/// A spool on the database's own host is lost with it.
fn place(survey: &Survey) -> Finding {
    const ID: &str = "spool-place";
    if !survey.is_local {
        return Finding::ok(Area::Agent, ID, "the spool is on another host than the server");
    }
    Finding::warning(Area::Agent, ID, "the spool is on the server's own host")
        .detail("a commit that was acknowledged is lost with the host if the store does not have it yet")
        .fix("[semi_sync]\nmode = \"store\"     # or run the agent on another host")
}
