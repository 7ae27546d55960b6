//! What the agent needs, filled by the configuration.

use crate::base::BaseOptions;
use crate::chunk::keys::Recipients;
use crate::config::{AgentOptions, Objectives, ObserveOptions, PurgeOptions, SemiSyncOptions, VerifyOptions};
use crate::mysql::SourceOptions;
use crate::notify::NotifyOptions;
use crate::retention::Policy;
use crate::schedule::Schedule;
use crate::ship::ShipOptions;
use crate::store::StoreOptions;
use crate::store::spool::SpoolOptions;

/// What the agent needs.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The server.
    pub source: SourceOptions,
    /// The agent's manners.
    pub agent: AgentOptions,
    /// The ship.
    pub ship: ShipOptions,
    /// Whether commits shall wait until they are durable.
    pub semi_sync: SemiSyncOptions,
    /// A folder in front of the store.
    pub spool: Option<SpoolOptions>,
    /// The store.
    pub store: StoreOptions,
    /// Whom chunks are sealed to.
    pub recipients: Recipients,
    /// End when everything is archived that the server had at the start.
    pub once: bool,
    /// How and when base backups are taken.
    pub base: Option<BaseOptions>,
    /// What is done beside archiving.
    pub upkeep: UpkeepOptions,
}

/// What the agent does beside archiving.
#[derive(Debug, Clone, Default)]
pub struct UpkeepOptions {
    /// What is told, and where.
    pub observe: ObserveOptions,
    /// What the archive should be good for.
    pub objectives: Objectives,
    /// What is removed, and when.
    pub prune: Option<(Policy, Schedule)>,
    /// What may be purged on the server; `None` if nothing.
    pub purge: Option<PurgeOptions>,
    /// When the archive is verified.
    pub verify: Option<VerifyOptions>,
    /// Whom to tell.
    pub notify: Option<NotifyOptions>,
}
