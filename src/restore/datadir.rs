//! Restoring into a new data directory, by a private mysqld.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::process::Command;
use uuid::Uuid;

use super::clone::{self, compat};
use super::fit::{free_bytes, initial_options, judge_space, judge_version, needs};
use super::folder::{Folder, private_folder};
use super::marker::{Marker, Stage};
use super::mysqld::{Program, Running, StartOptions, end_orphans, log_file, tmp_folder};
use super::prove::position;
use super::site::{Destination, Left, STATEMENT_TIMEOUT, Site, executed, protect_it, take_for_executed};
use super::words::{Words, quoted};
use super::{OnStep, RestoreOptions, Step};
use crate::archive::{BaseContent, BaseManifest, CloneFacts};
use crate::clock;
use crate::error::{Context, Error, Result};
use crate::mysql::{Address, Connection, SourceOptions};
use crate::position::GtidSet;

/// A data directory to be made.
#[derive(Debug, Clone)]
pub struct DatadirOptions {
    /// The directory: absent, empty, or ours from an interrupted restore.
    pub datadir: PathBuf,
    /// The server's program; `None`: found on PATH.
    pub mysqld: Option<PathBuf>,
    /// The client's program; `None`: the one beside the server's, or on PATH.
    pub mysql: Option<PathBuf>,
    /// Further options for the private server, such as `--innodb-buffer-pool-size=8G`.
    pub settings: Vec<String>,
    /// Appliers.
    pub workers: usize,
    /// Where the keyring goes, if the base backup is a clone with encrypted tablespaces; `None`: beside the data directory.
    pub keyring: Option<PathBuf>,
    /// Whether too little room is an error.
    pub check_space: bool,
    /// Leave the server running on its private socket.
    pub keep_running: bool,
}

/// Our account at the private server.
const ACCOUNT: &str = "binvault_restore";
/// The program's name as the server sees it.
const PROGRAM: &str = "binvault restore";

/// The site.
pub(super) struct DatadirSite {
    options: DatadirOptions,
    program: Program,
    client: PathBuf,
    marker: Marker,
    /// Folder of the socket and the init file; only we can enter it.
    sockets: PathBuf,
    server_id: u32,
    by_gtid: bool,
    settings: Vec<String>,
    /// Of a clone: what it is.
    clone: Option<CloneFacts>,
    /// What must be said when the data directory is made.
    initial: Vec<String>,
    on_step: OnStep,
    running: Option<Running>,
    connection: Option<Connection>,
    folder: Folder,
}

impl DatadirSite {
    /// Checks the place, and starts the server: fresh, or where an interrupted restore left it.
    pub(super) async fn open(options: &RestoreOptions, datadir: &DatadirOptions) -> Result<Self> {
        let plan = &options.plan;
        let program = Program::find(datadir.mysqld.as_deref()).await?;
        judge_version(&program.version, &plan.base.server_version)?;
        let keyring = judge_clone(&program, &plan.base, datadir)?;
        let client = client_for(&program, &plan.base, datadir)?;
        let place = &datadir.datadir;
        let mut folder = Folder::open(place)?;
        let found = Marker::read(place)?;
        match &found {
            None => folder.check_empty()?,
            Some(marker) if marker.is_for(options.archive.id(), plan) => {}
            Some(marker) => return Err(other_restore(place, marker)),
        }
        let loaded = found.as_ref().is_some_and(|marker| marker.stage == Stage::Loaded);
        if datadir.check_space && !loaded {
            judge_space(needs(plan).disk_bytes, free_bytes(place)?, place)?;
        }
        let keyring = match &found {
            Some(marker) if loaded => marker.keyring.clone(),
            _ => free_keyring(keyring, found.as_ref())?,
        };
        folder.take()?;
        if let Some(old) = &found {
            end_orphans(&folder.absolute()?).await?;
            drop(old.socket.parent().map(std::fs::remove_dir_all));
        }
        let sockets = private_folder()?;
        let marker = Marker {
            archive: options.archive.id(),
            base: plan.base.id.clone(),
            head: plan.head.name.clone(),
            skip: plan.skip.clone(),
            stage: if loaded { Stage::Loaded } else { Stage::Loading },
            socket: sockets.join("s"),
            // With letters of both kinds, a number and a sign: the base may bring rules for passwords.
            password: format!("Bv-{}", Uuid::new_v4()),
            keyring,
        };
        let mut site = Self {
            options: DatadirOptions {
                datadir: folder.prepare(&marker, found.is_some() && !loaded)?,
                ..datadir.clone()
            },
            program,
            client,
            marker,
            sockets,
            server_id: options.free_server_id(),
            by_gtid: plan.by_gtid,
            settings: settings(options, datadir)?,
            clone: plan.base.clone.clone(),
            initial: initial_options(&plan.base),
            on_step: Arc::clone(&options.on_step),
            running: None,
            connection: None,
            folder,
        };
        if !loaded {
            return Ok(site);
        }
        match site.go_on().await {
            Ok(()) => Ok(site),
            Err(error) => {
                site.abandon().await;
                Err(error)
            }
        }
    }

    /// Starts the server that an interrupted restore left. Without GTIDs only its channel knows how far it came; where it
    /// has lost that (it was interrupted while the channel was set up or taken away) nothing is left to go on from.
    async fn go_on(&mut self) -> Result<()> {
        self.start().await?;
        if self.by_gtid || position(self).await?.is_some() {
            return Ok(());
        }
        tracing::info!("how far the interrupted restore came is not known: it begins anew");
        self.stop().await?;
        self.marker.stage = Stage::Loading;
        self.folder.prepare(&self.marker, true).map(|_| ())
    }

    /// Starts the server with our account in it, and connects.
    async fn start(&mut self) -> Result<()> {
        (self.on_step)(&Step::Prepare("a private server"));
        let init_file = self.sockets.join("init.sql");
        std::fs::write(&init_file, account_sql(&self.marker.password)).context(|| "write the init file".into())?;
        let start = StartOptions {
            init_file: &init_file,
            server_id: self.server_id,
            workers: self.options.workers,
            by_gtid: self.by_gtid,
            settings: &self.settings,
        };
        self.marker.write(&self.options.datadir)?;
        let mut running = self.program.start(&self.options.datadir, &self.sockets, &start)?;
        let password = SecretString::from(self.marker.password.clone());
        let mut source = SourceOptions::new(Address::Socket(running.socket.clone()), ACCOUNT, Some(password));
        source.query_timeout = STATEMENT_TIMEOUT;
        // Crash recovery may take as long as it takes; as long as the server lives, it is waited for.
        let connection = loop {
            if let Some(status) = running.ended() {
                return Err(Error::failed(format!("mysqld ended at its start ({status}): {}", running.log_tail()))
                    .hint(format!("its log is {}", log_file(&self.options.datadir).display())));
            }
            match Connection::connect(&source, PROGRAM).await {
                Ok(connection) => break connection,
                Err(error) => tracing::debug!(error = %error.chain(), "the private server does not answer yet"),
            }
            clock::sleep(super::POLL).await;
        };
        self.connection = Some(connection);
        self.running = Some(running);
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        self.connection = None;
        match self.running.take() {
            Some(mut running) => running.stop().await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Site for DatadirSite {
    fn connection(&mut self) -> Result<&mut Connection> {
        self.connection.as_mut().ok_or_else(|| Error::failed("the private server is not connected"))
    }

    fn words(&self) -> Words {
        Words::of(&self.program.version)
    }

    fn is_loaded(&self) -> bool {
        self.marker.stage == Stage::Loaded
    }

    async fn begin(&mut self) -> Result<()> {
        (self.on_step)(&Step::Prepare("a fresh data directory"));
        self.program.initialize(&self.options.datadir, &self.initial).await?;
        self.start().await
    }

    fn destination(&self) -> Result<Destination> {
        Ok(Destination { datadir: self.options.datadir.clone(), keyring: self.marker.keyring.clone() })
    }

    async fn begin_on_files(&mut self) -> Result<()> {
        // The archived server's identity must not come back: what this one writes is another history.
        match std::fs::remove_file(self.options.datadir.join("auto.cnf")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(|| "remove auto.cnf".into());
            }
            _ => {}
        }
        let started = self.start().await;
        if self.marker.keyring.is_none() {
            return started;
        }
        started.map_err(|error| {
            let log = error.hint_text().map(|hint| format!("; {hint}")).unwrap_or_default();
            error.hint(format!("does it load its keyring? {}{log}", compat::keyring_hint(&self.program.path)))
        })
    }

    fn client(&self) -> Result<Command> {
        let mut command = Command::new(&self.client);
        command
            .arg("--no-defaults")
            .arg(format!("--socket={}", self.sockets.join("s").display()))
            .args(["--user", ACCOUNT])
            .env("MYSQL_PWD", &self.marker.password);
        Ok(command)
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("BINVAULT_SOCKET", self.sockets.join("s").display().to_string()),
            ("BINVAULT_USER", ACCOUNT.to_owned()),
            ("BINVAULT_PASSWORD", self.marker.password.clone()),
            ("BINVAULT_DATADIR", self.options.datadir.display().to_string()),
        ]
    }

    async fn loaded(&mut self, have: &GtidSet) -> Result<()> {
        let words = self.words();
        let connection = self.connection()?;
        take_for_executed(connection, words, have).await?;
        connection.execute(&words.reset_all_channels()).await?;
        // The accounts of the base are the server's now, ours is gone with the tables it stood in: a fresh start makes
        // it again. And it writes everything down before the marker says so.
        self.stop().await?;
        self.marker.stage = Stage::Loaded;
        self.start().await
    }

    fn listen_host(&self) -> String {
        "127.0.0.1".to_owned()
    }

    fn last_words(&self) -> String {
        self.running.as_ref().map(Running::log_tail).unwrap_or_default()
    }

    async fn leave(&mut self) -> Result<Left> {
        let (words, keep) = (self.words(), self.options.keep_running);
        let connection = self.connection()?;
        drop(connection.execute(&words.stop()).await);
        drop(connection.execute(&words.reset_channel()).await);
        let executed = executed(connection).await?;
        if keep {
            for setting in ["innodb_flush_log_at_trx_commit = 1", "sync_relay_log = 10000"] {
                connection.execute(&format!("SET GLOBAL {setting}")).await?;
            }
        }
        connection.execute(&format!("DROP USER '{ACCOUNT}'@'localhost'")).await?;
        let datadir = self.options.datadir.clone();
        let socket = self.sockets.join("s");
        if keep {
            self.connection = None;
            drop(std::fs::remove_file(self.sockets.join("init.sql")));
            if let Some(running) = self.running.take() {
                running.release();
            }
        } else {
            self.stop().await?;
            drop(std::fs::remove_dir_all(&self.sockets));
            drop(std::fs::remove_dir_all(tmp_folder(&datadir)));
        }
        drop(std::fs::remove_file(log_file(&datadir)));
        Marker::remove(&datadir)?;
        let socket = keep.then_some(socket);
        let mut next = next_steps(&self.program.path, &datadir, socket.as_deref());
        if let Some(facts) = &self.clone {
            next.extend(clone::next_steps(facts, &self.program.path, self.marker.keyring.as_deref()));
        }
        Ok(Left { executed, datadir: Some(datadir), socket, next })
    }

    async fn abandon(&mut self) -> String {
        if let Err(error) = self.stop().await {
            tracing::warn!(error = %error.chain(), "the private server could not be stopped");
        }
        drop(std::fs::remove_dir_all(&self.sockets));
        format!(
            "run the same command again to go on; or remove {} and begin anew (log: {})",
            self.options.datadir.display(),
            log_file(&self.options.datadir).display()
        )
    }
}

/// Options of the private server beyond our own: the archived server's where they must agree, and the caller's.
fn settings(options: &RestoreOptions, datadir: &DatadirOptions) -> Result<Vec<String>> {
    let base = &options.plan.base;
    let mut settings = initial_options(base);
    if base.content == BaseContent::Clone {
        settings.extend(compat::options(base)?);
    }
    settings.extend(datadir.settings.iter().cloned());
    Ok(settings)
}

/// The client, which must be there for a dump alone.
fn client_for(program: &Program, base: &BaseManifest, datadir: &DatadirOptions) -> Result<PathBuf> {
    match program.client(datadir.mysql.as_deref()) {
        Err(_) if base.content != BaseContent::Sql => Ok(PathBuf::new()),
        found => found,
    }
}

/// Whether the program can start on the files of a clone, if the base is one; and where the keyring goes, if it needs one.
fn judge_clone(program: &Program, base: &BaseManifest, datadir: &DatadirOptions) -> Result<Option<PathBuf>> {
    if base.content != BaseContent::Clone {
        return Ok(None);
    }
    compat::judge(&program.version, program.platform.as_ref(), base)?;
    compat::options(base)?;
    if !compat::facts(base)?.encrypted {
        return Ok(None);
    }
    compat::judge_keyring(&program.path, &program.version)?;
    // The server is given the path as it is: it must mean the same to it.
    let path = std::path::absolute(datadir.keyring_path()).context(|| "find the keyring's place".into())?;
    Ok(Some(path))
}

/// Makes way for the keyring: one of an interrupted run of this restore goes, any other stays.
fn free_keyring(keyring: Option<PathBuf>, found: Option<&Marker>) -> Result<Option<PathBuf>> {
    if let Some(old) = found.and_then(|marker| marker.keyring.as_ref()).filter(|old| old.exists()) {
        std::fs::remove_file(old).context(|| format!("remove {}", old.display()))?;
    }
    match keyring {
        Some(keyring) if keyring.exists() => {
            Err(Error::config(format!("there is a keyring at {} already", keyring.display()))
                .hint("a restore never overwrites: name another place with --keyring, or move that file away"))
        }
        keyring => Ok(keyring),
    }
}

fn other_restore(place: &Path, marker: &Marker) -> Error {
    Error::config(format!(
        "{} holds an interrupted restore of something else: base {}, head {}",
        place.display(),
        marker.base,
        marker.head
    ))
    .hint("give that restore's own options to go on with it (--base, --head, --skip), or another --datadir")
}

fn account_sql(password: &str) -> String {
    let account = format!("'{ACCOUNT}'@'localhost'");
    let mut sql = String::new();
    for statement in [
        format!("CREATE USER IF NOT EXISTS {account} IDENTIFIED BY {}", quoted(password)),
        format!("ALTER USER {account} IDENTIFIED BY {} ACCOUNT UNLOCK", quoted(password)),
        format!("GRANT ALL ON *.* TO {account} WITH GRANT OPTION"),
    ] {
        let _ = writeln!(sql, "{statement};");
    }
    sql
}

fn next_steps(mysqld: &Path, datadir: &Path, socket: Option<&Path>) -> Vec<String> {
    let mut next = Vec::new();
    if let Some(socket) = socket {
        next.push(format!(
            "the server runs, private: mysql --socket={} (accounts are the archived server's)",
            socket.display()
        ));
    } else {
        next.push(format!(
            "start it: {} --datadir={} (your own options; own the files: chown -R mysql: …)",
            mysqld.display(),
            datadir.display()
        ));
    }
    next.push("look at the data; events are off until you SET GLOBAL event_scheduler = ON".to_owned());
    next.extend(protect_it());
    next
}

impl DatadirOptions {
    /// Where the keyring goes, if one is needed: never into the data directory unless that was asked for.
    pub fn keyring_path(&self) -> PathBuf {
        self.keyring.clone().unwrap_or_else(|| {
            let mut name = self.datadir.file_name().unwrap_or_default().to_owned();
            name.push(".keyring");
            self.datadir.with_file_name(name)
        })
    }
}

impl RestoreOptions {
    /// A server id that the archive's server does not have.
    fn free_server_id(&self) -> u32 {
        let [a, b, c, d, ..] = *Uuid::new_v4().as_bytes();
        (u32::from_be_bytes([a, b, c, d]) >> 2).max(1) | 0x4000_0000
    }
}
