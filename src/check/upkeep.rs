//! What the agent does beside archiving: whether it may purge, and whom it tells. Pure.

use super::judge::quote_account;
use super::survey::Survey;
use super::{Area, Finding};
use crate::config::PurgeOptions;
use crate::error::Result;
use crate::notify::{Notifier, NotifyOptions};

/// Judges both, where they are configured.
pub(super) fn judge(
    purge: &Result<Option<PurgeOptions>>,
    notify: &Result<Option<NotifyOptions>>,
    survey: Option<&Survey>,
    findings: &mut Vec<Finding>,
) {
    match (purge, survey) {
        (Err(error), _) => findings.push(Finding::failure(Area::Agent, "purge-guard", error)),
        (Ok(Some(_)), Some(survey)) => findings.push(may_purge(survey)),
        _ => {}
    }
    let host = match notify {
        Ok(None) => return,
        Ok(Some(options)) => Notifier::new(options).map(|notifier| notifier.host().to_owned()),
        Err(error) => return findings.push(Finding::failure(Area::Agent, "notify", error)),
    };
    findings.push(match host {
        Ok(host) => Finding::ok(Area::Agent, "notify", format!("notifications go to {host}")),
        Err(error) => Finding::failure(Area::Agent, "notify", &error),
    });
}

fn may_purge(survey: &Survey) -> Finding {
    const ID: &str = "purge-guard";
    if survey.facts.grants.iter().any(|grant| lets_purge(grant)) {
        return Finding::ok(Area::Account, ID, format!("{} may purge binlogs", survey.account));
    }
    Finding::warning(Area::Account, ID, format!("{} cannot be seen to have BINLOG_ADMIN", survey.account))
        .detail("the purge guard is enabled, and can purge nothing without it")
        .fix(format!("GRANT BINLOG_ADMIN ON *.* TO {};", quote_account(&survey.account)))
}

/// Whether a grant is enough for PURGE BINARY LOGS.
fn lets_purge(grant: &str) -> bool {
    let Some((privileges, _)) = grant.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON *.* TO ")) else {
        return false;
    };
    privileges.split(',').map(str::trim).any(|one| matches!(one, "BINLOG_ADMIN" | "SUPER" | "ALL PRIVILEGES"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_privilege_is_found_among_others() {
        assert!(lets_purge("GRANT BACKUP_ADMIN,BINLOG_ADMIN ON *.* TO `binvault`@`%`"));
        assert!(lets_purge("GRANT SELECT, SUPER ON *.* TO `root`@`%` WITH GRANT OPTION"));
        assert!(!lets_purge("GRANT REPLICATION SLAVE ON *.* TO `binvault`@`%`"));
        assert!(!lets_purge("GRANT `BINLOG_ADMIN`@`%` TO `binvault`@`%`"));
    }
}
