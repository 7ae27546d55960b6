//! One client, from its connection to the dump it asks for.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::codec::{Decoder, Encoder};

use super::command::{Ask, Command};
use super::event::put_length_encoded;
use super::login::{self, NONCE_BYTES, PLUGIN, Response, STATUS};
use super::packets::EventPackets;
use super::question::{self, Answer, Replica};
use super::{Account, Face, Refusal};
use crate::clock;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::packet::{LOGIN_PAYLOAD_BYTES_MAX, PacketCodec};
use crate::mysql::stream;

/// Time for TLS and login.
const LOGIN_LIMIT: Duration = Duration::from_secs(10);
/// Time for each word between login and dump, and for writing each answer.
const WORD_LIMIT: Duration = Duration::from_secs(60);
/// What a wrong password costs the client.
const REFUSAL_PAUSE: Duration = Duration::from_millis(300);
/// Longest command: a set of GTIDs may be large.
const COMMAND_BYTES_MAX: usize = 16 << 20;

/// A connection's bytes, in clear or not.
trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// How connections are protected.
#[derive(Clone, Default)]
pub struct Security {
    /// TLS for clients that ask for it.
    pub tls: Option<TlsAcceptor>,
    /// Refuse clients from other hosts that do not use it.
    pub remote_needs_tls: bool,
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Security")
            .field("tls", &self.tls.is_some())
            .field("remote_needs_tls", &self.remote_needs_tls)
            .finish()
    }
}

/// A client that is logged in.
pub struct Conversation {
    stream: Box<dyn Duplex>,
    codec: PacketCodec,
    face: Face,
    replica: Replica,
}

/// The bytes of a connection on which the dump runs.
pub struct DumpStream(Box<dyn Duplex>);

impl Conversation {
    /// Greets a client and lets it in, if it proves to be the account.
    ///
    /// # Errors
    /// [`Kind::Refused`] if it is not let in (it was told); [`Kind::Unreachable`] if it goes away or is silent.
    pub async fn accept(
        tcp: TcpStream,
        peer: SocketAddr,
        number: u32,
        face: &Face,
        account: &Account,
        security: &Security,
    ) -> Result<Self> {
        let login = Box::pin(Self::login(tcp, peer, number, face, account, security));
        let in_time = clock::with_timeout(LOGIN_LIMIT, login).await;
        in_time.unwrap_or_else(|| Err(gone("log in within 10 s")))
    }

    /// Says to a client that there is no room, instead of greeting it.
    pub async fn turn_away(mut tcp: TcpStream, text: &str) {
        let mut out = BytesMut::new();
        let refusal = Refusal::new(1040, b"08004", text);
        if PacketCodec::new(LOGIN_PAYLOAD_BYTES_MAX).encode(&refusal.payload(), &mut out).is_ok() {
            // It is turned away in any case.
            let _ = clock::with_timeout(WORD_LIMIT, tcp.write_all(&out)).await;
        }
    }

    async fn login(
        tcp: TcpStream,
        peer: SocketAddr,
        number: u32,
        face: &Face,
        account: &Account,
        security: &Security,
    ) -> Result<Self> {
        stream::prepare(&tcp).map_err(|error| gone("stay").source(error))?;
        let nonce = login::nonce()?;
        let codec = PacketCodec::new(LOGIN_PAYLOAD_BYTES_MAX);
        let mut own = Self { stream: Box::new(tcp), codec, face: face.clone(), replica: Replica::default() };
        own.write(&login::greeting(face, number, &nonce, security.tls.is_some())).await?;
        let mut response = own.read().await?;
        let mut secure = false;
        if let (Some(Response::Tls), Some(tls)) = (Response::parse(&response), &security.tls) {
            // Nothing of the client's TLS was read yet: packets are read to their last byte and no further.
            let stream = tls.accept(own.stream).await.map_err(|e| gone("start TLS").source(e))?;
            own.stream = Box::new(stream);
            secure = true;
            response = own.read().await?;
        }
        if !secure && security.remote_needs_tls && !peer.ip().to_canonical().is_loopback() {
            let text = "connections from other hosts need TLS here (for a replica: SOURCE_SSL=1)";
            return Err(own.refuse(Refusal::new(3159, b"HY000", text)).await);
        }
        let Some(Response::Login { user, proof, plugin }) = Response::parse(&response) else {
            let text = "only clients of protocol 4.1 with authentication plugins are served";
            return Err(own.refuse(Refusal::new(1251, b"08004", text)).await);
        };
        let proof =
            if plugin == PLUGIN.as_bytes() { Bytes::copy_from_slice(proof) } else { own.switch(&nonce).await? };
        if !login::proves(account, user, &proof, &nonce) {
            clock::sleep(REFUSAL_PAUSE).await;
            let shown: String = String::from_utf8_lossy(user).chars().filter(|c| !c.is_control()).take(64).collect();
            let used = if proof.is_empty() { "NO" } else { "YES" };
            let text = format!("Access denied for user '{shown}'@'{}' (using password: {used})", peer.ip());
            return Err(own.refuse(Refusal::new(1045, b"28000", text)).await);
        }
        // "The password is right", then OK.
        own.write(&[1, 3]).await?;
        own.write(&ok()).await?;
        own.codec.set_limit(COMMAND_BYTES_MAX);
        Ok(own)
    }

    /// Asks for a proof by our method.
    async fn switch(&mut self, nonce: &[u8; NONCE_BYTES]) -> Result<Bytes> {
        self.write(&login::switch(nonce)).await?;
        self.read().await
    }

    /// Answers until a dump is asked for; `None` when the client has left.
    ///
    /// # Errors
    /// If the connection breaks, or the client is silent for a minute.
    pub async fn next_ask(&mut self) -> Result<Option<Ask>> {
        loop {
            let payload = match clock::with_timeout(WORD_LIMIT, self.read()).await {
                Some(Ok(payload)) => payload,
                Some(Err(error)) if error.kind() == Kind::Unreachable => return Ok(None),
                Some(Err(error)) => return Err(error),
                None => return Err(gone("say something within 60 s")),
            };
            match Command::parse(&payload) {
                Command::Quit => return Ok(None),
                Command::Ping | Command::InitDb => self.write(&ok()).await?,
                Command::Register { server_id } => {
                    self.replica.server_id = Some(server_id);
                    self.write(&ok()).await?;
                }
                Command::Query(text) => self.answer(text).await?,
                Command::Dump(ask) => {
                    if self.replica.checksums.is_some() {
                        return Ok(Some(ask));
                    }
                    let text =
                        "Replica can not handle replication events with the checksum that source is configured to log";
                    self.write(&Refusal::of_dump(text).payload()).await?;
                }
                Command::Other => {
                    let text = "this is an archive that answers replicas and mysqlbinlog only";
                    self.write(&Refusal::new(1047, b"08S01", text).payload()).await?;
                }
                Command::Malformed => {
                    self.write(&Refusal::new(1835, b"HY000", "Malformed communication packet").payload()).await?;
                }
            }
        }
    }

    async fn answer(&mut self, text: &[u8]) -> Result<()> {
        match question::answer(text, &self.face, &mut self.replica, clock::now_us() / 1_000_000) {
            Answer::Ok => self.write(&ok()).await,
            Answer::Refused(refusal) => self.write(&refusal.payload()).await,
            Answer::Row { column, value } => {
                let end = [0xfe, 0, 0, 2, 0];
                for packet in [&[1][..], &definition(&column), &end, &row(value.as_deref()), &end] {
                    self.write(packet).await?;
                }
                Ok(())
            }
        }
    }

    /// What the client told about itself so far.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// What it was shown.
    pub fn face(&self) -> &Face {
        &self.face
    }

    /// Answers a dump that cannot begin; the client may ask for another.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn refuse_dump(&mut self, refusal: &Refusal) -> Result<()> {
        self.write(&refusal.payload()).await
    }

    /// The connection, to be filled with packets of events.
    pub fn into_dump(self) -> (DumpStream, EventPackets) {
        // The command had number 0.
        (DumpStream(self.stream), EventPackets::new(1))
    }

    async fn refuse(&mut self, refusal: Refusal) -> Error {
        let told = self.write(&refusal.payload()).await;
        told.err().unwrap_or_else(|| Error::new(Kind::Refused, refusal.to_string()))
    }

    /// Reads one packet, and not a byte more.
    async fn read(&mut self) -> Result<Bytes> {
        let mut buffer = BytesMut::new();
        loop {
            let mut header = [0; 4];
            self.stream.read_exact(&mut header).await.map_err(|e| gone("read").source(e))?;
            buffer.extend_from_slice(&header);
            let [a, b, c, _] = header;
            let length = usize::try_from(u32::from_le_bytes([a, b, c, 0])).unwrap_or(usize::MAX);
            let mut packet = self.decode(&mut buffer)?;
            if packet.is_none() && length > 0 {
                // The codec has held the length against its limit.
                let from = buffer.len();
                buffer.resize(from.saturating_add(length), 0);
                let body = buffer.get_mut(from..).unwrap_or(&mut []);
                self.stream.read_exact(body).await.map_err(|e| gone("read").source(e))?;
                packet = self.decode(&mut buffer)?;
            }
            if let Some(packet) = packet {
                return Ok(packet);
            }
        }
    }

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>> {
        self.codec.decode(buffer).map_err(|error| Error::new(Kind::Refused, "read what a client says").source(error))
    }

    async fn write(&mut self, payload: &[u8]) -> Result<()> {
        let mut out = BytesMut::new();
        self.codec.encode(payload, &mut out).map_err(|error| Error::failed("write an answer").source(error))?;
        let written = clock::with_timeout(WORD_LIMIT, async {
            self.stream.write_all(&out).await?;
            self.stream.flush().await
        });
        let Some(written) = written.await else { return Err(gone("take an answer within 60 s")) };
        written.map_err(|error| gone("write").source(error))
    }
}

impl DumpStream {
    /// Writes all that waits.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] if the client is gone.
    pub async fn write(&mut self, packets: &mut EventPackets) -> Result<()> {
        if packets.buffered().is_empty() {
            return Ok(());
        }
        self.0.write_all(packets.buffered()).await.map_err(|error| gone("write").source(error))?;
        self.0.flush().await.map_err(|error| gone("write").source(error))?;
        packets.written();
        Ok(())
    }

    /// Waits until the client goes away. During a dump it says nothing else.
    pub async fn gone(&mut self) {
        let mut word = [0; 256];
        while self.0.read(&mut word).await.is_ok_and(|got| got > 0) {}
    }

    /// Ends the connection in good order, so that what was written last arrives.
    ///
    /// # Errors
    /// If the client is gone already.
    pub async fn close(mut self) -> Result<()> {
        self.0.shutdown().await.context(|| "end a connection".into())
    }
}

fn gone(what: &str) -> Error {
    Error::new(Kind::Unreachable, format!("the client does not {what}, or has gone away"))
}

fn ok() -> [u8; 7] {
    let [low, high] = STATUS.to_le_bytes();
    [0, 0, 0, low, high, 0, 0]
}

/// A text column's definition.
fn definition(column: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for text in ["def", "", "", "", column, column] {
        put_length_encoded(&mut out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
    // Fixed part: its length, character set u16, width u32, type VAR_STRING, flags u16, decimals, two bytes of nothing.
    out.extend_from_slice(&[0x0c, 255, 0, 0, 4, 0, 0, 0xfd, 0, 0, 31, 0, 0]);
    out
}

fn row(value: Option<&str>) -> Vec<u8> {
    let Some(value) = value else { return vec![0xfb] };
    let mut out = Vec::new();
    put_length_encoded(&mut out, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
    out
}
