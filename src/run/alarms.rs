//! Who is told when something goes wrong: each thing once when it begins and once when it is over, not too often.
//!
//! Owns: what is new, the limit on messages of a kind, and those that wait for a hook which takes none. Does not own: what is wrong (`observe`), the message's way
//! (`notify`).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Agent;
use crate::clock::{self, Instant};
use crate::notify::{Message, Notifier, NotifyOptions};
use crate::observe::{Action, Severity, actions};
use crate::position::CommitTime;

/// How often it is looked at what is wrong.
const INTERVAL: Duration = Duration::from_secs(2);

/// Messages that wait for a hook which takes none; the oldest goes.
const OUTBOX_MAX: usize = 64;
/// Longest pause before such a hook is tried again.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Tells, where that is configured. Never ends.
pub(super) async fn run(agent: &Agent) {
    let Some(options) = &agent.options.upkeep.notify else { return std::future::pending().await };
    let notifier = match Notifier::new(options) {
        Ok(notifier) => notifier,
        Err(error) => {
            tracing::error!(error = %error.chain(), "nobody can be notified");
            return std::future::pending().await;
        }
    };
    agent.sight.seen().notifications = Some([0; 3]);
    let mut desk = Desk::new(options);
    let (mut outbox, mut not_before) = (VecDeque::<News>::new(), clock::monotonic());
    loop {
        let observed = agent.observed();
        let gap = observed.seen.last_gap.clone().filter(|_| observed.seen.gaps > desk.gaps);
        let turn = desk.turn(clock::monotonic(), &actions(&observed));
        let mut news: Vec<News> = turn.news;
        if let Some(text) = gap {
            desk.gaps = observed.seen.gaps;
            let text = format!("a gap in the history: {text}");
            let hint = Some("binvault status".to_owned());
            news.push(News::new("happened", Action { id: "gap", severity: Severity::Now, text, hint }));
        }
        count(agent, 2, turn.suppressed);
        outbox.extend(news);
        while outbox.len() > OUTBOX_MAX {
            outbox.pop_front();
            count(agent, 1, 1);
        }
        while clock::monotonic() >= not_before
            && let Some(news) = outbox.front()
        {
            if send(agent, &notifier, news).await {
                outbox.pop_front();
            } else {
                let now = clock::monotonic();
                not_before = now.checked_add(options.min_interval.min(AGAIN_MAX)).unwrap_or(now);
            }
        }
        clock::sleep(INTERVAL).await;
    }
}

fn count(agent: &Agent, which: usize, by: u64) {
    if let Some(count) = agent.sight.seen().notifications.as_mut().and_then(|counts| counts.get_mut(which)) {
        *count = count.saturating_add(by);
    }
}

/// Whether it was taken.
async fn send(agent: &Agent, notifier: &Notifier, News { event, action, at_us }: &News) -> bool {
    let message = Message {
        event,
        id: action.id.to_owned(),
        severity: action.severity.as_str().to_owned(),
        text: action.text.clone(),
        hint: action.hint.clone(),
        agent: agent.options.agent.id.clone(),
        server: agent.sight.seen().server.map(|server| server.to_string()),
        archive: agent.options.store.url.clone(),
        at: CommitTime::from_micros(*at_us).rfc3339(),
    };
    match notifier.send(&message, &agent.stop).await {
        Ok(()) => {
            count(agent, 0, 1);
            true
        }
        Err(error) => {
            tracing::warn!(id = message.id, event, error = %error.chain(), "a notification was not taken");
            count(agent, 1, 1);
            false
        }
    }
}

/// Something to be told.
#[derive(Debug, PartialEq, Eq)]
struct News {
    event: &'static str,
    action: Action,
    /// When it was seen, microseconds since 1970.
    at_us: u64,
}

impl News {
    fn new(event: &'static str, action: Action) -> Self {
        Self { event, action, at_us: clock::now_us() }
    }
}

/// What is new at a look.
#[derive(Debug, Default, PartialEq, Eq)]
struct Turn {
    news: Vec<News>,
    suppressed: u64,
}

/// What was told, and when.
#[derive(Debug)]
struct Desk {
    min_interval: Duration,
    told: BTreeMap<&'static str, Told>,
    /// Gaps that were told.
    gaps: u64,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    /// It was told that this is wrong, and not yet that it is over.
    raised: Option<Action>,
    /// It is wrong, and held back.
    held: bool,
}

impl Desk {
    fn new(options: &NotifyOptions) -> Self {
        Self { min_interval: options.min_interval, told: BTreeMap::new(), gaps: 0 }
    }

    /// What is to be told, if this is wrong now. Pure.
    fn turn(&mut self, now: Instant, wrong: &[Action]) -> Turn {
        let mut turn = Turn::default();
        for action in wrong.iter().filter(|action| action.severity != Severity::Info) {
            let told = self.told.get(action.id);
            if told.is_some_and(|told| told.raised.is_some()) {
                continue;
            }
            let soon = told.is_some_and(|told| now.saturating_duration_since(told.at) < self.min_interval);
            if soon {
                if let Some(told) = self.told.get_mut(action.id).filter(|told| !told.held) {
                    told.held = true;
                    turn.suppressed = turn.suppressed.saturating_add(1);
                }
                continue;
            }
            self.told.insert(action.id, Told { at: now, raised: Some(action.clone()), held: false });
            turn.news.push(News::new("raised", action.clone()));
        }
        for (id, told) in &mut self.told {
            if wrong.iter().any(|action| action.id == *id) {
                continue;
            }
            told.held = false;
            if let Some(action) = told.raised.take() {
                turn.news.push(News::new("cleared", action));
            }
        }
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(id: &'static str, severity: Severity) -> Action {
        Action { id, severity, text: "a test".into(), hint: None }
    }

    #[test]
    fn each_thing_is_told_once_and_not_too_often() {
        let mut desk = Desk { min_interval: Duration::from_secs(60), told: BTreeMap::new(), gaps: 0 };
        let (lag, begin) = (action("lag", Severity::Soon), clock::monotonic());
        let mut at = |seconds: u64, wrong: &[Action]| {
            let turn = desk.turn(begin + Duration::from_secs(seconds), wrong);
            (turn.news.iter().map(|news| news.event).collect::<Vec<_>>(), turn.suppressed)
        };
        assert_eq!(at(0, &[action("drill", Severity::Info)]), (vec![], 0), "that is worth no message");
        assert_eq!(at(1, std::slice::from_ref(&lag)), (vec!["raised"], 0));
        assert_eq!(at(2, std::slice::from_ref(&lag)), (vec![], 0), "told already");
        assert_eq!(at(3, &[]), (vec!["cleared"], 0));
        assert_eq!(at(4, std::slice::from_ref(&lag)), (vec![], 1), "too soon");
        assert_eq!(at(5, std::slice::from_ref(&lag)), (vec![], 0), "and that is counted once");
        assert_eq!(at(62, std::slice::from_ref(&lag)), (vec!["raised"], 0), "it is still so");
        assert_eq!(at(200, &[lag.clone(), action("purge", Severity::Now)]), (vec!["raised"], 0), "another thing");
        assert_eq!(at(201, &[]).0.len(), 2);
    }
}
