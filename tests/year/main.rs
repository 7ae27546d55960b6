//! A year of small chunks: what looking at it costs in requests and time, and what a policy leaves of it.
//!
//! The archive is made here, with real events and real seals, in a store in memory; requests are counted as the product counts
//! them. `BINVAULT_YEAR_CHUNKS` asks for another size; figures are printed with `--nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stdout, reason = "figures for whoever runs this with --nocapture")]

#[path = "../sim/event.rs"]
#[allow(dead_code, reason = "the simulator uses all of it")]
mod event;
mod made;
mod store;

use std::time::Duration;

use binvault::clock;
use binvault::config::Objectives;
use binvault::position::{CommitTime, GtidSet};
use binvault::retention::{Policy, Prune};
use binvault::status;
use binvault::store::meter::{Meter, Operation};
use binvault::timeline::{Plan, PlanOptions, Target, plan};

use crate::made::{DAY_US, SERVER, Year, read};
use crate::store::Fragile;

/// Chunks of the year.
const CHUNKS: u64 = 100_000;
/// Requests that looking at all of it may take: a page of a listing for each thousand chunks and for each file, and the first
/// and last header of each file.
fn most_requests(year: &Year) -> u64 {
    let files = year.files as u64;
    files * (2 + 2) + year.chunks / 1000 + 100
}

fn chunks() -> u64 {
    std::env::var("BINVAULT_YEAR_CHUNKS").map_or(CHUNKS, |text| text.parse().unwrap())
}

/// Does something, and tells what it took.
async fn measured<T>(meter: &Meter, what: &str, work: impl Future<Output = T>) -> (T, u64) {
    let count = || Operation::ALL.map(|operation| meter.calls(operation).tries());
    let (before, since) = (count(), clock::monotonic());
    let done = work.await;
    let took = since.elapsed();
    let made: Vec<u64> = count().iter().zip(before).map(|(after, before)| after - before).collect();
    println!("  {what:<28} {:>7.3} s  {:>6} GET  {:>5} LIST", took.as_secs_f64(), made[1] + made[2], made[3]);
    (done, made.iter().sum())
}

async fn planned(year: &Year, target: Target) -> Plan {
    let options = PlanOptions {
        target,
        edge: None,
        head: None,
        base: None,
        into_server: false,
        skip: GtidSet::new(),
        read: read(),
    };
    Box::pin(plan(&year.archive, &options)).await.unwrap()
}

#[tokio::test]
async fn a_hundred_thousand_chunks_are_looked_at_in_few_requests() {
    let meter = Meter::default();
    let year = Year::make(chunks(), Fragile::new(), &meter).await;
    println!("{} chunks in {} files, {} base backups:", year.chunks, year.files, year.bases.len());
    let most = most_requests(&year);
    let (survey, requests) =
        measured(&meter, "status", Box::pin(status::survey(&year.archive, None, &Objectives::default()))).await;
    let report = survey.unwrap().report;
    assert_eq!((report.servers[0].chunks as u64, report.servers[0].ranges.len()), (year.chunks, 1));
    assert!(requests <= most + year.bases.len() as u64, "{requests} requests for status, {most} wanted");
    let (list, requests) = measured(&meter, "list", Box::pin(status::list(&year.archive))).await;
    assert_eq!(list.unwrap().files.len(), year.files);
    assert!(requests <= most + year.bases.len() as u64, "{requests} requests for list");
    let (places, requests) = measured(&meter, "where to go on (start)", year.archive.resume_points(&SERVER)).await;
    assert_eq!(places.unwrap().len(), 1);
    assert!(requests <= 64 * 4 + 10, "{requests} requests to find where to go on");
    let (latest, requests) = measured(&meter, "plan of restore --to latest", planned(&year, Target::Latest)).await;
    assert!(requests <= most + 200, "{requests} requests for the plan");
    assert_eq!(latest.base.id, *year.bases.last().unwrap());
    let middle = CommitTime::from_micros(year.begin_us + 183 * DAY_US);
    let (plan, requests) = measured(&meter, "plan to a moment", planned(&year, Target::Time(middle))).await;
    assert!(requests <= most + 300, "{requests} requests for the plan");
    assert!(plan.base.finished_us <= middle.micros());
}

#[tokio::test]
async fn a_policy_leaves_what_is_wanted_however_often_it_is_interrupted() {
    let store = Fragile::new();
    let year = Year::make(chunks() / 20, store.clone(), &Meter::default()).await;
    let policy = Policy {
        keep: Some(Duration::from_secs(30 * 86_400)),
        bases: 2,
        daily: 0,
        weekly: 4,
        monthly: 6,
        grace: Duration::ZERO,
    };
    let before = store.objects();
    let report = Prune::plan(&year.archive, &policy).await.unwrap().report().clone();
    assert!(report.removed.files > 300 && report.removed.bases > 30, "{:?}", report.removed);
    assert!(report.kept.bases >= 8, "{:?}", report.kept);
    let mut rounds = 0;
    for survives in [0, 1, 7, 40, 200, 700, 1500, 3000] {
        store.break_after(survives);
        let done = Prune::plan(&year.archive, &policy).await.unwrap().remove(&year.archive, &|_| ()).await;
        store.mend();
        rounds += 1;
        whole(&year).await;
        if done.is_ok() {
            break;
        }
    }
    Prune::plan(&year.archive, &policy).await.unwrap().remove(&year.archive, &|_| ()).await.unwrap();
    whole(&year).await;
    let left = store.objects();
    println!("{} objects, {} left after {rounds} interruptions", before.len(), left.len());
    let gone = before.iter().filter(|name| !left.contains(*name)).count() as u64;
    assert_eq!(gone, report.removed.objects, "what should go is gone, and nothing else");
    let more = Prune::plan(&year.archive, &policy).await.unwrap();
    assert_eq!(more.report().removed.objects, 0, "{:?}", more.report().removed);
}

/// Every kept moment can be planned for, and nobody speaks of a gap.
async fn whole(year: &Year) {
    let latest = planned(year, Target::Latest).await;
    assert_eq!(latest.place.executed, year.executed);
    for days in [1, 12, 29] {
        let moment = CommitTime::from_micros(year.end_us - days * DAY_US);
        let plan = planned(year, Target::Time(moment)).await;
        assert_eq!(plan.place.executed.count(), year.committed_until(moment.micros()), "{days} days ago");
    }
    let report = Box::pin(status::survey(&year.archive, None, &Objectives::default())).await.unwrap().report;
    assert!(report.servers[0].gaps.is_empty(), "{:?}", report.servers[0].gaps);
    // The base backups of weeks and months stand alone, each with the file of its own place.
    let newest = report.servers[0].ranges.last().unwrap();
    let thirty_days_ago = CommitTime::from_micros(year.end_us - 30 * DAY_US).rfc3339();
    assert!(newest.first_commit.as_ref().unwrap() < &thirty_days_ago, "{newest:?}");
}
