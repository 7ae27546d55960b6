//! What the donor's refusals mean, and the statement that mends each.
//!
//! The numbers were met on 9.7, but for those of DDL and of a donor that is itself being made.

use crate::base::engine::Trouble;
use crate::error::{Error, Kind};
use crate::mysql::fault::ServerError;

/// The plugin is not there.
pub(super) const NO_PLUGIN: u16 = 1524;
/// A privilege lacks.
pub(super) const NO_PRIVILEGE: u16 = 1227;
const LOCK_WAIT_TIMEOUT: u16 = 1205;
const DDL_IN_PROGRESS: u16 = 3633;
const ANOTHER_CLONE: u16 = 3634;
const TLS_NEEDED: u16 = 3872;
const BEING_CLONED: u16 = 3874;
const PACKET_TOO_SMALL: u16 = 3957;
const REDO_DISABLED: u16 = 3983;

/// Makes the plugin available; no restart is needed.
pub(super) const INSTALL_PLUGIN: &str = "INSTALL PLUGIN clone SONAME 'mysql_clone.so';";
/// Lifts the donor's limit, which must be 2 MiB at least, to its default.
pub(super) const RAISE_PACKET: &str = "SET GLOBAL max_allowed_packet = 67108864;";
/// Ends a state in which a crash would lose everything.
pub(super) const ENABLE_REDO: &str = "ALTER INSTANCE ENABLE INNODB REDO_LOG;";
const DEMAND_TLS: &str = "[source] tls = \"required\" (or verify-ca with tls_ca): the keys of encrypted tablespaces are sent \
    in clear inside the connection";

/// The statement that lets an account take clones.
pub(super) fn grant(account: &str) -> String {
    let account = if account.is_empty() { "<account>" } else { account };
    format!("GRANT BACKUP_ADMIN ON *.* TO {account};")
}

/// What a donor's error means.
pub(super) fn refusal(error: ServerError, account: &str) -> Trouble {
    let unfit = |what: &str, hint: &str| Trouble::from(Error::new(Kind::Unfit, what).hint(hint).source(error.clone()));
    let busy = |what: &str, hint: &str| Trouble::busy(Error::failed(what).hint(hint).source(error.clone()));
    match error.code {
        NO_PLUGIN => unfit("the server has no clone plugin", INSTALL_PLUGIN),
        NO_PRIVILEGE => {
            Error::new(Kind::Refused, "the account may not take a clone").hint(grant(account)).source(error).into()
        }
        PACKET_TOO_SMALL => unfit("the server's max_allowed_packet is too small for a clone", RAISE_PACKET),
        REDO_DISABLED => unfit("the server's redo log is switched off, so it cannot be cloned", ENABLE_REDO),
        TLS_NEEDED => needs_tls().source(error).into(),
        ANOTHER_CLONE | BEING_CLONED => busy(
            "another clone is running on the server",
            "the base backup waits for its end; a clone whose recipient died is given up by the server after \
             clone_donor_timeout_after_network_failure minutes, or when the next one begins",
        ),
        LOCK_WAIT_TIMEOUT => busy(
            "the server could not hold DDL back in time",
            "take base backups when no long DDL runs, or raise base.lock_wait",
        ),
        DDL_IN_PROGRESS => busy(
            "a statement that changes definitions ended the clone",
            "base.ddl = \"lock\" makes DDL wait for the clone",
        ),
        _ => error.into_error("the server gives no clone").into(),
    }
}

/// Encrypted data may not come in clear.
pub(super) fn needs_tls() -> Error {
    Error::new(Kind::Refused, "the server has encrypted tablespaces, which are cloned over TLS only").hint(DEMAND_TLS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: u16) -> Trouble {
        let error = ServerError { code, sqlstate: "HY000".into(), message: "no".into() };
        refusal(error, "'binvault'@'%'")
    }

    #[test]
    fn each_refusal_comes_with_what_mends_it() {
        for (code, kind, mend) in [
            (1524, Kind::Unfit, "INSTALL PLUGIN clone SONAME 'mysql_clone.so';"),
            (1227, Kind::Refused, "GRANT BACKUP_ADMIN ON *.* TO 'binvault'@'%';"),
            (3957, Kind::Unfit, "SET GLOBAL max_allowed_packet"),
            (3983, Kind::Unfit, "ALTER INSTANCE ENABLE INNODB REDO_LOG;"),
            (3872, Kind::Refused, "tls = \"required\""),
        ] {
            let trouble = told(code);
            assert_eq!((trouble.error.kind(), trouble.busy), (kind, false), "{code}");
            assert!(!trouble.error.is_retryable() && trouble.error.hint_text().unwrap().contains(mend), "{trouble}");
        }
        for code in [3634, 3633, 1205, 3874] {
            assert!(told(code).busy && told(code).error.is_retryable(), "{code}");
        }
        assert_eq!(told(1053).error.kind(), Kind::Unreachable);
    }
}
