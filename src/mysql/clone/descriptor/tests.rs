//! Descriptors are read back as they were written; what does not fit is refused.

use proptest::prelude::*;

use super::*;

fn state() -> impl Strategy<Value = State> {
    (1_u32..=5).prop_map(|number| State::of(number).unwrap())
}

fn file() -> impl Strategy<Value = File> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), any::<u16>());
    let ids = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let secret = prop::option::of((any::<[u8; KEY_BYTES]>(), any::<[u8; KEY_BYTES]>()));
    (state(), numbers, ids, prop::option::of("[^\0]{0,40}"), secret).prop_map(|(state, numbers, ids, name, secret)| {
        let (size, allocated, fsp_flags, fs_block, flags) = numbers;
        let (space, index, first_chunk, last_chunk) = ids;
        let secret = secret.map(|(key, iv)| Secret { key, iv });
        let flags = if secret.is_some() { flags | File::KEY } else { flags & !File::KEY };
        let space = SpaceId(space);
        File { state, size, allocated, fsp_flags, fs_block, flags, space, index, first_chunk, last_chunk, name, secret }
    })
}

proptest! {
    #[test]
    fn files_come_back_and_cut_ones_are_refused(file in file(), cut in any::<prop::sample::Index>(), more in 1_usize..9) {
        let mut bytes = file.encode().unwrap();
        prop_assert_eq!(Descriptor::parse(&bytes).unwrap(), Descriptor::File(file));
        prop_assert!(Descriptor::parse(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.resize(bytes.len() + more, 0);
        prop_assert!(Descriptor::parse(&bytes).is_err());
    }

    #[test]
    fn the_others_come_back(state in state(), n in any::<[u32; 5]>(), big in any::<[u64; 2]>(), flags in any::<u16>()) {
        let task = Task { task: n[0], chunk: n[1], block: n[2] };
        prop_assert_eq!(Descriptor::parse(&task.encode()).unwrap(), Descriptor::Task(task));
        let [estimate, disk_estimate] = big;
        let change = StateChange { state, task: n[0], chunks: n[1], files: n[2], estimate, disk_estimate, flags };
        prop_assert_eq!(Descriptor::parse(&change.encode()).unwrap(), Descriptor::State(change));
        prop_assert!(u8::from(change.is_start()) + u8::from(change.is_end()) + u8::from(change.is_keep_alive()) == 1);
        prop_assert!(change.acknowledged().is_keep_alive());
        let [offset, file_size] = big;
        let data =
            Data { state, task: n[0], chunk: n[1], block: n[2], file: n[3], length: n[4], offset, file_size };
        prop_assert_eq!(Descriptor::parse(&data.encode()).unwrap(), Descriptor::Data(data));
    }

    #[test]
    fn noise_never_panics(kind in 0_u32..7, noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Out::new().bytes(&noise).end(kind);
        let _ = Descriptor::parse(&bytes);
        let _ = Descriptor::parse(&noise);
    }
}

#[test]
fn the_layout_is_the_one_on_the_wire() {
    let locator = first_locator();
    assert_eq!(&locator[..13], [0, 0, 0, 100, 0, 0, 0, 34, 0, 0, 0, 1, 0]);
    assert_eq!(locator.len(), 128);
    assert!(matches!(Descriptor::parse(&locator[..34]), Ok(Descriptor::Locator)));
    let file = File {
        state: State::FileCopy,
        size: 1,
        allocated: 2,
        fsp_flags: 3,
        fs_block: 4,
        flags: File::AES,
        space: SpaceId(5),
        index: 6,
        first_chunk: 7,
        last_chunk: 8,
        name: Some("ab".into()),
        secret: None,
    };
    let bytes = file.encode().unwrap();
    assert_eq!(bytes.len(), 65);
    assert_eq!((&bytes[40..46], &bytes[58..65]), (&[0, 4, 0, 0, 0, 5][..], &[0, 0, 0, 3, b'a', b'b', 0][..]));
    let mut newer = bytes.clone();
    newer[3] = 101;
    assert_eq!(Descriptor::parse(&newer).unwrap_err().kind(), crate::error::Kind::Unfit);
    let mut strange = bytes;
    strange[15] = 6;
    assert!(Descriptor::parse(&strange).unwrap_err().to_string().contains("state 6"));
}

#[test]
fn undo_tablespaces_are_known_by_their_number() {
    assert!(SpaceId(0xffff_ffef).is_undo() && SpaceId(0xffff_fff0 - 127 * 400_000).is_undo());
    assert!(!SpaceId::REDO.is_undo() && !SpaceId::SYSTEM.is_undo() && !SpaceId(0xffff_ffef - 127 * 400_000).is_undo());
}
