//! Manifests and reading back, on the memory store.

use std::sync::Arc;

use super::*;
use crate::chunk::compress::{CompressOptions, Compressor};
use crate::chunk::keys::{Identities, Recipients, generate};
use crate::chunk::part::{PartMeta, seal_part};
use crate::store::memory::MemoryStore;

struct Bench {
    archive: Archive,
    recipients: Recipients,
    keys: Arc<Identities>,
}

async fn bench() -> Bench {
    let (secret, public) = generate();
    Bench {
        archive: Archive::open(Arc::new(MemoryStore::new()), true).await.unwrap(),
        recipients: Recipients::parse(&[public]).unwrap(),
        keys: Arc::new(Identities::parse("test", &secret).unwrap()),
    }
}

impl Bench {
    fn manifest(&self, started_us: u64) -> BaseManifest {
        BaseManifest {
            format: FORMAT_VERSION,
            archive: self.archive.id(),
            id: BaseManifest::id_of(started_us, "mysqldump"),
            engine: "mysqldump".into(),
            content: BaseContent::Sql,
            server: ServerUuid(Uuid::from_u128(2)),
            server_version: "9.7.4".into(),
            started_us,
            finished_us: started_us + 1_500_000,
            coordinates: Coordinates {
                file: BinlogFile::new("binlog.000007").unwrap(),
                created_s: Some(1_795_342_530),
                position: 158,
                executed: "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5".parse().unwrap(),
                gtid_mode: "ON".into(),
            },
            raw_bytes: 0,
            stored_bytes: 0,
            tool: "a tool".into(),
            left_out: vec!["mysql.gtid_executed".into()],
            settings: std::collections::BTreeMap::new(),
            clone: None,
            parts: Vec::new(),
        }
    }

    /// Seals and stores a backup of `bytes` in parts of `part_bytes`; writes no manifest.
    async fn parts_of(&self, manifest: &mut BaseManifest, bytes: &[u8], part_bytes: usize) {
        let mut compressor = Compressor::new(CompressOptions { level: 1, long_window_log: None }).unwrap();
        let count = bytes.chunks(part_bytes).count();
        for (index, piece) in bytes.chunks(part_bytes).enumerate() {
            let mut frames = Vec::new();
            compressor.frame(piece, &mut frames).unwrap();
            let meta = PartMeta {
                format: FORMAT_VERSION,
                archive: manifest.archive,
                base: manifest.id.clone(),
                number: u32::try_from(index + 1).unwrap(),
                offset: manifest.raw_bytes,
                raw_bytes: piece.len() as u64,
                last: index + 1 == count,
            };
            let sealed = seal_part(&meta, &self.recipients, &frames).unwrap();
            let object = sealed.name.to_string();
            let key = part_key(&manifest.id, &object).unwrap();
            manifest.raw_bytes += piece.len() as u64;
            manifest.stored_bytes += sealed.object.len() as u64;
            manifest.parts.push(BasePart {
                object,
                raw_bytes: piece.len() as u64,
                stored_bytes: sealed.object.len() as u64,
            });
            self.archive.store().put_new(&key, Bytes::from(sealed.object)).await.unwrap();
        }
    }

    async fn read(&self, manifest: &BaseManifest) -> (Vec<u8>, Result<()>) {
        let mut out = Vec::new();
        let mut told = 0;
        let result = read_base(&self.archive, manifest, Arc::clone(&self.keys), &mut out, |bytes| told += bytes).await;
        assert_eq!(told, out.len() as u64);
        (out, result)
    }
}

fn bytes(count: u32) -> Vec<u8> {
    (0..count).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[tokio::test]
async fn the_manifest_makes_the_backup() {
    let bench = bench().await;
    let mut manifest = bench.manifest(1_795_342_530_000_001);
    bench.parts_of(&mut manifest, &bytes(1000), 512).await;
    let before = bench.archive.bases().await.unwrap();
    assert_eq!((before.complete.len(), before.unfinished), (0, vec![manifest.id.clone()]));
    assert_eq!(bench.archive.base(&manifest.id).await.unwrap_err().kind(), Kind::Config);

    let mut older = bench.manifest(1_795_342_529_000_000);
    bench.parts_of(&mut older, b"x", 512).await;
    bench.archive.put_manifest(&manifest).await.unwrap();
    bench.archive.put_manifest(&older).await.unwrap();
    bench.archive.put_manifest(&older).await.expect("the same again is a lost answer");
    let after = bench.archive.bases().await.unwrap();
    assert_eq!(after.complete, [older.clone(), manifest.clone()]);
    assert_eq!(bench.archive.base(&manifest.id).await.unwrap(), manifest);
    older.tool = "another".into();
    assert_eq!(bench.archive.put_manifest(&older).await.unwrap_err().kind(), Kind::Clash);
}

#[tokio::test]
async fn what_was_sealed_is_read_in_order() {
    let bench = bench().await;
    for (count, part) in [(1, 4), (100_000, 33_333), (250_000, 1_000_000)] {
        let mut manifest = bench.manifest(u64::from(count));
        bench.parts_of(&mut manifest, &bytes(count), part).await;
        let (read, result) = bench.read(&manifest).await;
        result.unwrap();
        assert!(read == bytes(count), "{count} words in parts of {part}");
    }
}

#[tokio::test]
async fn an_error_names_the_part_and_comes_behind_all_that_is_good() {
    let bench = bench().await;
    let mut manifest = bench.manifest(1);
    bench.parts_of(&mut manifest, &bytes(1000), 1000).await;
    let key = manifest.part_key(&manifest.parts[2]).unwrap();
    let mut object = bench.archive.store().get_range(&key, 0, 1 << 20).await.unwrap().to_vec();
    object[700] ^= 1;
    bench.archive.store().put_over(&key, Bytes::from(object)).await.unwrap();
    let (read, result) = bench.read(&manifest).await;
    let error = result.unwrap_err();
    assert_eq!((read.len(), error.kind()), (2000, Kind::Corrupt));
    assert!(error.chain().contains("part-000003"), "{}", error.chain());

    bench.archive.store().delete(&key).await.unwrap();
    let (read, result) = bench.read(&manifest).await;
    assert_eq!((read.len(), result.unwrap_err().kind()), (2000, Kind::Store));
}

#[tokio::test]
async fn a_cut_off_or_shuffled_list_of_parts_is_no_backup() {
    let bench = bench().await;
    let mut manifest = bench.manifest(1);
    bench.parts_of(&mut manifest, &bytes(1000), 1000).await;
    let mut cut = manifest.clone();
    let gone = cut.parts.pop().unwrap();
    cut.raw_bytes -= gone.raw_bytes;
    cut.stored_bytes -= gone.stored_bytes;
    assert_eq!(bench.read(&cut).await.1.unwrap_err().kind(), Kind::Corrupt, "the third part is not the last");

    let mut shuffled = manifest.clone();
    shuffled.parts.swap(0, 1);
    assert!(bench.archive.put_manifest(&shuffled).await.is_err());
    assert_eq!(bench.read(&shuffled).await.1.unwrap_err().kind(), Kind::Corrupt);
    let other = bench.manifest(2);
    let foreign = BaseManifest { parts: manifest.parts.clone(), ..other };
    assert!(bench.read(&foreign).await.1.is_err());
}

#[tokio::test]
async fn a_manifest_that_cannot_be_used_stands_in_nobodys_way() {
    let bench = bench().await;
    let mut good = bench.manifest(5);
    bench.parts_of(&mut good, b"good", 100).await;
    bench.archive.put_manifest(&good).await.unwrap();
    let newer = serde_json::to_string(&BaseManifest { format: FORMAT_VERSION + 1, ..good.clone() }).unwrap();
    let moved = serde_json::to_string(&good).unwrap();
    for (id, body) in [("a", "no JSON"), ("b", newer.as_str()), ("c", moved.as_str())] {
        let key = Key::new(format!("bases/{id}/manifest.json")).unwrap();
        bench.archive.store().put_new(&key, Bytes::from(body.to_owned())).await.unwrap();
    }
    let bases = bench.archive.bases().await.unwrap();
    assert_eq!(bases.complete, [good]);
    let ids: Vec<&str> = bases.unreadable.iter().map(|base| base.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert!(bases.unreadable[1].is_newer && bases.unreadable[1].problem.contains("format"), "{:?}", bases.unreadable);
    assert!(bench.archive.base("a").await.is_err());
    assert_eq!(bench.archive.base("../x").await.unwrap_err().kind(), Kind::Config);
}

#[test]
fn a_content_of_a_later_version_can_be_listed() {
    assert_eq!(serde_json::from_str::<BaseContent>("\"later\"").unwrap(), BaseContent::Other);
    assert_eq!(serde_json::to_string(&BaseContent::Sql).unwrap(), "\"sql\"");
}
