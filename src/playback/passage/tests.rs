//! Files of transactions, cut anywhere, grown anyhow: exactly the chosen events go through.

use bytes::BytesMut;
use proptest::prelude::*;
use tokio_util::codec::Decoder;
use uuid::Uuid;

use super::*;
use crate::mysql::packet::{PAYLOAD_BYTES_MAX, PacketCodec};
use crate::mysql::walk::tests::{FileMaker, event_bytes};
use crate::position::{Gtid, Sid, Tag};

/// Commit time of every transaction's number, in microseconds.
const SECOND: u64 = 1_000_000;

fn gtid(gno: u64) -> Gtid {
    Gtid { sid: Sid { uuid: Uuid::from_u128(7), tag: Tag::NONE }, gno }
}

fn set(numbers: &[u64]) -> Arc<GtidSet> {
    let mut set = GtidSet::new();
    numbers.iter().for_each(|gno| set.add(&gtid(*gno)));
    Arc::new(set)
}

/// A made transaction.
#[derive(Debug, Clone)]
struct Made {
    /// 0: anonymous.
    gno: u64,
    /// Lengths of its row events' bodies.
    rows: Vec<usize>,
    /// Whether its first event tells its length.
    told: bool,
}

/// The events of a file: offset, number of the transaction (or none), bytes.
struct File {
    bytes: Vec<u8>,
    events: Vec<(u64, Option<usize>, Vec<u8>)>,
}

fn make(transactions: &[Made]) -> File {
    let mut file = FileMaker::new(true);
    let mut events = vec![(4, None, file.bytes[4..].to_vec())];
    let mut add = |file: &mut FileMaker, owner, kind, body: &[u8]| {
        let at = file.bytes.len();
        file.event(kind, body);
        events.push((at as u64, owner, file.bytes[at..].to_vec()));
    };
    add(&mut file, None, types::PREVIOUS_GTIDS, &[0; 8]);
    for (index, made) in transactions.iter().enumerate() {
        let (owner, xid) = (Some(index), [9_u8; 8]);
        let kind = if made.gno == 0 { types::ANONYMOUS_GTID } else { types::GTID };
        let rows: usize = made.rows.iter().map(|bytes| bytes + 23).sum();
        let commit = ((index as u64 + 1) * SECOND).to_le_bytes();
        let fixed = [&[1][..], &Uuid::from_u128(7).into_bytes(), &made.gno.to_le_bytes(), &[2], &[0; 16]].concat();
        let length = |first: usize| [&commit[..7], &[0xfe], &((first + rows + 31) as u64).to_le_bytes()].concat();
        // Header, fixed part, commit time, length, CRC32.
        let first = 19 + fixed.len() + 16 + 4;
        let body = if made.told { [fixed, length(first)].concat() } else { [&fixed[..], &commit[..7]].concat() };
        add(&mut file, owner, kind, &body);
        made.rows.iter().for_each(|bytes| add(&mut file, owner, 30, &vec![3; *bytes]));
        add(&mut file, owner, types::XID, &xid);
    }
    add(&mut file, None, types::ROTATE, &[&4_u64.to_le_bytes()[..], b"binlog.000002"].concat());
    File { bytes: file.bytes, events }
}

/// Feeds all that a limit allows, from where the passage stands, in pieces.
fn drive(passage: &mut Passage, bytes: &[u8], limit: Limit, cut: usize, packets: &mut EventPackets) -> Option<Halt> {
    passage.set_limit(limit);
    loop {
        let from = usize::try_from(passage.position()).unwrap();
        let until = usize::try_from(limit.until).unwrap().min(bytes.len());
        if from >= until {
            return None;
        }
        let piece = &bytes[from..until.min(from + cut)];
        if let Some(halt) = passage.feed(piece, packets).unwrap() {
            return Some(halt);
        }
    }
}

fn sent(packets: &EventPackets) -> Vec<Vec<u8>> {
    let mut codec = PacketCodec::new(PAYLOAD_BYTES_MAX);
    let mut bytes = BytesMut::from(packets.buffered());
    let mut out = Vec::new();
    while let Some(payload) = codec.decode(&mut bytes).unwrap() {
        out.push(payload[1..].to_vec());
    }
    assert!(bytes.is_empty() && !packets.is_open());
    // Heartbeats are no part of the file.
    out.retain(|event| !Header::parse(event).unwrap().is_heartbeat());
    out
}

fn transactions() -> impl Strategy<Value = Vec<Made>> {
    let rows = prop::collection::vec(prop_oneof![0_usize..200, Just(70_000)], 0..4);
    let made = (any::<bool>(), rows, prop::bool::weighted(0.8));
    prop::collection::vec(made, 0..8).prop_map(|list| {
        let number = |(index, (named, rows, told)): (usize, (bool, Vec<usize>, bool))| Made {
            gno: if named { index as u64 + 1 } else { 0 },
            rows,
            told,
        };
        list.into_iter().enumerate().map(number).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn exactly_the_chosen_transactions_go_through(
        list in transactions(),
        have in prop::collection::vec(1_u64..9, 0..4),
        only in prop::option::of(prop::collection::vec(1_u64..9, 0..6)),
        skip in prop::collection::vec(1_u64..9, 0..2),
        cut in prop_oneof![1_usize..300, Just(80_000)],
        steps in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let file = make(&list);
        let choice = Choice {
            have: Some(set(&have)), only: only.as_deref().map(set), skip: set(&skip), server_id: 5, ..Choice::default()
        };
        let mut passage = Passage::from_start("binlog.000001", choice, false);
        let mut packets = EventPackets::new(1);
        // The file grows to any lengths, then to its end.
        let mut ends: Vec<u64> = steps.iter().map(|step| step.index(file.bytes.len()) as u64).collect();
        ends.sort_unstable();
        ends.push(file.bytes.len() as u64);
        for until in ends {
            let halt = drive(&mut passage, &file.bytes, Limit { until, committed_by: None }, cut, &mut packets);
            prop_assert!(!packets.is_open(), "an event that does not end before the limit was begun");
            prop_assert!(passage.at() <= until.max(4));
            let unfinished = file.events.iter().any(|(at, _, bytes)| *at < until && at + bytes.len() as u64 > until);
            prop_assert!(halt.is_none() || unfinished || list.iter().any(|made| made.told));
        }
        let wanted = |made: &Made| match made.gno {
            0 => only.is_none(),
            gno => !have.contains(&gno) && !skip.contains(&gno) && only.as_ref().is_none_or(|only| only.contains(&gno)),
        };
        let expected: Vec<Vec<u8>> = file.events.iter()
            .filter(|(_, owner, _)| owner.is_none_or(|index| wanted(&list[index])))
            .map(|(_, _, bytes)| bytes.clone())
            .collect();
        prop_assert_eq!(sent(&packets), expected);
        prop_assert_eq!(passage.take_counts().0, list.iter().filter(|made| wanted(made)).count() as u64);
        prop_assert_eq!(passage.place(), Place { file: "binlog.000002", position: 4, checksum: true });

        // Of what has gone through whole, nothing goes through again.
        let choice = Choice { have: passage.take_have(), only: only.as_deref().map(set), ..Choice::default() };
        let mut again = Passage::from_start("binlog.000007", choice, false);
        let mut packets = EventPackets::new(1);
        drive(&mut again, &file.bytes, Limit { until: u64::MAX, committed_by: None }, cut, &mut packets);
        let unnamed = list.iter().filter(|made| made.gno == 0 && only.is_none()).count() as u64;
        if list.iter().all(|made| made.told) {
            let left_out = list.iter().filter(|made| skip.contains(&made.gno) && !have.contains(&made.gno));
            let left_out = left_out.filter(|made| only.as_ref().is_none_or(|only| only.contains(&made.gno)));
            prop_assert_eq!(again.take_counts().0, unnamed + left_out.count() as u64);
        }
    }

    #[test]
    fn nothing_is_sent_before_it_is_due(list in transactions(), by in 0_u64..9, cut in 1_usize..300) {
        let file = make(&list);
        let mut passage = Passage::from_start("binlog.000001", Choice { server_id: 5, ..Choice::default() }, false);
        let mut packets = EventPackets::new(1);
        let limit = |by| Limit { until: file.bytes.len() as u64, committed_by: Some(CommitTime::from_micros(by * SECOND)) };
        let halt = drive(&mut passage, &file.bytes, limit(by), cut, &mut packets);
        match halt {
            Some(Halt::Due { commit, .. }) => prop_assert_eq!(commit.micros(), (by + 1) * SECOND),
            other => prop_assert!(other.is_none() && by >= list.len() as u64),
        }
        let before = file.events.iter().filter(|(_, owner, _)| owner.is_some_and(|index| (index as u64) < by)).count();
        let kinds = sent(&packets).iter().filter(|e| !matches!(e[4], 4 | 15 | 35)).count();
        prop_assert_eq!(kinds, before);
        drive(&mut passage, &file.bytes, limit(99), cut, &mut packets);
        prop_assert_eq!(sent(&packets).len(), file.events.len());
    }
}

#[test]
fn an_event_of_the_replicas_own_is_an_error_and_not_of_another() {
    let file = make(&[Made { gno: 1, rows: vec![5], told: true }]);
    let limit = Limit { until: u64::MAX, committed_by: None };
    for (replica_id, fails) in [(1, true), (2, false), (0, false)] {
        let mut passage = Passage::from_start("binlog.000001", Choice { replica_id, ..Choice::default() }, false);
        passage.set_limit(limit);
        let error = passage.feed(&file.bytes, &mut EventPackets::new(1)).err();
        assert_eq!(error.map(|error| error.kind()), fails.then_some(Kind::Config), "{replica_id}");
    }
}

#[test]
fn a_client_that_has_the_files_first_transaction_does_not_take_it_for_a_servers_start() {
    let mut file = make(&[Made { gno: 1, rows: vec![], told: true }, Made { gno: 2, rows: vec![], told: true }]);
    // `created` of the format description: not zero, as behind a server's start.
    let (from, to) = (4, 4 + file.events[0].2.len());
    let body = [&file.bytes[from + 19..from + 71], &[1; 4][..], &file.bytes[from + 75..to - 4]].concat();
    let event = event_bytes(types::FORMAT_DESCRIPTION, &body, 4, true);
    file.bytes[from..to].copy_from_slice(&event);
    for (have, created) in [(vec![1], [0; 4]), (vec![2], [1; 4]), (vec![], [1; 4])] {
        let choice = Choice { have: Some(set(&have)), ..Choice::default() };
        let mut passage = Passage::from_start("binlog.000001", choice, false);
        let mut packets = EventPackets::new(1);
        drive(&mut passage, &file.bytes, Limit { until: u64::MAX, committed_by: None }, 90, &mut packets);
        let first = &sent(&packets)[0];
        assert_eq!((first[4], &first[71..75]), (types::FORMAT_DESCRIPTION, &created[..]), "{have:?}");
        assert!(crate::mysql::event::checksum_holds(first));
    }
}
