//! Ranges of bytes, possibly overlapping, as one line from the start. Pure.
//!
//! Overlaps are normal: a second agent, or a second try after a crash, cuts elsewhere. Any chunk gives the bytes of its
//! range, so the cover takes, at each place, the one that reaches farthest.

use crate::position::ByteRange;
use crate::simulation::{Bug, planted};

/// A part of a file and the chunk to take it from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Index into the ranges given.
    pub index: usize,
    /// The bytes of the file to take from it.
    pub take: ByteRange,
}

/// How ranges cover a file from its first byte.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cover {
    /// What to read, in order, without overlap.
    pub pieces: Vec<Piece>,
    /// One past the last byte that is there without a hole before it.
    pub contiguous_end: u64,
    /// Missing ranges before bytes that are there.
    pub holes: Vec<ByteRange>,
    /// One past the last byte that is there at all.
    pub end: u64,
}

impl Cover {
    /// Covers a file with `ranges`, in any order.
    pub fn of(ranges: &[ByteRange]) -> Self {
        let mut order: Vec<(usize, ByteRange)> = ranges.iter().copied().enumerate().collect();
        order.sort_by_key(|(_, range)| (range.start(), range.end()));
        let mut cover = Cover::default();
        let mut reach = 0;
        let mut next = 0;
        while next < order.len() {
            // Of all that begin at or before the reach, the one that goes farthest.
            let mut best: Option<(usize, ByteRange)> = None;
            while let Some(candidate) = order.get(next).filter(|(_, range)| range.start() <= reach) {
                if candidate.1.end() > best.map_or(reach, |(_, range)| range.end()) {
                    best = Some(*candidate);
                }
                next = next.saturating_add(1);
            }
            match best {
                Some((index, range)) => {
                    let from = if planted(Bug::OverlapTwice) { range.start() } else { reach };
                    cover.pieces.extend(ByteRange::new(from, range.end()).map(|take| Piece { index, take }));
                    reach = range.end();
                }
                None => {
                    let Some((_, range)) = order.get(next) else { break };
                    cover.holes.extend(ByteRange::new(reach, range.start()));
                    reach = range.start();
                }
            }
        }
        cover.end = reach;
        cover.contiguous_end = cover.holes.first().map_or(reach, |hole| hole.start());
        cover
    }

    /// The pieces before the first hole.
    pub fn contiguous(&self) -> &[Piece] {
        let until = self.pieces.partition_point(|piece| piece.take.end() <= self.contiguous_end);
        self.pieces.get(..until).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end).unwrap()
    }

    #[test]
    fn overlaps_are_taken_once_and_holes_are_named() {
        let cover = Cover::of(&[range(50, 90), range(0, 10), range(5, 60), range(0, 20), range(100, 120)]);
        let takes: Vec<_> = cover.pieces.iter().map(|p| (p.index, p.take)).collect();
        assert_eq!(takes, [(3, range(0, 20)), (2, range(20, 60)), (0, range(60, 90)), (4, range(100, 120))]);
        assert_eq!((cover.contiguous_end, cover.end), (90, 120));
        assert_eq!(cover.holes, [range(90, 100)]);
        assert_eq!(cover.contiguous().len(), 3);
    }

    #[test]
    fn nothing_covers_nothing() {
        assert_eq!(Cover::of(&[]), Cover::default());
        let late = Cover::of(&[range(4, 8)]);
        assert_eq!((late.contiguous_end, late.end), (0, 8));
        assert!(late.contiguous().is_empty());
    }

    proptest! {
        #[test]
        fn a_cover_is_what_a_bitmap_says(ranges in prop::collection::vec((0_u64..60, 1_u64..20), 0..12)) {
            let ranges: Vec<_> = ranges.into_iter().map(|(start, length)| range(start, start + length)).collect();
            let cover = Cover::of(&ranges);
            let there = |byte: u64| ranges.iter().any(|r| r.start() <= byte && byte < r.end());
            let mut at = 0;
            let mut pieces = cover.pieces.iter();
            let mut holes = cover.holes.iter();
            while at < cover.end {
                let next = if there(at) { pieces.next().unwrap().take } else { *holes.next().unwrap() };
                prop_assert_eq!(next.start(), at);
                prop_assert!((next.start()..next.end()).all(|byte| there(byte) == there(at)));
                at = next.end();
            }
            prop_assert!(pieces.next().is_none() && holes.next().is_none());
            prop_assert_eq!(cover.end, ranges.iter().map(|r| r.end()).max().unwrap_or(0));
            for piece in &cover.pieces {
                let from = ranges[piece.index];
                prop_assert!(from.start() <= piece.take.start() && piece.take.end() <= from.end());
            }
        }
    }
}
