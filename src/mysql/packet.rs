//! The classic framing: a 3-byte length and a sequence number before each frame, payloads cut at 16 MiB - 1.
//!
//! Owns: payloads to frames and back, the sequence number, the bound on a payload. Does not own: what a payload
//! means, nor the dump's stream, whose reader walks the frames itself and never holds an event whole.
//!
//! Incoming sequence numbers are not checked: servers reset them in the middle of a conversation (semi-sync), and
//! TCP or TLS keep the order anyway. An outgoing packet continues the number of the packet it answers.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// The longest payload of one frame. A frame this long says that another one follows, if only an empty one.
pub const FRAME_BYTES_MAX: usize = 0xff_ffff;

/// The bound on a payload while logging in; what a server says then is small.
pub const LOGIN_PAYLOAD_BYTES_MAX: usize = 256 << 10;

/// The bound on a payload afterwards, for plain questions.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

const HEADER_BYTES: usize = 4;

/// Why a packet could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A payload over the bound.
    #[error("a packet of at least {length} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// What the frames so far announce, bytes.
        length: usize,
        /// The bound, bytes.
        limit: usize,
    },
}

/// Turns payloads into frames and back.
#[derive(Debug)]
pub struct PacketCodec {
    limit: usize,
    sequence: u8,
    partial: Option<BytesMut>,
}

impl PacketCodec {
    /// A codec at the start of a conversation; payloads over `limit` bytes are errors in both directions.
    pub fn new(limit: usize) -> Self {
        Self { limit, sequence: 0, partial: None }
    }

    /// Replaces the bound.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The next packet starts a command: its number is 0.
    pub fn start_command(&mut self) {
        self.sequence = 0;
    }

    fn check(&self, length: usize) -> Result<(), PacketError> {
        if length > self.limit { Err(PacketError::TooLarge { length, limit: self.limit }) } else { Ok(()) }
    }
}

impl Decoder for PacketCodec {
    type Item = Bytes;
    type Error = PacketError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Bytes>, PacketError> {
        loop {
            let Some((&[a, b, c, sequence], body)) = source.split_first_chunk::<HEADER_BYTES>() else {
                return Ok(None);
            };
            let length = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
            self.check(self.partial.as_ref().map_or(0, BytesMut::len).saturating_add(length))?;
            if let Some(missing) = length.checked_sub(body.len()).filter(|missing| *missing > 0) {
                source.reserve(missing);
                return Ok(None);
            }
            source.advance(HEADER_BYTES);
            let frame = source.split_to(length);
            self.sequence = sequence.wrapping_add(1);
            let whole = match self.partial.take() {
                None => frame,
                Some(mut head) => {
                    head.extend_from_slice(&frame);
                    head
                }
            };
            if length < FRAME_BYTES_MAX {
                return Ok(Some(whole.freeze()));
            }
            self.partial = Some(whole);
        }
    }
}

impl Encoder<&[u8]> for PacketCodec {
    type Error = PacketError;

    fn encode(&mut self, payload: &[u8], target: &mut BytesMut) -> Result<(), PacketError> {
        self.check(payload.len())?;
        let mut rest = payload;
        loop {
            let (frame, tail) = rest.split_at(rest.len().min(FRAME_BYTES_MAX));
            target.reserve(HEADER_BYTES + frame.len());
            target.put_uint_le(frame.len() as u64, 3);
            target.put_u8(self.sequence);
            target.put_slice(frame);
            self.sequence = self.sequence.wrapping_add(1);
            rest = tail;
            if frame.len() < FRAME_BYTES_MAX {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `bytes` in pieces of the given sizes (the last one again and again), as a socket would.
    fn decode_in_pieces(bytes: &[u8], pieces: &[usize]) -> Vec<Bytes> {
        let mut codec = PacketCodec::new(PAYLOAD_BYTES_MAX);
        let (mut buffer, mut out, mut rest) = (BytesMut::new(), Vec::new(), bytes);
        let mut sizes = pieces.iter().copied();
        let mut size = usize::MAX;
        while !rest.is_empty() {
            size = sizes.next().unwrap_or(size).max(1);
            let (piece, tail) = rest.split_at(size.min(rest.len()));
            buffer.extend_from_slice(piece);
            rest = tail;
            while let Some(payload) = codec.decode(&mut buffer).unwrap() {
                out.push(payload);
            }
        }
        assert!(buffer.is_empty() && codec.partial.is_none(), "something was left over");
        out
    }

    fn encode(payloads: &[Vec<u8>]) -> BytesMut {
        let mut codec = PacketCodec::new(PAYLOAD_BYTES_MAX);
        let mut bytes = BytesMut::new();
        for payload in payloads {
            codec.encode(payload, &mut bytes).unwrap();
        }
        bytes
    }

    proptest! {
        #[test]
        fn payloads_survive_any_split(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            pieces in prop::collection::vec(1usize..50, 1..40),
        ) {
            let got = decode_in_pieces(&encode(&payloads), &pieces);
            prop_assert_eq!(got.iter().map(|p| p.to_vec()).collect::<Vec<_>>(), payloads);
        }

        #[test]
        fn noise_never_panics_nor_passes_the_limit(noise in prop::collection::vec(any::<u8>(), 0..4096)) {
            let mut codec = PacketCodec::new(1000);
            let mut buffer = BytesMut::from(&noise[..]);
            while let Ok(Some(payload)) = codec.decode(&mut buffer) {
                prop_assert!(payload.len() <= 1000);
            }
            prop_assert!(buffer.capacity() < 1 << 16, "noise made us reserve {}", buffer.capacity());
        }
    }

    #[test]
    fn payloads_around_the_frame_limit_survive() {
        for length in [FRAME_BYTES_MAX - 1, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, 2 * FRAME_BYTES_MAX] {
            let payload: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let bytes = encode(&[payload.clone(), b"next".to_vec()]);
            assert_eq!(bytes.len(), length + 4 * (length / FRAME_BYTES_MAX + 1) + 8);
            for pieces in [&[1usize, 1, 1, 1, 1, 7_000_003][..], &[1 << 30]] {
                let got = decode_in_pieces(&bytes, pieces);
                assert!(got.len() == 2 && got[0] == payload && got[1] == b"next"[..], "{length} bytes");
            }
        }
    }

    #[test]
    fn the_limit_counts_all_frames_of_a_payload_and_what_we_send() {
        let bytes = encode(&[vec![7; FRAME_BYTES_MAX + 10]]);
        let mut codec = PacketCodec::new(FRAME_BYTES_MAX + 9);
        let mut buffer = bytes;
        assert!(matches!(codec.decode(&mut buffer), Err(PacketError::TooLarge { .. })));
        assert!(matches!(codec.encode(&vec![0; FRAME_BYTES_MAX + 10], &mut buffer), Err(PacketError::TooLarge { .. })));
    }

    #[test]
    fn an_answer_continues_the_number_and_a_command_starts_at_zero() {
        let mut codec = PacketCodec::new(100);
        codec.decode(&mut BytesMut::from(&[1, 0, 0, 6, 9][..])).unwrap().unwrap();
        let mut out = BytesMut::new();
        codec.encode(b"x", &mut out).unwrap();
        codec.start_command();
        codec.encode(b"y", &mut out).unwrap();
        assert_eq!(&out[..], [1, 0, 0, 7, b'x', 1, 0, 0, 0, b'y']);
    }
}
