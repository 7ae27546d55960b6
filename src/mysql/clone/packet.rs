//! The messages of the CLONE protocol: one byte that says which, and a body.
//!
//! Owns: their layout (integers little-endian; tested on 9.7). Does not own: InnoDB's descriptors inside (`descriptor`).
//!
//! Invariants: every length of the peer is held against what is there; a response of an unknown kind is kept, not refused.

use super::INNODB;
use crate::error::{Error, Result};

/// The command byte that turns an ordinary session into one for cloning; its answer is an ordinary OK packet.
pub const COM_CLONE: u8 = 0x20;

/// The first version of the protocol: 8.0.17.
pub const VERSION_FIRST: u32 = 0x0100;
/// The version that we ask for: that of 9.7. A donor answers with the lower of this one and its own. The version changes the
/// parameters alone, never the data.
pub const VERSION: u32 = 0x0103;

/// In the DDL word: the donor need not hold DDL back. From 8.0.27 on; older servers take it for a time.
pub const DDL_ALLOWED: u32 = 1 << 31;

/// What one storage engine calls the snapshot by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locator {
    /// The storage engine's number.
    pub engine: u8,
    /// Opaque: given back as it came. Forks have put fields of their own into it.
    pub bytes: Vec<u8>,
}

/// What is asked of the donor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Begin a snapshot.
    Init {
        /// Version of the protocol.
        version: u32,
        /// [`DDL_ALLOWED`], or for how many seconds the donor may wait for its backup lock.
        ddl: u32,
        /// What the engines are asked with.
        locators: Vec<Locator>,
    },
    /// Send it, to the end.
    Execute,
    /// A state has arrived. Sent on a connection of its own.
    Ack {
        /// 0, or a server error's number: then the donor gives the snapshot up at once.
        error: u32,
        /// The snapshot.
        locator: Locator,
        /// The state's descriptor.
        descriptor: Vec<u8>,
    },
    /// Leave.
    Exit,
}

impl Command {
    /// The payload of the command's packet.
    ///
    /// # Errors
    /// If something is longer than a length can say.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Self::Init { version, ddl, locators } => {
                out.push(1);
                out.extend_from_slice(&version.to_le_bytes());
                out.extend_from_slice(&ddl.to_le_bytes());
                for locator in locators {
                    put_locator(&mut out, locator)?;
                }
            }
            Self::Execute => out.push(4),
            Self::Ack { error, locator, descriptor } => {
                out.push(5);
                out.extend_from_slice(&error.to_le_bytes());
                put_locator(&mut out, locator)?;
                put_string(&mut out, descriptor)?;
            }
            Self::Exit => out.push(6),
        }
        Ok(out)
    }

    /// Reads a command back, as a donor would.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`] for one that we never send.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut cursor = Cursor { rest: payload, what: "a CLONE command" };
        let command = match cursor.u8()? {
            1 => {
                let (version, ddl) = (cursor.u32()?, cursor.u32()?);
                Self::Init { version, ddl, locators: cursor.locators()? }
            }
            4 => Self::Execute,
            5 => Self::Ack { error: cursor.u32()?, locator: cursor.locator()?, descriptor: cursor.string()?.to_vec() },
            6 => Self::Exit,
            other => return Err(Error::corrupt(format!("a CLONE command of the unknown kind {other}"))),
        };
        cursor.end()?;
        Ok(command)
    }
}

/// What the donor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response<'a> {
    /// The snapshot's locators, and the version of the protocol that is spoken from now on.
    Locators {
        /// Negotiated version.
        version: u32,
        /// One a storage engine.
        locators: Vec<Locator>,
    },
    /// A descriptor of a storage engine.
    Descriptor {
        /// The storage engine's number.
        engine: u8,
        /// Which locator it belongs to.
        index: u8,
        /// For InnoDB see [`super::descriptor::Descriptor`].
        bytes: &'a [u8],
    },
    /// The bytes that the descriptor before it announced.
    Data(&'a [u8]),
    /// A plugin that the donor has. Without library in version 0x0100, and for built-in ones.
    Plugin {
        /// Its name.
        name: &'a [u8],
        /// Its library; empty if it is built in.
        library: &'a [u8],
    },
    /// A setting of the donor.
    Config {
        /// Its name; `json_configs` for an object of several (version 0x0103).
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// A collation that the donor has.
    Collation(&'a [u8]),
    /// The answer to a command ends.
    Complete,
    /// The command has failed.
    Error {
        /// MySQL's number.
        code: i32,
        /// The donor's text.
        message: &'a [u8],
    },
    /// Of a later version.
    Unknown {
        /// Its first byte.
        kind: u8,
        /// The rest.
        body: &'a [u8],
    },
}

impl<'a> Response<'a> {
    /// Reads the payload of a response's packet.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`] for a known kind whose body does not fit it.
    pub fn parse(payload: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor { rest: payload, what: "an answer of the donor" };
        let response = match cursor.u8()? {
            1 => Self::Locators { version: cursor.u32()?, locators: cursor.locators()? },
            2 => Self::Descriptor { engine: cursor.u8()?, index: cursor.u8()?, bytes: cursor.take_rest() },
            3 => Self::Data(cursor.take_rest()),
            4 => Self::Plugin { name: cursor.string()?, library: &[] },
            7 => Self::Plugin { name: cursor.string()?, library: cursor.string()? },
            5 | 8 | 9 => Self::Config { name: cursor.string()?, value: cursor.string()? },
            6 => Self::Collation(cursor.string()?),
            99 => Self::Complete,
            100 => Self::Error { code: i32::from_le_bytes(cursor.array()?), message: cursor.take_rest() },
            kind => Self::Unknown { kind, body: cursor.take_rest() },
        };
        cursor.end()?;
        Ok(response)
    }

    /// The payload of a response's packet, as a donor of 9.7 writes it.
    ///
    /// # Errors
    /// If something is longer than a length can say.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Self::Locators { version, locators } => {
                out.push(1);
                out.extend_from_slice(&version.to_le_bytes());
                for locator in locators {
                    put_locator(&mut out, locator)?;
                }
            }
            Self::Descriptor { engine, index, bytes } => {
                out.extend_from_slice(&[2, *engine, *index]);
                out.extend_from_slice(bytes);
            }
            Self::Data(bytes) => {
                out.push(3);
                out.extend_from_slice(bytes);
            }
            Self::Plugin { name, library } => {
                out.push(7);
                put_string(&mut out, name)?;
                put_string(&mut out, library)?;
            }
            Self::Config { name, value } => {
                out.push(5);
                put_string(&mut out, name)?;
                put_string(&mut out, value)?;
            }
            Self::Collation(name) => {
                out.push(6);
                put_string(&mut out, name)?;
            }
            Self::Complete => out.push(99),
            Self::Error { code, message } => {
                out.push(100);
                out.extend_from_slice(&code.to_le_bytes());
                out.extend_from_slice(message);
            }
            Self::Unknown { kind, body } => {
                out.push(*kind);
                out.extend_from_slice(body);
            }
        }
        Ok(out)
    }
}

/// InnoDB's locator among several.
pub fn innodb(locators: &[Locator]) -> Option<&Locator> {
    locators.iter().find(|locator| locator.engine == INNODB)
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| Error::failed("a CLONE message is longer than 4 GiB"))?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn put_locator(out: &mut Vec<u8>, locator: &Locator) -> Result<()> {
    out.push(locator.engine);
    put_string(out, &locator.bytes)
}

/// Reads from the front; what is missing is an error.
struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    fn short(&self) -> Error {
        Error::corrupt(format!("{} ends too early", self.what))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.short())?;
        self.rest = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn string(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.u32()?).map_err(|_| self.short())?;
        let (head, tail) = self.rest.split_at_checked(length).ok_or_else(|| self.short())?;
        self.rest = tail;
        Ok(head)
    }

    fn locator(&mut self) -> Result<Locator> {
        Ok(Locator { engine: self.u8()?, bytes: self.string()?.to_vec() })
    }

    /// Locators up to the end.
    fn locators(&mut self) -> Result<Vec<Locator>> {
        let mut locators = Vec::new();
        while !self.rest.is_empty() {
            locators.push(self.locator()?);
        }
        Ok(locators)
    }

    fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn end(&self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::corrupt(format!("{} is {} bytes longer than what it says", self.what, self.rest.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..80)
    }

    fn locator() -> impl Strategy<Value = Locator> {
        (any::<u8>(), bytes()).prop_map(|(engine, bytes)| Locator { engine, bytes })
    }

    fn command() -> impl Strategy<Value = Command> {
        prop_oneof![
            (any::<u32>(), any::<u32>(), prop::collection::vec(locator(), 0..4))
                .prop_map(|(version, ddl, locators)| Command::Init { version, ddl, locators }),
            Just(Command::Execute),
            (any::<u32>(), locator(), bytes()).prop_map(|(error, locator, descriptor)| Command::Ack {
                error,
                locator,
                descriptor
            }),
            Just(Command::Exit),
        ]
    }

    proptest! {
        #[test]
        fn commands_come_back_and_cut_ones_are_refused(command in command(), cut in any::<prop::sample::Index>()) {
            let payload = command.encode().unwrap();
            prop_assert_eq!(&Command::parse(&payload).unwrap(), &command);
            let short = &payload[..cut.index(payload.len())];
            // A list of locators may end behind any of them.
            let fine = match Command::parse(short) { Err(_) => true, Ok(read) => matches!(read, Command::Init { .. }) };
            prop_assert!(fine);
        }

        #[test]
        fn responses_come_back(
            kind in 0_u8..9, a in bytes(), b in bytes(), number in any::<i32>(),
            locators in prop::collection::vec(locator(), 0..4),
        ) {
            let response = match kind {
                0 => Response::Locators { version: number.cast_unsigned(), locators },
                1 => Response::Descriptor { engine: 12, index: 0, bytes: &a },
                2 => Response::Data(&a),
                3 => Response::Plugin { name: &a, library: &b },
                4 => Response::Config { name: &a, value: &b },
                5 => Response::Collation(&a),
                6 => Response::Complete,
                7 => Response::Error { code: number, message: &a },
                _ => Response::Unknown { kind: 50, body: &a },
            };
            let payload = response.encode().unwrap();
            prop_assert_eq!(Response::parse(&payload).unwrap(), response);
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..300), kind in 0_u8..110) {
            let payload = [&[kind][..], &noise].concat();
            if let Ok(response) = Response::parse(&payload) {
                prop_assert!(response.encode().is_ok());
            }
            let _ = Command::parse(&payload);
        }
    }

    #[test]
    fn the_layout_is_the_one_on_the_wire() {
        let init = Command::Init {
            version: 0x0102,
            ddl: DDL_ALLOWED,
            locators: vec![Locator { engine: INNODB, bytes: vec![7, 8] }],
        };
        assert_eq!(init.encode().unwrap(), [1, 2, 1, 0, 0, 0, 0, 0, 0x80, 12, 2, 0, 0, 0, 7, 8]);
        let ack = Command::Ack { error: 0, locator: Locator { engine: 12, bytes: vec![1] }, descriptor: vec![9, 9] };
        assert_eq!(ack.encode().unwrap(), [5, 0, 0, 0, 0, 12, 1, 0, 0, 0, 1, 2, 0, 0, 0, 9, 9]);
        let error = Response::parse(b"d\x32\x0e\x00\x00busy").unwrap();
        assert_eq!(error, Response::Error { code: 3634, message: b"busy" });
        let old = Response::parse(b"\x04\x02\x00\x00\x00ab").unwrap();
        assert_eq!(old, Response::Plugin { name: b"ab", library: b"" });
        assert!(Response::parse(b"\x06\xff\xff\xff\xffab").is_err());
        assert!(Response::parse(b"cx").is_err(), "nothing follows the end");
        assert!(Response::parse(b"").is_err());
    }
}
