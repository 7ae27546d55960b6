//! TRANSACTION_PAYLOAD: a transaction's events, compressed. Opened in a stream, so that its size costs no memory.

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use crate::mysql::wire::Reader;

/// Largest zstd window accepted, as a power of two: what the server's own levels need, and `zstd -d` takes.
const WINDOW_LOG_MAX: u32 = 27;
/// Bytes decompressed at a time.
const OUT_BYTES: usize = 128 << 10;
/// Most bytes a payload may become, where it does not say: the server's own limit on a transaction is far below.
const UNPACKED_BYTES_MAX: u64 = 1 << 36;

/// Opens one payload, piece by piece.
pub(super) struct Payload {
    decoder: Option<Decoder<'static>>,
    out: Vec<u8>,
    /// Bytes of the payload that have not come yet.
    left: u64,
    /// Bytes that may still come out.
    room: u64,
}

/// What stands before the payload.
#[derive(Debug, Default, PartialEq, Eq)]
struct Head {
    packed: Option<u64>,
    compression: Option<u64>,
    unpacked: Option<u64>,
}

impl Head {
    /// Pairs of type and length, then the value: 1 size, 2 compression (0 zstd, 255 none), 3 size unpacked; 0 ends them.
    fn parse(body: &[u8]) -> Option<(Self, &[u8])> {
        let mut reader = Reader(body);
        let mut head = Self::default();
        loop {
            let field = reader.lenenc()?;
            if field == 0 {
                return Some((head, reader.0));
            }
            let mut value = Reader(reader.lenenc_bytes()?);
            match field {
                1 => head.packed = Some(value.lenenc()?),
                2 => head.compression = Some(value.lenenc()?),
                3 => head.unpacked = Some(value.lenenc()?),
                _ => {}
            }
        }
    }
}

impl Payload {
    /// Begins with the event's body as far as it is there (its head lies in the first part); returns the first bytes of
    /// the payload. `None` if it cannot be opened.
    pub(super) fn begin(body: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = Head::parse(body)?;
        let decoder = match head.compression? {
            0 => {
                let mut decoder = Decoder::new().ok()?;
                decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).ok()?;
                Some(decoder)
            }
            255 => None,
            _ => return None,
        };
        let room = head.unpacked.unwrap_or(UNPACKED_BYTES_MAX).min(UNPACKED_BYTES_MAX);
        Some((Self { decoder, out: Vec::new(), left: head.packed?, room }, rest))
    }

    /// Takes more of the event's bytes and gives what they become. `None` if they are no such payload.
    pub(super) fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(&[u8]) -> Option<()>) -> Option<()> {
        // What stands behind the payload is the event's checksum.
        let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = bytes.get(..take)?;
        self.left = self.left.saturating_sub(take as u64);
        let Some(decoder) = self.decoder.as_mut() else {
            self.room = self.room.checked_sub(bytes.len() as u64)?;
            return sink(bytes);
        };
        self.out.resize(OUT_BYTES, 0);
        let mut input = InBuffer::around(bytes);
        loop {
            let mut output = OutBuffer::around(self.out.as_mut_slice());
            decoder.run(&mut input, &mut output).ok()?;
            let got = output.pos();
            self.room = self.room.checked_sub(got as u64)?;
            sink(self.out.get(..got)?)?;
            // Everything is taken, and nothing waits for room.
            if input.pos() == bytes.len() && got < OUT_BYTES {
                return Some(());
            }
        }
    }

    /// Whether all of it has come, and become what it said.
    pub(super) fn is_whole(&self) -> bool {
        self.left == 0
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payload").field("left", &self.left).field("room", &self.room).finish_non_exhaustive()
    }
}
