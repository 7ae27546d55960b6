//! A donor's words in order are followed; out of order they end the backup.

use proptest::prelude::*;

use super::*;

const PAGE_BYTES: u32 = 16_384;

fn descriptor(bytes: &[u8]) -> Vec<u8> {
    Response::Descriptor { engine: INNODB, index: 0, bytes }.encode().unwrap()
}

fn state(state: State, flags: u16) -> Vec<u8> {
    let change = StateChange { state, task: 0, chunks: 1, files: 1, estimate: 0, disk_estimate: 0, flags };
    descriptor(&change.encode())
}

fn file(name: &str, index: u32, size: u64) -> File {
    File {
        state: State::FileCopy,
        size,
        allocated: size,
        fsp_flags: 0,
        fs_block: 4096,
        flags: 0,
        space: SpaceId(index + 10),
        index,
        first_chunk: 1,
        last_chunk: 1,
        name: Some(name.to_owned()),
        secret: None,
    }
}

fn data(state: State, file: u32, offset: u64, bytes: &[u8]) -> [Vec<u8>; 2] {
    let length = u32::try_from(bytes.len()).unwrap();
    let data = Data { state, task: 0, chunk: 1, block: 0, file, length, offset, file_size: 0 };
    [descriptor(&data.encode()), Response::Data(bytes).encode().unwrap()]
}

fn config(name: &[u8], value: &[u8]) -> Vec<u8> {
    Response::Config { name, value }.encode().unwrap()
}

/// A whole, small clone.
fn whole() -> Vec<Vec<u8>> {
    let start = StateChange::START;
    let redo = File { name: None, space: SpaceId::REDO, ..file("", 0, 1 << 20) };
    let gone = File { flags: File::DELETED, state: State::PageCopy, ..file("./d/t.ibd", 7, 0) };
    let made = File { state: State::PageCopy, ..file("./d/new.ibd", 8, 0) };
    let mut all = vec![
        config(b"innodb_page_size", b"16384"),
        config(b"version_compile_os", b"Linux"),
        Response::Locators { version: 0x0103, locators: vec![Locator { engine: INNODB, bytes: vec![1] }] }
            .encode()
            .unwrap(),
        state(State::Init, 0),
        state(State::FileCopy, start),
        descriptor(&file("./d/t.ibd", 7, 114_688).encode().unwrap()),
        descriptor(&file("/elsewhere/d/x.ibd", 9, 114_688).encode().unwrap()),
    ];
    all.extend(data(State::FileCopy, 7, 0, &[1; 100]));
    all.extend([
        state(State::FileCopy, start | StateChange::ACK),
        state(State::FileCopy, 0),
        descriptor(&gone.encode().unwrap()),
        descriptor(&made.encode().unwrap()),
        state(State::PageCopy, start),
        state(State::PageCopy, 0),
        state(State::RedoCopy, start),
        descriptor(&redo.encode().unwrap()),
    ]);
    all.extend(data(State::RedoCopy, 0, 2048, &[1; 512]));
    all.extend([state(State::RedoCopy, 0), state(State::Done, start), Response::Complete.encode().unwrap()]);
    all
}

fn follow(messages: &[Vec<u8>], is_tls: bool) -> Result<(Watch, Vec<Step>), Trouble> {
    let mut watch = Watch::new(is_tls);
    let steps = messages.iter().map(|message| watch.take(message)).collect::<Result<Vec<_>, _>>()?;
    Ok((watch, steps))
}

#[test]
fn a_whole_clone_is_followed_and_counted() {
    let (watch, steps) = follow(&whole(), false).unwrap();
    assert_eq!(steps.iter().filter(|step| matches!(step, Step::Ended(_))).count(), 4);
    assert_eq!(steps.iter().filter(|step| **step == Step::Ignore).count(), 1);
    assert_eq!(watch.locator().unwrap().bytes, [1]);
    let (facts, notes) = watch.finish().unwrap();
    let external = vec!["/elsewhere/d/x.ibd".to_owned()];
    let wanted = CloneFacts {
        unrecorded: Default::default(),
        undecided: Default::default(),
        protocol: 0x0103,
        innodb_page_size: PAGE_BYTES,
        // Made meanwhile: seven pages; outside: its own; redo.
        disk_bytes: 114_688 + 114_688 + (1 << 20),
        files: 3,
        encrypted: false,
        external,
        compile_os: "Linux".into(),
        compile_machine: String::new(),
    };
    assert_eq!((facts, notes), (wanted, Notes::default()));
}

#[test]
fn what_is_out_of_order_or_missing_is_refused() {
    let messages = whole();
    let (watch, _) = follow(&messages[..messages.len() - 2], false).unwrap();
    assert!(watch.finish().unwrap_err().to_string().contains("REDO_COPY"));
    for gone in [4, 7, 8, 10, 13, 15] {
        let mut less = messages.clone();
        less.remove(gone);
        assert!(follow(&less, false).and_then(|(watch, _)| Ok(watch.finish()?)).is_err(), "without message {gone}");
    }
    let short = data(State::FileCopy, 7, 0, &[1; 100]);
    let mut watch = follow(&messages[..6], false).unwrap().0;
    watch.take(&short[0]).unwrap();
    assert!(watch.take(&Response::Data(&[1; 99]).encode().unwrap()).is_err());
}

#[test]
fn encrypted_files_need_tls_and_errors_keep_their_meaning() {
    let messages = whole();
    let secret = Secret { key: [1; KEY_BYTES], iv: [2; KEY_BYTES] };
    let encrypted = File { flags: File::AES, secret: Some(secret), ..file("./d/e.ibd", 11, 1) };
    let message = descriptor(&encrypted.encode().unwrap());
    let mut clear = follow(&messages[..5], false).unwrap().0;
    assert_eq!(clear.take(&message).unwrap_err().error.kind(), Kind::Refused);
    let mut safe = follow(&messages[..5], true).unwrap().0;
    safe.take(&message).unwrap();
    assert!(safe.facts.encrypted);
    let busy = Response::Error { code: 3634, message: b"one is running" }.encode().unwrap();
    assert!(safe.take(&busy).unwrap_err().busy);
}

#[test]
fn the_page_is_found_in_a_block_and_by_itself() {
    let bytes: Vec<u8> = (0..64_u8).flat_map(|page| vec![page; PAGE_BYTES as usize]).collect();
    let at = |offset: u64| Data {
        state: State::FileCopy,
        task: 0,
        chunk: 0,
        block: 0,
        file: 0,
        length: 0,
        offset,
        file_size: 0,
    };
    assert_eq!(page_within(&at(0), &bytes, PAGE_BYTES).unwrap()[0], 5);
    let offset = 5 * u64::from(PAGE_BYTES);
    assert_eq!(page_within(&at(offset), &bytes[..PAGE_BYTES as usize], PAGE_BYTES).unwrap().len(), 16_384);
    assert!(page_within(&at(offset + 1), &bytes, PAGE_BYTES).is_none());
    assert!(page_within(&at(0), &bytes[..90_000], PAGE_BYTES).is_none());
}

proptest! {
    #[test]
    fn noise_never_panics(
        messages in prop::collection::vec((0_u8..110, prop::collection::vec(any::<u8>(), 0..80)), 0..12), at in 0_usize..23,
    ) {
        let mut watch = Watch::new(true);
        for message in whole().iter().take(at) {
            let _ = watch.take(message);
        }
        for (kind, body) in messages {
            let _ = watch.take(&[&[kind][..], &body].concat());
        }
        let _ = watch.finish();
    }
}
