//! The tagged GTID event's own serialisation (MySQL 8.3 and later).
//!
//! A message is: version, size, id of the last field that may not be ignored, then pairs of field id and value, all as
//! varlen integers: as many low 1-bits as the first byte has, so many further bytes follow. Signed values are
//! zigzag-folded. Fields: 0 flags, 1 uuid (16 of them), 2 number (signed), 3 tag, 4 last_committed, 5 sequence_number
//! (signed), 6 immediate commit time, 7 original commit time (optional), 8 transaction length, 9.. versions and later
//! additions, which this reader need not know.

use uuid::Uuid;

use super::GtidEvent;
use crate::position::{CommitTime, GNO_MAX, Gtid, Sid, Tag};

struct Message<'a>(&'a [u8]);

impl Message<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let first = self.byte()?;
        let more = first.trailing_ones();
        let mut value = u128::from(first) >> (more + 1).min(8);
        let mut shift = 8_u32.saturating_sub(more + 1);
        for _ in 0..more {
            value |= u128::from(self.byte()?) << shift;
            shift += 8;
        }
        u64::try_from(value).ok()
    }

    fn signed(&mut self) -> Option<i64> {
        let folded = self.unsigned()?;
        let magnitude = i64::try_from(folded >> 1).ok()?;
        Some(if folded & 1 == 0 { magnitude } else { -magnitude - 1 })
    }
}

pub(super) fn parse(body: &[u8]) -> Option<GtidEvent> {
    let mut message = Message(body);
    let (_version, _size, _last_needed) = (message.unsigned()?, message.unsigned()?, message.unsigned()?);
    let (mut uuid, mut gno, mut tag) = (None, None, Tag::NONE);
    let (mut commit, mut transaction_bytes) = (None, None);
    while !message.0.is_empty() && transaction_bytes.is_none() {
        match message.unsigned()? {
            0 | 7 => {
                message.unsigned()?;
            }
            1 => {
                let mut bytes = [0; 16];
                for byte in &mut bytes {
                    *byte = u8::try_from(message.unsigned()?).ok()?;
                }
                uuid = Some(Uuid::from_bytes(bytes));
            }
            2 => gno = Some(u64::try_from(message.signed()?).ok().filter(|gno| (1..=GNO_MAX).contains(gno))?),
            3 => {
                let length = usize::try_from(message.unsigned()?).ok()?;
                let (text, rest) = message.0.split_at_checked(length)?;
                message.0 = rest;
                tag = Tag::new(std::str::from_utf8(text).ok()?).ok()?;
            }
            4 | 5 => {
                message.signed()?;
            }
            6 => commit = Some(CommitTime::from_micros(message.unsigned()?)),
            8 => transaction_bytes = Some(message.unsigned()?),
            _ => return None,
        }
    }
    let gtid = Gtid { sid: Sid { uuid: uuid?, tag }, gno: gno? };
    Some(GtidEvent { gtid: Some(gtid), commit: commit?, transaction_bytes: Some(transaction_bytes?) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The varlen form, written the way the layout above says.
    fn varlen(value: u64) -> Vec<u8> {
        let bits = (64 - value.leading_zeros()).max(1);
        let more = ((bits - 1) / 7).min(8);
        let wide = if more == 8 {
            u128::from(value) << 8 | 0xff
        } else {
            (u128::from(value) << 1 << more) | ((1 << more) - 1)
        };
        wide.to_le_bytes()[..=usize::try_from(more).unwrap()].to_vec()
    }

    proptest! {
        #[test]
        fn varlen_integers_are_read(value: u64) {
            let bytes = varlen(value);
            let mut message = Message(&bytes);
            prop_assert_eq!(message.unsigned(), Some(value));
            prop_assert!(message.0.is_empty());
        }

        #[test]
        fn any_bytes_are_taken_or_refused(body in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&body);
        }
    }
}
