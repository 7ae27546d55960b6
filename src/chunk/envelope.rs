//! The envelope of everything sealed: an age file with one extra stanza of ours, around zstd frames.
//!
//! Owns: writing and picking the stanza, encryption and decryption, and reading exactly as many bytes as were promised.
//! Does not own: what the stanza says (`meta` for chunks, `part` for parts of a base backup).

use std::collections::HashSet;
use std::io::{self, BufRead, Read, Write};
use std::sync::Mutex;

use age_core::format::{FileKey, Stanza};

use super::HEADER_BYTES_MAX;
use super::keys::{Identities, Recipients};
use crate::error::{Error, Kind, Result};

/// Largest zstd window accepted, as a power of two: 128 MiB, what `zstd -d` takes without asking.
const WINDOW_LOG_MAX: u32 = 27;

/// A recipient that wraps nothing: it adds our stanza to the header. Stock age steps over stanzas it does not know.
struct OurStanza<'a> {
    tag: &'static str,
    body: &'a [u8],
}

impl age::Recipient for OurStanza<'_> {
    fn wrap_file_key(&self, _: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), age::EncryptError> {
        let args = vec![super::FORMAT_VERSION.to_string()];
        Ok((vec![Stanza { tag: self.tag.to_owned(), args, body: self.body.to_vec() }], HashSet::new()))
    }
}

/// An identity that opens nothing: it picks our stanza out of the header.
struct Picker {
    tag: &'static str,
    found: Mutex<Option<Vec<u8>>>,
}

impl age::Identity for Picker {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, age::DecryptError>> {
        if stanza.tag == self.tag
            && let Ok(mut found) = self.found.lock()
        {
            found.get_or_insert_with(|| stanza.body.clone());
        }
        None
    }
}

/// Encrypts zstd frames, `bytes` in all, to the recipients, with `body` in a stanza `tag` of the header, into `object`
/// (cleared first, so that its memory can be used again). Each item is dropped as soon as it is in.
pub(super) fn wrap(
    tag: &'static str,
    body: &[u8],
    recipients: &Recipients,
    (frames, bytes): (impl IntoIterator<Item = impl AsRef<[u8]>>, usize),
    mut object: Vec<u8>,
) -> Result<Vec<u8>> {
    let stanza = OurStanza { tag, body };
    let ours: &dyn age::Recipient = &stanza;
    let encryptor = age::Encryptor::with_recipients(recipients.iter().chain([ours]))
        .map_err(|error| Error::failed("prepare encryption").source(error))?;
    object.clear();
    // Header, 16 bytes of nonce, and 16 bytes of tag for each 64 KiB.
    object.reserve(bytes.saturating_add(bytes / 4096).saturating_add(body.len() * 2 + 1024));
    let failed = |error: io::Error| Error::failed("encrypt").source(error);
    let mut writer = encryptor.wrap_output(object).map_err(failed)?;
    for frame in frames {
        writer.write_all(frame.as_ref()).map_err(failed)?;
    }
    writer.finish().map_err(failed)
}

/// The body of the stanza `tag`, from an object's first bytes; not authenticated. `None`: the header is longer than
/// the bytes given. `what` names the object wanted, for the error.
pub(super) fn peek(head: &[u8], tag: &'static str, what: &str) -> Result<Option<Vec<u8>>> {
    const PREAMBLE: &[u8] = b"age-encryption.org/v1\n";
    if head.get(..PREAMBLE.len()).is_some_and(|begin| begin != PREAMBLE) {
        return Err(Error::corrupt("not an age file"));
    }
    let Some(header) = header_of(head)? else { return Ok(None) };
    let picker = Picker { tag, found: Mutex::new(None) };
    let whole = Object { rest: header, header_bytes: header.len() };
    // The reader wants the nonce behind the header too; any bytes will do, nothing is decrypted here.
    let decryptor = age::Decryptor::new_buffered(whole.chain(&[0_u8; 16][..]))
        .map_err(|error| Error::corrupt("the age header cannot be read").source(error))?;
    // It fails for want of a key: the point is that every stanza was shown to the picker.
    let _ = decryptor.decrypt(std::iter::once(&picker as &dyn age::Identity));
    let found = picker.found.into_inner().ok().flatten();
    found.map(Some).ok_or_else(|| Error::corrupt(format!("an age file, but no {what} of binvault's")))
}

/// The header, up to the end of the line that begins with `--- `, if that is there.
fn header_of(head: &[u8]) -> Result<Option<&[u8]>> {
    const MAC_LINE: &[u8] = b"\n--- ";
    let bytes_max = usize::try_from(HEADER_BYTES_MAX).unwrap_or(usize::MAX);
    let within = head.get(..bytes_max).unwrap_or(head);
    let end = within.windows(MAC_LINE.len()).position(|window| window == MAC_LINE).and_then(|mac| {
        let from = mac.checked_add(MAC_LINE.len())?;
        let line = within.get(from..)?.iter().position(|byte| *byte == b'\n')?;
        from.checked_add(line)?.checked_add(1)
    });
    match end {
        None if head.len() >= bytes_max => {
            Err(Error::corrupt(format!("the age header is longer than {bytes_max} bytes")))
        }
        end => Ok(end.and_then(|end| within.get(..end))),
    }
}

/// An object whose header is read as one line. age reads it line by line, and after each parses all it has anew: that
/// takes minutes for a header of one MiB.
struct Object<'a> {
    rest: &'a [u8],
    /// Bytes of the header that were not read.
    header_bytes: usize,
}

impl Read for Object<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.rest.read(out)
    }
}

impl BufRead for Object<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.rest)
    }

    fn consume(&mut self, bytes: usize) {
        self.rest.consume(bytes);
    }

    fn read_until(&mut self, byte: u8, out: &mut Vec<u8>) -> io::Result<usize> {
        let header_bytes = std::mem::take(&mut self.header_bytes);
        match self.rest.split_at_checked(header_bytes).filter(|_| header_bytes > 0) {
            Some((header, rest)) => {
                out.extend_from_slice(header);
                self.rest = rest;
                Ok(header_bytes)
            }
            None => self.rest.read_until(byte, out),
        }
    }
}

/// The raw bytes of an opened object: exactly as many as promised, or an error at the end of reading.
pub(super) struct Payload<'a> {
    frames: zstd::Decoder<'static, Box<dyn BufRead + 'a>>,
    left: u64,
    done: bool,
}

impl<'a> Payload<'a> {
    /// Decrypts; `raw_bytes` is what must come out.
    ///
    /// # Errors
    /// [`Kind::Key`] if no identity opens it, [`Kind::Corrupt`] if it is no age file.
    pub(super) fn open(object: &'a [u8], raw_bytes: u64, identities: &Identities, what: &str) -> Result<Self> {
        let header_bytes = header_of(object)?.map_or(0, <[u8]>::len);
        let decryptor = age::Decryptor::new_buffered(Object { rest: object, header_bytes })
            .map_err(|error| Error::corrupt("the age header cannot be read").source(error))?;
        let plain = decryptor.decrypt(identities.iter()).map_err(|error| match error {
            age::DecryptError::NoMatchingKeys => {
                Error::new(Kind::Key, format!("none of the given identities opens this {what}"))
                    .hint("give the private key of one of the archive's recipients with --identity FILE")
            }
            other => Error::corrupt("decrypt").source(other),
        })?;
        let buffered: Box<dyn BufRead + 'a> = Box::new(io::BufReader::with_capacity(64 << 10, plain));
        let mut frames = zstd::Decoder::with_buffer(buffered).map_err(|e| Error::failed("prepare zstd").source(e))?;
        frames.window_log_max(WINDOW_LOG_MAX).map_err(|e| Error::failed("prepare zstd").source(e))?;
        Ok(Self { frames, left: raw_bytes, done: false })
    }

    /// Bytes still to come.
    pub(super) fn left(&self) -> u64 {
        self.left
    }
}

impl Read for Payload<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.done || out.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            // One byte more would be too many; this also makes age check that its last block is the last.
            let mut probe = [0_u8; 1];
            if self.frames.read(&mut probe)? != 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "more bytes than were promised"));
            }
            self.done = true;
            return Ok(0);
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        let got = self.frames.read(out.get_mut(..room).unwrap_or(&mut []))?;
        if got == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "fewer bytes than were promised"));
        }
        self.left = self.left.saturating_sub(got as u64);
        Ok(got)
    }
}
