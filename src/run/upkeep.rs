//! What the agent does beside archiving, each by a task of its own: a look at the archive, pruning, verifying, notifications,
//! words to the service manager.
//!
//! Invariants: none of it ends the agent; a run that ends by itself (`--once`) does none of it.

use std::sync::Arc;

use super::bases::sleep_until;
use super::{Agent, alarms, outlook, service};
use crate::archive::{Archive, VerifyWord};
use crate::clock;
use crate::config::VerifyOptions;
use crate::error::{Error, Result};
use crate::retention::{Policy, Prune};
use crate::schedule::Schedule;
use crate::store::open as open_store;
use crate::verify::{Manner, Scope, verify};

/// Does it all. Never ends.
pub(super) async fn run(agent: &Arc<Agent>) {
    let upkeep = &agent.options.upkeep;
    if agent.options.once {
        return std::future::pending().await;
    }
    let told = upkeep.observe.listen.is_some() || upkeep.notify.is_some();
    let prunes = async {
        if let Some((policy, schedule)) = &upkeep.prune {
            by_schedule(
                agent,
                schedule,
                None,
                |due_us| agent.sight.seen().prune_due_us = due_us,
                async || {
                    prune(agent, policy).await;
                },
            )
            .await;
        }
        std::future::pending::<()>().await;
    };
    let verifies = async {
        if let Some(VerifyOptions { schedule, bases }) = &upkeep.verify {
            let last_us = last_verified(agent).await;
            by_schedule(agent, schedule, last_us, |_| (), async || verified(agent, *bases).await).await;
        }
        std::future::pending::<()>().await;
    };
    let watched = async {
        if told {
            tokio::join!(outlook::trail(agent), outlook::run(agent));
        }
        std::future::pending::<()>().await;
    };
    tokio::join!(prunes, verifies, watched, alarms::run(agent), service::run(agent));
}

/// Does something as often as it is due, from `last_us` on: what was missed since then is done once, now.
async fn by_schedule(
    agent: &Agent,
    schedule: &Schedule,
    last_us: Option<u64>,
    says: impl Fn(Option<u64>),
    mut job: impl AsyncFnMut(),
) {
    let mut last_us = last_us.unwrap_or_else(clock::now_us);
    while let Some(due_us) = schedule.next_after(last_us) {
        let begins_us = schedule.begins(due_us);
        says(Some(begins_us));
        if !sleep_until(begins_us, &agent.stop).await {
            return;
        }
        job().await;
        last_us = clock::now_us().max(due_us);
    }
    says(None);
}

async fn archive(agent: &Agent) -> Result<Archive> {
    Archive::open(open_store(&agent.options.store, &agent.stop).await?, false).await
}

async fn prune(agent: &Agent, policy: &Policy) {
    let pruned = async {
        let archive = archive(agent).await?;
        Prune::plan(&archive, policy).await?.remove(&archive, &|_| ()).await
    };
    match Box::pin(pruned).await {
        Ok(report) => {
            let removed = &report.removed;
            tracing::info!(
                since = report.since,
                bases = removed.bases,
                files = removed.files,
                objects = removed.objects,
                bytes = removed.stored_bytes,
                "pruned: what nobody needs any more was removed"
            );
            agent.sight.seen().prunes.done();
            agent.sight.archive_changed.notify_one();
        }
        Err(_) if agent.stop.is_cancelled() => {}
        Err(error) => {
            let hint = error.hint_text().unwrap_or("");
            tracing::error!(error = %error.chain(), hint, "the scheduled prune failed; what it was to remove goes with the next one");
            agent.sight.seen().prunes.failed(&error);
        }
    }
}

/// When the archive was last verified by this agent, as its beacon tells.
async fn last_verified(agent: &Agent) -> Option<u64> {
    let beacons = async { archive(agent).await?.beacons().await };
    let ours = Box::pin(beacons).await.ok()?.into_iter().find(|beacon| beacon.agent == agent.options.agent.id);
    let word = ours?.verified?;
    let at_us = word.at_us;
    agent.sight.seen().verified.get_or_insert(word);
    Some(at_us)
}

async fn verified(agent: &Agent, bases: bool) {
    let at_us = clock::now_us();
    let scope = Scope { server: None, bases, manner: Manner::Gentle };
    let whole = async {
        let report = verify(&archive(agent).await?, scope, None, &|_| ()).await?;
        tracing::info!(
            chunks = report.chunks,
            bytes = report.stored_bytes,
            bases = report.bases,
            findings = report.findings.len(),
            "verified"
        );
        report.into_result().map(drop)
    };
    let problem = match Box::pin(whole).await {
        Ok(()) => None,
        // It could not be looked at: that says nothing about the archive.
        Err(error) if error.is_retryable() || agent.stop.is_cancelled() => return report(&error),
        Err(error) => {
            let hint = error.hint_text().unwrap_or("");
            tracing::error!(error = %error.chain(), hint, "the archive is not whole");
            Some(error.chain())
        }
    };
    agent.sight.seen().verified = Some(VerifyWord { at_us, problem });
}

fn report(error: &Error) {
    tracing::warn!(error = %error.chain(), "the archive could not be verified; the next try is when the next is due");
}
