//! Changes inputs as a fuzzer does, by chance, but the same in every run.

use crate::support::dice::Dice;

/// Changes inputs.
pub(crate) struct Mutator(Dice);

/// Numbers on which decoders break.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX];

impl Mutator {
    /// One whose chance depends on a text.
    pub(crate) fn new(seed: &str) -> Self {
        Self(Dice::new(u64::from(crc32fast::hash(seed.as_bytes()))))
    }

    fn range(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.0.index(bytes.len());
        start..start + self.0.index((bytes.len() - start).min(256))
    }

    /// One of the inputs, changed in up to five places.
    pub(crate) fn change<'a>(&mut self, inputs: &'a [(String, Vec<u8>)]) -> (&'a str, Vec<u8>) {
        let (name, input) = &inputs[self.0.index(inputs.len())];
        let mut bytes = input.clone();
        for _ in 0..1 + self.0.index(5) {
            let at = self.0.index(bytes.len());
            match self.0.index(8) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(self.range(&bytes.clone()))),
                2 => {
                    let again = bytes[self.range(&bytes)].to_vec();
                    bytes.splice(at..at, again);
                }
                3 => {
                    let (_, other) = &inputs[self.0.index(inputs.len())];
                    let piece = other[self.range(other)].to_vec();
                    bytes.splice(at..at, piece);
                }
                4 => {
                    let edge = EDGES[self.0.index(EDGES.len())].to_le_bytes();
                    let width = [1, 2, 4, 8][self.0.index(4)];
                    let reversed: Vec<u8> = edge[..width].iter().rev().copied().collect();
                    let edge = if self.0.index(2) == 0 { &edge[..width] } else { &reversed };
                    bytes.iter_mut().skip(at).zip(edge).for_each(|(byte, edge)| *byte = *edge);
                }
                _ => {
                    let flipped = u8::try_from(1 << self.0.index(8)).unwrap();
                    bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= flipped);
                }
            }
        }
        (name, bytes)
    }
}
