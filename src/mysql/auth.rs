//! Proving the password: one small state machine for each method, over whatever stream is there.
//!
//! Owns: caching_sha2_password, mysql_native_password and sha256_password, as the server names them in its greeting
//! or switches to. Does not own: reading and writing packets (that is `connect`).
//!
//! Invariant: the password itself is sent only if [`Channel`] says that nobody can listen; on a TCP connection in
//! clear it goes out encrypted with the server's RSA key. (Who that server is, only TLS can tell.)

use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use mysql_common::auth::plugins::caching_sha2_password::scramble_sha256;
use mysql_common::auth::plugins::mysql_native_password::scramble_native;
use mysql_common::packets::AuthPlugin;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{Error, Kind, Result};

/// The nonce that every supported method works with, bytes.
const NONCE_BYTES: usize = 20;

/// caching_sha2_password: the server remembers the password, nothing more is needed.
const FAST_OK: u8 = 3;
/// caching_sha2_password: the server wants the password itself.
const FULL_LOGIN: u8 = 4;
/// caching_sha2_password: the client asks for the server's RSA key.
const ASK_KEY_CACHING: u8 = 2;
/// sha256_password: the same.
const ASK_KEY_SHA256: u8 = 1;

/// What lies between us and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// TCP in clear.
    Clear,
    /// A unix socket: the kernel carries it.
    Unix,
    /// TLS over anything.
    Tls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    CachingSha2,
    Native,
    Sha256,
}

/// One login's state.
pub struct Login<'a> {
    method: Method,
    nonce: [u8; NONCE_BYTES],
    password: &'a [u8],
    channel: Channel,
    key_asked: bool,
}

impl<'a> Login<'a> {
    /// A login by the method that the greeting (or a switch) names. `None` if the method is not supported.
    pub fn new(plugin: &AuthPlugin<'_>, nonce: &[u8], password: &'a [u8], channel: Channel) -> Option<Self> {
        let method = match plugin {
            AuthPlugin::CachingSha2Password => Method::CachingSha2,
            AuthPlugin::MysqlNativePassword => Method::Native,
            AuthPlugin::Sha256Password => Method::Sha256,
            _ => return None,
        };
        let nonce = *nonce.first_chunk::<NONCE_BYTES>()?;
        Some(Self { method, nonce, password, channel, key_asked: false })
    }

    /// The method's name as the server knows it.
    pub fn plugin(&self) -> AuthPlugin<'static> {
        match self.method {
            Method::CachingSha2 => AuthPlugin::CachingSha2Password,
            Method::Native => AuthPlugin::MysqlNativePassword,
            Method::Sha256 => AuthPlugin::Sha256Password,
        }
    }

    /// What goes out first, in the handshake response or as the answer to a switch.
    /// `alone`: the answer is a packet of its own, where an empty password is written as one zero byte.
    pub fn first_answer(&mut self, alone: bool) -> Vec<u8> {
        if self.password.is_empty() {
            // A switch to the native method wants an empty packet, the SHA-256 family an empty C string.
            return if alone && self.method != Method::Native { vec![0] } else { Vec::new() };
        }
        match self.method {
            Method::Native => scramble_native(&self.nonce, self.password).map(|x| x.to_vec()).unwrap_or_default(),
            Method::CachingSha2 => scramble_sha256(&self.nonce, self.password).map(|x| x.to_vec()).unwrap_or_default(),
            // Unlike caching_sha2_password, the server takes the password in clear only over TLS here.
            Method::Sha256 if self.channel == Channel::Tls => self.password_in_clear(),
            Method::Sha256 => {
                self.key_asked = true;
                vec![ASK_KEY_SHA256]
            }
        }
    }

    /// The answer to more data of the method's own (an `AuthMoreData` packet without its header byte);
    /// `None` when there is nothing to say.
    ///
    /// # Errors
    /// [`Kind::Refused`] if the server's words make no sense in this method.
    pub fn answer(&mut self, data: &[u8]) -> Result<Option<Vec<u8>>> {
        match (self.method, data) {
            (Method::CachingSha2, [FAST_OK]) => Ok(None),
            (Method::CachingSha2, [FULL_LOGIN]) if self.channel != Channel::Clear => Ok(Some(self.password_in_clear())),
            (Method::CachingSha2, [FULL_LOGIN]) => {
                self.key_asked = true;
                Ok(Some(vec![ASK_KEY_CACHING]))
            }
            (Method::CachingSha2 | Method::Sha256, key) if self.key_asked => {
                self.key_asked = false;
                encrypt(self.password, &self.nonce, key).map(Some)
            }
            _ => Err(Error::new(Kind::Refused, "the server's words during the login make no sense")
                .hint("is this a MySQL server, reached without a proxy that changes the login?")),
        }
    }

    fn password_in_clear(&self) -> Vec<u8> {
        let mut out = self.password.to_vec();
        out.push(0);
        out
    }
}

/// The password as a C string, mixed with the nonce, encrypted by RSA-OAEP with SHA-1: what both methods expect.
fn encrypt(password: &[u8], nonce: &[u8; NONCE_BYTES], key_pem: &[u8]) -> Result<Vec<u8>> {
    let refused = |why: &str| {
        Error::new(Kind::Refused, format!("encrypt the password with the server's RSA key: {why}"))
            .hint("use TLS or the unix socket; then no RSA key is needed")
    };
    let der = SubjectPublicKeyInfoDer::from_pem_slice(key_pem).map_err(|_| refused("it is no public key in PEM"))?;
    let key = PublicEncryptingKey::from_der(&der).map_err(|_| refused("it is no RSA key of 2048 bits or more"))?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| refused("it cannot be used"))?;
    let mixed: Vec<u8> =
        password.iter().chain(std::iter::once(&0)).zip(nonce.iter().cycle()).map(|(p, n)| p ^ n).collect();
    let mut out = vec![0; key.ciphertext_size()];
    let written = key
        .encrypt(&OAEP_SHA1_MGF1SHA1, &mixed, &mut out, None)
        .map_err(|_| refused("the password is too long for it"))?;
    Ok(written.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &[u8] = b"01234567890123456789";

    fn login(plugin: &AuthPlugin<'_>, password: &'static [u8], channel: Channel) -> Login<'static> {
        Login::new(plugin, NONCE, password, channel).unwrap()
    }

    #[test]
    fn the_password_goes_out_in_clear_only_where_nobody_listens() {
        for (channel, expected) in [(Channel::Tls, &b"pw\0"[..]), (Channel::Unix, b"pw\0"), (Channel::Clear, &[2])] {
            let mut login = login(&AuthPlugin::CachingSha2Password, b"pw", channel);
            assert_eq!(login.first_answer(false).len(), 32);
            assert_eq!(login.answer(&[FULL_LOGIN]).unwrap().unwrap(), expected, "{channel:?}");
        }
        for (channel, expected) in [(Channel::Tls, &b"pw\0"[..]), (Channel::Unix, &[1]), (Channel::Clear, &[1])] {
            let mut login = login(&AuthPlugin::Sha256Password, b"pw", channel);
            assert_eq!(login.first_answer(true), expected, "{channel:?}");
        }
        for plugin in [&AuthPlugin::MysqlClearPassword, &AuthPlugin::MysqlOldPassword] {
            assert!(Login::new(plugin, NONCE, b"pw", Channel::Tls).is_none());
        }
    }

    #[test]
    fn a_key_that_was_not_asked_for_or_is_none_is_refused() {
        let mut unasked = login(&AuthPlugin::CachingSha2Password, b"pw", Channel::Clear);
        assert_eq!(unasked.answer(b"-----BEGIN PUBLIC KEY-----").unwrap_err().kind(), Kind::Refused);
        let mut asked = login(&AuthPlugin::CachingSha2Password, b"pw", Channel::Clear);
        asked.answer(&[FULL_LOGIN]).unwrap();
        for junk in [&b""[..], b"junk", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            asked.key_asked = true;
            assert_eq!(asked.answer(junk).unwrap_err().kind(), Kind::Refused);
        }
    }

    #[test]
    fn short_nonces_and_empty_passwords() {
        assert!(Login::new(&AuthPlugin::CachingSha2Password, b"short", b"pw", Channel::Tls).is_none());
        assert_eq!(login(&AuthPlugin::CachingSha2Password, b"", Channel::Tls).first_answer(true), [0]);
        assert!(login(&AuthPlugin::CachingSha2Password, b"", Channel::Tls).first_answer(false).is_empty());
        assert!(login(&AuthPlugin::MysqlNativePassword, b"", Channel::Tls).first_answer(true).is_empty());
    }
}
