//! Greeting and proof of the password, by caching_sha2_password's short way: we know the password, so the client's
//! scramble is enough. Pure.
//!
//! Layouts: MySQL's documented `HandshakeV10` and `HandshakeResponse41`.

use bytes::BufMut;
use mysql_common::auth::plugins::caching_sha2_password::scramble_sha256;
use secrecy::ExposeSecret;

use super::{Account, Face};
use crate::error::{Error, Result};
use crate::mysql::wire::Reader;

/// Bytes of a nonce.
pub(super) const NONCE_BYTES: usize = 20;
/// The one method that is offered.
pub(super) const PLUGIN: &str = "caching_sha2_password";

const CLIENT_LONG_PASSWORD: u32 = 1;
const CLIENT_LONG_FLAG: u32 = 1 << 2;
const CLIENT_CONNECT_WITH_DB: u32 = 1 << 3;
const CLIENT_PROTOCOL_41: u32 = 1 << 9;
const CLIENT_SSL: u32 = 1 << 11;
const CLIENT_TRANSACTIONS: u32 = 1 << 13;
const CLIENT_SECURE_CONNECTION: u32 = 1 << 15;
const CLIENT_MULTI_RESULTS: u32 = 1 << 17;
const CLIENT_PLUGIN_AUTH: u32 = 1 << 19;
const CLIENT_CONNECT_ATTRS: u32 = 1 << 20;
const CLIENT_PLUGIN_AUTH_LENENC_DATA: u32 = 1 << 21;

/// What we can do. No compression and no query attributes: they would change the packets.
const CAPABILITIES: u32 = CLIENT_LONG_PASSWORD
    | CLIENT_LONG_FLAG
    | CLIENT_CONNECT_WITH_DB
    | CLIENT_PROTOCOL_41
    | CLIENT_TRANSACTIONS
    | CLIENT_SECURE_CONNECTION
    | CLIENT_MULTI_RESULTS
    | CLIENT_PLUGIN_AUTH
    | CLIENT_CONNECT_ATTRS
    | CLIENT_PLUGIN_AUTH_LENENC_DATA;

/// Length of a response that only asks for TLS.
const TLS_REQUEST_BYTES: usize = 32;
/// utf8mb4_0900_ai_ci.
const CHARACTER_SET: u8 = 255;
/// SERVER_STATUS_AUTOCOMMIT.
pub(super) const STATUS: u16 = 2;

/// A fresh nonce: random, without the bytes that end it on the wire.
pub(super) fn nonce() -> Result<[u8; NONCE_BYTES]> {
    let mut bytes = [0; NONCE_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::failed("this system gives no random numbers"))?;
    // 7 bits, as servers do; neither NUL nor the `$` that ends a salt in some of them.
    Ok(bytes.map(|byte| match byte & 0x7f {
        0 | b'$' => 1,
        other => other,
    }))
}

/// The first packet.
pub(super) fn greeting(face: &Face, connection: u32, nonce: &[u8; NONCE_BYTES], tls: bool) -> Vec<u8> {
    let [low0, low1, high0, high1] = (CAPABILITIES | if tls { CLIENT_SSL } else { 0 }).to_le_bytes();
    let (head, tail) = nonce.split_at(8);
    let mut out = vec![10];
    out.put_slice(face.server_version.as_bytes());
    out.put_u8(0);
    out.put_u32_le(connection);
    out.put_slice(head);
    out.put_slice(&[0, low0, low1, CHARACTER_SET]);
    out.put_u16_le(STATUS);
    out.put_slice(&[high0, high1, 21]);
    out.put_slice(&[0; 10]);
    out.put_slice(tail);
    out.put_u8(0);
    out.put_slice(PLUGIN.as_bytes());
    out.put_u8(0);
    out
}

/// What a client answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Response<'a> {
    /// It wants TLS first.
    Tls,
    /// Who it is, and its proof by a method.
    Login { user: &'a [u8], proof: &'a [u8], plugin: &'a [u8] },
}

impl<'a> Response<'a> {
    /// Reads it; `None` for what no supported client sends.
    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut input = Reader(payload);
        let capabilities = u32::from_le_bytes(input.bytes(4)?.try_into().ok()?);
        let needed = CLIENT_PROTOCOL_41 | CLIENT_SECURE_CONNECTION | CLIENT_PLUGIN_AUTH;
        if capabilities & CLIENT_PROTOCOL_41 == 0 {
            return None;
        }
        // Longest packet u32, character set u8, 23 bytes of nothing.
        input.bytes(28)?;
        if capabilities & CLIENT_SSL != 0 && payload.len() == TLS_REQUEST_BYTES {
            return Some(Self::Tls);
        }
        if capabilities & needed != needed {
            return None;
        }
        let user = until_nul(&mut input)?;
        let proof = if capabilities & CLIENT_PLUGIN_AUTH_LENENC_DATA != 0 {
            input.lenenc_bytes()?
        } else {
            let length = input.u8()?;
            input.bytes(usize::from(length))?
        };
        if capabilities & CLIENT_CONNECT_WITH_DB != 0 {
            until_nul(&mut input)?;
        }
        let plugin = until_nul(&mut input)?;
        Some(Self::Login { user, proof, plugin })
    }
}

/// A text up to its zero byte; the last one of a packet may lack it.
fn until_nul<'a>(input: &mut Reader<'a>) -> Option<&'a [u8]> {
    let end = input.0.iter().position(|byte| *byte == 0);
    let text = input.bytes(end.unwrap_or(input.0.len()))?;
    if end.is_some() {
        input.u8()?;
    }
    Some(text)
}

/// The wish to use our method, with the same nonce.
pub(super) fn switch(nonce: &[u8; NONCE_BYTES]) -> Vec<u8> {
    [&[0xfe], PLUGIN.as_bytes(), &[0], &nonce[..], &[0]].concat()
}

/// Whether the proof is that of the account. Takes the same time wherever it is wrong.
pub(super) fn proves(account: &Account, user: &[u8], proof: &[u8], nonce: &[u8; NONCE_BYTES]) -> bool {
    let Some(expected) = scramble_sha256(nonce, account.password.expose_secret().as_bytes()) else { return false };
    let same_proof = aws_lc_rs::constant_time::verify_slices_are_equal(&expected, proof).is_ok();
    let same_user = aws_lc_rs::constant_time::verify_slices_are_equal(account.user.as_bytes(), user).is_ok();
    same_proof && same_user
}

#[cfg(test)]
mod tests {
    use mysql_common::constants::CapabilityFlags;
    use mysql_common::io::ParseBuf;
    use mysql_common::packets::{AuthPlugin, HandshakePacket, HandshakeResponse, SslRequest};
    use mysql_common::proto::{MyDeserialize, MySerialize};
    use proptest::prelude::*;
    use secrecy::SecretString;

    use super::*;

    #[test]
    fn another_implementation_reads_the_greeting_and_logs_in() {
        let face =
            Face { server_version: "9.7.4".into(), server_id: 1, server_uuid: uuid::Uuid::nil(), gtid_mode: true };
        let nonce = nonce().unwrap();
        let packet = greeting(&face, 77, &nonce, true);
        let read = HandshakePacket::deserialize((), &mut ParseBuf(&packet)).unwrap();
        assert_eq!((read.connection_id(), read.server_version_ref()), (77, &b"9.7.4"[..]));
        assert_eq!(read.nonce()[..20], nonce);
        assert_eq!(read.auth_plugin(), Some(AuthPlugin::CachingSha2Password));
        assert!(read.capabilities().contains(CapabilityFlags::CLIENT_SSL));

        let account = Account { user: "replica".into(), password: SecretString::from("secret") };
        let proof = scramble_sha256(&nonce, b"secret").unwrap();
        let capabilities = read.capabilities() & !CapabilityFlags::CLIENT_SSL;
        let mut response = Vec::new();
        HandshakeResponse::new(
            Some(&proof[..]),
            (5, 5, 5),
            Some(&b"replica"[..]),
            None::<&[u8]>,
            Some(AuthPlugin::CachingSha2Password),
            capabilities,
            None,
            1 << 20,
        )
        .serialize(&mut response);
        let Some(Response::Login { user, proof, plugin }) = Response::parse(&response) else { panic!("{response:x?}") };
        assert_eq!((user, plugin), (&b"replica"[..], PLUGIN.as_bytes()));
        assert!(proves(&account, user, proof, &nonce));
        assert!(!proves(&account, b"other", proof, &nonce) && !proves(&account, user, b"", &nonce));
        let other = scramble_sha256(&nonce, b"other").unwrap();
        assert!(!proves(&account, user, &other, &nonce));

        let mut ask = Vec::new();
        SslRequest::new(CapabilityFlags::CLIENT_SSL | CapabilityFlags::CLIENT_PROTOCOL_41, 1, 45).serialize(&mut ask);
        assert_eq!(Response::parse(&ask), Some(Response::Tls));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(payload in prop::collection::vec(any::<u8>(), 0..120), tail in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Response::parse(&payload);
            let capabilities = CAPABILITIES.to_le_bytes();
            let _ = Response::parse(&[&capabilities[..], &[0; 28], &tail].concat());
        }
    }
}
