//! A cluster's members, one of which takes writes.
//!
//! Owns: finding that one. Does not own: when to look again.

use super::connect::{Connection, SourceOptions};
use super::stream::Address;
use crate::error::{Error, Kind, Result};

/// Whether a server takes writes from ordinary accounts.
///
/// # Errors
/// Those of [`Connection::query`].
pub async fn takes_writes(connection: &mut Connection) -> Result<bool> {
    let rows = connection.query("SELECT @@GLOBAL.read_only").await?;
    Ok(rows.first().and_then(|row| row.get_at(0)) == Some("0"))
}

/// The member that takes writes, as options with that address first. If none does, the one that stands first of those that
/// answer. With a single address that one, without asking.
///
/// # Errors
/// That of the first member, if none answers.
pub async fn primary(options: &SourceOptions, program: &str) -> Result<SourceOptions> {
    if options.others.is_empty() {
        return Ok(options.clone());
    }
    let mut reachable = None;
    let mut refused: Option<Error> = None;
    for candidate in members(options) {
        match asked(&candidate, program).await {
            Ok(true) => return Ok(candidate),
            Ok(false) => reachable = reachable.or(Some(candidate)),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    match (reachable, refused) {
        (Some(candidate), _) => Ok(candidate),
        (None, Some(error)) => Err(error),
        (None, None) => Err(Error::new(Kind::Unreachable, "no member of the cluster answers")),
    }
}

async fn asked(candidate: &SourceOptions, program: &str) -> Result<bool> {
    takes_writes(&mut Connection::connect(candidate, program).await?).await
}

/// Options for each member, in order.
fn members(options: &SourceOptions) -> Vec<SourceOptions> {
    let all: Vec<&Address> = std::iter::once(&options.address).chain(&options.others).collect();
    let others =
        |address: &Address| all.iter().filter(|other| **other != address).map(|other| (*other).clone()).collect();
    all.iter()
        .map(|address| SourceOptions { address: (*address).clone(), others: others(address), ..options.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_is_first_once() {
        let tcp = |port| Address::Tcp { host: "h".into(), port };
        let mut options = SourceOptions::new(tcp(1), "u", None);
        options.others = vec![tcp(2), tcp(3)];
        let all = members(&options);
        let firsts: Vec<String> = all.iter().map(|member| member.address.to_string()).collect();
        assert_eq!(firsts, ["h:1", "h:2", "h:3"]);
        assert_eq!(all[1].others, [tcp(1), tcp(3)]);
    }
}
