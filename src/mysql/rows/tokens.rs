//! SQL text as words, names and marks: just enough to see what a statement is about. Comments are stepped over; the text
//! inside `/*!40000 … */` is not, as the server runs it.

use std::borrow::Cow;

/// A piece of SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword, a plain name, a number.
    Word(&'a [u8]),
    /// A name in backticks, or in double quotes, which may be a name too.
    Name(Cow<'a, [u8]>),
    /// A text in single quotes.
    Text,
    /// Anything else, a byte at a time.
    Mark(u8),
}

impl Token<'_> {
    /// Whether it is this keyword (given in upper case).
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword.as_bytes()))
    }

    /// Whether it is one of these keywords.
    pub(super) fn is_one_of(&self, keywords: &[&str]) -> bool {
        keywords.iter().any(|keyword| self.is(keyword))
    }
}

/// A name, and the one before its point.
pub(super) type DottedName<'a> = (Option<Cow<'a, [u8]>>, Cow<'a, [u8]>);

/// Reads tokens, with a look at the next one.
#[derive(Debug, Clone)]
pub(super) struct Tokens<'a> {
    rest: &'a [u8],
    next: Option<Token<'a>>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        let mut tokens = Self { rest: text, next: None };
        tokens.next = tokens.read();
        tokens
    }

    /// The next token, left where it is.
    pub(super) fn peek(&self) -> Option<&Token<'a>> {
        self.next.as_ref()
    }

    /// Takes the next token if it is this keyword.
    pub(super) fn keyword(&mut self, keyword: &str) -> bool {
        let is = self.peek().is_some_and(|token| token.is(keyword));
        if is {
            self.next();
        }
        is
    }

    /// Takes the next tokens as long as they are any of these keywords.
    pub(super) fn skip_all(&mut self, keywords: &[&str]) {
        while self.peek().is_some_and(|token| token.is_one_of(keywords)) {
            self.next();
        }
    }

    /// Takes the next token if it is this mark.
    pub(super) fn mark(&mut self, mark: u8) -> bool {
        let is = self.peek() == Some(&Token::Mark(mark));
        if is {
            self.next();
        }
        is
    }

    /// Takes the next token that stands outside of all brackets, from here.
    pub(super) fn next_outside(&mut self) -> Option<Token<'a>> {
        let mut depth = 0_usize;
        loop {
            match self.next()? {
                Token::Mark(b'(') => depth = depth.saturating_add(1),
                Token::Mark(b')') => depth = depth.saturating_sub(1),
                token if depth == 0 => return Some(token),
                _ => {}
            }
        }
    }

    /// Takes a name, with the part before its point if it has one.
    pub(super) fn name(&mut self) -> Option<DottedName<'a>> {
        let first = self.identifier()?;
        if !self.mark(b'.') {
            return Some((None, first));
        }
        let second = self.identifier()?;
        Some((Some(first), second))
    }

    fn identifier(&mut self) -> Option<Cow<'a, [u8]>> {
        match self.peek()? {
            Token::Word(_) | Token::Name(_) => match self.next()? {
                Token::Word(word) => Some(Cow::Borrowed(word)),
                Token::Name(name) => Some(name),
                Token::Text | Token::Mark(_) => None,
            },
            Token::Text | Token::Mark(_) => None,
        }
    }

    fn read(&mut self) -> Option<Token<'a>> {
        loop {
            let rest = self.rest;
            match rest {
                [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, tail @ ..] => self.rest = tail,
                [b'#', ..] | [b'-', b'-', b' ' | b'\t' | b'\n' | b'\r', ..] | [b'-', b'-'] => {
                    self.rest = behind(rest, b"\n");
                }
                [b'/', b'*', b'!', tail @ ..] => {
                    let digits = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
                    self.rest = tail.get(digits..).unwrap_or(&[]);
                }
                [b'*', b'/', tail @ ..] => self.rest = tail,
                [b'/', b'*', tail @ ..] => self.rest = behind(tail, b"*/"),
                [] => return None,
                [b'`', tail @ ..] => return Some(Token::Name(self.quoted(tail, b'`'))),
                [b'"', tail @ ..] => return Some(Token::Name(self.quoted(tail, b'"'))),
                [b'\'', tail @ ..] => {
                    self.quoted(tail, b'\'');
                    return Some(Token::Text);
                }
                [first, tail @ ..] => {
                    let length = rest.iter().take_while(|byte| is_word(**byte)).count();
                    if length == 0 {
                        self.rest = tail;
                        return Some(Token::Mark(*first));
                    }
                    let (word, tail) = rest.split_at(length);
                    self.rest = tail;
                    return Some(Token::Word(word));
                }
            }
        }
    }

    /// Takes what stands up to the closing quote, which is doubled (or, in texts, escaped) where it is meant.
    fn quoted(&mut self, text: &'a [u8], quote: u8) -> Cow<'a, [u8]> {
        let mut owned: Option<Vec<u8>> = None;
        let mut from = 0_usize;
        let mut at = 0_usize;
        while let Some(byte) = text.get(at) {
            let doubled = *byte == quote && text.get(at.saturating_add(1)) == Some(&quote);
            if doubled {
                let kept = text.get(from..=at).unwrap_or(&[]);
                owned.get_or_insert_default().extend_from_slice(kept);
                from = at.saturating_add(2);
            } else if *byte == quote {
                break;
            }
            let escaped = *byte == b'\\' && quote != b'`';
            at = at.saturating_add(if doubled || escaped { 2 } else { 1 });
        }
        let tail = text.get(from..at.min(text.len())).unwrap_or(&[]);
        self.rest = text.get(at.saturating_add(1)..).unwrap_or(&[]);
        match owned {
            Some(mut owned) => {
                owned.extend_from_slice(tail);
                Cow::Owned(owned)
            }
            None => Cow::Borrowed(tail),
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let next = self.next.take()?;
        self.next = self.read();
        Some(next)
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

fn behind<'a>(text: &'a [u8], end: &[u8]) -> &'a [u8] {
    let at = text.windows(end.len()).position(|window| window == end);
    at.and_then(|at| text.get(at.saturating_add(end.len())..)).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let show = |token| match token {
            Token::Word(word) => String::from_utf8_lossy(word).into_owned(),
            Token::Name(name) => format!("<{}>", String::from_utf8_lossy(&name)),
            Token::Text => "''".to_owned(),
            Token::Mark(mark) => char::from(mark).to_string(),
        };
        Tokens::new(text.as_bytes()).map(show).collect()
    }

    #[test]
    fn words_names_and_comments() {
        assert_eq!(shown("drop/*x*/ TABLE -- all\n`a``b`.\"c\" # end"), ["drop", "TABLE", "<a`b>", ".", "<c>"]);
        assert_eq!(shown("/*!40101 SET x='it''s \\' ;' */;ä"), ["SET", "x", "=", "''", ";", "ä"]);
        assert_eq!(shown("a--1 /* open"), ["a", "-", "-", "1"]);
        assert_eq!(shown("`open"), ["<open>"]);
    }

    proptest! {
        #[test]
        fn any_text_comes_to_an_end(text in prop::collection::vec(any::<u8>(), 0..200), quoted in "[`'\"/*!#\\\\ a.-]{0,60}") {
            prop_assert!(Tokens::new(&text).count() <= text.len());
            prop_assert!(Tokens::new(quoted.as_bytes()).count() <= quoted.len());
        }
    }
}
