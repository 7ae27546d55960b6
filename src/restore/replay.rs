//! Replay: the server follows us as it would follow any source, until it has executed all that the plan says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::prove::{position, stands_at};
use super::site::{Site, executed};
use super::words::{CHANNEL, Words, quoted};
use super::{POLL, RestoreOptions, Step, stopped};
use secrecy::ExposeSecret;

use crate::clock;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::Row;
use crate::mysql::event::{FIRST_EVENT, HEADER_BYTES, Header};
use crate::playback::{Playback, PlaybackOptions};
use crate::position::{ByteRange, Position};

/// Replays the plan's files.
///
/// # Errors
/// What keeps an object from being read; what the server could not apply, in its own words.
pub(super) async fn replay(options: &RestoreOptions, site: &mut dyn Site) -> Result<()> {
    let plan = &options.plan;
    if plan.playlist.is_empty() {
        return Ok(());
    }
    if plan.by_gtid {
        let beyond = executed(site.connection()?).await?.minus(&plan.expected);
        if !beyond.is_empty() {
            return Err(Error::new(
                Kind::Config,
                format!("the interrupted restore has gone beyond the target: it has executed {beyond}"),
            )
            .hint("restore into a new, empty place; or choose a target behind those transactions"));
        }
    }
    let playback = Playback::start(PlaybackOptions {
        archive: options.archive.clone(),
        read: options.read.clone(),
        playlist: plan.playlist.clone(),
        listen: listen(&site.listen_host())?,
        server_version: plan.base.server_version.clone(),
        by_gtid: plan.by_gtid,
        skip: plan.skip.clone(),
    })
    .await?;
    let result = follow(options, site, &playback).await;
    playback.stop().await;
    result
}

async fn follow(options: &RestoreOptions, site: &mut dyn Site, playback: &Playback) -> Result<()> {
    begin(options, site, playback).await.context(|| "make the server follow the archive".into())?;
    let start = options.plan.base.coordinates.executed.clone();
    loop {
        if options.stop.run_until_cancelled(clock::sleep(POLL)).await.is_none() {
            return Err(stopped());
        }
        let reached = reached(options, site).await;
        let reached = match reached {
            Ok(reached) => reached,
            Err(error) => {
                let words = site.last_words();
                let said = if words.is_empty() { String::new() } else { format!(" (its log: {words})") };
                return Err(Error::failed(format!("the restoring server was lost{said}")).source(error));
            }
        };
        let sent = playback.progress();
        let transactions = match options.plan.by_gtid {
            true => Some(executed(site.connection()?).await?.minus(&start).count()),
            false => None,
        };
        (options.on_step)(&Step::Replay {
            bytes: sent.bytes_sent,
            total: sent.bytes_total,
            transactions,
            position: sent.position,
            reached: sent.commit,
        });
        if reached {
            return Ok(());
        }
        let words = site.words();
        let rows = site.connection()?.query(&words.status()).await?;
        check(&words, rows.first(), playback)?;
    }
}

/// Points the server's channel at us and starts it.
async fn begin(options: &RestoreOptions, site: &mut dyn Site, playback: &Playback) -> Result<()> {
    let plan = &options.plan;
    let words = site.words();
    let from = if plan.by_gtid { None } else { position(site).await? };
    if let Some(at) = from.as_ref().filter(|at| !is_ahead(plan, at)) {
        // To begin at the base again would apply everything twice.
        return Err(Error::new(
            Kind::Config,
            format!("the interrupted restore stands at {at}, beyond the target {}", plan.place.position),
        )
        .hint("restore into a new, empty place; or choose a target behind that position"));
    }
    let connection = site.connection()?;
    // A channel that an interrupted restore left: the archive has everything that its relay logs have.
    drop(connection.execute(&words.stop()).await);
    drop(connection.execute(&words.reset_channel()).await);
    let address = playback.address();
    let mut settings = vec![
        ("SOURCE_HOST", quoted(&address.ip().to_string())),
        ("SOURCE_PORT", address.port().to_string()),
        ("SOURCE_USER", quoted(playback.user())),
        ("SOURCE_PASSWORD", quoted(playback.password().expose_secret())),
        ("SOURCE_SSL", "0".to_owned()),
        ("SOURCE_CONNECT_RETRY", "1".to_owned()),
        ("SOURCE_RETRY_COUNT", "86400".to_owned()),
        ("SOURCE_HEARTBEAT_PERIOD", "2".to_owned()),
    ];
    if plan.by_gtid {
        settings.push(("SOURCE_AUTO_POSITION", "1".to_owned()));
    } else {
        let Position { file, offset } = from.unwrap_or_else(|| plan.base.coordinates.position());
        settings.push(("SOURCE_AUTO_POSITION", "0".to_owned()));
        settings.push(("SOURCE_LOG_FILE", quoted(file.as_str())));
        settings.push(("SOURCE_LOG_POS", offset.to_string()));
    }
    connection.execute(&words.change(&settings)).await?;
    connection.execute(&words.start()).await?;
    Ok(())
}

/// A port of the system's choice at a host of ours.
fn listen(host: &str) -> Result<SocketAddr> {
    let host: IpAddr = host.parse().map_err(|error| {
        Error::config(format!("{host:?} is no address to listen at"))
            .source(error)
            .hint("give the IP address of this host by which the server reaches it")
    })?;
    Ok(SocketAddr::new(host, 0))
}

/// The archived server's id, from the header of the first event to be played.
pub(super) async fn server_id(options: &RestoreOptions) -> Result<Option<u32>> {
    let Some(play) = options.plan.playlist.files.first() else { return Ok(None) };
    let head = ByteRange::new(FIRST_EVENT, FIRST_EVENT.saturating_add(HEADER_BYTES as u64));
    let Some(head) = head.filter(|head| head.end() <= play.chunks.cover.contiguous_end) else { return Ok(None) };
    let mut reader = options.archive.read_range(Arc::clone(&play.chunks), head, &options.read);
    let mut bytes = Vec::new();
    while let Some(block) = reader.next().await? {
        bytes.extend_from_slice(&block.bytes);
    }
    Ok(Header::parse(&bytes).map(|header| header.server_id))
}

/// Whether a channel's position is one of the plan's own, so that an interrupted replay goes on there.
fn is_ahead(plan: &crate::timeline::Plan, at: &Position) -> bool {
    let base = plan.base.coordinates.position();
    (base..=plan.place.position.clone()).contains(at)
}

/// Whether everything is executed.
async fn reached(options: &RestoreOptions, site: &mut dyn Site) -> Result<bool> {
    let plan = &options.plan;
    if plan.by_gtid {
        return Ok(plan.expected.is_subset_of(&executed(site.connection()?).await?));
    }
    Ok(position(site).await?.is_some_and(|at| stands_at(plan, &at)))
}

/// Errors that a replica's receiver does not get over by trying again.
const RECEIVER_GIVES_UP: &[&str] = &["1236", "13114", "13117", "13122", "1593", "1595"];

/// Judges the channel's state.
fn check(words: &Words, status: Option<&Row>, playback: &Playback) -> Result<()> {
    let Some(row) = status else {
        return Err(Error::failed(format!("the server has lost its channel {CHANNEL}")));
    };
    let column = |name: &str| words.column(row, name).unwrap_or("").to_owned();
    let applier = column("Last_SQL_Errno");
    if !matches!(applier.as_str(), "" | "0") {
        let at = format!("{}:{}", column("Relay_Source_Log_File"), column("Exec_Source_Log_Pos"));
        return Err(Error::failed(format!("the server could not apply what follows {at}: error {applier}: {}", column("Last_SQL_Error")))
            .hint("leave the transaction out with --skip GTID if it is the culprit, or restore to just before it with --before"));
    }
    if let Some(failure) = playback.failure() {
        return Err(failure.context(
            "replay stopped: nothing behind the last good byte was applied; targets before it can still be restored",
        ));
    }
    let receiver = column("Last_IO_Errno");
    if RECEIVER_GIVES_UP.contains(&receiver.as_str()) {
        return Err(Error::failed(format!(
            "the server does not follow the archive: error {receiver}: {}",
            column("Last_IO_Error")
        )));
    }
    Ok(())
}
