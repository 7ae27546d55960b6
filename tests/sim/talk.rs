//! The server's end of a connection: greeting, the questions of the agent, and the way into a dump.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use binvault::clock;
use binvault::mysql::packet::{PAYLOAD_BYTES_MAX, PacketCodec};
use binvault::simulation;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::codec::{Decoder, Encoder};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::answers::{Answer, answer};
use crate::dice::Dice;
use crate::dump::{Ask, serve};
use crate::event::VERSION;
use crate::world::{Life, Line, Net, World, lock};

/// How long a server keeps a connection whose other end has fallen silent.
const SILENT_LIMIT: Duration = Duration::from_secs(60);
const PIPE_BYTES: usize = 64 << 10;

/// What a client has said of itself.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) replica: Option<Uuid>,
    pub(crate) semi_sync: bool,
}

/// One end of a pipe, with the network's manners.
pub(crate) struct Wire<W> {
    pub(crate) stream: W,
    world: Arc<World>,
    dice: Dice,
}

impl<W: tokio::io::AsyncWrite + Unpin> Wire<W> {
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let slow = *lock(&self.world.net) == Net::Slow;
        clock::sleep(Duration::from_millis(if slow { self.dice.between(5, 120) } else { self.dice.below(3) })).await;
        let mut left = bytes;
        while slow && left.len() > 1 && self.dice.percent(70) {
            let most = (left.len() as u64 - 1).min(20_000);
            let (now, rest) = left.split_at(usize::try_from(self.dice.between(1, most)).unwrap());
            self.stream.write_all(now).await?;
            clock::sleep(Duration::from_millis(self.dice.below(40))).await;
            left = rest;
        }
        self.stream.write_all(left).await
    }

    pub(crate) fn split_off<V>(
        self,
        other: impl FnOnce(W) -> (V, tokio::io::ReadHalf<DuplexStream>),
    ) -> (Wire<V>, tokio::io::ReadHalf<DuplexStream>) {
        let (writing, reading) = other(self.stream);
        (Wire { stream: writing, world: self.world, dice: self.dice }, reading)
    }
}

/// Opens a connection for an agent's life, as the network allows.
pub(crate) fn connect(world: &Arc<World>, life: Arc<Life>) -> simulation::Connecting {
    let world = Arc::clone(world);
    Box::pin(async move {
        clock::sleep(Duration::from_millis(world.below(5))).await;
        if life.dead.is_cancelled() || *lock(&world.net) == Net::Silent {
            std::future::pending::<()>().await;
        }
        if *lock(&world.net) == Net::Refused || !lock(&world.server).up {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (theirs, ours) = tokio::io::duplex(PIPE_BYTES);
        tokio::spawn(converse(world, life.name.clone(), ours));
        Ok(theirs)
    })
}

/// Serves a connection until it ends, one way or another.
async fn converse(world: Arc<World>, life: String, stream: DuplexStream) {
    let new = CancellationToken::new;
    let line = Line { life, cut: new(), ended: new(), frozen: new() };
    let id = {
        let mut lines = lock(&world.lines);
        let id = lines.last_key_value().map_or(10, |(id, _)| id + 1);
        lines.insert(id, line.clone());
        id
    };
    let dice = lock(&world.dice).fork();
    let wire = Wire { stream, world: Arc::clone(&world), dice };
    let (cut, frozen) = (line.cut.clone(), line.frozen.clone());
    let mut talking = Box::pin(Talk::new(Arc::clone(&world), id, line, wire).run());
    tokio::select! {
        biased;
        () = cut.cancelled() => {}
        () = frozen.cancelled() => {
            // The server does not know better for a while, and what waits for the replica waits.
            tokio::select! {
                biased;
                () = cut.cancelled() => {}
                () = clock::sleep(SILENT_LIMIT) => {}
            }
        }
        result = &mut talking => drop(result),
    }
    {
        let mut server = lock(&world.server);
        let gone = server.dumps.remove(&id).is_some_and(|dump| dump.semi_sync);
        let left = server.dumps.values().any(|dump| dump.semi_sync);
        if let Some(plugin) = server.plugin.as_mut().filter(|_| gone && !left) {
            plugin.switch_off();
        }
    }
    lock(&world.lines).remove(&id);
    world.stir();
}

struct Talk {
    world: Arc<World>,
    id: u32,
    line: Line,
    wire: Wire<DuplexStream>,
    codec: PacketCodec,
    buffer: BytesMut,
    session: Session,
}

impl Talk {
    fn new(world: Arc<World>, id: u32, line: Line, wire: Wire<DuplexStream>) -> Self {
        let codec = PacketCodec::new(PAYLOAD_BYTES_MAX);
        Self { world, id, line, wire, codec, buffer: BytesMut::new(), session: Session::default() }
    }

    async fn run(mut self) -> io::Result<()> {
        self.write(&[greeting(self.id)]).await?;
        self.read().await?;
        self.write(&[ok()]).await?;
        loop {
            let command = self.read().await?;
            let Some((code, body)) = command.split_first() else { return Ok(()) };
            match code {
                0x01 => return Ok(()),
                0x0e | 0x15 => self.write(&[ok()]).await?,
                0x03 => self.query(&String::from_utf8_lossy(body)).await?,
                0x12 | 0x1e => {
                    let Talk { world, id, line, wire, session, .. } = self;
                    let ask = Ask::parse(*code, body);
                    world.note(|| {
                        format!("{} dumps {}:{} semi-sync {}", line.life, ask.file, ask.position, session.semi_sync)
                    });
                    return serve(world, id, line, wire, session, ask).await;
                }
                other => panic!("command {other:#x}"),
            }
        }
    }

    async fn query(&mut self, text: &str) -> io::Result<()> {
        let packets = match answer(&self.world, text, &mut self.session) {
            Answer::Ok => vec![ok()],
            Answer::Rows(columns, rows) => result(&columns, &rows),
            Answer::Error(code, text) => vec![error(code, &text)],
        };
        self.write(&packets).await
    }

    async fn read(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(packet) = self.codec.decode(&mut self.buffer).map_err(io::Error::other)? {
                return Ok(packet);
            }
            if self.wire.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn write(&mut self, packets: &[Vec<u8>]) -> io::Result<()> {
        let mut out = BytesMut::new();
        for packet in packets {
            self.codec.encode(packet, &mut out).map_err(io::Error::other)?;
        }
        self.wire.write(&out).await
    }
}

/// HandshakeV10; the account has no password.
fn greeting(id: u32) -> Vec<u8> {
    let mut out = vec![10];
    out.extend(VERSION.as_bytes());
    out.push(0);
    out.extend(id.to_le_bytes());
    out.extend(b"ABCDEFGH\0\xff\xf7\xff\x02\0\xff\xdf\x15");
    out.extend([0; 10]);
    out.extend(b"IJKLMNOPQRST\0caching_sha2_password\0");
    out
}

fn ok() -> Vec<u8> {
    vec![0, 0, 0, 2, 0, 0, 0]
}

/// An ERR packet.
pub(crate) fn error(code: u16, text: &str) -> Vec<u8> {
    [&[0xff], &code.to_le_bytes()[..], b"#HY000", text.as_bytes()].concat()
}

fn text(out: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length) if length < 0xfb => out.push(length),
        _ => {
            out.push(0xfc);
            out.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
        }
    }
    out.extend(text.as_bytes());
}

/// A result set, ended as CLIENT_DEPRECATE_EOF has it.
fn result(columns: &[&str], rows: &[Vec<String>]) -> Vec<Vec<u8>> {
    let mut packets = vec![vec![u8::try_from(columns.len()).unwrap()]];
    for column in columns {
        let mut packet = b"\x03def\0\0\0".to_vec();
        text(&mut packet, column);
        packet.extend([0, 0x0c, 45, 0, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0]);
        packets.push(packet);
    }
    for row in rows {
        let mut packet = Vec::new();
        row.iter().for_each(|value| text(&mut packet, value));
        packets.push(packet);
    }
    packets.push(vec![0xfe, 0, 0, 2, 0, 0, 0]);
    packets
}
