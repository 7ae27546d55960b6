//! One connection to the donor in clone mode.
//!
//! Owns: entering and leaving the mode, whole messages, time limits. Does not own: what is said (`receive`), or what a
//! refusal means (`refuse`).
//!
//! In clone mode each command and each message has packet numbers of its own, from 0 (tested on 9.7).

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio_util::codec::{Framed, FramedParts};

use super::refuse::refusal;
use crate::base::engine::Trouble;
use crate::base::server::PROGRAM;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::mysql::clone::MESSAGE_BYTES_MAX;
use crate::mysql::clone::packet::{COM_CLONE, Command, Response};
use crate::mysql::fault::{ERR_HEADER, ServerError};
use crate::mysql::packet::PacketCodec;
use crate::mysql::stream::Stream;
use crate::mysql::{Connection, SourceOptions};

/// How long the donor waits for a recipient that does not read, or does not speak: a store may be slow. Honoured in
/// clone mode, where the server's own limit is a minute (tested on 9.7).
const PATIENT: &str = "SET SESSION net_write_timeout = 3600, net_read_timeout = 3600, wait_timeout = 604800";
/// How long leaving may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);
const COM_QUIT: u8 = 1;

/// A connection in clone mode.
pub(super) struct Link {
    framed: Framed<Stream, PacketCodec>,
    is_tls: bool,
}

impl Link {
    /// Connects, and enters clone mode.
    ///
    /// # Errors
    /// Those of connecting; what the donor refuses.
    pub(super) async fn open(source: &SourceOptions, account: &str) -> Result<Self, Trouble> {
        let mut connection = Connection::connect(source, PROGRAM).await?;
        connection.execute(PATIENT).await?;
        let is_tls = connection.is_tls();
        connection.write_command(&[COM_CLONE]).await?;
        let raw = connection.into_raw();
        let mut parts = FramedParts::new::<&[u8]>(raw.stream, PacketCodec::new(MESSAGE_BYTES_MAX));
        parts.read_buf = raw.leftover;
        let mut link = Self { framed: Framed::from_parts(parts), is_tls };
        let answer = link.receive(source.query_timeout).await?;
        match answer.first() {
            Some(0) => Ok(link),
            Some(&ERR_HEADER) => Err(refusal(ServerError::parse(&answer), account)),
            _ => Err(Error::new(Kind::Unreachable, "the donor answers COM_CLONE with what is no answer").into()),
        }
    }

    /// Whether TLS protects it.
    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Sends a command.
    ///
    /// # Errors
    /// [`Kind::Unreachable`].
    pub(super) async fn send(&mut self, command: &Command) -> Result<()> {
        let payload = command.encode()?;
        self.framed.codec_mut().start_command();
        let sent = clock::with_timeout(SourceOptions::QUERY_TIMEOUT, self.framed.send(&payload)).await;
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(lost("the connection broke").source(error)),
            None => Err(lost("the donor takes nothing")),
        }
    }

    /// The next message. Safe to cancel.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] if the connection ends or nothing comes within the limit.
    pub(super) async fn receive(&mut self, limit: Duration) -> Result<Bytes> {
        match clock::with_timeout(limit, self.framed.next()).await {
            Some(Some(Ok(message))) => Ok(message),
            Some(Some(Err(error))) => Err(lost("the connection broke").source(error)),
            Some(None) => Err(lost("the donor closed the connection")),
            None => Err(lost(&format!("nothing has come for {} s", limit.as_secs()))),
        }
    }

    /// Sends a command whose answer is its end.
    ///
    /// # Errors
    /// As for sending and receiving; what the donor says.
    pub(super) async fn ask(&mut self, command: &Command, limit: Duration) -> Result<(), Trouble> {
        self.send(command).await?;
        loop {
            let message = self.receive(limit).await?;
            match Response::parse(&message)? {
                Response::Complete => return Ok(()),
                Response::Error { code, message } => return Err(refusal(server_error(code, message), "")),
                _ => {}
            }
        }
    }

    /// Reads what comes until the donor has answered or gone, and keeps nothing of it.
    pub(super) async fn drain(&mut self, limit: Duration) {
        let until_end = async {
            while let Ok(message) = self.receive(limit).await {
                if matches!(Response::parse(&message), Ok(Response::Complete | Response::Error { .. })) {
                    break;
                }
            }
        };
        let _ = clock::with_timeout(limit, until_end).await;
    }

    /// Leaves the mode and the server. What goes wrong does not matter any more.
    pub(super) async fn leave(mut self) {
        if self.ask(&Command::Exit, LEAVE_LIMIT).await.is_ok() {
            self.framed.codec_mut().start_command();
            let _ = clock::with_timeout(LEAVE_LIMIT, self.framed.send(&[COM_QUIT][..])).await;
        }
    }
}

/// A clone message's error as the server's own.
pub(super) fn server_error(code: i32, message: &[u8]) -> ServerError {
    ServerError {
        code: u16::try_from(code).unwrap_or(0),
        sqlstate: "HY000".to_owned(),
        message: String::from_utf8_lossy(message).into_owned(),
    }
}

fn lost(why: &str) -> Error {
    Error::new(Kind::Unreachable, format!("receive the clone: {why}"))
}
