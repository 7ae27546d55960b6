//! What a generation needs before it can begin: the archive, the place to go on, the dump, and whoever watches it.
//!
//! Owns: the order of these steps. Does not own: the choice of the place (`anew`, `start`), the generation itself (`run`).
//!
//! Invariant: a break is recorded before the dump behind it is asked for.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::anew::{Beginning, Scene};
use super::guard::Guard;
use super::spool::Stored;
use super::start::Start;
use super::survey::{Binlogs, Survey, survey};
use super::{Agent, PROGRAM, RunOptions, watch};
use crate::archive::{Archive, ResumeInFile};
use crate::config::SemiSyncMode;
use crate::error::{Error, Result};
use crate::mysql::facts::{ServerFacts, purged_gtids};
use crate::mysql::members::primary;
use crate::mysql::replica::{DumpRequest, start_dump};
use crate::mysql::{Connection, SourceOptions};
use crate::position::{BinlogFile, Position, ServerUuid};
use crate::ship::{Durable, PIECES_AT_A_TIME, SemiSync, Voyage};
use crate::store::open as open_store;

/// Leftovers of dead writers older than this are swept at the start.
const SWEEP_AGE_S: u64 = 900;
/// The longest silence that a source may keep which waits for us.
const SEMI_SYNC_HEARTBEAT: Duration = Duration::from_secs(1);

impl Agent {
    /// What the generation's stages and its guard share; `None` where protection is not asked for. The start of a
    /// semi-synchronous dump acknowledges everything before it, so it must be inside of what is archived.
    async fn semi_sync(&self, archive: &Archive, start: &Start) -> Result<Option<Arc<SemiSync>>> {
        let Some(ledger) = &self.ledger else { return Ok(None) };
        if !self.manner().resumed {
            let ours = archive.beacons().await?.into_iter().find(|beacon| beacon.agent == self.options.agent.id);
            ledger.resume(self.options.semi_sync.mode.as_str(), ours.and_then(|beacon| beacon.semi_sync));
            self.manner().resumed = true;
        }
        let inside = start.from.inside.as_ref();
        let archived = inside.filter(|inside| inside.incarnation.file == start.file && start.position <= inside.end);
        let durable = archived.map(|inside| Position { file: start.file.clone(), offset: inside.end });
        let is_replica = self.manner().join && durable.is_some();
        let slots = match self.options.semi_sync.mode {
            SemiSyncMode::Spool => PIECES_AT_A_TIME,
            SemiSyncMode::Store | SemiSyncMode::Off => self.options.ship.uploads,
        };
        Ok(Some(SemiSync::new(is_replica, Arc::clone(ledger), durable, slots)))
    }

    async fn guard(&self, source: &SourceOptions, semi_sync: Arc<SemiSync>, dump: u32) -> Result<Guard> {
        Ok(Guard {
            source: source.clone(),
            options: self.options.semi_sync,
            semi_sync,
            progress: Arc::clone(&self.progress),
            dump,
            asked: Connection::connect(source, PROGRAM).await?,
            spoilt: false,
            mended: false,
            target: None,
            hold: self.manner().hold,
            stop: self.stop.clone(),
        })
    }

    async fn archive(&self) -> Result<Archive> {
        let store = open_store(&self.options.store, &self.hard_stop).await?;
        match store.sweep(SWEEP_AGE_S).await {
            Ok(0) => {}
            Ok(swept) => tracing::info!(swept, "leftovers of interrupted writes were removed"),
            Err(error) => tracing::warn!(%error, "leftovers could not be swept"),
        }
        self.keeper.through(Archive::open(store, true).await?).await
    }

    pub(super) async fn prepare(&self, until: &mut Option<Position>) -> Result<Prepared> {
        let RunOptions { agent, recipients, once, .. } = &self.options;
        let archive = self.archive().await?;
        let source = primary(&self.options.source, PROGRAM).await?;
        let Survey { facts, server, mut asked } = survey(&source).await?;
        let by_gtid = facts.gtid_mode.as_deref() == Some("ON");
        let scene =
            Scene { archive: &archive, asked: &mut asked, source: &source, agent, facts: &facts, server, by_gtid };
        let (start, binlogs) = self.begin(scene).await?;
        let semi_sync = self.semi_sync(&archive, &start).await?;
        let Start { file, position, from, expected } = start;
        if *once && until.is_none() {
            *until = Some(binlogs.end.clone());
        }
        let mut request = self.dump_request(&archive, &file, position, by_gtid);
        if semi_sync.as_ref().is_some_and(|semi_sync| semi_sync.is_replica) {
            request = as_waited_for(request);
        }
        let connection = Connection::connect(&source, PROGRAM).await?;
        let tls = connection.is_tls();
        // There before the server begins to wait for us: only it can end that at once.
        let guard = match &semi_sync {
            Some(semi_sync) => Some(self.guard(&source, Arc::clone(semi_sync), connection.id()).await?),
            None => None,
        };
        let stream = start_dump(connection, &request).await?;
        // Asked behind the dump's beginning: what was told before may be from before a reset.
        let purged = purged_gtids(&mut asked).await?;
        let durable = from.inside.as_ref().map(ResumeInFile::link);
        self.progress.set_durable(Durable {
            position: durable.map(|link| Position { file: link.file, offset: link.end }),
            commit: from.high_commit,
        });
        let word = if from.inside.is_none() { "archiving begins" } else { "archiving goes on" };
        tracing::info!(
            semi_sync = request.semi_sync, %server, version = %facts.version, %file, position, tls, server_id = request.server_id,
            replica_uuid = %request.replica_uuid, archive = %archive.store().url(), "{word}"
        );
        let watch = self.watch(&archive, asked, &source, &facts, server, binlogs);
        let voyage = Voyage {
            stream,
            server,
            from,
            expected,
            purged,
            archive,
            recipients: recipients.clone(),
            until: until.clone(),
            progress: Arc::clone(&self.progress),
            stop: self.stop.child_token(),
            lost: CancellationToken::new(),
            semi_sync,
            spool: self.keeper.spool().filter(|_| self.options.semi_sync.mode == SemiSyncMode::Spool),
        };
        Ok(Prepared { voyage, watch, guard })
    }

    fn watch(
        &self,
        archive: &Archive,
        asked: Connection,
        source: &SourceOptions,
        facts: &ServerFacts,
        server: ServerUuid,
        binlogs: Binlogs,
    ) -> watch::Watch {
        watch::Watch {
            archive: archive.clone(),
            asked,
            agent: self.options.agent.clone(),
            server,
            server_version: facts.version.to_string(),
            progress: Arc::clone(&self.progress),
            source: source.clone(),
            silent: None,
            warned: false,
            ledger: self.ledger.clone(),
            sight: Arc::clone(&self.sight),
            expiry_s: facts.expiry_s(),
            purge: self.options.upkeep.purge,
            logs: binlogs.logs,
            resets: binlogs.resets,
            keeper: Arc::clone(&self.keeper),
            stored: Stored::new(Arc::clone(&self.keeper)),
            answer: None,
            reset: None,
        }
    }

    /// Chooses where to go on, and records what broke.
    async fn begin(&self, mut scene: Scene<'_>) -> Result<(Start, Binlogs)> {
        let broken = self.manner().broken.take().map(|(kind, text)| Error::new(kind, text));
        let (Beginning { start, anew, gap }, binlogs) = Box::pin(scene.choose(broken)).await?;
        if let Some(gap) = &gap {
            self.record(scene.archive, gap).await?;
        }
        self.manner().begun_behind_a_break = anew.then(|| self.progress.snapshot().chunks);
        Ok((start, binlogs))
    }

    fn dump_request(&self, archive: &Archive, file: &BinlogFile, position: u64, by_gtid: bool) -> DumpRequest {
        let RunOptions { agent, ship, .. } = &self.options;
        DumpRequest {
            server_id: agent.replica_server_id(archive.id()),
            replica_uuid: agent.replica_uuid(archive.id()),
            report_host: agent.report_host.clone(),
            report_port: agent.report_port,
            heartbeat: ship.heartbeat,
            net_write_timeout_s: agent.net_write_timeout_s,
            file: file.to_string(),
            position,
            by_gtid,
            non_block: false,
            register: true,
            semi_sync: false,
        }
    }
}

/// All that a generation needs.
pub(super) struct Prepared {
    pub(super) voyage: Voyage,
    pub(super) watch: watch::Watch,
    pub(super) guard: Option<Guard>,
}

/// The dump of a semi-synchronous replica. By more frequent heartbeats the source notices soon that an agent has died, and
/// waits no longer.
fn as_waited_for(request: DumpRequest) -> DumpRequest {
    DumpRequest { semi_sync: true, heartbeat: request.heartbeat.min(SEMI_SYNC_HEARTBEAT), ..request }
}
