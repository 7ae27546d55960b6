//! One transaction, summed up within bounds, however large it is. Pure.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::kind::{Kind, Kinds};
use super::{Found, TablePattern, TableRows};
use crate::mysql::rows::{Action, Content, Named, Query, RowAction, Statement, TableMap, text};

/// Tables told by name; the others are counted.
const TABLES_NAMED_MAX: usize = 64;
/// Names beyond those that are told apart for counting, by 64 bits of each.
const TABLES_COUNTED_MAX: usize = 1 << 16;
/// Most bytes of a statement that are kept.
const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// What a transaction does, as far as it has been seen.
#[derive(Debug, Default)]
pub(super) struct Summary {
    kinds: Kinds,
    tables: Vec<TableRows>,
    /// Which of `tables` is meant by the last table map.
    current: Option<usize>,
    counted: HashSet<u64>,
    hasher: RandomState,
    totals: [u64; 3],
    inexact: bool,
    statement: Option<(Vec<u8>, bool)>,
    statements: u64,
    compressed: bool,
    unread: u64,
    /// A table that was asked for is among its tables.
    pub(super) names_wanted: bool,
}

impl Summary {
    /// Takes the next thing that the transaction does; `wanted` are the tables asked for.
    pub(super) fn take(&mut self, content: &Content<'_>, wanted: &[TablePattern]) {
        match content {
            Content::Query(query) => self.query(query, wanted),
            Content::Load(query) => self.query(query, wanted),
            Content::Original(sql) => {
                if self.statement.is_none() {
                    self.keep(sql, false);
                }
            }
            Content::Table(table) => self.table(table, wanted),
            Content::Rows { table, action, rows, exact } => self.rows(*table, *action, *rows, *exact),
            Content::Payload => self.compressed = true,
            Content::XaPrepare => self.kinds.add(Kind::Xa),
            Content::Unread(_) => self.unread = self.unread.saturating_add(1),
        }
    }

    fn query(&mut self, query: &Query<'_>, wanted: &[TablePattern]) {
        let mut database = None;
        let statement = Statement::read(query, &mut |named| match named {
            Named::Table(schema, table) => {
                self.name(&schema, Some(&table), wanted);
            }
            Named::Schema(schema) => database = Some(schema.into_owned()),
        });
        if let Some(schema) = database {
            // One that is dropped took every table with it; else a single table is not concerned.
            let concerned = |pattern: &&TablePattern| statement.drops || pattern.is_whole();
            let wanted: Vec<TablePattern> = wanted.iter().filter(concerned).cloned().collect();
            self.name(&schema, None, &wanted);
        }
        let defines_first = statement.is_ddl() && !self.kinds.has(Kind::Ddl);
        self.kinds.add_statement(&statement);
        let bracket = matches!(
            statement.action,
            Action::Begin | Action::Commit | Action::Rollback | Action::Savepoint | Action::Xa
        );
        if bracket {
            return;
        }
        self.statements = self.statements.saturating_add(1);
        // Of several the first tells what it was; a definition tells more than what stands around it.
        if self.statements == 1 || defines_first {
            self.keep(query.text, query.cut);
        }
    }

    fn keep(&mut self, text: &[u8], cut: bool) {
        let kept = text.get(..STATEMENT_BYTES_MAX).unwrap_or(text);
        self.statement = Some((kept.to_vec(), cut || kept.len() < text.len()));
    }

    fn table(&mut self, table: &TableMap, wanted: &[TablePattern]) {
        let same = |known: &TableRows| known.schema == table.schema && known.table.as_deref() == Some(&*table.table);
        if !self.current.and_then(|index| self.tables.get(index)).is_some_and(same) {
            self.current = self.name(&table.schema, Some(&table.table), wanted);
        }
    }

    /// Notes a table (or, without one, a database); its index, if it is one of those told by name.
    fn name(&mut self, schema: &str, table: Option<&str>, wanted: &[TablePattern]) -> Option<usize> {
        let known = self.tables.iter().position(|known| known.schema == schema && known.table.as_deref() == table);
        if known.is_some() {
            return known;
        }
        let asked_for = wanted.iter().any(|pattern| pattern.is_match(schema, table));
        self.names_wanted |= asked_for;
        // What was asked for is told by name even where many others came before it.
        let room = if asked_for { 2 * TABLES_NAMED_MAX } else { TABLES_NAMED_MAX };
        if self.tables.len() < room {
            let rows = TableRows { schema: schema.to_owned(), table: table.map(str::to_owned), ..TableRows::default() };
            self.tables.push(rows);
            return Some(self.tables.len().saturating_sub(1));
        }
        if self.counted.len() < TABLES_COUNTED_MAX {
            self.counted.insert(self.hasher.hash_one((schema, table)));
        }
        None
    }

    fn rows(&mut self, table: Option<&TableMap>, action: RowAction, rows: u64, exact: bool) {
        if rows > 0 || !exact {
            self.kinds.add_rows(action);
        }
        self.inexact |= !exact;
        let number = action as usize;
        if let Some(total) = self.totals.get_mut(number) {
            *total = total.saturating_add(rows);
        }
        let Some(table) = table else { return };
        let index = self
            .tables
            .iter()
            .position(|known| known.schema == table.schema && known.table.as_deref() == Some(table.table.as_str()));
        if let Some(known) = index.and_then(|index| self.tables.get_mut(index)) {
            let count = match action {
                RowAction::Insert => &mut known.inserted,
                RowAction::Update => &mut known.updated,
                RowAction::Delete => &mut known.deleted,
            };
            *count = count.saturating_add(rows);
        }
    }

    /// What kind of transaction it is, if it has `bytes` and `large` is the size of a large one.
    pub(super) fn kinds(&self, bytes: u64, large: u64) -> Kinds {
        let mut kinds = self.kinds;
        if bytes >= large {
            kinds.add(Kind::Large);
        }
        if kinds.is_empty() {
            kinds.add(Kind::Other);
        }
        kinds
    }

    /// Adds what was learned to the transaction's place and time.
    pub(super) fn into_found(self, found: &mut Found) {
        let [inserted, updated, deleted] = self.totals;
        (found.inserted, found.updated, found.deleted) = (inserted, updated, deleted);
        found.rows_exact = !self.inexact;
        found.tables = self.tables;
        found.more_tables = self.counted.len() as u64;
        found.statements = self.statements;
        if let Some((bytes, cut)) = self.statement {
            found.statement = Some(text(&bytes).into_owned());
            found.statement_cut = cut;
        }
        found.compressed = self.compressed;
        found.unread_events = self.unread;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::rows::text;

    #[test]
    fn a_hundred_thousand_tables_are_named_within_bounds() {
        let wanted = [TablePattern::parse("s.t70000").unwrap()];
        let mut summary = Summary::default();
        for number in 0..100_000 {
            summary.name("s", Some(&format!("t{}", number % 80_000)), &wanted);
        }
        assert!(summary.names_wanted);
        let mut found = crate::find::scan::tests::nothing();
        summary.into_found(&mut found);
        assert_eq!(found.tables.len(), TABLES_NAMED_MAX + 1, "and the one asked for");
        assert_eq!(found.tables.last().unwrap().table.as_deref(), Some("t70000"));
        assert_eq!(found.more_tables, TABLES_COUNTED_MAX as u64);
    }

    #[test]
    fn of_many_statements_the_definition_is_kept_and_no_more_than_fits() {
        let mut summary = Summary::default();
        let long = format!("CREATE TABLE t (a INT) COMMENT '{}'", "x".repeat(2 * STATEMENT_BYTES_MAX));
        for sql in ["BEGIN", "INSERT INTO t VALUES (1)", "UPDATE t SET a = 1", &long, "DROP TABLE t", "COMMIT"] {
            let query = Query { schema: "s".into(), text: sql.as_bytes(), cut: false };
            summary.take(&Content::Query(query), &[]);
        }
        let mut found = crate::find::scan::tests::nothing();
        summary.into_found(&mut found);
        assert_eq!((found.statements, found.statement_cut), (4, true));
        assert_eq!(found.statement.unwrap(), text(&long.as_bytes()[..STATEMENT_BYTES_MAX]));
        assert_eq!(found.tables.len(), 1);
    }
}
