//! The binary form of a GTID set, as in PREVIOUS_GTIDS events and in the auto-position dump command.
//!
//! Untagged: `n_sids u64`, then for each `uuid16, n_intervals u64, (start i64, end-exclusive i64)*`.
//! Tagged (MySQL 8.3 and later, as soon as one tag exists): the first word is `(1 << 56) | (n << 8) | 1`, and behind
//! each uuid stands the tag: its length as a varlen integer, doubled by that encoding (one byte: `length * 2`), and
//! its bytes. All little-endian. Source: observed on MySQL 9.7 and 8.0.

use uuid::Uuid;

use super::{GtidSet, Interval, ParseError, Sid, Tag};

/// Decodes a whole body. Every byte must be used.
///
/// # Errors
/// If the body is cut short, has bytes behind the set, or holds impossible numbers.
pub fn decode_set(body: &[u8]) -> Result<GtidSet, ParseError> {
    let mut input = Input(body);
    decode(&mut input)
        .filter(|_| input.0.is_empty())
        .ok_or_else(|| ParseError::new("encoded GTID set", &format!("a body of {} bytes", body.len())))
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

fn decode(input: &mut Input<'_>) -> Option<GtidSet> {
    let head = input.u64()?;
    let tagged = head >> 56 == 1;
    let sids = if tagged { (head << 8) >> 16 } else { head };
    let mut runs = Vec::new();
    for _ in 0..sids {
        let uuid = Uuid::from_bytes(input.take::<16>()?);
        let tag = if tagged { decode_tag(input)? } else { Tag::NONE };
        let sid = Sid { uuid, tag };
        for _ in 0..input.u64()? {
            let (first, end) = (input.u64()?, input.u64()?);
            let last = end.checked_sub(1)?;
            if first == 0 || first > last || last > super::GNO_MAX {
                return None;
            }
            runs.push((sid.clone(), Interval { first, last }));
        }
    }
    Some(runs.into_iter().collect())
}

/// A tag has at most 32 bytes, so its length is always the one-byte form: the value shifted left by one.
fn decode_tag(input: &mut Input<'_>) -> Option<Tag> {
    let [length] = input.take::<1>()?;
    if length & 1 != 0 {
        return None;
    }
    let (text, rest) = input.0.split_at_checked(usize::from(length >> 1))?;
    input.0 = rest;
    Tag::new(std::str::from_utf8(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(set: &GtidSet, tagged: bool) -> Vec<u8> {
        let sids: Vec<_> = set.intervals().collect();
        let n = sids.len() as u64;
        let mut out = if tagged { (1 << 56) | (n << 8) | 1 } else { n }.to_le_bytes().to_vec();
        for (sid, runs) in sids {
            out.extend(sid.uuid.as_bytes());
            if tagged {
                out.push(u8::try_from(sid.tag.as_str().len() * 2).unwrap());
                out.extend(sid.tag.as_str().as_bytes());
            }
            out.extend((runs.len() as u64).to_le_bytes());
            for run in runs {
                out.extend(run.first.to_le_bytes());
                out.extend((run.last + 1).to_le_bytes());
            }
        }
        out
    }

    #[test]
    fn both_forms_are_read() {
        let plain: GtidSet = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:9".parse().unwrap();
        assert_eq!(decode_set(&encode(&plain, false)).unwrap(), plain);
        assert_eq!(decode_set(&[0; 8]).unwrap(), GtidSet::new());
        let tagged: GtidSet = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:ab:3".parse().unwrap();
        assert_eq!(decode_set(&encode(&tagged, true)).unwrap(), tagged);
    }

    #[test]
    fn a_cut_or_long_body_is_refused() {
        let set: GtidSet = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:ab:3".parse().unwrap();
        let body = encode(&set, true);
        for length in 0..body.len() {
            assert!(decode_set(&body[..length]).is_err(), "{length}");
        }
        assert!(decode_set(&[&body[..], &[0]].concat()).is_err());
        assert!(decode_set(&u64::MAX.to_le_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_set(&body);
        }
    }
}
