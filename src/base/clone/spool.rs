//! A bounded, encrypted ring of blocks on a local disk, for what comes faster than the store takes it.
//!
//! Owns: the file and its key. Does not own: when it is used (`pipe`).
//!
//! Invariants: the file has no name, so it ends with the process, however that ends; what is written is sealed under a
//! key that is only in this process's memory, for a clone may hold the keys of tablespaces in clear; no block is read
//! that is not the one that was written.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use uuid::Uuid;

use crate::error::{Context, Error, Result};

/// What the seal adds to a block, in bytes.
const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// The ring.
pub(super) struct Spool {
    room: Arc<Room>,
    /// Number and sealed length of the blocks in it, the oldest first.
    blocks: VecDeque<(u64, usize)>,
    /// Number of the next block: a nonce is never used twice.
    next: u64,
    slots: u64,
}

/// Where blocks lie.
struct Room {
    file: File,
    key: LessSafeKey,
    slot_bytes: u64,
    slots: u64,
}

/// A block's place.
#[derive(Clone)]
pub(super) struct Slot {
    room: Arc<Room>,
    number: u64,
}

impl Spool {
    /// A ring for blocks of at most `block_bytes`, in a folder; it takes at most `bytes_max` of its disk.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub(super) fn create(folder: &Path, block_bytes: usize, bytes_max: u64) -> Result<Self> {
        let path = folder.join(format!(".binvault-spool-{}", Uuid::new_v4().simple()));
        let failed = || format!("make a spool file in {} (base.spool_dir)", folder.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).context(failed)?;
        std::fs::remove_file(&path).context(failed)?;
        let mut key = [0; KEY_BYTES];
        let broken = |_| Error::failed("make a key for the spool file");
        rand::fill(&mut key).map_err(broken)?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).map_err(broken)?);
        let slot_bytes = block_bytes.saturating_add(TAG_BYTES) as u64;
        let slots = bytes_max / slot_bytes.max(1);
        let room = Arc::new(Room { file, key, slot_bytes, slots: slots.max(1) });
        Ok(Self { room, blocks: VecDeque::new(), next: 0, slots })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// A place for one more block, if there is one.
    pub(super) fn free(&self) -> Option<Slot> {
        let used = self.blocks.len() as u64;
        (used < self.slots).then(|| Slot { room: Arc::clone(&self.room), number: self.next })
    }

    /// A block was written into the free place.
    pub(super) fn written(&mut self, sealed_bytes: usize) {
        self.blocks.push_back((self.next, sealed_bytes));
        self.next = self.next.saturating_add(1);
    }

    /// Where the oldest block is, and its sealed length.
    pub(super) fn oldest(&self) -> Option<(Slot, usize)> {
        let (number, sealed_bytes) = *self.blocks.front()?;
        Some((Slot { room: Arc::clone(&self.room), number }, sealed_bytes))
    }

    /// The oldest block was read.
    pub(super) fn read(&mut self) {
        self.blocks.pop_front();
    }
}

impl Slot {
    fn nonce(&self) -> Nonce {
        let mut bytes = [0; NONCE_LEN];
        for (room, byte) in bytes.iter_mut().zip(self.number.to_le_bytes()) {
            *room = byte;
        }
        Nonce::assume_unique_for_key(bytes)
    }

    fn offset(&self) -> u64 {
        (self.number % self.room.slots).saturating_mul(self.room.slot_bytes)
    }

    /// Seals a block and writes it; gives its sealed length. Blocks the thread.
    ///
    /// # Errors
    /// Those of the disk. The block is as it was.
    pub(super) fn write(&self, block: &mut Vec<u8>) -> Result<usize> {
        let length = block.len();
        let seal = self.room.key.seal_in_place_append_tag(self.nonce(), Aad::empty(), block);
        seal.map_err(|_| Error::failed("seal a block of the spool file"))?;
        let written = self.room.file.write_all_at(block, self.offset()).context(|| "write the spool file".into());
        let sealed_bytes = block.len();
        if let Err(error) = written {
            self.open(block)?;
            debug_assert_eq!(block.len(), length);
            return Err(error);
        }
        Ok(sealed_bytes)
    }

    /// Reads a block into `block`. Blocks the thread.
    ///
    /// # Errors
    /// Those of the disk; [`crate::error::Kind::Corrupt`] if it is not what was written.
    pub(super) fn read(&self, sealed_bytes: usize, block: &mut Vec<u8>) -> Result<()> {
        block.resize(sealed_bytes, 0);
        self.room.file.read_exact_at(block, self.offset()).context(|| "read the spool file".into())?;
        self.open(block)
    }

    fn open(&self, block: &mut Vec<u8>) -> Result<()> {
        let opened = self.room.key.open_in_place(self.nonce(), Aad::empty(), block);
        let length = opened.map_err(|_| Error::corrupt("the spool file is not what was written into it"))?.len();
        block.truncate(length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: usize = 100;

    fn spool(slots: u64) -> Spool {
        Spool::create(&std::env::temp_dir(), BLOCK, slots * (BLOCK + TAG_BYTES) as u64).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn blocks_come_back_in_order_and_never_more_than_fit(
            steps in prop::collection::vec((any::<bool>(), 1_usize..BLOCK), 0..60), slots in 1_u64..6,
        ) {
            let mut spool = spool(slots);
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            for (index, (put, length)) in steps.into_iter().enumerate() {
                if put {
                    let free = spool.free();
                    prop_assert_eq!(free.is_some(), (model.len() as u64) < slots);
                    let Some(slot) = free else { continue };
                    let block = vec![u8::try_from(index).unwrap(); length];
                    let sealed = slot.write(&mut block.clone()).unwrap();
                    spool.written(sealed);
                    model.push_back(block);
                } else if let Some((slot, sealed)) = spool.oldest() {
                    let mut block = vec![1, 2, 3];
                    slot.read(sealed, &mut block).unwrap();
                    spool.read();
                    prop_assert_eq!(Some(block), model.pop_front());
                }
                prop_assert_eq!(spool.is_empty(), model.is_empty());
            }
            prop_assert!(spool.room.file.metadata().unwrap().len() <= slots * (BLOCK + TAG_BYTES) as u64);
        }
    }

    #[test]
    fn nothing_of_a_block_can_be_read_on_the_disk_and_damage_is_noticed() {
        let mut spool = spool(2);
        let secret = b"a key of a tablespace, in clear";
        let sealed = spool.free().unwrap().write(&mut secret.to_vec()).unwrap();
        spool.written(sealed);
        let mut raw = vec![0; sealed];
        spool.room.file.read_exact_at(&mut raw, 0).unwrap();
        assert!(!raw.windows(5).any(|piece| secret.windows(5).any(|word| word == piece)));
        spool.room.file.write_all_at(&[raw[3] ^ 1], 3).unwrap();
        let (slot, sealed) = spool.oldest().unwrap();
        let error = slot.read(sealed, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Corrupt);
    }

    #[test]
    fn a_folder_that_is_none_and_no_room_are_said() {
        let error = Spool::create(Path::new("/no/such/folder"), BLOCK, 1 << 20).err().unwrap();
        assert!(error.to_string().contains("base.spool_dir"), "{error}");
        assert!(Spool::create(&std::env::temp_dir(), BLOCK, 10).unwrap().free().is_none());
    }
}
