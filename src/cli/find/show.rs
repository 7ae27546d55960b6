//! How a transaction looks: a line, a JSON object, a command.

use serde::Serialize;

use super::{FindArgs, Given};
use crate::cli::output;
use crate::find::{Found, Kind, NotSearched, Outcome, TableRows};
use crate::position::{BinlogFile, ServerUuid, created_text};

/// Fewest columns that a statement gets, however narrow the terminal is.
const STATEMENT_COLUMNS_MIN: usize = 40;
/// Tables named on a line.
const TABLES_SHOWN: usize = 4;

/// Writes lines whose columns stand below one another as far as what came before can tell.
#[derive(Debug, Default)]
pub(super) struct Lines {
    columns: Option<usize>,
    widths: [usize; 5],
    server: Option<ServerUuid>,
}

impl Lines {
    /// For a terminal of so many columns, or for a file or pipe.
    pub(super) fn new(columns: Option<usize>) -> Self {
        // What most lines need, so that the first ones do not stand out.
        Self { columns, widths: [27, 9, 0, 0, 9], server: None }
    }

    /// The line of a transaction; before the first of each server its name, if there are several.
    pub(super) fn line(&mut self, found: &Found) -> String {
        let gtid = found.gtid.as_ref().map_or_else(|| "anonymous".to_owned(), ToString::to_string);
        let place = format!("{}:{}", found.file.file, found.start);
        let cells =
            [found.commit.rfc3339(), found.kinds.first().name().to_owned(), gtid, place, output::bytes(found.bytes())];
        let mut line = String::new();
        if self.server.replace(found.server).is_some_and(|before| before != found.server) {
            line.push_str(&format!("\nserver {}\n", found.server));
        }
        let begin = line.len();
        for (index, (cell, width)) in cells.iter().zip(&mut self.widths).enumerate() {
            *width = cell.len().max(*width);
            // The size is a number: it ends in its column.
            let cell = if index == 4 { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
            line.push_str(&cell);
        }
        line.push_str(&marks(found));
        // A name may be anything.
        line.extend(tables(found).chars().map(|c| if c.is_control() { '?' } else { c }));
        if let Some(statement) = &found.statement {
            let used = line.get(begin..).map_or(0, |text| text.chars().count()).saturating_add(2);
            let room = self.columns.map(|columns| columns.saturating_sub(used).max(STATEMENT_COLUMNS_MIN));
            line.push_str("  ");
            line.push_str(&one_line(statement, room, found.statement_cut));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// What is out of the ordinary.
fn marks(found: &Found) -> String {
    let mut text = String::new();
    if !found.complete {
        text.push_str("(its end is not in the archive) ");
    }
    if found.kinds.has(Kind::Xa) && found.kinds.first() != Kind::Xa {
        text.push_str("(xa) ");
    }
    if found.unread_events > 0 {
        text.push_str(&format!("({} unknown events) ", found.unread_events));
    }
    text
}

/// `shop.orders +1 ~2 -3, shop.items ~1 and 3 more`
fn tables(found: &Found) -> String {
    let plus = if found.rows_exact { "" } else { " or more" };
    let mut named: Vec<String> = found.tables.iter().take(TABLES_SHOWN).map(table).collect();
    let left = found.tables.len().saturating_sub(named.len()) as u64;
    let left = left.saturating_add(found.more_tables);
    if left > 0 {
        let rows = [("+", found.inserted), ("~", found.updated), ("-", found.deleted)];
        let rows: String = rows.iter().filter(|(_, n)| *n > 0).map(|(sign, n)| format!(" {sign}{n}")).collect();
        let all = if rows.is_empty() { rows } else { format!(", in all{rows}") };
        return format!("{} and {left} more{all}{plus}", named.join(", "));
    }
    if let Some(last) = named.last_mut() {
        last.push_str(plus);
    }
    named.join(", ")
}

fn table(rows: &TableRows) -> String {
    let mut text = format!("{}.{}", rows.schema, rows.table.as_deref().unwrap_or("*"));
    for (sign, count) in [("+", rows.inserted), ("~", rows.updated), ("-", rows.deleted)] {
        if count > 0 {
            text.push_str(&format!(" {sign}{count}"));
        }
    }
    text
}

/// A statement with its white space folded (and nothing in it that a terminal would obey), cut to `room` characters.
fn one_line(statement: &str, room: Option<usize>, cut: bool) -> String {
    let room = room.unwrap_or(usize::MAX);
    let mut text = String::new();
    let mut count = 0_usize;
    let words = statement.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    for character in words.flat_map(|word| std::iter::once(' ').chain(word.chars())).skip(1) {
        if count >= room {
            text.pop();
            return format!("{text}…");
        }
        text.push(character);
        count = count.saturating_add(1);
    }
    if cut { format!("{text}…") } else { text }
}

/// What was not searched, for people.
pub(super) struct NotSearchedText(pub(super) String);

impl From<&NotSearched> for NotSearchedText {
    fn from(missing: &NotSearched) -> Self {
        let NotSearched { server, file, from, to, why } = missing;
        Self(format!("NOT SEARCHED: {file} of {server}, bytes {from} to {to}: {why}"))
    }
}

/// How to restore to just before a transaction.
#[derive(Debug, Serialize)]
pub(super) struct Restore {
    /// The target.
    to: String,
    /// The whole command.
    pub(super) command: String,
}

impl Restore {
    pub(super) fn before(found: &Found, given: &Given, args: &FindArgs, servers: usize) -> Self {
        let to = found.target();
        let mut words = vec!["binvault".to_owned()];
        if let Some(config) = &given.config {
            words.extend(["-c".to_owned(), quoted(&config.display().to_string())]);
        }
        if let Some(archive) = &given.archive {
            words.extend(["--archive".to_owned(), quoted(archive)]);
        }
        words.extend(["restore".to_owned(), "--to".to_owned(), quoted(&to), "--before".to_owned()]);
        // The history that the transaction stands in, if there may be others.
        if servers > 1 {
            words.extend(["--head".to_owned(), found.server.to_string()]);
        }
        for identity in &args.keys.identity {
            words.extend(["--identity".to_owned(), quoted(&identity.display().to_string())]);
        }
        words.extend(["--datadir".to_owned(), "NEW_DIRECTORY".to_owned()]);
        Self { to, command: words.join(" ") }
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The JSON of a search.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    schema: u32,
    transactions: Vec<Transaction<'a>>,
    limited: bool,
    scanned_bytes: u64,
    not_searched: &'a [NotSearched],
    restore: Option<&'a Restore>,
}

#[derive(Debug, Serialize)]
struct Transaction<'a> {
    server: ServerUuid,
    file: &'a BinlogFile,
    created: String,
    start: u64,
    end: u64,
    bytes: u64,
    gtid: Option<String>,
    commit: String,
    commit_us: u64,
    complete: bool,
    kind: &'static str,
    kinds: Vec<&'static str>,
    tables: &'a [TableRows],
    more_tables: u64,
    inserted: u64,
    updated: u64,
    deleted: u64,
    rows_exact: bool,
    statements: u64,
    statement: Option<&'a str>,
    statement_cut: bool,
    compressed: bool,
    unread_events: u64,
}

impl<'a> Document<'a> {
    pub(super) fn new(found: &'a [Found], restore: Option<&'a Restore>, outcome: &'a Outcome) -> Self {
        Self {
            schema: 1,
            transactions: found.iter().map(Transaction::from).collect(),
            limited: outcome.limited,
            scanned_bytes: outcome.scanned_bytes,
            not_searched: &outcome.not_searched,
            restore,
        }
    }
}

impl<'a> From<&'a Found> for Transaction<'a> {
    fn from(found: &'a Found) -> Self {
        Self {
            server: found.server,
            file: &found.file.file,
            created: created_text(found.file.created_s),
            start: found.start,
            end: found.end,
            bytes: found.bytes(),
            gtid: found.gtid.as_ref().map(ToString::to_string),
            commit: found.commit.rfc3339(),
            commit_us: found.commit.micros(),
            complete: found.complete,
            kind: found.kinds.first().name(),
            kinds: found.kinds.iter().map(Kind::name).collect(),
            tables: &found.tables,
            more_tables: found.more_tables,
            inserted: found.inserted,
            updated: found.updated,
            deleted: found.deleted,
            rows_exact: found.rows_exact,
            statements: found.statements,
            statement: found.statement.as_deref(),
            statement_cut: found.statement_cut,
            compressed: found.compressed,
            unread_events: found.unread_events,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_folded_and_cut_to_the_room() {
        assert_eq!(one_line("DROP\n  TABLE\t`a`", None, false), "DROP TABLE `a`");
        assert_eq!(one_line("DROP TABLE `a`", Some(14), false), "DROP TABLE `a`");
        assert_eq!(one_line("DROP TABLE `ab`", Some(14), false), "DROP TABLE `a…");
        assert_eq!(one_line("DROP \u{1b}[31m\u{7}x", None, true), "DROP [31m x…");
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(
            quoted("gtid:3e11fa47-71ca-11e1-9e33-c80aa9429562:4"),
            "gtid:3e11fa47-71ca-11e1-9e33-c80aa9429562:4"
        );
        assert_eq!(quoted("my dir/it's"), "'my dir/it'\\''s'");
    }
}
