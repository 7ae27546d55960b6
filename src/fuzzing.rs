//! Every decoder of foreign bytes behind one door: what `fuzz/` throws bytes at, and what `tests/corpora` replays.
//!
//! Owns: which decoders there are, how bytes of any kind get as far into them as they can, and what must hold beside that
//! nothing panics: what is read and written again reads the same, and no more comes out than was promised.
//! Does not own: the decoders. This is no part of the library's interface.
//!
//! Invariants: what happens depends on the input alone; no file and no network is touched; every call returns, having
//! never had more than [`Target::bytes_max`] allocated.

use std::io::Read;
use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::Decoder;
use uuid::Uuid;

use crate::archive::{BaseManifest, Beacon, Drill, GapRecord, Identity};
use crate::chunk::keys::{Identities, Recipients, generate};
use crate::chunk::part::{OpenedPart, PartMeta, PartName, is_base_id, seal_part};
use crate::chunk::{ChunkMeta, ChunkName, FORMAT_VERSION, HeaderRead, OpenedChunk, digest_hex, read_header};
use crate::config::{Config, read_text};
use crate::mysql::clone::descriptor::{Descriptor, KEY_BYTES, Secret};
use crate::mysql::clone::packet::{Command, Response};
use crate::mysql::clone::record::RecordReader;
use crate::mysql::clone::trx_sys::{PositionScanner, REDO_HEADER_BYTES};
use crate::mysql::connect::read_login;
use crate::mysql::dump::{DumpItem, DumpReader};
use crate::mysql::event::{CHECKSUM_BYTES, HEADER_BYTES, Header, MAGIC};
use crate::mysql::packet::PacketCodec;
use crate::mysql::query::read_answer;
use crate::mysql::rows::{Content, ContentReader, Statement};
use crate::mysql::source::{Face, Replica, read_word};
use crate::mysql::walk::{Step, TransactionWalk};
use crate::mysql::{Address, ServerError, SourceOptions, Version};
use crate::position::{BinlogFile, CommitTime, Gtid, GtidSet, Incarnation, Position, decode_set};
use crate::store::Key;
use crate::timeline::Target as RestoreTarget;
use crate::{base, restore, ship};

/// A decoder, and how it is fed.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Feeds it.
    pub run: fn(&[u8]),
    /// What it may have allocated at a time whatever it is fed, in bytes.
    fixed_bytes: usize,
}

impl Target {
    /// What it may have allocated at a time for an input of so many bytes.
    pub fn bytes_max(&self, input_bytes: usize) -> usize {
        self.fixed_bytes.saturating_add(input_bytes.saturating_mul(64))
    }
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, fixed_bytes: 4 << 20 }
}

/// One that decompresses: zstd's window may have 128 MiB.
const fn unpacking(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, fixed_bytes: 144 << 20 }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("client", client),
    target("clone_descriptor", clone_descriptor),
    target("clone_packet", clone_packet),
    target("clone_redo", clone_redo),
    target("clone_stream", clone_stream),
    target("config", config),
    target("document", document),
    target("dump", dump),
    target("gtid_binary", gtid_binary),
    target("gtid_text", gtid_text),
    target("header", header),
    target("name", name),
    target("said", base::read_said),
    unpacking("sealed", sealed),
    target("server", server),
    target("target", restore_target),
    unpacking("walk", walk),
];

/// Payloads of packets, as far as they are such.
fn packets(bytes: &[u8]) -> Vec<Bytes> {
    let (mut codec, mut buffer) = (PacketCodec::new(1 << 20), BytesMut::from(bytes));
    std::iter::from_fn(|| codec.decode(&mut buffer).ok().flatten()).collect()
}

/// What a client says to us.
fn client(bytes: &[u8]) {
    let face =
        Face { server_version: "9.7.0".to_owned(), server_id: 1, server_uuid: Uuid::from_u128(1), gtid_mode: true };
    let mut replica = Replica::default();
    packets(bytes).iter().for_each(|packet| read_word(packet, &face, &mut replica));
}

/// What a server says to us, while and after logging in.
fn server(bytes: &[u8]) {
    let address = Address::Tcp { host: "localhost".to_owned(), port: 3306 };
    let options = SourceOptions::new(address, "binvault", None);
    let packets = packets(bytes);
    for packet in &packets {
        read_login(packet, &options);
        drop(ServerError::parse(packet).into_error("ask"));
        Version::parse(&String::from_utf8_lossy(packet));
    }
    read_answer(packets.iter().cloned(), true);
    read_answer(packets.into_iter(), false);
}

/// Splits off the first byte, which says how the rest is fed: its lowest bit whether checksums are made right, so that
/// changed events get past them; the others the size of the pieces.
fn manner(bytes: &[u8]) -> Option<(bool, usize, &[u8])> {
    let (how, bytes) = bytes.split_first()?;
    Some((how & 1 == 1, usize::from(how >> 1).saturating_mul(97).saturating_add(1), bytes))
}

/// Makes an event's checksum right.
fn mend(event: &mut [u8]) {
    if let Some((body, sum)) = event.split_last_chunk_mut::<CHECKSUM_BYTES>() {
        *sum = crc32fast::hash(body).to_le_bytes();
    }
}

/// A binlog file, from its first byte.
fn walk(bytes: &[u8]) {
    let Some((mending, piece, bytes)) = manner(bytes) else { return };
    let mut file = bytes.to_vec();
    let mut at = MAGIC.len();
    while mending && let Some(header) = file.get(at..).and_then(Header::parse) {
        let end = at.saturating_add(usize::try_from(header.length).unwrap_or(usize::MAX)).max(at + HEADER_BYTES);
        let Some(event) = file.get_mut(at..end) else { break };
        #[expect(clippy::cast_possible_truncation, reason = "the header has the low 32 bits")]
        if let Some(place) = event.get_mut(13..17) {
            place.copy_from_slice(&(end as u32).to_le_bytes());
        }
        mend(event);
        at = end;
    }
    let (mut walk, mut reader) = (TransactionWalk::at_file_start(), ContentReader::new());
    for piece in file.chunks(piece) {
        let fed = walk.feed(piece, &mut |step| {
            if let Step::Part(part, _) = step {
                reader.take(&part, &mut |content| {
                    if let Content::Query(query) | Content::Load(query) = content {
                        Statement::read(&query, &mut |_| {});
                    }
                });
            }
            Ok(())
        });
        if fed.is_err() {
            return;
        }
    }
    walk.finish();
}

/// The stream of a dump.
fn dump(bytes: &[u8]) {
    let Some((mending, piece, bytes)) = manner(bytes) else { return };
    for semi_sync in [false, true] {
        let (mut stream, mut at) = (bytes.to_vec(), 0_usize);
        while mending && let Some(&[a, b, c, _]) = stream.get(at..).and_then(|rest| rest.first_chunk()) {
            let from = at.saturating_add(if semi_sync { 7 } else { 5 });
            at = at.saturating_add(4).saturating_add(usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16);
            if let Some(event) = stream.get_mut(from..at) {
                mend(event);
            }
        }
        let Ok(mut reader) = DumpReader::new(&[]) else { return };
        if semi_sync {
            reader = reader.asked_semi_sync();
        }
        let (mut pieces, mut cut) = (stream.chunks(piece), ship::dry_cutter());
        loop {
            match reader.next() {
                Ok(Some(DumpItem::Part(part))) if cut(part) => {}
                Ok(None) => {
                    let Some(piece) = pieces.next() else { break };
                    let Some(room) = reader.space().get_mut(..piece.len()) else { break };
                    room.copy_from_slice(piece);
                    reader.filled(piece.len());
                }
                Ok(Some(_)) | Err(_) => break,
            }
        }
    }
}

fn check_set(set: &GtidSet) {
    assert!(set.minus(set).is_empty() && set.is_subset_of(set), "{set}");
    assert_eq!(set.to_string().parse().as_ref(), Ok(set));
}

fn gtid_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(gtid) = text.parse::<Gtid>() {
        assert_eq!(gtid.to_string().parse(), Ok(gtid));
    }
    if let Ok(set) = text.parse::<GtidSet>() {
        check_set(&set);
    }
}

fn gtid_binary(bytes: &[u8]) {
    if let Ok(set) = decode_set(bytes) {
        check_set(&set);
    }
}

/// Names of objects, and what is in them: one value has one name.
fn name(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = ChunkName::parse(text) {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(name) = PartName::parse(text) {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(file) = text.parse::<BinlogFile>() {
        assert!(!text.contains('/') && file.as_str() == text);
    }
    if let Ok(position) = text.parse::<Position>() {
        assert_eq!(position.to_string().parse(), Ok(position));
    }
    if let Ok(incarnation) = text.parse::<Incarnation>() {
        assert_eq!(incarnation.to_string(), text);
    }
    if let Ok(time) = text.parse::<CommitTime>() {
        assert_eq!(time.to_string(), text);
    }
    if is_base_id(text) {
        assert!(Key::new(text).is_ok(), "{text:?} would lead elsewhere");
    }
}

/// The keys of objects that are sealed and opened here.
fn keys() -> Option<&'static (Recipients, Identities)> {
    static KEYS: OnceLock<Option<(Recipients, Identities)>> = OnceLock::new();
    let make = || {
        let (secret, public) = generate();
        Some((Recipients::parse(&[public]).ok()?, Identities::parse("a key", &secret).ok()?))
    };
    KEYS.get_or_init(make).as_ref()
}

/// An object of the archive, from the first byte of its header.
fn header(object: &[u8]) {
    let Ok(HeaderRead::Whole(meta)) = read_header(object) else { return };
    let Ok(range) = meta.range() else { return };
    let name = ChunkName {
        server: meta.server,
        incarnation: meta.incarnation(),
        range,
        high_commit: meta.high_commit_us,
        digest: digest_hex(object),
    };
    if let Some((_, identities)) = keys() {
        assert!(OpenedChunk::new(&name, object, identities).is_err(), "a chunk that is not ours was opened");
    }
}

/// Frames of zstd as a forger who has the public key would seal them, behind the length that he claims.
fn sealed(bytes: &[u8]) {
    let (Some((claim, frames)), Some((recipients, identities))) = (bytes.split_first_chunk::<4>(), keys()) else {
        return;
    };
    let meta = PartMeta {
        format: FORMAT_VERSION,
        archive: Uuid::nil(),
        base: "forged".to_owned(),
        number: 1,
        offset: 0,
        raw_bytes: u64::from(u32::from_le_bytes(*claim) % (1 << 20)),
        last: true,
    };
    let Ok(part) = seal_part(&meta, recipients, frames) else { return };
    let Ok(mut opened) = OpenedPart::new(&part.name, &meta, &part.object, identities) else { return };
    let (mut room, mut read) = (vec![0; 64 << 10], 0_u64);
    loop {
        match opened.read(&mut room) {
            Ok(0) => return assert_eq!(read, meta.raw_bytes, "fewer bytes than were promised"),
            Ok(got) => read = read.saturating_add(got as u64),
            Err(_) => return,
        }
        assert!(read <= meta.raw_bytes, "more bytes than were promised");
    }
}

/// The archive's JSON.
fn document(json: &[u8]) {
    if let Ok(manifest) = serde_json::from_slice::<BaseManifest>(json)
        && BaseManifest::decode(&manifest.id, manifest.archive, json).is_ok()
        && is_base_id(&manifest.id)
    {
        let home = format!("bases/{}/", manifest.id);
        let at_home = |key: crate::error::Result<Key>| key.is_ok_and(|key| key.as_str().starts_with(&home));
        assert!(manifest.parts.iter().all(|part| at_home(manifest.part_key(part))), "a part of somewhere else");
    }
    if let Ok(meta) = ChunkMeta::decode(json) {
        let again = meta.encode().and_then(|json| ChunkMeta::decode(&json));
        assert!(again.is_ok_and(|again| again == meta), "chunk metadata changed");
    }
    drop(PartMeta::decode(json));
    drop(serde_json::from_slice::<Identity>(json));
    drop(serde_json::from_slice::<Beacon>(json));
    drop(serde_json::from_slice::<Drill>(json));
    if let Ok(gap) = serde_json::from_slice::<GapRecord>(json) {
        gap.at();
        let incarnation = Incarnation { file: gap.ends.file.clone(), created_s: 1 };
        gap.explains(&gap.server, &incarnation);
        gap.explains_hole(&gap.server, &incarnation, gap.goes_on_at.offset);
    }
}

fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Files of secrets are read: a made-up name may be one of the machine's own.
    if let Ok(raw) = read_text(text)
        && !text.contains("file")
        && let Ok(config) = Config::new(raw)
    {
        drop(config.recipients());
        drop(config.source());
    }
}

fn restore_target(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let now = jiff::Timestamp::UNIX_EPOCH
        .to_zoned(jiff::tz::TimeZone::UTC)
        .saturating_add(jiff::SignedDuration::from_hours(500_000));
    if let Ok(target) = RestoreTarget::parse(text, &now) {
        let again = RestoreTarget::parse(&target.to_string(), &now);
        assert!(again.is_ok_and(|again| again == target), "{target} reads as another");
    }
}

fn clone_packet(bytes: &[u8]) {
    if let Ok(response) = Response::parse(bytes)
        && let Ok(encoded) = response.encode()
    {
        assert!(Response::parse(&encoded).is_ok_and(|again| again == response), "{response:?}");
    }
    if let Ok(command) = Command::parse(bytes)
        && let Ok(encoded) = command.encode()
    {
        assert!(Command::parse(&encoded).is_ok_and(|again| again == command), "{command:?}");
    }
}

fn clone_descriptor(bytes: &[u8]) {
    let Ok(descriptor) = Descriptor::parse(bytes) else { return };
    let encoded = match &descriptor {
        Descriptor::Locator => return,
        Descriptor::Task(task) => Ok(task.encode()),
        Descriptor::State(change) => Ok(change.encode()),
        Descriptor::File(file) => file.encode(),
        Descriptor::Data(data) => Ok(data.encode()),
    };
    let again = encoded.and_then(|encoded| Descriptor::parse(&encoded));
    assert!(again.is_ok_and(|again| again == descriptor), "{descriptor:?}");
}

/// A donor's answers, as they are received and as they are put back.
fn clone_stream(bytes: &[u8]) {
    let (mut reader, mut records) = (RecordReader::new(), Vec::new());
    for piece in bytes.chunks(4 << 10) {
        reader.push(piece);
        while let Ok(Some(record)) = reader.next() {
            records.push(record);
        }
    }
    drop(reader.finish());
    base::follow_donor(records.iter().cloned());
    restore::follow_stream(records.into_iter(), 1 << 40);
}

/// The page of the transaction system, and redo behind it.
fn clone_redo(bytes: &[u8]) {
    const PAGE_BYTES: u32 = 16 << 10;
    let Some(mut scanner) = PositionScanner::new(PAGE_BYTES) else { return };
    let (page, redo) = bytes.split_at(bytes.len().min(PAGE_BYTES as usize));
    scanner.page(page);
    let mut offset = REDO_HEADER_BYTES;
    for piece in redo.chunks(2 << 10) {
        scanner.redo(0, offset, piece);
        offset = offset.saturating_add(piece.len() as u64);
    }
    drop(scanner.finish(Some(&Secret { key: [1; KEY_BYTES], iv: [2; KEY_BYTES] })));
}
