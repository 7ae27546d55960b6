//! Events as packets: the `00` before each, frames cut at 16 MiB - 1, all gathered in one buffer. Pure.

use bytes::{BufMut, BytesMut};

use super::Refusal;
use crate::mysql::packet::FRAME_BYTES_MAX;

/// A buffer of packets to be written. An event may come in parts.
#[derive(Debug, Default)]
pub struct EventPackets {
    out: BytesMut,
    sequence: u8,
    /// Bytes of the open packet that are not there yet.
    packet_left: u64,
    /// Bytes that its open frame still takes.
    frame_left: usize,
    /// The open frame is as long as a frame can be: another one follows, if only an empty one.
    frame_full: bool,
}

impl EventPackets {
    /// For a stream whose next packet has this number.
    pub fn new(sequence: u8) -> Self {
        Self { sequence, ..Self::default() }
    }

    /// Begins an event of so many bytes. The former one must be complete.
    pub fn begin(&mut self, event_bytes: u32) {
        self.packet_left = u64::from(event_bytes).saturating_add(1);
        self.frame();
        self.put(&[0]);
    }

    /// Adds bytes to the event that was begun; what would go beyond its length is left out.
    pub fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.packet_left > 0 {
            if self.frame_left == 0 {
                self.frame();
            }
            let (now, rest) = bytes.split_at(bytes.len().min(self.frame_left));
            self.out.put_slice(now);
            self.frame_left = self.frame_left.saturating_sub(now.len());
            self.packet_left = self.packet_left.saturating_sub(now.len() as u64);
            bytes = rest;
        }
        if self.packet_left == 0 && self.frame_left == 0 && self.frame_full {
            self.frame();
        }
    }

    /// A whole event.
    pub fn event(&mut self, event: &[u8]) {
        self.begin(u32::try_from(event.len()).unwrap_or(u32::MAX));
        self.put(event);
    }

    /// Where the log ends, for a client that does not wait.
    pub fn end_of_log(&mut self) {
        self.plain(&[0xfe, 0, 0, 2, 0]);
    }

    /// The stream ends here, and why.
    pub fn refusal(&mut self, refusal: &Refusal) {
        self.plain(&refusal.payload());
    }

    fn plain(&mut self, payload: &[u8]) {
        self.packet_left = payload.len() as u64;
        self.frame();
        self.put(payload);
    }

    fn frame(&mut self) {
        let length = usize::try_from(self.packet_left).unwrap_or(usize::MAX).min(FRAME_BYTES_MAX);
        self.out.put_uint_le(length as u64, 3);
        self.out.put_u8(self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
        self.frame_left = length;
        self.frame_full = length == FRAME_BYTES_MAX;
    }

    /// Whether an event was begun and is not complete: nothing else can be sent now.
    pub fn is_open(&self) -> bool {
        self.packet_left > 0
    }

    /// Bytes that wait to be written.
    pub fn buffered(&self) -> &[u8] {
        &self.out
    }

    /// They were written.
    pub fn written(&mut self) {
        self.out.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_util::codec::Decoder;

    use super::*;
    use crate::mysql::packet::{PAYLOAD_BYTES_MAX, PacketCodec};

    fn read_back(packets: &EventPackets) -> Vec<Vec<u8>> {
        let mut codec = PacketCodec::new(PAYLOAD_BYTES_MAX);
        let mut bytes = BytesMut::from(packets.buffered());
        let mut out = Vec::new();
        while let Some(payload) = codec.decode(&mut bytes).unwrap() {
            out.push(payload.to_vec());
        }
        assert!(bytes.is_empty());
        out
    }

    #[test]
    fn events_around_the_frame_limit_are_split_as_readers_expect() {
        for length in [FRAME_BYTES_MAX - 2, FRAME_BYTES_MAX - 1, FRAME_BYTES_MAX, 2 * FRAME_BYTES_MAX - 1] {
            let event: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let mut packets = EventPackets::new(1);
            packets.begin(u32::try_from(length).unwrap());
            for part in event.chunks(5_000_011) {
                assert!(packets.is_open());
                packets.put(part);
            }
            assert!(!packets.is_open());
            packets.event(b"next");
            let read = read_back(&packets);
            assert!(read.len() == 2 && read[0][0] == 0 && read[0][1..] == event && read[1] == b"\0next", "{length}");
        }
    }

    proptest! {
        #[test]
        fn events_survive_any_split(events in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..100), 0..20), cut in 1_usize..40) {
            let mut packets = EventPackets::new(250);
            for event in &events {
                packets.begin(u32::try_from(event.len()).unwrap());
                event.chunks(cut).for_each(|part| packets.put(part));
                prop_assert!(!packets.is_open());
            }
            packets.end_of_log();
            packets.refusal(&Refusal::of_dump("x"));
            let read = read_back(&packets);
            let expected: Vec<Vec<u8>> = events.iter().map(|event| [&[0], &event[..]].concat()).collect();
            prop_assert_eq!(&read[..events.len()], &expected[..]);
            prop_assert_eq!(&read[events.len()], &[0xfe, 0, 0, 2, 0]);
            prop_assert!(read[events.len() + 1].starts_with(b"\xff\xd4\x04#HY000x"));
        }
    }
}
