//! Streams as a donor sends them, and such as none would.

use proptest::prelude::*;

use super::*;
use crate::mysql::clone::descriptor::Task;

const LIMITS: Limits = Limits { page_size: 16384, version: 90704, bytes: 1 << 30 };

fn of(bytes: &[u8]) -> Bytes {
    Bytes::from(Response::Descriptor { engine: INNODB, index: 0, bytes }.encode().unwrap())
}

fn state(state: State, flags: u16) -> Bytes {
    of(&StateChange { state, task: 0, chunks: 0, files: 0, estimate: 0, disk_estimate: 0, flags }.encode())
}

fn start(of: State) -> Bytes {
    state(of, StateChange::START)
}

fn end(of: State) -> Bytes {
    state(of, 0)
}

fn file(state: State, index: u32, space: u32, name: &str, flags: u16) -> File {
    File {
        state,
        size: 0,
        allocated: 0,
        fsp_flags: 0,
        fs_block: 4096,
        flags,
        space: SpaceId(space),
        index,
        first_chunk: 0,
        last_chunk: 0,
        name: (!name.is_empty()).then(|| name.to_owned()),
        secret: None,
    }
}

fn named(state: State, index: u32, space: u32, name: &str, flags: u16) -> Bytes {
    of(&file(state, index, space, name, flags).encode().unwrap())
}

/// A descriptor of bytes and the bytes.
fn data(state: State, file: u32, offset: u64, bytes: &[u8], file_size: u64) -> [Bytes; 2] {
    let length = u32::try_from(bytes.len()).unwrap();
    let data = Data { state, task: 0, chunk: 1, block: 0, file, length, offset, file_size };
    [of(&data.encode()), Bytes::from(Response::Data(bytes).encode().unwrap())]
}

fn complete() -> Bytes {
    Bytes::from(Response::Complete.encode().unwrap())
}

/// A small snapshot with something of everything.
fn whole() -> Vec<Bytes> {
    let mut all = vec![
        Bytes::from(Response::Config { name: b"innodb_page_size", value: b"16384" }.encode().unwrap()),
        Bytes::from(Response::Collation(b"utf8mb4_bin").encode().unwrap()),
        complete(),
        of(&Task { task: 0, chunk: 0, block: 0 }.encode()),
        end(State::Init),
        start(State::FileCopy),
        named(State::FileCopy, 0, 0, "ibdata1", 0),
        named(State::FileCopy, 1, 5, "./shop/a.ibd", 0),
        named(State::FileCopy, 2, 6, "./shop/b.ibd", 0),
        named(State::FileCopy, 3, 7, "./shop/gone.ibd", 0),
    ];
    all.extend(data(State::FileCopy, 0, 0, b"system", 6));
    all.extend(data(State::FileCopy, 1, 0, b"aaaa", 4));
    all.push(state(State::FileCopy, StateChange::START | StateChange::ACK));
    all.extend(data(State::FileCopy, 2, 0, b"bbbb", 4));
    all.extend([
        end(State::FileCopy),
        // The two change places; one is dropped, one is made.
        named(State::PageCopy, 1, 5, "./shop/b.ibd", File::RENAMED),
        named(State::PageCopy, 2, 6, "./shop/a.ibd", File::RENAMED),
        named(State::PageCopy, 3, 7, "./shop/gone.ibd", File::DELETED),
        named(State::PageCopy, 4, 8, "./shop/new.ibd", 0),
        start(State::PageCopy),
    ]);
    all.extend(data(State::PageCopy, 1, 2, b"AA", 4));
    all.extend([end(State::PageCopy), named(State::RedoCopy, 5, 9, "./shop/newer.ibd", 0), start(State::RedoCopy)]);
    all.push(named(State::RedoCopy, 0, SpaceId::REDO.0, "", 0));
    all.extend(data(State::RedoCopy, 0, 0, b"redo", 4));
    all.extend([end(State::RedoCopy), start(State::Done), complete()]);
    all
}

fn follow(records: &[Bytes], limits: Limits) -> Result<(Vec<Step>, Files)> {
    let mut snapshot = Snapshot::new(limits);
    let mut steps = Vec::new();
    for record in records {
        steps.push(snapshot.take(record)?);
    }
    Ok((steps, snapshot.finish()?))
}

/// The complaint about a stream in which the record that equals `old` is replaced.
fn complaint(old: &Bytes, new: &[Bytes]) -> String {
    let records = whole();
    let at = records.iter().position(|record| record == old).expect("the record is in the stream");
    let changed = [&records[..at], new, &records[at + 1..]].concat();
    let error = follow(&changed, LIMITS).unwrap_err();
    assert!(matches!(error.kind(), Kind::Corrupt | Kind::Unfit), "{error}");
    error.to_string()
}

#[test]
fn a_whole_stream_gives_its_files() {
    let (steps, files) = follow(&whole(), LIMITS).unwrap();
    let places: Vec<(u32, &str)> =
        files.data.iter().map(|(index, part)| (*index, part.place.to_str().unwrap())).collect();
    let wanted = [(0, "ibdata1"), (1, "shop/b.ibd"), (2, "shop/a.ibd"), (4, "shop/new.ibd"), (5, "shop/newer.ibd")];
    assert_eq!(places, wanted);
    assert_eq!(files.redo.into_iter().collect::<Vec<_>>(), [(0, 4)]);
    let writes: Vec<(Which, u64, usize)> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Write { which, offset, bytes, .. } => Some((*which, *offset, bytes.len())),
            _ => None,
        })
        .collect();
    let wanted = [
        (Which::Data(0), 0, 6),
        (Which::Data(1), 0, 4),
        (Which::Data(2), 0, 4),
        (Which::Data(4), 0, 16384),
        (Which::Data(1), 2, 2),
        (Which::Data(5), 0, 16384),
        (Which::Redo(0), 0, 4),
    ];
    assert_eq!(writes, wanted);
    assert_eq!(files.data[&4].size, 7 * 16384);
    // Between the states everything must be through.
    let settled = steps.iter().filter(|step| matches!(step, Step::Settle)).count();
    assert_eq!(settled, 2 + 4 + 4, "two answers, four ends, four starts");
}

#[test]
fn sizes_end_with_an_extent() {
    let (_, files) = follow(&whole(), LIMITS).unwrap();
    let part = |size, space| Part { size, space: SpaceId(space), ..files.data[&1].clone() };
    assert_eq!(part(0x20000, 5).final_size(16384), 0x20000);
    assert_eq!(part((1 << 20) + 1, 5).final_size(16384), 2 << 20);
    assert_eq!(part((1 << 20) + 1, 5).final_size(65536), (1 << 20) + 1);
    assert_eq!(part((4 << 20) + 1, 5).final_size(65536), 8 << 20);
    assert_eq!(part((12 << 20) + 1, 0).final_size(16384), (12 << 20) + 1, "as innodb_data_file_path says");
    assert_eq!(part(9_999_999, SpaceId::NONE.0).final_size(16384), 9_999_999);
}

#[test]
fn what_no_donor_sends_is_refused() {
    let a = named(State::FileCopy, 1, 5, "./shop/a.ibd", 0);
    let b_data = data(State::FileCopy, 2, 0, b"bbbb", 4);
    for (old, new, says) in [
        (&a, vec![named(State::FileCopy, 1, 5, "../a.ibd", 0)], "leads upward"),
        (&a, vec![named(State::FileCopy, 1, 5, "./mysqld-auto.cnf", 0)], "does not fit"),
        (&a, vec![named(State::PageCopy, 1, 5, "./shop/a.ibd", 0)], "a file of PAGE_COPY in FILE_COPY"),
        (&a, vec![], "has not named (number 1)"),
        (
            &a,
            vec![of(&File { size: 2 << 30, ..file(State::FileCopy, 1, 5, "./a.ibd", 0) }.encode().unwrap())],
            "more data",
        ),
        (&b_data[0], data(State::FileCopy, 77, 0, b"bbbb", 4)[..1].to_vec(), "has not named (number 77)"),
        (&b_data[0], data(State::PageCopy, 2, 0, b"bbbb", 4)[..1].to_vec(), "bytes of PAGE_COPY in FILE_COPY"),
        (&b_data[0], data(State::FileCopy, 2, 0, b"bbbbb", 4)[..1].to_vec(), "announces 5 bytes and has 4"),
        (&b_data[0], data(State::FileCopy, 2, u64::MAX - 1, b"bbbb", 4)[..1].to_vec(), "more data"),
        (&b_data[0], data(State::FileCopy, 2, 0, b"bbbb", 1 << 40)[..1].to_vec(), "more data"),
        (&b_data[0], data(State::FileCopy, 1, 3, b"bbbb", 4)[..1].to_vec(), "3..7 of shop/a.ibd twice"),
        (&b_data[0], vec![], "nothing announces"),
        (&b_data[1], vec![], "lacks the bytes"),
        (&end(State::FileCopy), vec![], "a file of PAGE_COPY in FILE_COPY"),
        (&start(State::PageCopy), vec![start(State::RedoCopy)], "REDO_COPY begins in FILE_COPY"),
        (&start(State::PageCopy), vec![], "in FILE_COPY"),
        (&start(State::Done), vec![], "ends in REDO_COPY"),
        (
            &named(State::PageCopy, 4, 8, "./shop/new.ibd", 0),
            vec![named(State::PageCopy, 4, 8, "./shop/a.ibd", 0)],
            "two files",
        ),
        (&named(State::RedoCopy, 0, SpaceId::REDO.0, "", 0), vec![], "has not named (number 0)"),
    ] {
        let said = complaint(old, &new);
        assert!(said.contains(says), "wanted {says:?}: {said}");
    }
    let config = Response::Config { name: b"innodb_page_size", value: b"8192" }.encode().unwrap();
    assert!(complaint(&whole()[0], &[config.into()]).contains("8192 bytes, by the manifest 16384"));
    let other = Response::Descriptor { engine: 42, index: 1, bytes: b"x" }.encode().unwrap();
    assert!(complaint(&start(State::FileCopy), &[other.into()]).contains("number 42"));
    let failed = Response::Error { code: 3634, message: b"busy" }.encode().unwrap();
    assert!(complaint(&start(State::Done), &[failed.into()]).contains("3634: busy"));
    let more = [whole(), vec![complete()]].concat();
    assert!(follow(&more, LIMITS).unwrap_err().to_string().contains("behind its end"));
    let small = Limits { bytes: 100, ..LIMITS };
    assert!(follow(&whole(), small).unwrap_err().to_string().contains("than its manifest says"));
}

#[test]
fn what_is_deleted_or_moved_elsewhere_loses_its_data() {
    let mut records = whole();
    let at = records.iter().position(|record| *record == end(State::FileCopy)).unwrap();
    // Deleted while it is copied; what still comes of it is dropped.
    records.insert(at, named(State::FileCopy, 2, 6, "", File::DELETED));
    let more = data(State::FileCopy, 2, 100, b"late", 104);
    records.splice(at + 1..=at, more);
    records.retain(|record| *record != named(State::PageCopy, 2, 6, "./shop/a.ibd", File::RENAMED));
    let (steps, files) = follow(&records, LIMITS).unwrap();
    assert!(!files.data.contains_key(&2));
    let late = steps.iter().any(|step| matches!(step, Step::Write { which: Which::Data(2), offset: 100, .. }));
    assert!(!late);
}

#[test]
fn two_general_tablespaces_of_one_name_get_two_places() {
    let mut records = whole();
    let at = records.iter().position(|record| *record == end(State::FileCopy)).unwrap();
    for (index, space, folder) in [(8, 21, "a"), (9, 22, "b")] {
        let shared =
            File { fsp_flags: 1 << 11, ..file(State::FileCopy, index, space, &format!("/{folder}/ts.ibd"), 0) };
        records.insert(at, of(&shared.encode().unwrap()));
    }
    let (_, files) = follow(&records, LIMITS).unwrap();
    let place = |index: u32| files.data[&index].place.to_str().unwrap().to_owned();
    assert_eq!((place(8).as_str(), place(9).as_str()), ("ts.ibd", "ts_22.ibd"));
    assert_eq!(files.data[&9].external.as_deref(), Some("/b/ts.ibd"));
}

proptest! {
    #[test]
    fn a_stream_that_is_cut_short_is_no_whole_one(cut in any::<prop::sample::Index>()) {
        let records = whole();
        prop_assert!(follow(&records[..cut.index(records.len())], LIMITS).is_err());
    }

    /// Records left out, repeated, or in another order never panic; and what is taken keeps its bounds.
    #[test]
    fn a_shuffled_stream_never_panics(picks in prop::collection::vec(any::<prop::sample::Index>(), 0..80)) {
        let records = whole();
        let picked: Vec<Bytes> = picks.iter().map(|pick| records[pick.index(records.len())].clone()).collect();
        let mut snapshot = Snapshot::new(LIMITS);
        for record in &picked {
            if snapshot.take(record).is_err() {
                break;
            }
        }
        prop_assert!(snapshot.bytes <= LIMITS.bytes);
        let _ = snapshot.finish();
    }

    #[test]
    fn a_byte_that_is_changed_never_panics(at in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut records = whole();
        let at = at.index(records.len());
        let mut changed = records[at].to_vec();
        let byte = byte.index(changed.len());
        changed[byte] = to;
        records[at] = changed.into();
        let _ = follow(&records, LIMITS);
    }

    /// Ranges are claimed once, however they come.
    #[test]
    fn ranges_are_claimed_once(ranges in prop::collection::vec((0_u64..200, 1_u64..30), 1..40)) {
        let (mut sent, mut taken) = (BTreeMap::new(), vec![false; 300]);
        for (start, length) in ranges {
            let end = start + length;
            let (from, to) = (usize::try_from(start).unwrap(), usize::try_from(end).unwrap());
            let free = taken[from..to].iter().all(|taken| !taken);
            prop_assert_eq!(claim(&mut sent, start, end), free);
            if free {
                taken[from..to].fill(true);
            } else {
                // What was refused ends the restore: nothing is asked behind it.
                break;
            }
        }
        prop_assert!(sent.iter().all(|(start, end)| start < end));
    }
}
