//! Takes the clone off the donor: two connections, one for the data, one to acknowledge its states.
//!
//! ```text
//!   donor ─► data connection ─► watch ─► pipe ─► pump
//!         ◄─ ACK connection  ◄───┘ a state's end, as soon as its last byte is here
//! ```
//!
//! Owns: the conversation, and giving the donor up cleanly. Does not own: what messages mean (`watch`), the way on
//! (`pipe`).
//!
//! Invariants: a state is acknowledged when all of its bytes are in this process or its spool, never before, and no
//! later: a backup is whole or nothing, so nothing is won by waiting for the store, and while pages are copied the donor
//! archives redo; whoever ends it early tells the donor, which then frees everything at once.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::link::Link;
use super::pipe::Writer;
use super::throttle::Throttle;
use super::watch::{Step, Watch};
use crate::archive::CloneFacts;
use crate::base::engine::Trouble;
use crate::base::server::{PROGRAM, end_of_log};
use crate::error::{Error, Result};
use crate::mysql::clone::INNODB;
use crate::mysql::clone::descriptor::{State, StateChange, first_locator};
use crate::mysql::clone::packet::{Command, Locator, VERSION};
use crate::mysql::clone::record::{MAGIC, record_head};
use crate::mysql::clone::trx_sys::Notes;
use crate::mysql::{Connection, SourceOptions, server_code};
use crate::position::Position;

/// Silence after which the donor counts as gone: it is heard every few seconds while it waits, but a slow disk or many
/// files to open can take their time.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// Beyond the time for its lock: what the donor may take before it begins. It may have to open every file once.
const BEGIN_LIMIT: Duration = Duration::from_secs(900);
/// How long acknowledging may take.
const ACK_LIMIT: Duration = Duration::from_secs(60);
/// How long the donor may take to give up.
const GIVE_UP_LIMIT: Duration = Duration::from_secs(10);
/// What a recipient says that was told to stop: the server's own number for an interrupted statement.
const INTERRUPTED: u32 = 1317;

/// What the clone is, once all of it has been received.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) facts: CloneFacts,
    /// The snapshot's notes of its position.
    pub(super) notes: Notes,
    /// Where the binlog ended while pages were copied: the snapshot is not before it.
    pub(super) from: Position,
    /// Where it ended behind the snapshot.
    pub(super) until: Position,
    /// What went through the spool.
    pub(super) spooled_bytes: u64,
}

/// How the clone is asked for.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) source: SourceOptions,
    /// Our account, for statements that mend.
    pub(super) account: String,
    /// The protocol's DDL word.
    pub(super) ddl: u32,
    /// How long the donor may wait for its lock.
    pub(super) lock_wait: Duration,
    /// Bytes a second outside PAGE_COPY.
    pub(super) max_rate: Option<u64>,
}

/// A clone on its way.
pub(super) struct Receiver {
    wish: Wish,
    data: Link,
    acks: Link,
    watch: Watch,
    pipe: Writer,
    throttle: Throttle,
    /// Where the binlog ends: asked while pages are copied, and answered before that is acknowledged.
    asked_from: Option<Asked>,
    from: Option<Position>,
    /// The same, behind the snapshot.
    asked_until: Option<Asked>,
}

/// A question on its way.
type Asked = AbortOnDropHandle<Result<Position>>;

impl Receiver {
    /// Begins: the donor has agreed and made its snapshot when this returns.
    ///
    /// # Errors
    /// What the donor refuses.
    pub(super) async fn begin(wish: Wish, pipe: Writer) -> Result<Self, Trouble> {
        let data = Link::open(&wish.source, &wish.account).await?;
        let acks = Link::open(&wish.source, &wish.account).await?;
        let (watch, throttle) = (Watch::new(data.is_tls()), Throttle::new(wish.max_rate));
        let mut receiver =
            Self { wish, data, acks, watch, pipe, throttle, asked_from: None, from: None, asked_until: None };
        let locators = vec![Locator { engine: INNODB, bytes: first_locator() }];
        let init = Command::Init { version: VERSION, ddl: receiver.wish.ddl, locators };
        receiver.data.send(&init).await?;
        receiver.pipe.write(&MAGIC, false).await?;
        let limit = receiver.wish.lock_wait.saturating_add(BEGIN_LIMIT);
        loop {
            let message = receiver.data.receive(limit).await?;
            let step = receiver.watch.take(&message)?;
            receiver.keep(&message).await?;
            if step == Step::Complete {
                break;
            }
        }
        if receiver.watch.locator().is_none() {
            return Err(Error::corrupt("the donor does not say what the clone is called").into());
        }
        Ok(receiver)
    }

    /// Receives all of it. Told to stop, or failing, it has the donor give up.
    ///
    /// # Errors
    /// The donor's, the network's, and that the other end of the pipe is gone.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<Outcome, Trouble> {
        let done = match stop.run_until_cancelled(self.receive()).await {
            Some(done) => done,
            None => Err(Error::failed("the clone was given up").into()),
        };
        match done {
            Ok(()) => self.finish().await,
            Err(trouble) => {
                self.give_up(server_code(&trouble.error).is_some()).await;
                Err(trouble)
            }
        }
    }

    async fn receive(&mut self) -> Result<(), Trouble> {
        self.data.send(&Command::Execute).await?;
        loop {
            let message = self.data.receive(SILENCE_MAX).await?;
            let step = self.watch.take(&message)?;
            match step {
                Step::Ignore => continue,
                Step::Begun(State::PageCopy) => self.asked_from = Some(self.ask_for_end()),
                Step::Begun(State::RedoCopy) => self.asked_until = Some(self.ask_for_end()),
                Step::Begun(_) | Step::Keep | Step::Ended(_) | Step::Complete => {}
            }
            self.keep(&message).await?;
            match step {
                Step::Ended(change) => self.acknowledge(change).await?,
                Step::Complete => return Ok(()),
                _ if self.in_a_hurry() => {}
                _ => self.throttle.wait(message.len()).await,
            }
        }
    }

    /// While pages are copied, and from then on until the redo is here, the donor is not kept waiting.
    fn in_a_hurry(&self) -> bool {
        matches!(self.watch.state(), Some(State::PageCopy | State::RedoCopy | State::Done))
    }

    /// Sends a message on as a record.
    async fn keep(&mut self, message: &[u8]) -> Result<()> {
        let may_spool = self.in_a_hurry();
        self.pipe.write(&record_head(message.len())?, may_spool).await?;
        self.pipe.write(message, may_spool).await
    }

    async fn acknowledge(&mut self, change: StateChange) -> Result<(), Trouble> {
        if change.state == State::PageCopy {
            // Answered later, it would be no lower bound.
            self.from = settled(self.asked_from.take()).await?;
        }
        let ack = self.ack(0, change)?;
        self.acks.ask(&ack, ACK_LIMIT).await?;
        tracing::debug!(state = %change.state, "a state of the clone is complete");
        Ok(())
    }

    fn ack(&self, error: u32, change: StateChange) -> Result<Command> {
        let locator = self.watch.locator().cloned();
        let locator = locator.ok_or_else(|| Error::corrupt("the donor does not say what the clone is called"))?;
        Ok(Command::Ack { error, locator, descriptor: change.acknowledged().encode() })
    }

    /// Asks, beside everything else, where the binlog ends.
    fn ask_for_end(&self) -> Asked {
        let source = self.wish.source.clone();
        let asking = async move { end_of_log(&mut Connection::connect(&source, PROGRAM).await?).await };
        AbortOnDropHandle::new(tokio::spawn(asking))
    }

    async fn finish(mut self) -> Result<Outcome, Trouble> {
        let until = settled(self.asked_until.take()).await?;
        // The donor is free from here on, however slow the store is.
        tokio::join!(self.data.leave(), self.acks.leave());
        let spooled_bytes = self.pipe.close(true).await?;
        let (facts, notes) = self.watch.finish()?;
        match (self.from, until) {
            (Some(from), Some(until)) => Ok(Outcome { facts, notes, from, until, spooled_bytes }),
            _ => Err(Error::corrupt("the donor's clone had no PAGE_COPY or no REDO_COPY").into()),
        }
    }

    /// Has the donor give up, as far as it still listens. If it has `ended` the clone itself, it waits for us to leave: until
    /// then DDL may wait for it.
    async fn give_up(mut self, ended: bool) {
        if ended {
            tokio::join!(self.data.leave(), self.acks.leave());
            return;
        }
        let state = self.watch.state().unwrap_or(State::Init);
        let change = StateChange { state, task: 0, chunks: 0, files: 0, estimate: 0, disk_estimate: 0, flags: 0 };
        let Ok(ack) = self.ack(INTERRUPTED, change) else { return };
        if self.acks.ask(&ack, GIVE_UP_LIMIT).await.is_ok() {
            // It notices between two messages: what it has sent must be taken.
            self.data.drain(GIVE_UP_LIMIT).await;
        }
        tokio::join!(self.data.leave(), self.acks.leave());
    }
}

/// The answer to a question that was asked beside; `None` if it was not asked.
async fn settled(asked: Option<Asked>) -> Result<Option<Position>> {
    let Some(asked) = asked else { return Ok(None) };
    let broken = |panic| Error::failed("a question to the server broke down").source(panic);
    asked.await.map_err(broken)?.map(Some)
}
