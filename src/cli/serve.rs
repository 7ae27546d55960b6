//! `serve`: the archive as a replication source.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::archive::{KeyArgs, open, parse_server};
use super::{output, signals};
use crate::archive::ReadOptions;
use crate::config::Config;
use crate::error::Result;
use crate::position::ServerUuid;
use crate::serve::{ServeOptions, Serving, serve};

/// `binvault serve`
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Address and port to listen on, instead of the configured ones
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Serve this server's history; without it, that of the server with the newest file
    #[arg(long, value_name = "UUID", value_parser = parse_server)]
    server: Option<ServerUuid>,
    /// Send each transaction only when it was committed so long ago (1h, 30m)
    #[arg(long, value_name = "TIME", value_parser = parse_delay)]
    delay: Option<Duration>,
    #[command(flatten)]
    keys: KeyArgs,
}

fn parse_delay(text: &str) -> Result<Duration, String> {
    let parsed: Option<jiff::SignedDuration> = text.parse().ok();
    let delay = parsed.and_then(|delay| Duration::try_from(delay).ok());
    delay.ok_or_else(|| "no duration: write 1h, 30m, 90s".to_owned())
}

pub(super) async fn run(config: &Config, args: &ServeArgs) -> Result<()> {
    let settings = config.serve(args.listen.as_deref())?;
    let keys = args.keys.read(config)?;
    let stop = signals::stop_token("replicas are let go", "replicas connect again by themselves")?;
    let user = settings.account.user.clone();
    let options = ServeOptions {
        archive: open(config).await?,
        read: ReadOptions::new(Arc::new(keys)),
        listen: settings.listen,
        account: settings.account,
        security: settings.security,
        clients_max: settings.replicas_max,
        server_id: settings.server_id,
        server: args.server,
        poll_interval: settings.poll_interval,
        delay: args.delay,
        until: None,
    };
    serve(options, stop, |serving| show(serving, &user)).await?;
    tracing::info!("stopped in good order");
    Ok(())
}

/// What to type on the replica.
fn show(serving: &Serving, user: &str) {
    let Serving { address, server, by_gtid, first, tls } = serving;
    let place = if *by_gtid {
        "SOURCE_AUTO_POSITION = 1".to_owned()
    } else {
        format!("SOURCE_AUTO_POSITION = 0, SOURCE_LOG_FILE = '{first}', SOURCE_LOG_POS = 4")
    };
    tracing::info!(%address, %server, "serving");
    output::note(format!(
        "On the replica:\n  CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{}', SOURCE_PORT = {}, SOURCE_USER = '{user}',\n    \
         SOURCE_PASSWORD = '…', SOURCE_SSL = {}, {place};\n  START REPLICA;",
        address.ip(),
        address.port(),
        u8::from(*tls)
    ));
}
