//! What a statement in the binlog does, and which tables it names: by its words, without a grammar.
//!
//! Good enough to find it again, not to run it: of a statement with joins every table named is told, also those that
//! are only read; tables behind views, triggers and routines are not.

use std::borrow::Cow;

use super::query::{Query, text};
use super::tokens::{Token, Tokens};

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// BEGIN, START TRANSACTION.
    Begin,
    /// COMMIT.
    Commit,
    /// ROLLBACK.
    Rollback,
    /// SAVEPOINT, RELEASE, ROLLBACK TO.
    Savepoint,
    /// XA START, END, COMMIT, ROLLBACK.
    Xa,
    /// CREATE.
    Create,
    /// ALTER.
    Alter,
    /// DROP.
    Drop,
    /// TRUNCATE.
    Truncate,
    /// RENAME TABLE.
    Rename,
    /// Users, roles and what they may do.
    Account,
    /// ANALYZE, OPTIMIZE, FLUSH and the like.
    Maintain,
    /// INSERT, UPDATE, DELETE, REPLACE, LOAD DATA in statement format.
    Change,
    /// Anything else.
    Other,
}

/// A statement, judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// What it does.
    pub action: Action,
    /// It is about a temporary table, which nobody else sees.
    pub temporary: bool,
    /// It drops something that holds data: a table, a database, a column, a partition.
    pub drops: bool,
    /// It empties a table or a partition.
    pub truncates: bool,
}

/// What a statement names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named<'a> {
    /// A table or view, with its database (empty if there is none).
    Table(Cow<'a, str>, Cow<'a, str>),
    /// A whole database.
    Schema(Cow<'a, str>),
}

impl Statement {
    /// Judges a statement and calls back for each table or database that it names.
    pub fn read(query: &Query<'_>, named: &mut impl FnMut(Named<'_>)) -> Self {
        let mut reading = Reading {
            schema: &query.schema,
            tokens: Tokens::new(query.text),
            named,
            found: Statement { action: Action::Other, temporary: false, drops: false, truncates: false },
        };
        reading.statement();
        reading.found
    }

    /// Whether it defines, changes or removes tables, views, routines or databases that everybody sees.
    pub fn is_ddl(&self) -> bool {
        use Action::{Alter, Create, Drop, Rename, Truncate};
        !self.temporary && matches!(self.action, Create | Alter | Drop | Rename | Truncate)
    }
}

struct Reading<'a, 'n, F> {
    schema: &'a str,
    tokens: Tokens<'a>,
    named: &'n mut F,
    found: Statement,
}

impl<F: FnMut(Named<'_>)> Reading<'_, '_, F> {
    fn statement(&mut self) {
        let Some(Token::Word(word)) = self.tokens.next() else { return };
        let word = word.to_ascii_uppercase();
        self.found.action = match word.as_slice() {
            b"BEGIN" | b"START" => Action::Begin,
            b"COMMIT" => Action::Commit,
            b"ROLLBACK" if self.tokens.keyword("TO") => Action::Savepoint,
            b"ROLLBACK" => Action::Rollback,
            b"SAVEPOINT" | b"RELEASE" => Action::Savepoint,
            b"XA" => Action::Xa,
            b"CREATE" => self.definition(Action::Create),
            b"ALTER" => self.definition(Action::Alter),
            b"DROP" => self.definition(Action::Drop),
            b"TRUNCATE" => self.truncate(),
            b"RENAME" => self.rename(),
            b"GRANT" | b"REVOKE" => Action::Account,
            b"SET" if self.tokens.peek().is_some_and(|t| t.is_one_of(&["PASSWORD", "DEFAULT", "ROLE"])) => {
                Action::Account
            }
            b"ANALYZE" | b"OPTIMIZE" | b"REPAIR" => self.maintain(),
            b"FLUSH" | b"INSTALL" | b"UNINSTALL" | b"RESET" | b"CACHE" => Action::Maintain,
            b"INSERT" | b"REPLACE" => self.insert(),
            b"UPDATE" => self.update(),
            b"DELETE" => self.delete(),
            b"LOAD" => self.load(),
            b"WITH" => self.with(),
            _ => Action::Other,
        };
    }

    /// CREATE, ALTER, DROP: the words up to the kind of object, then its name.
    fn definition(&mut self, action: Action) -> Action {
        while let Some(token) = self.tokens.next() {
            if token.is("TEMPORARY") {
                self.found.temporary = true;
            } else if token.is_one_of(&["USER", "ROLE"]) {
                return Action::Account;
            } else if token.is_one_of(&["TABLE", "TABLES", "VIEW"]) {
                self.found.drops = action == Action::Drop && !self.found.temporary;
                self.tokens.skip_all(&["IF", "NOT", "EXISTS"]);
                self.list();
                if action == Action::Alter {
                    self.alter_clauses();
                }
                return action;
            } else if token.is_one_of(&["DATABASE", "SCHEMA"]) {
                self.found.drops = action == Action::Drop;
                self.tokens.skip_all(&["IF", "NOT", "EXISTS"]);
                if let Some((None, name)) = self.tokens.name() {
                    (self.named)(Named::Schema(text(&name)));
                }
                return action;
            } else if token.is_one_of(&["INDEX", "TRIGGER"]) {
                self.behind("ON");
                return action;
            } else if token.is_one_of(&[
                "PROCEDURE",
                "FUNCTION",
                "EVENT",
                "TABLESPACE",
                "SERVER",
                "INSTANCE",
                "LIBRARY",
            ]) {
                return action;
            }
        }
        action
    }

    /// What an ALTER TABLE does beyond its table, outside of all brackets.
    fn alter_clauses(&mut self) {
        while let Some(token) = self.tokens.next_outside() {
            if token.is("DROP") {
                const HARMLESS: &[&str] = &["DEFAULT", "CHECK", "INDEX", "KEY", "FOREIGN", "CONSTRAINT", "PRIMARY"];
                let harmless = self.tokens.peek().is_none_or(|next| next.is_one_of(HARMLESS));
                self.found.drops |= !harmless;
            } else if token.is("TRUNCATE") {
                self.found.truncates = true;
            } else if token.is("RENAME") {
                let inner = self.tokens.peek().is_none_or(|next| next.is_one_of(&["COLUMN", "INDEX", "KEY"]));
                self.tokens.skip_all(&["TO", "AS"]);
                if !inner {
                    self.table();
                }
            } else if token.is("WITH") && self.tokens.keyword("TABLE") {
                self.table();
            }
        }
    }

    fn truncate(&mut self) -> Action {
        self.found.truncates = true;
        self.tokens.keyword("TABLE");
        self.table();
        Action::Truncate
    }

    fn rename(&mut self) -> Action {
        if !self.tokens.next().is_some_and(|token| token.is_one_of(&["TABLE", "TABLES"])) {
            return Action::Account;
        }
        loop {
            self.table();
            if !(self.tokens.keyword("TO") || self.tokens.mark(b',')) {
                return Action::Rename;
            }
        }
    }

    fn maintain(&mut self) -> Action {
        self.tokens.skip_all(&["NO_WRITE_TO_BINLOG", "LOCAL"]);
        if self.tokens.next().is_some_and(|token| token.is_one_of(&["TABLE", "TABLES"])) {
            self.list();
        }
        Action::Maintain
    }

    fn insert(&mut self) -> Action {
        self.tokens.skip_all(&["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"]);
        self.table();
        Action::Change
    }

    fn update(&mut self) -> Action {
        self.tokens.skip_all(&["LOW_PRIORITY", "IGNORE"]);
        self.references(&["SET"]);
        Action::Change
    }

    fn delete(&mut self) -> Action {
        self.tokens.skip_all(&["LOW_PRIORITY", "QUICK", "IGNORE"]);
        const END: &[&str] = &["WHERE", "ORDER", "LIMIT", "USING"];
        // In `DELETE a FROM b AS a …` only what stands behind FROM is a table's name for sure.
        while let Some(token) = self.tokens.next() {
            if token.is("FROM") {
                self.references(END);
                return Action::Change;
            }
        }
        Action::Change
    }

    fn load(&mut self) -> Action {
        while let Some(token) = self.tokens.next() {
            if token.is("INTO") && self.tokens.keyword("TABLE") {
                self.table();
                break;
            }
        }
        Action::Change
    }

    /// WITH … UPDATE or DELETE: the word that stands outside of all brackets.
    fn with(&mut self) -> Action {
        while let Some(token) = self.tokens.next_outside() {
            if token.is("UPDATE") {
                return self.update();
            }
            if token.is("DELETE") {
                return self.delete();
            }
        }
        Action::Other
    }

    /// Tables with joins between them, up to one of the keywords.
    fn references(&mut self, end: &[&str]) {
        let (mut depth, mut expected) = (0_usize, true);
        while let Some(token) = self.tokens.peek() {
            match token {
                Token::Mark(b'(') => depth = depth.saturating_add(1),
                Token::Mark(b')') => depth = depth.saturating_sub(1),
                Token::Mark(b',') if depth == 0 => expected = true,
                Token::Word(_) if depth == 0 && token.is_one_of(end) => return,
                _ if token.is_one_of(&["JOIN", "STRAIGHT_JOIN"]) => expected = true,
                _ if token.is_one_of(&["SELECT", "LATERAL"]) => expected = false,
                Token::Word(_) | Token::Name(_) if expected => {
                    expected = false;
                    self.table();
                    continue;
                }
                _ => {}
            }
            self.tokens.next();
        }
    }

    /// Names with commas between them.
    fn list(&mut self) {
        loop {
            self.table();
            if !self.tokens.mark(b',') {
                return;
            }
        }
    }

    /// The name that stands behind a keyword.
    fn behind(&mut self, keyword: &str) {
        while let Some(token) = self.tokens.next() {
            if token.is(keyword) {
                return self.table();
            }
        }
    }

    fn table(&mut self) {
        if let Some((schema, table)) = self.tokens.name() {
            let schema = schema.as_ref().map_or(Cow::Borrowed(self.schema), |schema| text(schema));
            (self.named)(Named::Table(schema, text(&table)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(sql: &str) -> (Statement, Vec<String>) {
        let mut names = Vec::new();
        let query = Query { schema: "db".into(), text: sql.as_bytes(), cut: false };
        let statement = Statement::read(&query, &mut |named| {
            names.push(match named {
                Named::Table(schema, table) => format!("{schema}.{table}"),
                Named::Schema(schema) => format!("{schema}.*"),
            });
        });
        (statement, names)
    }

    /// Action, names, flags, statement.
    const CASES: &str = "Begin; ; ; BEGIN
Xa; ; ; XA START X'61',X'',1
Savepoint; ; ; rollback to `a`
Create; s.t; ddl; CREATE TABLE IF NOT EXISTS `s`.`t` (a INT)
Create; db.t; temporary; create temporary table t (a int)
Create; db.w; ddl; CREATE ALGORITHM=UNDEFINED DEFINER=`root`@`localhost` SQL SECURITY DEFINER VIEW `w` AS SELECT id FROM a
Create; db.b2; ddl; CREATE UNIQUE INDEX i ON b2 (v)
Create; db.t; ddl; CREATE DEFINER=`root`@`%` TRIGGER x AFTER INSERT ON t FOR EACH ROW INSERT INTO audit VALUES (1)
Create; ; ddl; CREATE DEFINER=`root`@`%` PROCEDURE p() BEGIN DROP TABLE z
Account; ; ; CREATE USER 'a'@'%' IDENTIFIED BY 'x'
Account; ; ; SET PASSWORD FOR 'a'@'%' = 'x'
Alter; db.a; ddl; ALTER TABLE a ADD COLUMN n INT DEFAULT (DROP), ALTER c DROP DEFAULT, DROP PRIMARY KEY
Alter; db.a; ddl drops; ALTER TABLE a DROP COLUMN n
Alter; db.a; ddl drops; ALTER TABLE a DROP n
Alter; db.a; ddl truncates; ALTER TABLE a TRUNCATE PARTITION p1
Alter; db.a x.b; ddl; ALTER TABLE a EXCHANGE PARTITION p WITH TABLE x.b
Alter; db.a db.z; ddl; ALTER TABLE a RENAME COLUMN b TO c, RENAME TO `z`
Drop; db.a s.b; ddl drops; DROP TABLE IF EXISTS `a`,`s`.`b` /* generated by server */
Drop; db.tmp; temporary; DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `tmp`
Drop; shop.*; ddl drops; DROP DATABASE `shop`
Drop; db.b2; ddl; DROP INDEX i ON b2
Drop; ; ddl; DROP PROCEDURE p
Truncate; db.a; ddl truncates; /* oops */ TRUNCATE a
Rename; db.b db.b2 x.c x.c2; ddl; RENAME TABLE b TO b2, x.c TO x.c2
Account; ; ; RENAME USER a TO b
Maintain; db.a db.b; ; ANALYZE LOCAL TABLE a, b
Change; db.a b; ; INSERT IGNORE INTO `a b` VALUES (1)
Change; db.t; ; REPLACE t SELECT * FROM u
Change; db.a s.b db.c; ; UPDATE a AS x, s.b LEFT JOIN c ON f(x.i, 2) = c.i SET x.i = 1
Change; db.t; ; UPDATE (SELECT 1 FROM z) d JOIN t ON 1 SET t.a = 1
Change; db.t; ; DELETE FROM t WHERE a IN (SELECT a FROM u)
Change; db.t db.u; ; DELETE x FROM t AS x JOIN u WHERE 1
Change; db.t; ; WITH c AS (SELECT 1) DELETE FROM t
Change; w.v; ; LOAD DATA LOCAL INFILE 'x' REPLACE INTO TABLE `w`.`v` (a)
Other; ; ; SELECT `f`(1)
Other; ; ; ";

    #[test]
    fn statements_are_judged_and_their_tables_found() {
        for case in CASES.lines() {
            let parts: Vec<&str> = case.splitn(4, "; ").collect();
            let [action, tables, flags, sql] = parts[..] else { panic!("{case}") };
            let (found, names) = read(sql);
            let all = [
                (found.is_ddl(), "ddl"),
                (found.temporary, "temporary"),
                (found.drops, "drops"),
                (found.truncates, "truncates"),
            ];
            let shown: Vec<&str> = all.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
            assert_eq!(
                (format!("{:?}", found.action), names.join(" "), shown.join(" ")),
                (action.into(), tables.into(), flags.into()),
                "{sql}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in "(CREATE|ALTER|DROP|RENAME|UPDATE|DELETE|WITH|LOAD|TABLE|,|\\(|\\)|`a`|x\\.y|JOIN|SET|FROM| ){0,30}", raw in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&text);
            let query = Query { schema: "".into(), text: &raw, cut: true };
            let _ = Statement::read(&query, &mut |_| ());
        }
    }
}
