//! Keys: recipients (public, on the database host) and identities (private, where one restores).

use std::fmt;

use age::x25519;
use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, Kind, Result};

/// The public keys every chunk is sealed to; at least one.
#[derive(Clone)]
pub struct Recipients(Vec<x25519::Recipient>);

impl Recipients {
    /// Reads `age1…` texts.
    ///
    /// # Errors
    /// [`Kind::Config`] if there is none, or one that is no X25519 recipient.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self> {
        if texts.is_empty() {
            return Err(Error::config("no recipient is given, so nothing could ever be opened again")
                .hint("make a key pair with `binvault keygen` and put the printed age1… into archive.recipients"));
        }
        let parse = |text: &S| {
            let text = text.as_ref().trim();
            text.parse::<x25519::Recipient>().map_err(|why| {
                let shown: String = text.chars().take(12).collect();
                let secret = text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY");
                let shown = if secret { "a private key".to_owned() } else { format!("{shown:?}…") };
                Error::config(format!("{shown} is no recipient: {why}"))
                    .hint("archive.recipients takes public keys (age1…); private keys stay off the database host")
            })
        };
        texts.iter().map(parse).collect::<Result<_>>().map(Self)
    }

    /// For the sealer.
    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn age::Recipient> {
        self.0.iter().map(|recipient| recipient as &dyn age::Recipient)
    }

    /// Their texts.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.texts()).finish()
    }
}

/// Private keys. Never shown.
#[derive(Clone)]
pub struct Identities(Vec<x25519::Identity>);

impl Identities {
    /// Reads the content of identity files: a key a line, `#` comments, as `age-keygen` and `binvault keygen` write.
    /// `from` names the source in errors.
    ///
    /// # Errors
    /// [`Kind::Key`] for a line that is no X25519 identity, or a file without any.
    pub fn parse(from: &str, content: &SecretString) -> Result<Self> {
        let mut keys = Vec::new();
        for (index, line) in content.expose_secret().lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = line.parse::<x25519::Identity>().map_err(|why| {
                Error::new(Kind::Key, format!("{from}, line {}: no age identity: {why}", index.saturating_add(1)))
                    .hint("an identity file holds lines AGE-SECRET-KEY-1…, as `binvault keygen` writes them")
            })?;
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(Error::new(Kind::Key, format!("{from} holds no identity"))
                .hint("an identity file holds lines AGE-SECRET-KEY-1…, as `binvault keygen` writes them"));
        }
        Ok(Self(keys))
    }

    /// Joins several files' keys.
    pub fn extend(&mut self, other: Identities) {
        self.0.extend(other.0);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.0.iter().map(|identity| identity as &dyn age::Identity)
    }

    /// The public halves.
    pub fn recipients(&self) -> Recipients {
        Recipients(self.0.iter().map(x25519::Identity::to_public).collect())
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} identities", self.0.len())
    }
}

/// A fresh key pair: the identity's text (secret) and the recipient's.
pub fn generate() -> (SecretString, String) {
    let identity = x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    (identity.to_string(), recipient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_parse_back_and_are_never_shown() {
        let (secret, public) = generate();
        let content = SecretString::from(format!("# created: now\n\n{}\n", secret.expose_secret()));
        let identities = Identities::parse("key.txt", &content).unwrap();
        assert_eq!(identities.recipients().texts(), vec![public.clone()]);
        assert!(!format!("{identities:?}").contains("AGE-SECRET"));
        assert_eq!(Recipients::parse(&[public.as_str()]).unwrap().texts(), [public]);
    }

    #[test]
    fn wrong_keys_are_refused_without_being_shown() {
        let (secret, public) = generate();
        let error = Recipients::parse(&[secret.expose_secret()]).unwrap_err();
        assert!(!format!("{error:?}").contains(&secret.expose_secret()[15..30]), "{error:?}");
        assert_eq!(Recipients::parse::<&str>(&[]).unwrap_err().kind(), Kind::Config);
        let error = Identities::parse("key.txt", &SecretString::from(public)).unwrap_err();
        assert_eq!(error.kind(), Kind::Key);
        assert!(Identities::parse("key.txt", &SecretString::from("# nothing")).is_err());
    }
}
