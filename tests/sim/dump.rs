//! The server's end of a dump: what a replica is sent, and what the server hears from one that acknowledges.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use binvault::clock;
use binvault::mysql::source::{format_description, heartbeat, rotate};
use tokio::io::{AsyncReadExt, DuplexStream, ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;

use crate::semi_sync::At;
use crate::server::{Dump, Server};
use crate::talk::{Session, Wire, error};
use crate::world::{Line, World, lock};

const FATAL: u16 = 1236;
/// Events that go out together.
const BATCH_BYTES: usize = 16 << 10;
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// What is asked for.
pub(crate) struct Ask {
    pub(crate) file: String,
    pub(crate) position: u64,
    by_gtid: bool,
    /// Ends where the log ends.
    non_block: bool,
}

impl Ask {
    pub(crate) fn parse(code: u8, body: &[u8]) -> Self {
        let number = |at: usize, bytes: usize| {
            body[at..at + bytes].iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if code == 0x12 {
            let non_block = number(4, 2) & 1 == 1;
            return Self { file: text(&body[10..]), position: number(0, 4), by_gtid: false, non_block };
        }
        let end = 10 + usize::try_from(number(6, 4)).unwrap();
        let non_block = number(0, 2) & 1 == 1;
        Self { file: text(&body[10..end]), position: number(end, 8), by_gtid: true, non_block }
    }

    /// Where in the log that is, or what a server says to it.
    fn find(&self, server: &Server) -> Result<usize, &'static str> {
        let index = server.find(&self.file).ok_or("Could not find first log file name in binary log index file")?;
        let file = &server.files[index];
        if self.position > file.kept {
            return Err("Client requested source to start replication from position > file size");
        }
        Ok(index)
    }
}

/// Serves a dump until the connection ends.
pub(crate) async fn serve(
    world: Arc<World>,
    id: u32,
    line: Line,
    mut wire: Wire<DuplexStream>,
    session: Session,
    ask: Ask,
) -> io::Result<()> {
    let begun = begin(&world, id, &session, &ask);
    let file = match begun {
        Ok(file) => file,
        Err(text) => return wire.write(&framed(1, &error(FATAL, text))).await,
    };
    if session.semi_sync {
        // The start says that everything before it has arrived. (Behind a reset that nobody has noticed yet, what stands
        // before it is another's: nothing can be done about that, and nothing waits for it.)
        acknowledge(&world, &line.life, (file, ask.position), None);
    }
    let (wire, reading) = wire.split_off(|stream| {
        let (reading, writing) = tokio::io::split(stream);
        (writing, reading)
    });
    let mut sender = Sender {
        world: Arc::clone(&world),
        id,
        wire,
        sequence: 1,
        semi_sync: session.semi_sync,
        file,
        offset: ask.position,
        heartbeat: session.heartbeat.unwrap_or(FOR_EVER),
        ended: line.ended.clone(),
    };
    tokio::select! {
        biased;
        heard = hear(&world, id, &line.life, reading) => heard,
        sent = sender.run(&ask) => sent,
    }
}

/// Registers the dump; an older one of the same replica is ended.
fn begin(world: &World, id: u32, session: &Session, ask: &Ask) -> Result<usize, &'static str> {
    let mut server = lock(&world.server);
    let older: Vec<u32> =
        server.dumps.iter().filter(|(_, dump)| dump.replica == session.replica).map(|(id, _)| *id).collect();
    for id in older {
        if let Some(line) = lock(&world.lines).get(&id) {
            line.cut.cancel();
        }
    }
    let file = ask.find(&server)?;
    let semi_sync = session.semi_sync && server.plugin.is_some();
    server.dumps_begun += 1;
    server.dumps.insert(id, Dump { replica: session.replica, begun: clock::monotonic(), file, semi_sync });
    Ok(file)
}

/// Takes acknowledgements.
async fn hear(world: &World, id: u32, life: &str, mut reading: ReadHalf<DuplexStream>) -> io::Result<()> {
    loop {
        let mut head = [0; 4];
        reading.read_exact(&mut head).await?;
        let mut body = vec![0; usize::from(head[0]) | usize::from(head[1]) << 8];
        reading.read_exact(&mut body).await?;
        if body.first() != Some(&0xef) {
            return Ok(());
        }
        let offset = u64::from_le_bytes(body[1..9].try_into().unwrap());
        let name = String::from_utf8_lossy(&body[9..]).into_owned();
        world.note(|| format!("{life} acknowledges {name}:{offset}"));
        // A name that came back after a reset is not the file that this dump has sent.
        let file = {
            let server = lock(&world.server);
            let sent = server.dumps.get(&id).map_or(0, |dump| dump.file);
            server.files.iter().take(sent + 1).rposition(|file| file.name() == name)
        };
        if let Some(file) = file {
            acknowledge(world, life, (file, offset), Some((file, offset)));
        }
    }
}

/// A replica says that it has everything before a place: then the archive must have it, now.
fn acknowledge(world: &World, who: &str, at: At, said: Option<At>) {
    let life = lock(&world.lives).get(who).cloned();
    let held = life.as_ref().map_or_else(Vec::new, |life| life.spooled());
    let mut server = lock(&world.server);
    let released = server.plugin.as_ref().map_or_else(Vec::new, |plugin| plugin.waiting_until(at));
    for (file, offset) in released.into_iter().chain(said) {
        let covered = life.as_ref().map_or(0, |life| life.shelf.covered_with(&server.files[file], &held));
        if covered < offset {
            let name = server.files[file].name();
            world.wrong(format!("{who} acknowledged {name}:{offset}, of which {covered} is durable"));
        }
    }
    if let Some(plugin) = server.plugin.as_mut() {
        plugin.acknowledge(at);
    }
    drop(server);
    world.stir();
}

struct Sender {
    world: Arc<World>,
    id: u32,
    wire: Wire<WriteHalf<DuplexStream>>,
    sequence: u8,
    semi_sync: bool,
    file: usize,
    offset: u64,
    heartbeat: Duration,
    /// The thread shall end: between two packets, never inside of one.
    ended: CancellationToken,
}

enum Next {
    Events(Vec<(Vec<u8>, bool)>),
    File(usize),
    Nothing,
    Error(&'static str),
}

impl Sender {
    async fn run(&mut self, ask: &Ask) -> io::Result<()> {
        self.announce().await?;
        if self.offset != 4 {
            let description = self.description();
            // By GTID it comes as it lies in the file, else without its place.
            let sent = if ask.by_gtid { description } else { format_description(&description, false, true) };
            self.send(&[(sent, false)]).await?;
            // Only now a server looks at what lies there.
            if !lock(&self.world.server).files[self.file].written.starts.contains(&self.offset) {
                let text = "bogus data in log event; the first event '' at 4, the last event read from '' at 4";
                return self.fail(text).await;
            }
        }
        let mut sent = clock::monotonic();
        let (world, ended) = (Arc::clone(&self.world), self.ended.clone());
        loop {
            if ended.is_cancelled() {
                return self.end().await;
            }
            let stirred = world.stirred.notified();
            match self.next() {
                Next::Events(events) => self.send(&events).await?,
                Next::File(index) => {
                    (self.file, self.offset) = (index, 4);
                    if let Some(dump) = lock(&self.world.server).dumps.get_mut(&self.id) {
                        dump.file = index;
                    }
                    self.announce().await?;
                }
                Next::Error(text) => return self.fail(text).await,
                Next::Nothing if ask.non_block => return self.end().await,
                Next::Nothing => {
                    tokio::select! {
                        biased;
                        () = ended.cancelled() => continue,
                        () = stirred => continue,
                        () = clock::sleep_until(sent + self.heartbeat) => {}
                    }
                    let name = lock(&self.world.server).files[self.file].name();
                    self.send(&[(heartbeat(true, 1, &name, self.offset, true), false)]).await?;
                }
            }
            sent = clock::monotonic();
        }
    }

    /// An EOF packet.
    async fn end(&mut self) -> io::Result<()> {
        self.wire.write(&framed(self.sequence, &[0xfe, 0, 0, 2, 0])).await
    }

    async fn fail(&mut self, text: &str) -> io::Result<()> {
        self.wire.write(&framed(self.sequence, &error(FATAL, text))).await
    }

    fn description(&self) -> Vec<u8> {
        let written = &lock(&self.world.server).files[self.file].written.bytes;
        let length = u32::from_le_bytes(written[13..17].try_into().unwrap());
        written[4..4 + usize::try_from(length).unwrap()].to_vec()
    }

    async fn announce(&mut self) -> io::Result<()> {
        let name = lock(&self.world.server).files[self.file].name();
        self.send(&[(rotate(1, &name, self.offset, true), false)]).await
    }

    /// What comes next.
    fn next(&mut self) -> Next {
        let server = lock(&self.world.server);
        let file = &server.files[self.file];
        let (end, plugin) = (server.end(), server.plugin.as_ref().filter(|_| self.semi_sync));
        let from = file.written.starts.partition_point(|start| *start <= self.offset);
        let (mut events, mut bytes) = (Vec::new(), 0);
        for until in &file.written.starts[from..] {
            if *until > file.kept || bytes > BATCH_BYTES {
                break;
            }
            let range = usize::try_from(self.offset).unwrap()..usize::try_from(*until).unwrap();
            let event = file.written.bytes[range].to_vec();
            // While it is on: the ends of transactions. While it is off: whatever is the newest.
            let ends = || file.transactions.iter().any(|transaction| transaction.end == *until);
            let asks = plugin.is_some_and(|plugin| if plugin.is_on { ends() } else { (self.file, *until) == end });
            bytes += event.len();
            events.push((event, asks));
            self.offset = *until;
        }
        if !events.is_empty() {
            return Next::Events(events);
        }
        let Some(place) = server.listed.iter().position(|index| *index == self.file) else {
            // The binlogs were reset. In the first file the server does not notice, until the new one has outgrown it.
            let outgrown = server.files[server.listed[0]].kept > self.offset;
            return match (file.number, outgrown) {
                (1, false) => Next::Nothing,
                (1, true) => Next::Error("I/O error reading log event; the first event '' at 4"),
                _ => Next::Error("could not find next log; the first event '' at 4"),
            };
        };
        server.listed.get(place + 1).map_or(Next::Nothing, |next| Next::File(*next))
    }

    async fn send(&mut self, events: &[(Vec<u8>, bool)]) -> io::Result<()> {
        let mut out = Vec::new();
        for (event, asks) in events {
            let mut payload = vec![0];
            if self.semi_sync {
                payload.extend([0xef, u8::from(*asks)]);
            }
            payload.extend(event);
            out.extend(framed(self.sequence, &payload));
            self.sequence = self.sequence.wrapping_add(1);
        }
        self.wire.write(&out).await
    }
}

/// A packet.
fn framed(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&length[..3], &[sequence], payload].concat()
}
