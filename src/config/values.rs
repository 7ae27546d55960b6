//! Values people write: durations, sizes, numbers that came as text from the environment, secrets, URLs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};

/// A duration: `1s`, `500ms`, `2h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(Duration);

impl Span {
    pub(super) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub(super) fn get(self) -> Duration {
        self.0
    }

    pub(super) fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn at_least(self, least: Duration, name: &str) -> Result<Duration> {
        if self.0 >= least { Ok(self.0) } else { Err(Error::config(format!("{name} must be at least {least:?}"))) }
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let in_days = || {
            let span: jiff::Span = text.parse().ok()?;
            span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()
        };
        let parsed: Option<SignedDuration> = text.parse().ok().or_else(in_days);
        let duration = parsed.and_then(|duration| Duration::try_from(duration).ok());
        duration.map(Self).ok_or_else(|| format!("{text:?} is no duration: write 1s, 500ms, 2h30m, 30d"))
    }
}

/// A number of bytes: `8MiB`, `64KiB`, `1048576`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Number")]
pub struct Size(u64);

impl Size {
    pub(super) const fn mebibytes(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }

    pub(super) fn get(self) -> u64 {
        self.0
    }
}

/// Reads a number of bytes as the configuration does: `8MiB`, `64KiB`, `1048576`.
///
/// # Errors
/// If it is none.
pub fn parse_size(text: &str) -> Result<u64, String> {
    Size::try_from(Number(text.to_owned())).map(Size::get)
}

impl TryFrom<Number> for Size {
    type Error = String;

    fn try_from(number: Number) -> Result<Self, String> {
        let text = number.0.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (count, unit) = text.split_at(digits);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => Some(0),
            "kib" | "k" => Some(10),
            "mib" | "m" => Some(20),
            "gib" | "g" => Some(30),
            _ => None,
        };
        let bytes = count.parse::<u64>().ok().zip(shift).and_then(|(count, shift)| count.checked_mul(1_u64 << shift));
        bytes.map(Self).ok_or_else(|| format!("{text:?} is no size: write 8MiB, 64KiB or a number of bytes"))
    }
}

/// A number, written as such or as text.
#[derive(Debug, Clone)]
pub struct Number(String);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i64),
            Fraction(f64),
            Text(String),
        }
        Either::deserialize(from).map(|either| match either {
            Either::Number(number) => Self(number.to_string()),
            Either::Fraction(number) => Self(number.to_string()),
            Either::Text(text) => Self(text),
        })
    }
}

/// Yes or no, written as such or as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag(pub(super) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Flag(bool),
            Text(String),
        }
        match Either::deserialize(from)? {
            Either::Flag(flag) => Ok(Self(flag)),
            Either::Text(text) => match text.as_str() {
                "true" | "yes" | "1" => Ok(Self(true)),
                "false" | "no" | "0" => Ok(Self(false)),
                _ => Err(serde::de::Error::custom(format!("{text:?} is neither true nor false"))),
            },
        }
    }
}

/// Several texts: a list, or one text with commas or white space between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            List(Vec<String>),
            Text(String),
        }
        let split = |c: char| c == ',' || c.is_whitespace();
        Ok(Self(match Either::deserialize(from)? {
            Either::List(list) => list,
            Either::Text(text) => text.split(split).filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        }))
    }
}

/// As [`Lines`], where there may be passwords in them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "Lines")]
pub struct SecretLines(pub(super) Vec<SecretString>);

impl From<Lines> for SecretLines {
    fn from(lines: Lines) -> Self {
        Self(lines.0.into_iter().map(SecretString::from).collect())
    }
}

/// Several paths: a list, or one text with commas between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths(pub(super) Vec<PathBuf>);

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            List(Vec<PathBuf>),
            Text(String),
        }
        Ok(Self(match Either::deserialize(from)? {
            Either::List(list) => list,
            Either::Text(text) => text.split(',').filter(|part| !part.is_empty()).map(PathBuf::from).collect(),
        }))
    }
}

/// Deserialisers for fields of plain types.
pub(super) mod de {
    use super::{Deserialize, Deserializer, FromStr, Number, fmt};

    pub(in crate::config) fn parsed<'de, D: Deserializer<'de>, T>(from: D) -> Result<T, D::Error>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }

    pub(in crate::config) fn number<'de, D: Deserializer<'de>, T>(from: D) -> Result<T, D::Error>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let Number(text) = Number::deserialize(from)?;
        text.trim().parse().map_err(|why| serde::de::Error::custom(format!("{text:?}: {why}")))
    }

    pub(in crate::config) fn number_opt<'de, D: Deserializer<'de>, T>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        number(from).map(Some)
    }
}

/// One of several names.
pub(super) fn named<T: Clone>(setting: &str, given: Option<&str>, all: &[(&str, T)]) -> Result<T> {
    let wanted = given.unwrap_or("auto");
    all.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone()).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        Error::config(format!("{setting} {wanted:?} is unknown")).hint(format!("use one of {}", names.join(", ")))
    })
}

/// Largest secret file, in bytes.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// A secret given directly or by a file, not both.
pub(super) fn one_secret(
    name: &str,
    given: &Option<SecretString>,
    file: Option<&Path>,
) -> Result<Option<SecretString>> {
    match (given, file) {
        (Some(_), Some(_)) => {
            Err(Error::config(format!("{name} and {name}_file are both given")).hint("keep one of them"))
        }
        (Some(secret), None) => Ok(Some(secret.clone())),
        (None, None) => Ok(None),
        (None, Some(file)) => {
            let content = read_secret(file)?;
            let first = content.expose_secret().lines().next().unwrap_or("");
            Ok(Some(SecretString::from(first)))
        }
    }
}

/// Reads a small file that holds a secret.
///
/// # Errors
/// [`crate::error::Kind::Config`] if it cannot be read, is too large or no text.
pub fn read_secret(file: &Path) -> Result<SecretString> {
    use std::io::Read;

    let failed = |why: std::io::Error| {
        Error::config(format!("read {}", file.display()))
            .source(why)
            .hint("the file must exist and be readable by the account that binvault runs as")
    };
    let mut content = String::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(SECRET_BYTES_MAX).read_to_string(&mut content).map_err(failed)?;
    Ok(SecretString::from(content))
}

/// What `mysql://user:password@host:port` says.
#[derive(Debug, Clone)]
pub(super) struct SourceUrl {
    pub(super) user: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(super) host: String,
    pub(super) port: u16,
}

/// MySQL's port.
const MYSQL_PORT: u16 = 3306;

pub(super) fn parse_source_url(url: &str) -> Result<SourceUrl> {
    // The URL may hold a password, so errors do not show it.
    let wrong = |why: &str| {
        Error::config(format!("source.url: {why}"))
            .hint("write it as mysql://user@host:3306; IPv6 as mysql://user@[::1]:3306")
    };
    let rest = url.strip_prefix("mysql://").ok_or_else(|| wrong("it does not begin with mysql://"))?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err(wrong("nothing may follow host and port"));
    }
    let (account, place) = rest.rsplit_once('@').map_or((None, rest), |(account, place)| (Some(account), place));
    let (user, password) = match account.map(|account| account.split_once(':').unwrap_or((account, ""))) {
        None => (None, None),
        Some((user, password)) => {
            let decoded = |text| percent_decode(text).ok_or_else(|| wrong("a % is not followed by two hex digits"));
            let password = decoded(password)?;
            (Some(decoded(user)?), (!password.is_empty()).then(|| SecretString::from(password)))
        }
    };
    let (host, port) = match place.strip_prefix('[').map(|v6| v6.split_once(']')) {
        Some(Some((host, port))) => (host, port.strip_prefix(':')),
        Some(None) => return Err(wrong("the ] of the IPv6 address is missing")),
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(MYSQL_PORT), |port| port.parse().map_err(|_| wrong("the port is no number")))?;
    if host.is_empty() {
        return Err(wrong("the host is missing"));
    }
    Ok(SourceUrl { user, password, host: host.to_owned(), port })
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
            out.push(digit(bytes.next())? << 4 | digit(bytes.next())?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}
