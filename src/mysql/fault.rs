//! What the server's error codes mean to the operator: which kind of error, whether a retry may help, what to do.
//!
//! Owns: the ERR packet and the table from codes to kinds and hints. Does not own: the meaning of the dump's own
//! errors (1236), which only its reader can tell apart.

use std::error::Error as StdError;

use crate::error::{Error, Kind};

use super::wire::Reader;

/// The first byte of an ERR packet.
pub const ERR_HEADER: u8 = 0xff;

/// An error that the server sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (server error {code}, {sqlstate})")]
pub struct ServerError {
    /// MySQL's number, such as 1045.
    pub code: u16,
    /// Five characters; `HY000` if the server sent none.
    pub sqlstate: String,
    /// The server's text.
    pub message: String,
}

impl ServerError {
    /// Reads an ERR packet, header byte included. An error sent before the greeting carries no SQL state.
    /// A packet too short to hold a code gives code 0.
    pub fn parse(payload: &[u8]) -> Self {
        let mut reader = Reader(payload.strip_prefix(&[ERR_HEADER]).unwrap_or(payload));
        let code = reader.u16().unwrap_or(0);
        let (sqlstate, message) = match reader.0.split_first_chunk::<6>() {
            Some(([b'#', state @ ..], message)) => (String::from_utf8_lossy(state).into_owned(), message),
            _ => ("HY000".to_owned(), reader.0),
        };
        Self { code, sqlstate, message: String::from_utf8_lossy(message).into_owned() }
    }

    /// The program's error: `what` says what was being done, the kind and the hint follow from the code.
    pub fn into_error(self, what: impl Into<String>) -> Error {
        let class = Class::of(self.code);
        let mut error = Error::new(class.kind, what);
        if let Some(hint) = class.hint {
            error = error.hint(hint);
        }
        error.source(self)
    }
}

/// The code of the server's error behind an error, if a server's error is behind it.
pub fn server_code(error: &Error) -> Option<u16> {
    server_error(error).map(|inner| inner.code)
}

/// The server's error behind an error, if there is one.
pub fn server_error(error: &Error) -> Option<&ServerError> {
    let mut next = StdError::source(error);
    while let Some(cause) = next {
        if let Some(inner) = cause.downcast_ref::<ServerError>() {
            return Some(inner);
        }
        next = cause.source();
    }
    None
}

struct Class {
    kind: Kind,
    hint: Option<&'static str>,
}

impl Class {
    fn of(code: u16) -> Self {
        let (kind, hint) = match code {
            // Access denied: wrong password, unknown account, no such database, or an account that only the
            // operating system's user may use (MariaDB's unix_socket).
            1044 | 1045 | 1698 => (
                Kind::Refused,
                Some(
                    "check the user and the password; the account must exist for the host that this agent connects from",
                ),
            ),
            1130 => (Kind::Refused, Some("let the account connect from this host: CREATE USER 'name'@'this host'")),
            1227 | 1142 | 1143 | 1370 => (
                Kind::Refused,
                Some("give the account what it needs: GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO <account>"),
            ),
            1251 | 1275 | 1524 | 2059 => (
                Kind::Refused,
                Some(
                    "use an account with caching_sha2_password: ALTER USER <account> IDENTIFIED WITH caching_sha2_password BY '…'",
                ),
            ),
            1820 | 1862 => (
                Kind::Refused,
                Some(
                    "the account's password has expired: ALTER USER <account> IDENTIFIED BY '…' PASSWORD EXPIRE NEVER",
                ),
            ),
            3118 => (Kind::Refused, Some("the account is locked: ALTER USER <account> ACCOUNT UNLOCK")),
            3955 => {
                (Kind::Refused, Some("the account is blocked after failed logins: ALTER USER <account> ACCOUNT UNLOCK"))
            }
            3159 => (
                Kind::Refused,
                Some("the server accepts only TLS: set the TLS mode to required, verify-ca or verify-full"),
            ),
            1040 | 1203 | 1226 => {
                (Kind::Unreachable, Some("the server or the account has too many connections: raise max_connections"))
            }
            1129 => (
                Kind::Unreachable,
                Some(
                    "the server has blocked this host after failed connections: TRUNCATE performance_schema.host_cache (FLUSH HOSTS)",
                ),
            ),
            // Shutdown, killed connection, offline mode, idle timeout, and trouble on the wire.
            1053 | 1152 | 1158..=1161 | 1184 | 1927 | 3032 | 3169 | 4031 => (Kind::Unreachable, None),
            _ => (Kind::Failed, None),
        };
        Self { kind, hint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_with_and_without_sql_state() {
        let with = ServerError::parse(b"\xff\x15\x04#28000Access denied");
        assert_eq!((with.code, with.sqlstate.as_str(), with.message.as_str()), (1045, "28000", "Access denied"));
        let without = ServerError::parse(b"\xff\x10\x04Too many connections");
        assert_eq!((without.code, without.sqlstate.as_str()), (1040, "HY000"));
        assert_eq!(ServerError::parse(b"\xff").code, 0);
    }

    #[test]
    fn the_code_is_found_behind_context_and_decides_the_kind() {
        let error = ServerError::parse(b"\xff\x15\x04#28000no").into_error("log in").context("connect");
        assert_eq!((server_code(&error), error.kind(), error.is_retryable()), (Some(1045), Kind::Refused, false));
        assert!(error.hint_text().is_some());
        let busy = ServerError::parse(b"\xff\x10\x04#08004full").into_error("log in");
        assert_eq!((busy.kind(), busy.is_retryable()), (Kind::Unreachable, true));
        assert_eq!(server_code(&Error::failed("something else")), None);
    }
}
