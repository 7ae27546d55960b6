//! `serve`: the archive as a replication source.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::archive::{KeyArgs, open};
use super::{output, signals};
use crate::archive::ReadOptions;
use crate::clock;
use crate::config::Config;
use crate::error::Result;
use crate::serve::{ServeOptions, Serving, serve};
use crate::timeline::{Edge, Target};

/// `binvault serve`
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Address and port to listen on, instead of the configured ones
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// History to follow, where the archive has several: a server's uuid, or the beginning of it
    #[arg(long, value_name = "HEAD")]
    head: Option<String>,
    /// Send nothing behind this: a time | gtid:UUID:N | FILE:POSITION, as `restore --to` takes it
    #[arg(long, value_name = "TARGET")]
    until: Option<String>,
    /// Leave the target's own transaction out
    #[arg(long, requires = "until", conflicts_with = "after")]
    before: bool,
    /// Take the target's own transaction in
    #[arg(long, requires = "until")]
    after: bool,
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

impl ServeArgs {
    fn target(&self) -> Result<Option<(Target, Option<Edge>)>> {
        let edge = match (self.before, self.after) {
            (true, _) => Some(Edge::Before),
            (_, true) => Some(Edge::After),
            _ => None,
        };
        let target = self.until.as_deref().map(|text| Target::parse(text, &clock::zoned_now())).transpose()?;
        Ok(target.map(|target| (target, edge)))
    }
}

pub(super) async fn run(config: &Config, args: &ServeArgs) -> Result<()> {
    let settings = config.serve(args.listen.as_deref())?;
    let keys = args.keys.read(config)?;
    let stop = signals::stop_token(
        "connections end; replicas go on where they are when this serves again",
        "replicas go on where they are when this serves again",
    )?;
    let user = settings.account.user.clone();
    let options = ServeOptions {
        archive: open(config).await?,
        read: ReadOptions::new(Arc::new(keys)),
        listen: settings.listen,
        account: settings.account,
        security: settings.security,
        clients_max: settings.replicas_max,
        server_id: settings.server_id,
        head: args.head.clone(),
        poll_interval: settings.poll_interval,
        delay: args.delay,
        until: args.target()?,
    };
    serve(options, stop, |serving| show(serving, &user)).await?;
    tracing::info!("stopped in good order");
    Ok(())
}

/// What to type on the replica.
fn show(serving: &Serving, user: &str) {
    let Serving { address, head, by_gtid, first, tls } = serving;
    let place = if *by_gtid {
        "SOURCE_AUTO_POSITION = 1".to_owned()
    } else {
        format!("SOURCE_AUTO_POSITION = 0, SOURCE_LOG_FILE = '{first}', SOURCE_LOG_POS = 4")
    };
    tracing::info!(%address, head = head.name, "serving");
    output::note(format!(
        "On the replica:\n  CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{}', SOURCE_PORT = {}, SOURCE_USER = '{user}',\n    \
         SOURCE_PASSWORD = '…', SOURCE_SSL = {}, {place};\n  START REPLICA;",
        address.ip(),
        address.port(),
        u8::from(*tls)
    ));
}
