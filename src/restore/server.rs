//! Restoring into a server that runs and has no data yet.

use std::path::PathBuf;

use async_trait::async_trait;
use secrecy::ExposeSecret;
use tokio::process::Command;

use super::RestoreOptions;
use super::fit::{judge_server_id, judge_version};
use super::mysqld::find_client;
use super::site::{Destination, Left, STATEMENT_TIMEOUT, Site, executed, no_files, protect_it, take_for_executed};
use super::words::{CHANNEL, Words, quoted};
use crate::archive::BaseContent;
use crate::error::{Error, Kind, Result};
use crate::mysql::{Address, Connection, SourceOptions};
use crate::position::GtidSet;

/// A server to restore into.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The server, and an account that may do everything.
    pub server: SourceOptions,
    /// The client's program; `None`: found on PATH.
    pub mysql: Option<PathBuf>,
    /// The host by which the server reaches this process.
    pub listen_host: String,
    /// Appliers.
    pub workers: usize,
}

const PROGRAM: &str = "binvault restore";
const EVENTS: &str = "event_scheduler";
/// Schemas that every server has.
const SYSTEM_SCHEMAS: &str = "'mysql', 'information_schema', 'performance_schema', 'sys', 'ndbinfo'";

/// The site.
pub(super) struct ServerSite {
    options: ServerOptions,
    client: PathBuf,
    words: Words,
    loaded: bool,
    connection: Option<Connection>,
    /// Settings changed for the time of the restore, as they were.
    former: Vec<(String, String)>,
    /// Settings that an interrupted run had changed: how they were is not known any more.
    forgotten: Vec<String>,
}

impl ServerSite {
    /// Checks that the server is fit and empty, or holds what an interrupted restore left.
    pub(super) async fn open(options: &RestoreOptions, server: &ServerOptions) -> Result<Self> {
        let plan = &options.plan;
        if plan.base.content == BaseContent::Clone {
            return Err(no_files());
        }
        let mut source = server.server.clone();
        source.query_timeout = STATEMENT_TIMEOUT;
        let mut connection = Connection::connect(&source, PROGRAM).await?;
        let version = connection.server_version().clone();
        judge_version(&version, &plan.base.server_version)?;
        let archived = super::replay::server_id(options).await?;
        let own = value(&mut connection, "server_id").await?.parse().unwrap_or(0);
        if let Some(archived) = archived {
            judge_server_id(own, archived)?;
        }
        let mode = value(&mut connection, "gtid_mode").await?;
        let wanted: &[&str] = if plan.by_gtid { &["ON"] } else { &["OFF_PERMISSIVE", "ON_PERMISSIVE"] };
        if !wanted.contains(&mode.as_str()) {
            return Err(Error::new(
                Kind::Unfit,
                format!("the server has gtid_mode {mode}, the restore needs {}", wanted.join(" or ")),
            )
            .hint(format!(
                "SET GLOBAL gtid_mode step by step (OFF, OFF_PERMISSIVE, ON_PERMISSIVE, ON) to {}",
                wanted.first().unwrap_or(&"ON")
            )));
        }
        let words = Words::of(&version);
        let ours = connection.query(&words.status()).await.is_ok_and(|rows| !rows.is_empty());
        let schemas = schemas(&mut connection).await?;
        let have = executed(&mut connection).await?;
        let loaded = ours && plan.by_gtid && !have.is_empty() && plan.base.coordinates.executed.is_subset_of(&have);
        if !ours {
            check_empty(&mut connection, &words, &schemas).await?;
        }
        let client = find_client(server.mysql.as_deref())?;
        let options = server.clone();
        let (connection, former, forgotten) = (Some(connection), Vec::new(), Vec::new());
        let mut site = Self { options, client, words, loaded, connection, former, forgotten };
        site.make_ready(&schemas, ours).await?;
        Ok(site)
    }

    /// From here on the server is ours: the channel says so.
    async fn make_ready(&mut self, schemas: &[String], ours: bool) -> Result<()> {
        let (words, loaded, workers) = (self.words, self.loaded, self.options.workers);
        let connection = self.connection()?;
        if !loaded {
            if ours {
                for schema in schemas {
                    connection.execute("SET SESSION sql_log_bin = 0").await?;
                    connection.execute(&format!("DROP DATABASE `{}`", schema.replace('`', "``"))).await?;
                }
                // How far the interrupted replay came says nothing of the base that is loaded anew.
                drop(connection.execute(&words.stop()).await);
                connection.execute(&words.reset_channel()).await?;
            }
            let settings = [("SOURCE_HOST", quoted("binvault.invalid")), ("SOURCE_USER", quoted("restore"))];
            connection.execute(&words.change(&settings)).await?;
        }
        let workers = workers.to_string();
        for (name, wanted) in [
            (EVENTS, "OFF"),
            ("replica_parallel_workers", workers.as_str()),
            ("sync_binlog", "0"),
            ("innodb_flush_log_at_trx_commit", "0"),
        ] {
            let name = words.variable(name);
            let former = value(self.connection()?, &name).await?;
            if former == wanted {
                if ours {
                    self.forgotten.push(name);
                }
                continue;
            }
            // A scheduler that is disabled cannot be told anything, and need not be.
            if former != "DISABLED" {
                self.connection()?.execute(&format!("SET GLOBAL {name} = {wanted}")).await?;
                self.former.push((name, former));
            }
        }
        Ok(())
    }

    /// Sets back what was changed: to what it was; and where only the interrupted run knew that, to the server's own
    /// default, for a server must not be left without durability. Events stay off: they might change the data.
    async fn put_back(&mut self) {
        let mut former = std::mem::take(&mut self.former);
        let forgotten = self.forgotten.iter().filter(|name| *name != EVENTS);
        former.extend(forgotten.map(|name| (name.clone(), "DEFAULT".to_owned())));
        let Ok(connection) = self.connection() else { return };
        for (name, value) in former {
            if let Err(error) = connection.execute(&format!("SET GLOBAL {name} = {value}")).await {
                tracing::warn!(error = %error.chain(), "{name} could not be set back to {value}");
            }
        }
    }
}

async fn value(connection: &mut Connection, variable: &str) -> Result<String> {
    let rows = connection.query(&format!("SELECT @@GLOBAL.{variable}")).await?;
    Ok(rows.first().and_then(|row| row.get_at(0)).unwrap_or("").to_owned())
}

async fn schemas(connection: &mut Connection) -> Result<Vec<String>> {
    let sql =
        format!("SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN ({SYSTEM_SCHEMAS})");
    let rows = connection.query(&sql).await?;
    Ok(rows.iter().filter_map(|row| row.get_at(0)).map(str::to_owned).collect())
}

async fn check_empty(connection: &mut Connection, words: &Words, schemas: &[String]) -> Result<()> {
    let refuse = |why: String| {
        Err(Error::config(format!("the server is not empty: {why}")).hint(
            "a restore never overwrites: give a freshly initialised server, or --datadir for a new data directory",
        ))
    };
    if let Some(schema) = schemas.first() {
        return refuse(format!("it has the schema {schema}"));
    }
    let rows = connection.query(&words.any_status()).await?;
    if !rows.is_empty() {
        return refuse("it is a replica".into());
    }
    Ok(())
}

#[async_trait]
impl Site for ServerSite {
    fn connection(&mut self) -> Result<&mut Connection> {
        self.connection.as_mut().ok_or_else(|| Error::failed("the server is not connected"))
    }

    fn words(&self) -> Words {
        self.words
    }

    fn is_loaded(&self) -> bool {
        self.loaded
    }

    async fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    fn destination(&self) -> Result<Destination> {
        Err(no_files())
    }

    async fn begin_on_files(&mut self) -> Result<()> {
        Err(no_files())
    }

    fn client(&self) -> Result<Command> {
        let mut command = Command::new(&self.client);
        command.arg("--no-defaults").args(["--user", &self.options.server.user]);
        match &self.options.server.address {
            Address::Tcp { host, port } => {
                command
                    .args(["--protocol=TCP", "--host", host, "--get-server-public-key"])
                    .arg(format!("--port={port}"));
            }
            Address::Socket(socket) => {
                command.arg(format!("--socket={}", socket.display()));
            }
        }
        let password = self.options.server.password.as_ref().map_or("", |secret| secret.expose_secret());
        command.env("MYSQL_PWD", password);
        Ok(command)
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let server = &self.options.server;
        let password = server.password.as_ref().map_or("", |secret| secret.expose_secret());
        let mut all = vec![("BINVAULT_USER", server.user.clone()), ("BINVAULT_PASSWORD", password.to_owned())];
        match &server.address {
            Address::Tcp { host, port } => {
                all.extend([("BINVAULT_HOST", host.clone()), ("BINVAULT_PORT", port.to_string())]);
            }
            Address::Socket(socket) => all.push(("BINVAULT_SOCKET", socket.display().to_string())),
        }
        all
    }

    async fn loaded(&mut self, have: &GtidSet) -> Result<()> {
        let words = self.words;
        let connection = self.connection()?;
        take_for_executed(connection, words, have).await?;
        // The accounts were loaded as rows: from here on they count. This connection stays what it is.
        connection.execute("SET SESSION sql_log_bin = 0").await?;
        connection.execute("FLUSH LOCAL PRIVILEGES").await?;
        self.loaded = true;
        Ok(())
    }

    fn listen_host(&self) -> String {
        self.options.listen_host.clone()
    }

    fn last_words(&self) -> String {
        String::new()
    }

    async fn leave(&mut self) -> Result<Left> {
        let words = self.words;
        let connection = self.connection()?;
        drop(connection.execute(&words.stop()).await);
        connection.execute(&words.reset_channel()).await?;
        let executed = executed(connection).await?;
        self.put_back().await;
        let mut next = vec![
            format!("the server is restored, its replication is reset (channel {CHANNEL}), its settings are back"),
            "its accounts are the archived server's now".to_owned(),
        ];
        if !self.forgotten.is_empty() {
            next.push(format!(
                "look at {}: an interrupted run had changed them, they have the server's defaults now (events are off)",
                self.forgotten.join(", ")
            ));
        }
        next.extend(protect_it());
        Ok(Left { executed, datadir: None, socket: None, next })
    }

    async fn abandon(&mut self) -> String {
        let words = self.words;
        if let Ok(connection) = self.connection() {
            drop(connection.execute(&words.stop()).await);
        }
        self.put_back().await;
        "run the same command again to go on; or make the server anew and begin again".to_owned()
    }
}
