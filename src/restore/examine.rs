//! Looking at what was restored: every table checked, the user's own assertions.

use serde::{Deserialize, Serialize};

use super::site::Site;
use crate::error::Result;

/// What to look at, behind the proof.
#[derive(Debug, Clone, Default)]
pub struct Examine {
    /// Run CHECK TABLE on every table.
    pub check_tables: bool,
    /// The user's assertions.
    pub assertions: Vec<Assertion>,
}

/// A query whose first column of the first row must be something.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    /// The query.
    pub sql: String,
    /// What it must give; left out: `1`, so that a condition can be selected.
    #[serde(default = "truth")]
    pub expect: String,
}

fn truth() -> String {
    "1".to_owned()
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// Tables that CHECK TABLE found well.
    pub tables: u64,
    /// Tables that it did not, and what it said.
    pub bad_tables: Vec<String>,
    /// The assertions, in order.
    pub assertions: Vec<AssertionResult>,
}

/// What came of an assertion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssertionResult {
    /// The query.
    pub sql: String,
    /// What it should give.
    pub expect: String,
    /// What it gave; the error if it failed.
    pub got: String,
    /// Whether they agree.
    pub ok: bool,
}

impl Examined {
    /// What is wrong, if anything is.
    pub fn trouble(&self) -> Option<String> {
        let failed = self.assertions.iter().find(|assertion| !assertion.ok);
        match (self.bad_tables.first(), failed) {
            (Some(table), _) => Some(format!("CHECK TABLE found {} bad tables, first {table}", self.bad_tables.len())),
            (None, Some(failed)) => {
                Some(format!("the assertion {:?} gave {:?}, not {:?}", failed.sql, failed.got, failed.expect))
            }
            (None, None) => None,
        }
    }
}

/// Looks.
///
/// # Errors
/// If the server is lost; what is found wrong is no error here.
pub(super) async fn examine(what: &Examine, site: &mut dyn Site) -> Result<Examined> {
    let mut found = Examined::default();
    if what.check_tables {
        check_tables(site, &mut found).await?;
    }
    for assertion in &what.assertions {
        let answer = site.connection()?.query(&assertion.sql).await;
        let (got, fine) = match &answer {
            Ok(rows) => match rows.first().map(|row| row.get_at(0).unwrap_or("NULL").to_owned()) {
                Some(got) => {
                    let fine = got == assertion.expect;
                    (got, fine)
                }
                None => ("no row".to_owned(), false),
            },
            Err(error) => (error.chain(), false),
        };
        found.assertions.push(AssertionResult {
            sql: assertion.sql.clone(),
            expect: assertion.expect.clone(),
            got,
            ok: fine,
        });
    }
    Ok(found)
}

/// Every table that is no view, of every schema that is the user's.
const TABLES: &str = "SELECT CONCAT('`', REPLACE(table_schema, '`', '``'), '`.`', REPLACE(table_name, '`', '``'), '`') \
    FROM information_schema.tables WHERE table_type = 'BASE TABLE' \
    AND table_schema NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys', 'ndbinfo')";

async fn check_tables(site: &mut dyn Site, found: &mut Examined) -> Result<()> {
    let rows = site.connection()?.query(TABLES).await?;
    for table in rows.iter().filter_map(|row| row.get_at(0)) {
        let said = site.connection()?.query(&format!("CHECK TABLE {table}")).await?;
        // Notes may come before it; the status comes last.
        let status = said.last().and_then(|row| row.get("Msg_text")).unwrap_or("nothing");
        // What cannot be checked (an engine that does not offer it) is not bad.
        if status == "OK" || status.contains("doesn't support check") {
            found.tables = found.tables.saturating_add(1);
        } else {
            found.bad_tables.push(format!("{table}: {status}"));
        }
    }
    Ok(())
}
