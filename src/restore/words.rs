//! What the same things are called in older and newer servers. Pure.

use crate::mysql::{Row, Version};

/// The words of a server version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Words {
    /// `REPLICA`, or `SLAVE` before 8.0.22.
    replica: &'static str,
    /// `SOURCE`, or `MASTER` before 8.0.23.
    source: &'static str,
    /// Whether options and variables say `replica_` (8.0.26 and later).
    replica_variables: bool,
    reset: &'static str,
}

/// The channel by which a restore replays.
pub(super) const CHANNEL: &str = "binvault_restore";

impl Words {
    pub(super) fn of(version: &Version) -> Self {
        let at_least = |major, minor, patch| version.is_mysql_at_least(major, minor, patch);
        Self {
            replica: if at_least(8, 0, 22) { "REPLICA" } else { "SLAVE" },
            source: if at_least(8, 0, 23) { "SOURCE" } else { "MASTER" },
            replica_variables: at_least(8, 0, 26),
            reset: if at_least(8, 2, 0) { "RESET BINARY LOGS AND GTIDS" } else { "RESET MASTER" },
        }
    }

    /// Forgets every transaction and binlog.
    pub(super) fn reset_gtids(&self) -> &'static str {
        self.reset
    }

    pub(super) fn start(&self) -> String {
        format!("START {} FOR CHANNEL '{CHANNEL}'", self.replica)
    }

    pub(super) fn stop(&self) -> String {
        format!("STOP {} FOR CHANNEL '{CHANNEL}'", self.replica)
    }

    pub(super) fn reset_channel(&self) -> String {
        format!("RESET {} ALL FOR CHANNEL '{CHANNEL}'", self.replica)
    }

    /// Forgets every channel: a base backup may bring the ones of its server.
    pub(super) fn reset_all_channels(&self) -> String {
        format!("RESET {} ALL", self.replica)
    }

    pub(super) fn status(&self) -> String {
        format!("SHOW {} STATUS FOR CHANNEL '{CHANNEL}'", self.replica)
    }

    /// The status of every channel.
    pub(super) fn any_status(&self) -> String {
        format!("SHOW {} STATUS", self.replica)
    }

    /// `CHANGE REPLICATION SOURCE TO …`; the names of `settings` are the new ones (`SOURCE_HOST`).
    pub(super) fn change(&self, settings: &[(&str, String)]) -> String {
        let (verb, old) =
            if self.source == "SOURCE" { ("CHANGE REPLICATION SOURCE TO", false) } else { ("CHANGE MASTER TO", true) };
        let name = |name: &str| if old { name.replace("SOURCE_", "MASTER_") } else { name.to_owned() };
        let list: Vec<String> = settings.iter().map(|(key, value)| format!("{} = {value}", name(key))).collect();
        format!("{verb} {} FOR CHANNEL '{CHANNEL}'", list.join(", "))
    }

    /// A variable or option whose new name begins with `replica`, in the form of the server.
    pub(super) fn variable(&self, new_name: &str) -> String {
        if self.replica_variables { new_name.to_owned() } else { new_name.replace("replica", "slave") }
    }

    /// A column of the status, by its new name.
    pub(super) fn column<'r>(&self, row: &'r Row, new_name: &str) -> Option<&'r str> {
        row.get(new_name).or_else(|| {
            let old = new_name.replace("Replica", "Slave").replace("Source", "Master");
            row.get(&old)
        })
    }
}

/// A text as a literal of SQL.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_spoken_to_in_old_words() {
        let new = Words::of(&Version::parse("9.7.4"));
        let old = Words::of(&Version::parse("8.0.20"));
        assert_eq!(new.start(), "START REPLICA FOR CHANNEL 'binvault_restore'");
        assert_eq!(old.stop(), "STOP SLAVE FOR CHANNEL 'binvault_restore'");
        let settings = [("SOURCE_PORT", "1".to_owned()), ("SOURCE_SSL", "0".to_owned())];
        assert_eq!(
            new.change(&settings),
            "CHANGE REPLICATION SOURCE TO SOURCE_PORT = 1, SOURCE_SSL = 0 FOR CHANNEL 'binvault_restore'"
        );
        assert_eq!(
            old.change(&settings),
            "CHANGE MASTER TO MASTER_PORT = 1, MASTER_SSL = 0 FOR CHANNEL 'binvault_restore'"
        );
        assert_eq!(old.variable("replica_parallel_workers"), "slave_parallel_workers");
        assert_eq!((new.reset_gtids(), old.reset_gtids()), ("RESET BINARY LOGS AND GTIDS", "RESET MASTER"));
    }

    #[test]
    fn texts_are_quoted() {
        assert_eq!(quoted(r"o'b\k"), r"'o''b\\k'");
    }
}
