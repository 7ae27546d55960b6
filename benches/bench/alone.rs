//! The limits: each part of the work alone, on the same bytes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use binvault::chunk::compress::{CompressOptions, Compressor};
use binvault::mysql::dump::{DumpItem, DumpReader};
use binvault::mysql::replica::{DumpRequest, start_dump};
use binvault::mysql::rows::ContentReader;
use binvault::mysql::walk::{Step, TransactionWalk};
use binvault::mysql::{Address, Connection, SourceOptions, TlsMode};
use tokio::io::AsyncReadExt;

use crate::measure::{Cost, thread};
use crate::support::lab::Mysqld;

/// Bytes of a frame, as the agent makes them.
const FRAME: usize = 1 << 20;

/// zstd alone: every file, frame by frame, the threads taking turns. Returns the cost and the compressed size.
pub fn zstd(files: &[PathBuf], level: i32, threads: usize) -> (Cost, u64) {
    let mut stored = 0;
    let mut cost = Cost::default();
    for file in files {
        let raw = std::fs::read(file).unwrap();
        let one = |number: usize| {
            let mut stored = 0;
            let cost = thread(|| {
                let mut compressor = Compressor::new(CompressOptions { level, long_window_log: None }).unwrap();
                let mut out = Vec::new();
                for frame in raw.chunks(FRAME).skip(number).step_by(threads) {
                    compressor.frame(frame, &mut out).unwrap();
                    stored += out.len() as u64;
                }
            });
            (cost, stored)
        };
        let all: Vec<(Cost, u64)> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|number| scope.spawn(move || one(number))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        cost.wall_s += all.iter().map(|(cost, _)| cost.wall_s).fold(0.0, f64::max);
        cost.cpu_s += all.iter().map(|(cost, _)| cost.cpu_s).sum::<f64>();
        stored += all.iter().map(|(_, stored)| stored).sum::<u64>();
    }
    (cost, stored)
}

/// age alone, on as many bytes as zstd left: one thread.
pub fn age(bytes: u64) -> Cost {
    use std::io::Write;

    let recipient = age::x25519::Identity::generate().to_public();
    let chunk = vec![7_u8; 2_700_000];
    let mut out = Vec::with_capacity(chunk.len() + (64 << 10));
    thread(|| {
        let mut left = bytes;
        while left > 0 {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            out.clear();
            let encryptor =
                age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient)).unwrap();
            let mut writer = encryptor.wrap_output(std::mem::take(&mut out)).unwrap();
            writer.write_all(&chunk[..take]).unwrap();
            out = writer.finish().unwrap();
            left -= take as u64;
        }
    })
}

/// A bare socket: the dump read and counted, events split and their checksums checked, nothing kept.
pub fn socket(server: &Mysqld, first: &str, check: bool) -> Cost {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address = Address::Tcp { host: "127.0.0.1".into(), port: server.port() };
    let mut source = SourceOptions::new(address, "binvault", Some(crate::support::agent::PASSWORD.into()));
    source.tls.mode = TlsMode::Disabled;
    let request = DumpRequest {
        server_id: 77,
        replica_uuid: uuid::Uuid::from_u128(77),
        report_host: "bench".into(),
        report_port: 0,
        heartbeat: Duration::from_secs(5),
        net_write_timeout_s: 60,
        file: first.into(),
        position: 4,
        by_gtid: true,
        non_block: true,
        register: false,
        semi_sync: false,
    };
    thread(|| {
        runtime.block_on(async {
            let connection = Connection::connect(&source, "bench").await.unwrap();
            let mut raw = start_dump(connection, &request).await.unwrap();
            let mut reader = DumpReader::new(&raw.leftover).unwrap();
            let mut plain = vec![0; 512 << 10];
            loop {
                if !check {
                    if raw.stream.read(&mut plain).await.unwrap_or(0) == 0 {
                        return;
                    }
                    continue;
                }
                while let Some(item) = reader.next().unwrap() {
                    if item == DumpItem::End {
                        return;
                    }
                }
                let got = raw.stream.read(reader.space()).await.unwrap();
                assert!(got > 0, "the server closed before the end");
                reader.filled(got);
            }
        });
    })
}

/// The walk over a file's events and transactions, checksums checked, and (`look`) a look into each event.
pub fn walk(files: &[PathBuf], look: bool) -> Cost {
    let mut cost = Cost::default();
    for file in files {
        let raw = std::fs::read(file).unwrap();
        let (mut transactions, mut contents) = (0_u64, 0_u64);
        let one = thread(|| {
            let mut walk = TransactionWalk::at_file_start();
            let mut reader = ContentReader::new();
            for block in raw.chunks(FRAME) {
                let fed = walk.feed(block, &mut |step| {
                    match step {
                        Step::Part(part, _) if look => reader.take(&part, &mut |_| contents += 1),
                        Step::End(_) => transactions += 1,
                        _ => {}
                    }
                    Ok(())
                });
                fed.unwrap();
            }
        });
        assert!(transactions > 0 && look == (contents > 0), "{transactions} transactions, {contents} contents");
        cost.wall_s += one.wall_s;
        cost.cpu_s += one.cpu_s;
    }
    cost
}

/// All bytes of some files.
pub fn total(files: &[PathBuf]) -> u64 {
    files.iter().map(|file| Path::new(file).metadata().unwrap().len()).sum()
}
