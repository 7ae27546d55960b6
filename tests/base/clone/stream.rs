//! A clone stream taken apart by the test itself, from the format's description alone: none of the program's code.

use std::collections::BTreeMap;

/// What is in it.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Kinds of answers before the snapshot, in order.
    head: Vec<u8>,
    /// The states in the order of their ends.
    ends: Vec<u32>,
    /// Files of FILE_COPY: name and size, by number.
    files: BTreeMap<u32, (String, u64)>,
    /// Pieces of them that came in FILE_COPY.
    pieces: BTreeMap<u32, BTreeMap<u64, u64>>,
    redo: BTreeMap<u32, u64>,
    /// Bytes of data, by the state they came in.
    pub(crate) data: BTreeMap<u32, u64>,
    last: u8,
    keep_alives: u32,
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Stream {
    pub(crate) fn parse(mut bytes: &[u8]) -> Self {
        assert_eq!(&bytes[..8], b"BVCLONE1");
        bytes = &bytes[8..];
        let mut stream = Self::default();
        let mut announced: Option<u32> = None;
        let mut begun = false;
        while !bytes.is_empty() {
            let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
            let record = &bytes[4..4 + length];
            bytes = &bytes[4 + length..];
            stream.last = record[0];
            match (record[0], announced.take()) {
                (3, Some(length)) => assert_eq!(record.len() - 1, length as usize),
                (3, None) => panic!("data that nothing announced"),
                (_, Some(_)) => panic!("data are missing"),
                (2, None) => {
                    begun = true;
                    announced = stream.descriptor(&record[3..]);
                }
                (kind, None) if !begun => stream.head.push(kind),
                (99, None) => assert!(bytes.is_empty(), "something follows the end"),
                (kind, None) => panic!("an answer of kind {kind} in the snapshot"),
            }
        }
        stream
    }

    /// Takes a descriptor; the length of the data that it announces.
    fn descriptor(&mut self, bytes: &[u8]) -> Option<u32> {
        assert_eq!((be32(bytes, 0), be32(bytes, 4) as usize), (100, bytes.len()));
        let state = be32(bytes, 12);
        match be32(bytes, 8) {
            3 => match u16::from_be_bytes([bytes[44], bytes[45]]) {
                0 => self.ends.push(state),
                1 => {}
                _ => self.keep_alives += 1,
            },
            4 if state == 4 && be32(bytes, 58) == 0 => drop(self.redo.insert(be32(bytes, 46), be64(bytes, 16))),
            4 if state == 2 && self.ends == [1] => {
                let length = be32(bytes, 58) as usize;
                let name = String::from_utf8(bytes[62..62 + length - 1].to_vec()).unwrap();
                self.files.insert(be32(bytes, 46), (name, be64(bytes, 16)));
            }
            5 => {
                let length = be32(bytes, 32);
                *self.data.entry(state).or_default() += u64::from(length);
                if state == 2 {
                    let pieces = self.pieces.entry(be32(bytes, 28)).or_default();
                    pieces.insert(be64(bytes, 36), u64::from(length));
                }
                return Some(length);
            }
            _ => {}
        }
        None
    }

    /// Every state came, and of every file every byte, but of those that were changed meanwhile.
    pub(crate) fn is_whole(&self) {
        assert_eq!((&self.ends[..], self.last, self.keep_alives), (&[1, 2, 3, 4][..], 99, 0));
        assert_eq!(self.head.last(), Some(&99));
        assert!([1, 5, 6, 7].iter().all(|kind| self.head.contains(kind)), "{:?}", self.head);
        assert!(!self.redo.is_empty());
        let mut whole = 0;
        for (number, (name, size)) in &self.files {
            let pieces = self.pieces.get(number).cloned().unwrap_or_default();
            let reached = pieces.iter().fold(0, |end, (at, length)| if *at == end { at + length } else { end });
            // A table that was dropped or truncated while files were copied may be cut short.
            // How many they are depends on how fast the machine changes definitions; the others are always the same.
            if reached < *size {
                assert!(name.starts_with("./ddl/") || name.contains("#sql"), "{name}: {reached} of {size} bytes");
            } else {
                whole += 1;
            }
        }
        assert!(whole > 10, "{whole} of {} files", self.files.len());
        for wanted in ["ibdata1", "mysql.ibd"] {
            assert!(self.files.values().any(|(name, _)| name == wanted), "{wanted}: {:?}", self.files);
        }
    }

    /// What the files of FILE_COPY take.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.files.values().filter(|(name, _)| !name.starts_with("./ddl/")).map(|(_, size)| *size).sum()
    }
}
