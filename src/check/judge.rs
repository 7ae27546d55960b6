//! What the way to the server, the account and the other replicas mean. Pure; the server's settings are in `server`.

use super::archive::Examined;
use super::survey::Survey;
use super::{Area, Finding, server};
use crate::config::AgentOptions;
use crate::error::{Error, Kind};
use crate::mysql::facts::Replica;
use crate::mysql::{SourceOptions, server_code};

/// The server's error for a user or password that it does not take.
const ACCESS_DENIED: u16 = 1045;

/// Why there is no connection.
pub(super) fn not_connected(source: &SourceOptions, error: &Error) -> Finding {
    let area = match (error.kind(), server_code(error)) {
        (Kind::Refused, Some(_)) => Area::Account,
        _ => Area::Network,
    };
    let finding = Finding::failure(area, "connect", error);
    if server_code(error) == Some(ACCESS_DENIED) {
        let user = quote(&source.user);
        let fix = format!(
            "-- as an administrator; put the same password into source.password_file\n\
             CREATE USER IF NOT EXISTS {user}@'%' IDENTIFIED BY '…';\n\
             ALTER USER {user}@'%' IDENTIFIED BY '…';\n\
             GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {user}@'%';"
        );
        return finding.fix(fix);
    }
    finding
}

/// Everything that the server's answers say, but for the archive's place in its history.
pub(super) fn judge(
    survey: &Survey,
    agent: Option<&AgentOptions>,
    archive: Option<&Examined>,
    findings: &mut Vec<Finding>,
) {
    network(survey, findings);
    server::judge(survey, findings);
    account(survey, findings);
    if let Some(agent) = agent {
        replicas(survey, agent, archive, findings);
    }
}

fn network(survey: &Survey, findings: &mut Vec<Finding>) {
    let version = &survey.facts.version;
    findings.push(Finding::ok(Area::Network, "connect", format!("connected to MySQL {version} as {}", survey.account)));
    let what = survey.facts.tls_cipher.as_deref().unwrap_or("TLS");
    let verify = "[source]\ntls = \"verify-ca\"\ntls_ca = \"/etc/binvault/server-ca.pem\"   # ca.pem of the server's data directory";
    findings.push(match (survey.is_tls, survey.is_local, survey.verifies) {
        (true, _, true) => Finding::ok(Area::Network, "tls", format!("TLS ({what}), the server's certificate is verified")),
        (true, true, false) => Finding::ok(Area::Network, "tls", format!("TLS ({what}) on this machine")),
        (true, false, false) => {
            Finding::note(Area::Network, "tls", format!("TLS ({what}), but anyone could pose as the server"))
                .detail("the connection is safe against listeners, not against someone in between")
                .fix(verify)
        }
        (false, true, _) => Finding::ok(Area::Network, "tls", "no TLS, and no network: the server is on this machine"),
        (false, false, _) => Finding::warning(Area::Network, "tls", "the binlog passes over the network in clear")
            .detail(if survey.facts.binlog_encryption == Some(true) {
                "the server encrypts its binlogs on disk (binlog_encryption), yet every change can be read on the way here"
            } else {
                "every change can be read on the way here"
            })
            .fix("[source]\ntls = \"required\"   # or verify-ca with tls_ca"),
    });
}

fn account(survey: &Survey, findings: &mut Vec<Finding>) {
    // The questions themselves are the proof: they need the privilege, however it was given, by role or otherwise.
    let client = survey.logs.as_ref().err().or_else(|| survey.status.as_ref().err());
    for (id, privilege, why, refused) in [
        (
            "replication-slave",
            "REPLICATION SLAVE",
            "without it the server sends no binlog",
            survey.replicas.as_ref().err(),
        ),
        ("replication-client", "REPLICATION CLIENT", "without it the server does not tell where its log is", client),
    ] {
        findings.push(match refused {
            None => Finding::ok(Area::Account, id, format!("{} has {privilege}", survey.account)),
            Some(error) if error.kind() == Kind::Refused => {
                let title = format!("{} lacks {privilege}", survey.account);
                let finding = Finding::error(Area::Account, id, Kind::Refused, title);
                let account = quote_account(&survey.account);
                finding.detail(lacking(survey, why)).fix(format!("GRANT {privilege} ON *.* TO {account};"))
            }
            Some(error) => Finding::failure(Area::Account, id, error),
        });
    }
    if let Some(grant) = survey.facts.grants.iter().find(|grant| is_powerful(grant)) {
        let shown: String = grant.chars().take(120).collect();
        findings.push(
            Finding::note(Area::Account, "least-privilege", format!("{} may do more than it needs", survey.account))
                .detail(format!("{shown}: REPLICATION SLAVE and REPLICATION CLIENT are enough for the agent"))
                .fix(
                    "CREATE USER 'binvault'@'%' IDENTIFIED BY '…';\n\
                     GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'binvault'@'%';",
                ),
        );
    }
}

/// Why a privilege is missed, with a word on roles that were given but are not in force.
fn lacking(survey: &Survey, why: &str) -> String {
    let is_role = |grant: &&String| grant.starts_with("GRANT ") && !grant.contains(" ON ");
    match survey.facts.grants.iter().find(is_role) {
        Some(role) => {
            format!("{why}; a role is granted ({role}): if it has the privilege, SET DEFAULT ROLE puts it in force")
        }
        None => why.to_owned(),
    }
}

/// Whether a grant makes whoever has it the master of all data.
fn is_powerful(grant: &str) -> bool {
    let Some((privileges, _)) = grant.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON *.* TO ")) else {
        return false;
    };
    privileges
        .split(", ")
        .any(|one| matches!(one, "ALL PRIVILEGES" | "SUPER" | "INSERT" | "UPDATE" | "DELETE" | "DROP"))
}

fn replicas(survey: &Survey, agent: &AgentOptions, archive: Option<&Examined>, findings: &mut Vec<Finding>) {
    let Ok(replicas) = &survey.replicas else { return };
    let id = archive.and_then(|examined| examined.archive.as_ref()).map(|archive| archive.id());
    let ours = id.map(|id| agent.replica_uuid(id));
    let Some(server_id) = id.map(|id| agent.replica_server_id(id)).or(agent.server_id) else {
        let title = "this agent's replica identity is made with the archive, at the first `binvault run`";
        findings.push(Finding::ok(Area::Agent, "replica-identity", title));
        return;
    };
    let other_number = "[source]\nserver_id = …   # a number that no server and no replica of the source has";
    if survey.facts.server_id == Some(server_id) {
        findings.push(
            Finding::error(
                Area::Agent,
                "replica-identity",
                Kind::Clash,
                format!("source.server_id {server_id} is the server's own"),
            )
            .fix(other_number),
        );
        return;
    }
    let is_ours = |replica: &&Replica| ours.is_some() && replica.uuid == ours;
    let same_number = |replica: &&Replica| replica.server_id == server_id && !is_ours(replica);
    let finding = if let Some(replica) = replicas.iter().find(same_number) {
        let title = format!("another replica has our server id {server_id}");
        Finding::error(Area::Agent, "replica-identity", Kind::Clash, title).detail(shown(replica)).fix(other_number)
    } else {
        match replicas.iter().find(is_ours) {
            Some(replica) if replica.host == agent.report_host => {
                Finding::note(Area::Agent, "replica-identity", format!("agent {:?} is running", agent.id)).detail(
                    format!("{}; a second one with the same agent.id would throw it off the server", shown(replica)),
                )
            }
            Some(replica) => {
                let title = format!("an agent {:?} of this archive is already connected from elsewhere", agent.id);
                Finding::error(Area::Agent, "replica-identity", Kind::Clash, title)
                    .detail(format!("{}; each would throw the other off the server", shown(replica)))
                    .fix("[agent]\nid = \"second\"   # any name that no other agent of this archive has")
            }
            None => Finding::ok(Area::Agent, "replica-identity", format!("no replica has our server id {server_id}")),
        }
    };
    findings.push(finding);
}

fn shown(replica: &Replica) -> String {
    let uuid = replica.uuid.map_or_else(|| "none".to_owned(), |uuid| uuid.to_string());
    format!("SHOW REPLICAS has server id {}, host {:?}, uuid {uuid}", replica.server_id, replica.host)
}

fn quote(part: &str) -> String {
    format!("'{}'", part.replace('\\', "\\\\").replace('\'', "''"))
}

/// `name@host` as it must stand in a statement.
pub(super) fn quote_account(account: &str) -> String {
    let (name, host) = account.rsplit_once('@').unwrap_or((account, "%"));
    format!("{}@{}", quote(name), quote(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_quoted_for_a_statement() {
        assert_eq!(quote_account("binvault@%"), "'binvault'@'%'");
        assert_eq!(quote_account("o'n@il@10.0.0.1"), "'o''n@il'@'10.0.0.1'");
    }

    #[test]
    fn only_grants_over_everything_are_too_much() {
        assert!(is_powerful("GRANT ALL PRIVILEGES ON *.* TO `root`@`%` WITH GRANT OPTION"));
        assert!(is_powerful("GRANT SELECT, INSERT ON *.* TO `a`@`%`"));
        for grant in [
            "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `binvault`@`%`",
            "GRANT ALL PRIVILEGES ON `own`.* TO `a`@`%`",
            "GRANT `role`@`%` TO `a`@`%`",
        ] {
            assert!(!is_powerful(grant), "{grant}");
        }
    }
}
