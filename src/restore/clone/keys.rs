//! Keys of encrypted tablespaces: they come in clear, and are wrapped again under a fresh master key, for a server with
//! the file keyring component.
//!
//! Layout of a wrapped key (tested on 9.7): `lCC`, u32 number of the master key, 36 bytes of the uuid in its name, 32 bytes
//! of key, 32 of initialisation vector, u32 CRC-32C of the two in clear; integers big-endian. In clear the number is 0.

use aws_lc_rs::cipher::{AES_256, EncryptingKey, UnboundCipherKey};
use secrecy::zeroize::Zeroize;
use uuid::Uuid;

use super::page::{crc32c, put};
use crate::error::{Error, Kind, Result};
use crate::mysql::clone::descriptor::{KEY_BYTES, Secret};

pub(super) const MAGIC: &[u8] = b"lCC";
const UUID_BYTES: usize = 36;
const UUID_AT: usize = 7;
const KEY_AT: usize = UUID_AT + UUID_BYTES;
const CRC_AT: usize = KEY_AT + 2 * KEY_BYTES;
/// Bytes of a wrapped key.
pub(super) const WRAPPED_BYTES: usize = CRC_AT + 4;

/// The number of our master key: servers count from 1.
const MASTER_ID: u32 = 1;

/// A master key of our own making.
pub(super) struct MasterKey {
    key: [u8; KEY_BYTES],
    uuid: Uuid,
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MasterKey({})", self.uuid)
    }
}

impl MasterKey {
    /// A fresh one.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub(super) fn fresh() -> Result<Self> {
        let mut key = [0; KEY_BYTES];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| Error::failed("the system gives no random bytes"))?;
        Ok(Self { key, uuid: Uuid::new_v4() })
    }

    /// The content of the keyring component's file with this key alone.
    pub(super) fn keyring(&self) -> String {
        let hex: String = self.key.iter().map(|byte| format!("{byte:02X}")).collect();
        format!(
            r#"{{"version":"1.0","elements":[{{"user":"","data_id":"INNODBKey-{}-{MASTER_ID}","data_type":"AES","data":"{hex}","extension":[]}}]}}"#,
            self.uuid
        )
    }

    /// Wraps the key that lies at `at`, if one does; says whether.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if one lies there that is not in clear, or not whole.
    pub(super) fn rewrap(&self, page: &mut [u8], at: usize) -> Result<bool> {
        let place = page.get(at..at.saturating_add(WRAPPED_BYTES)).filter(|place| place.starts_with(MAGIC));
        let Some(place) = place else { return Ok(false) };
        let number =
            |at: usize| place.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |n| u32::from_be_bytes(*n));
        if number(MAGIC.len()) != 0 {
            return Err(Error::corrupt("its key is not in clear: the page was not sent as a snapshot's"));
        }
        let secret = place.get(KEY_AT..CRC_AT).unwrap_or(&[]);
        if crc32c(secret) != number(CRC_AT) {
            return Err(Error::corrupt("its key does not have the checksum that it should have"));
        }
        let wrapped = self.wrap(secret)?;
        put(page, at, &wrapped);
        Ok(true)
    }

    /// Puts a secret that came beside the page there.
    ///
    /// # Errors
    /// If the cipher fails.
    pub(super) fn insert(&self, page: &mut [u8], at: usize, secret: &Secret) -> Result<()> {
        put(page, at, &self.wrap(&[secret.key, secret.iv].concat())?);
        Ok(())
    }

    /// A secret, key before vector, wrapped.
    fn wrap(&self, secret: &[u8]) -> Result<Vec<u8>> {
        let broken = |_| Error::new(Kind::Failed, "a tablespace's key cannot be wrapped");
        let master = UnboundCipherKey::new(&AES_256, &self.key).map_err(broken)?;
        let mut wrapped = secret.to_vec();
        EncryptingKey::ecb(master).and_then(|cipher| cipher.encrypt(&mut wrapped)).map_err(broken)?;
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&MASTER_ID.to_be_bytes());
        out.extend_from_slice(self.uuid.hyphenated().to_string().as_bytes());
        out.extend_from_slice(&wrapped);
        out.extend_from_slice(&crc32c(secret).to_be_bytes());
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::cipher::{DecryptingKey, DecryptionContext};
    use proptest::prelude::*;

    use super::*;

    fn clear(secret: &[u8]) -> Vec<u8> {
        let mut out = b"lCC\0\0\0\0".to_vec();
        out.extend_from_slice(&[b'u'; UUID_BYTES]);
        out.extend_from_slice(secret);
        out.extend_from_slice(&crc32c(secret).to_be_bytes());
        assert_eq!(out.len(), WRAPPED_BYTES);
        out
    }

    fn unwrap(master: &MasterKey, place: &[u8]) -> Vec<u8> {
        let mut secret = place[KEY_AT..CRC_AT].to_vec();
        let key = DecryptingKey::ecb(UnboundCipherKey::new(&AES_256, &master.key).unwrap()).unwrap();
        key.decrypt(&mut secret, DecryptionContext::None).unwrap();
        secret
    }

    proptest! {
        #[test]
        fn keys_are_wrapped_in_place(secret in prop::collection::vec(any::<u8>(), 64), at in 0_usize..300) {
            let master = MasterKey::fresh().unwrap();
            let mut page = vec![7; 512];
            put(&mut page, at, &clear(&secret));
            prop_assert!(master.rewrap(&mut page, at).unwrap());
            let place = &page[at..at + WRAPPED_BYTES];
            prop_assert_eq!(&place[..7], b"lCC\0\0\0\x01");
            prop_assert_eq!(unwrap(&master, place), secret.clone());
            prop_assert_eq!(&place[CRC_AT..], crc32c(&secret).to_be_bytes());
            prop_assert!(page[at + WRAPPED_BYTES..].iter().all(|byte| *byte == 7));
            // And not twice.
            prop_assert!(master.rewrap(&mut page, at).is_err());
        }
    }

    #[test]
    fn what_is_no_key_is_left_alone_and_what_is_a_broken_one_refused() {
        let master = MasterKey::fresh().unwrap();
        assert!(!master.rewrap(&mut [0; 512], 10).unwrap());
        assert!(!master.rewrap(&mut [0; 50], 10).unwrap(), "no room for one");
        let mut broken = clear(&[9; 64]);
        broken[KEY_AT] ^= 1;
        assert!(master.rewrap(&mut broken, 0).unwrap_err().to_string().contains("checksum"));
        let secret = Secret { key: [1; 32], iv: [2; 32] };
        let mut page = vec![0; 512];
        master.insert(&mut page, 100, &secret).unwrap();
        assert_eq!(unwrap(&master, &page[100..]), [[1; 32], [2; 32]].concat());
        assert!(!format!("{master:?} {secret:?}").contains("1, 1"), "keys are not shown");
    }

    #[test]
    fn the_keyring_names_the_key() {
        let master = MasterKey::fresh().unwrap();
        let json: serde_json::Value = serde_json::from_str(&master.keyring()).unwrap();
        assert_eq!(json["version"], "1.0");
        assert_eq!(json["elements"][0]["data_id"], format!("INNODBKey-{}-1", master.uuid));
        assert_eq!(json["elements"][0]["data"].as_str().unwrap().len(), 64);
    }
}
