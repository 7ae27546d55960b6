//! Parts on a disk become a data directory.

use std::collections::BTreeMap;

use super::*;
use crate::mysql::clone::descriptor::Secret;

const PAGE: u32 = 16384;

/// A first page of an encrypted tablespace with its key in clear, as a donor sends it.
fn first_page(space: u32) -> Vec<u8> {
    let shape = Shape::of(ENCRYPTED, PAGE).unwrap();
    let mut page = shape.first_page(space, ENCRYPTED, 90_704);
    put(&mut page, shape.key_at(), &clear_key());
    shape.seal(&mut page);
    page
}

fn clear_key() -> Vec<u8> {
    let secret = [7; 64];
    [&b"lCC\0\0\0\0"[..], &[b'u'; 36], &secret, &crc32c(&secret).to_be_bytes()].concat()
}

struct Place {
    dir: tempfile::TempDir,
    files: Files,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), files: Files { data: BTreeMap::new(), redo: BTreeMap::new() } }
    }

    fn begin(&self, master: Option<MasterKey>) -> Assembly {
        Assembly::begin(self.dir.path(), PAGE, true, master).unwrap()
    }

    fn add(&mut self, assembly: &Assembly, index: u32, part: Part, bytes: &[u8]) {
        std::fs::write(part_path(&assembly.parts(), Which::Data(index)), bytes).unwrap();
        self.files.data.insert(index, part);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

#[test]
fn everything_gets_its_place_its_size_and_its_key() {
    let mut place = Place::new();
    let master = MasterKey::fresh().unwrap();
    let uuid = format!("{master:?}").replace("MasterKey(", "").replace(')', "");
    let assembly = place.begin(Some(master));
    assert!(place.path(IN_PROGRESS).is_file(), "nobody may start on it meanwhile");
    place.add(&assembly, 0, Part::of("ibdata1", 0, 0, 12_000_000), &vec![1; 20_000]);
    place.add(&assembly, 1, Part::of("shop/secret.ibd", 5, ENCRYPTED, (1 << 20) + 1), &first_page(5));
    // Made meanwhile: the key came beside the pages.
    let shape = Shape::of(ENCRYPTED, PAGE).unwrap();
    let mut beside = Part::of("shop/new.ibd", 6, ENCRYPTED, 114_688);
    beside.secret = Some(Secret { key: [1; 32], iv: [2; 32] });
    place.add(&assembly, 2, beside, &shape.first_page(6, ENCRYPTED, 90_704));
    let plain = Shape::of(0, PAGE).unwrap().first_page(7, 0, 90_704);
    place.add(&assembly, 3, Part::of("shop/plain.ibd", 7, 0, 114_688), &plain);
    let mut redo = vec![0; 4096];
    put(&mut redo, REDO_KEY_BLOCK + REDO_KEY_AT, &clear_key());
    let sum = crc32c(&redo[REDO_KEY_BLOCK..REDO_KEY_BLOCK + 508]).to_be_bytes();
    put(&mut redo, REDO_KEY_BLOCK + 508, &sum);
    std::fs::write(part_path(&assembly.parts(), Which::Redo(0)), &redo).unwrap();
    place.files.redo.insert(0, 8192);
    let parts = assembly.parts();
    assembly.finish(&place.files).unwrap();

    let size = |name: &str| place.path(name).metadata().unwrap().len();
    assert_eq!((size("ibdata1"), size("shop/secret.ibd"), size("shop/new.ibd")), (12_000_000, 2 << 20, 114_688));
    assert_eq!(size("#innodb_redo/#ib_redo0"), 8192);
    for name in ["shop/secret.ibd", "shop/new.ibd"] {
        let page = &std::fs::read(place.path(name)).unwrap()[..shape.bytes];
        assert!(shape.is_sound(page), "{name}");
        let key = &page[shape.key_at()..][..43];
        assert_eq!((&key[..7], &key[7..]), (&b"lCC\0\0\0\x01"[..], uuid.as_bytes()), "{name}");
    }
    assert!(
        std::fs::read(place.path("shop/plain.ibd")).unwrap().starts_with(&plain),
        "what has no key is left as it is"
    );
    let block = &std::fs::read(place.path("#innodb_redo/#ib_redo0")).unwrap()[REDO_KEY_BLOCK..][..REDO_BLOCK_BYTES];
    assert_eq!(&block[REDO_KEY_AT..][..7], b"lCC\0\0\0\x01");
    assert_eq!(crc32c(&block[..508]).to_be_bytes(), block[508..]);
    assert!(!place.path(IN_PROGRESS).exists() && !parts.exists());
    assert!(place.path(FIX).is_file() && place.path(REPLACE).is_file() && place.path("mysql").is_dir());
}

#[test]
fn nothing_is_overwritten_and_a_failure_leaves_the_mark() {
    let mut place = Place::new();
    let assembly = place.begin(None);
    std::fs::create_dir(place.path("shop")).unwrap();
    std::fs::write(place.path("shop/a.ibd"), "mine").unwrap();
    let page = Shape::of(0, PAGE).unwrap().first_page(5, 0, 90_704);
    place.add(&assembly, 1, Part::of("shop/a.ibd", 5, 0, 114_688), &page);
    let error = assembly.finish(&place.files).unwrap_err();
    assert!(error.to_string().contains("shop/a.ibd"), "{error}");
    assert_eq!(std::fs::read(place.path("shop/a.ibd")).unwrap(), b"mine");
    assert!(place.path(IN_PROGRESS).is_file());
}

#[test]
fn keys_that_the_manifest_does_not_know_of_are_refused() {
    let mut place = Place::new();
    let assembly = place.begin(None);
    place.add(&assembly, 1, Part::of("shop/a.ibd", 5, ENCRYPTED, 114_688), &first_page(5));
    let error = assembly.finish(&place.files).unwrap_err();
    assert!(error.chain().contains("the manifest says that nothing is"), "{}", error.chain());
    assert!(place.path(IN_PROGRESS).is_file());
}

#[test]
fn a_keyring_is_written_once_and_for_the_server_alone() {
    let (data, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (master, keyring) = (MasterKey::fresh().unwrap(), beside.path().join("key\"ring"));
    write_keyring(data.path(), &keyring, &master).unwrap();
    assert_eq!(std::fs::read_to_string(&keyring).unwrap(), master.keyring());
    let mode = std::os::unix::fs::PermissionsExt::mode(&keyring.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let config = std::fs::read(data.path().join("component_keyring_file.cnf")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["path"].as_str(), keyring.to_str());
    assert!(write_keyring(data.path(), &keyring, &master).is_err());
}
