//! Patterns of table names: `shop.orders`, `shop.*`, `*.audit_*`. Pure.

use crate::error::{Error, Result};

/// A pattern `SCHEMA.TABLE`. `*` stands for any text, `?` for one byte; letters match in either case, as names are
/// compared without case on many servers, and finding one too many does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePattern {
    schema: Vec<u8>,
    table: Vec<u8>,
}

impl TablePattern {
    /// Reads a pattern; backticks around names are allowed.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] if it has no point, or nothing before or behind it.
    pub fn parse(text: &str) -> Result<Self> {
        let bare = |name: &str| name.trim().trim_matches('`').as_bytes().to_vec();
        match text.split_once('.').map(|(schema, table)| (bare(schema), bare(table))) {
            Some((schema, table)) if !schema.is_empty() && !table.is_empty() => Ok(Self { schema, table }),
            _ => Err(Error::config(format!("{text:?} is no table: write DATABASE.TABLE"))
                .hint("`*` stands for any text: shop.*, *.orders, shop.order_*")),
        }
    }

    /// Whether every table of a database is meant.
    pub(super) fn is_whole(&self) -> bool {
        self.table == b"*"
    }

    /// Whether a table is meant; `None` for the table means the whole database, which has every table.
    pub fn is_match(&self, schema: &str, table: Option<&str>) -> bool {
        wild(&self.schema, schema.as_bytes()) && table.is_none_or(|table| wild(&self.table, table.as_bytes()))
    }
}

/// Whether the pattern matches the whole text: greedy, with one place to go back to.
fn wild(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (pattern, text);
    let mut back: Option<(&[u8], &[u8])> = None;
    loop {
        match (p, t) {
            ([], []) => return true,
            ([b'*', rest @ ..], _) => {
                p = rest;
                back = Some((rest, t));
            }
            ([wanted, p_rest @ ..], [byte, t_rest @ ..]) if *wanted == b'?' || wanted.eq_ignore_ascii_case(byte) => {
                (p, t) = (p_rest, t_rest);
            }
            _ => match back {
                Some((after_star, [_, t_rest @ ..])) => {
                    (p, t) = (after_star, t_rest);
                    back = Some((after_star, t_rest));
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_written() {
        for (pattern, schema, table, expected) in [
            ("shop.orders", "shop", Some("orders"), true),
            ("Shop.`ORDERS`", "shop", Some("orders"), true),
            ("shop.order?", "shop", Some("orders"), true),
            ("shop.order", "shop", Some("orders"), false),
            ("*.ord*s", "x", Some("orders"), true),
            ("*.*a*b*", "x", Some("xxaxxbxx"), true),
            ("*.*a*b", "x", Some("xxaxxbxx"), false),
            ("shop.orders", "shop", None, true),
            ("shop.orders", "other", None, false),
        ] {
            assert_eq!(TablePattern::parse(pattern).unwrap().is_match(schema, table), expected, "{pattern} {table:?}");
        }
        for bad in ["orders", ".orders", "shop.", ""] {
            assert!(TablePattern::parse(bad).is_err(), "{bad}");
        }
    }

    /// The plain definition.
    fn slow(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|at| slow(rest, &text[at..])),
            ([b'?', p @ ..], [_, t @ ..]) => slow(p, t),
            ([wanted, p @ ..], [byte, t @ ..]) => wanted == byte && slow(p, t),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn wildcards_do_what_their_definition_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(wild(pattern.as_bytes(), text.as_bytes()), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
