//! Kinds of transactions: what one asks for, and the word that a line shows. Pure.

use crate::mysql::rows::{Action, RowAction, Statement};

/// A kind of transaction. One may be of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// DROP of a table, view, database, index, routine; also of a column or partition by ALTER TABLE.
    Drop,
    /// TRUNCATE of a table, or of a partition.
    Truncate,
    /// RENAME TABLE.
    Rename,
    /// ALTER.
    Alter,
    /// CREATE.
    Create,
    /// Any of the five before, and nothing about temporary tables.
    Ddl,
    /// Users, roles and what they may do.
    Account,
    /// ANALYZE, OPTIMIZE, FLUSH and the like.
    Admin,
    /// Changes of rows in statement format.
    Statement,
    /// Changes of rows in row format.
    Rows,
    /// Rows inserted, in row format.
    Insert,
    /// Rows updated, in row format.
    Update,
    /// Rows deleted, in row format.
    Delete,
    /// A part of an XA transaction.
    Xa,
    /// At least as large as asked for.
    Large,
    /// Nothing of the above.
    Other,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 16] = {
        use Kind::{
            Account, Admin, Alter, Create, Ddl, Delete, Drop, Insert, Large, Other, Rename, Rows, Statement, Truncate,
            Update, Xa,
        };
        [
            Ddl, Create, Alter, Drop, Truncate, Rename, Account, Admin, Rows, Insert, Update, Delete, Statement, Xa,
            Large, Other,
        ]
    };

    /// Its name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Drop => "drop",
            Kind::Truncate => "truncate",
            Kind::Rename => "rename",
            Kind::Alter => "alter",
            Kind::Create => "create",
            Kind::Ddl => "ddl",
            Kind::Account => "account",
            Kind::Admin => "admin",
            Kind::Statement => "statement",
            Kind::Rows => "rows",
            Kind::Insert => "insert",
            Kind::Update => "update",
            Kind::Delete => "delete",
            Kind::Xa => "xa",
            Kind::Large => "large",
            Kind::Other => "other",
        }
    }
}

/// Several kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u16);

impl Kinds {
    /// Adds one.
    pub fn add(&mut self, kind: Kind) {
        self.0 |= 1 << kind as u8;
    }

    /// Whether it is there.
    pub fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    /// Whether none is there.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the two have one in common.
    pub fn meets(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }

    /// Those that are there.
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }

    /// The one that tells most in one word.
    pub fn first(self) -> Kind {
        let mut all: Vec<Kind> = self.iter().filter(|kind| !matches!(kind, Kind::Large | Kind::Ddl)).collect();
        all.sort();
        all.first().copied().unwrap_or(Kind::Other)
    }

    /// Adds what a statement is.
    pub(super) fn add_statement(&mut self, statement: &Statement) {
        let kind = match statement.action {
            Action::Begin | Action::Commit | Action::Rollback | Action::Savepoint | Action::Other => None,
            Action::Xa => Some(Kind::Xa),
            Action::Account => Some(Kind::Account),
            Action::Maintain => Some(Kind::Admin),
            Action::Change => Some(Kind::Statement),
            _ if !statement.is_ddl() => None,
            Action::Create => Some(Kind::Create),
            Action::Alter => Some(Kind::Alter),
            Action::Drop => Some(Kind::Drop),
            Action::Truncate => Some(Kind::Truncate),
            Action::Rename => Some(Kind::Rename),
        };
        let more =
            [(statement.is_ddl(), Kind::Ddl), (statement.drops, Kind::Drop), (statement.truncates, Kind::Truncate)];
        for kind in kind.into_iter().chain(more.into_iter().filter(|(is, _)| *is).map(|(_, kind)| kind)) {
            self.add(kind);
        }
    }

    /// Adds what a row event does.
    pub(super) fn add_rows(&mut self, action: RowAction) {
        self.add(Kind::Rows);
        self.add(match action {
            RowAction::Insert => Kind::Insert,
            RowAction::Update => Kind::Update,
            RowAction::Delete => Kind::Delete,
        });
    }
}
