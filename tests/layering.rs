//! The house rules that no compiler checks: imports run downward only, files and functions stay small, every file says
//! what it is for, time and back-off have one door each.
//!
//! The scan is lexical (comments and literals are blanked, then words and braces are read): simple enough to be trusted,
//! and proven by planted violations below.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// The house from the roof to the ground. A module may use what stands below its own layer, and itself; never its own
/// layer's other modules. `peers` says that a layer's modules may use each other: the ground floor's newtypes.
const LAYERS: &[Layer] = &[
    Layer { modules: &["main"], peers: false },
    Layer { modules: &["cli", "fuzzing"], peers: false },
    Layer { modules: &["run", "export", "check", "serve", "drill", "find"], peers: false },
    Layer { modules: &["status", "verify"], peers: false },
    Layer { modules: &["observe", "objective"], peers: false },
    Layer { modules: &["config"], peers: false },
    Layer { modules: &["base", "restore", "retention", "notify"], peers: false },
    Layer { modules: &["ship", "timeline"], peers: false },
    Layer { modules: &["playback"], peers: false },
    Layer { modules: &["archive"], peers: false },
    Layer { modules: &["chunk", "store", "mysql"], peers: false },
    Layer { modules: &["retry"], peers: false },
    Layer { modules: &["position", "clock", "threads", "simulation", "schedule"], peers: true },
    Layer { modules: &["error"], peers: false },
];

struct Layer {
    modules: &'static [&'static str],
    peers: bool,
}

/// Words that have no place in the sources, comments included; spelled in halves so that this file has none either.
const BANNED: &[(&str, &str)] =
    &[("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("HA", "CK"), ("unimple", "mented!"), ("to", "do!(")];

/// Words that one file alone may use in code, as parts of a path or name.
const ONE_DOOR: &[(&str, &str)] = &[("backoff", "retry.rs"), ("SystemTime", "clock.rs")];

#[test]
fn the_sources_keep_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    assert!(files.len() > 5, "only {} files under {}", files.len(), root.display());
    let mut wrong = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        wrong.extend(check(&path.strip_prefix(&root).unwrap().to_string_lossy(), &text));
    }
    assert!(wrong.is_empty(), "{} violations:\n{}", wrong.len(), wrong.join("\n"));
}

/// The tests and benches are held to size and to the words, not to the layers.
#[test]
fn the_tests_keep_the_size_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    walk(&root.join("tests"), &mut files);
    walk(&root.join("benches"), &mut files);
    let mut wrong = Vec::new();
    for path in files {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        if name != "tests/layering.rs" {
            let text = fs::read_to_string(&path).unwrap();
            wrong.extend(sizes_and_words(&name, &text, &blank(&text)));
        }
    }
    assert!(wrong.is_empty(), "{} violations:\n{}", wrong.len(), wrong.join("\n"));
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// All that is wrong with one file; `name` is relative to `src`.
fn check(name: &str, text: &str) -> Vec<String> {
    let code = blank(text);
    let mut wrong = sizes_and_words(name, text, &code);
    for (number, line) in code.lines().enumerate() {
        let at = format!("src/{name}:{}", number + 1);
        if line.contains("unbounded") {
            wrong.push(format!("{at}: every queue is bounded"));
        }
        for (word, door) in ONE_DOOR {
            if words(line).any(|found| found == *word) && name != *door {
                wrong.push(format!("{at}: only src/{door} names {word}"));
            }
        }
    }
    wrong.extend(
        imports(&code)
            .into_iter()
            .filter_map(|(line, module)| forbidden(name, &module).map(|why| format!("src/{name}:{line}: {why}"))),
    );
    wrong
}

fn sizes_and_words(name: &str, text: &str, code: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if !text.starts_with("//!") {
        wrong.push(format!("{name}: does not begin with a module doc (`//!`)"));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        wrong.push(format!("{name}: {lines} lines, more than {FILE_LINES_MAX}"));
    }
    for (function, line, length) in functions(code) {
        if length > FUNCTION_LINES_MAX {
            wrong.push(format!("{name}:{line}: fn {function} has {length} lines, more than {FUNCTION_LINES_MAX}"));
        }
    }
    for (number, line) in text.lines().enumerate() {
        for (head, tail) in BANNED {
            if line.contains(&format!("{head}{tail}")) {
                wrong.push(format!("{name}:{}: says {head}{tail}", number + 1));
            }
        }
    }
    wrong
}

/// Why the file may not use the module, if it may not.
fn forbidden(name: &str, module: &str) -> Option<String> {
    let own = name.split('/').next().unwrap().trim_end_matches(".rs");
    if own == "lib" || own == module {
        return None;
    }
    let place = |wanted: &str| LAYERS.iter().position(|layer| layer.modules.contains(&wanted));
    let Some(from) = place(own) else { return Some(format!("{own} has no layer: add it to LAYERS")) };
    let Some(to) = place(module) else { return Some(format!("{module} has no layer: add it to LAYERS")) };
    match from.cmp(&to) {
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Equal if LAYERS[from].peers => None,
        std::cmp::Ordering::Equal => Some(format!("{own} uses its sibling {module}")),
        std::cmp::Ordering::Greater => Some(format!("{own} uses {module}, which stands above it")),
    }
}

/// Every module named by `crate::m` or `binvault::m`, also inside `crate::{..}`, with its line.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for root in ["crate::", "binvault::"] {
        for (at, _) in code.match_indices(root) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let rest = &code[at + root.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                let mut depth = 0_usize;
                let mut heads = vec![String::new()];
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => heads.push(String::new()),
                        _ if depth == 0 => heads.last_mut().unwrap().push(c),
                        _ => {}
                    }
                }
                found.extend(heads.iter().filter_map(|head| words(head).next()).map(|head| (line, head.to_owned())));
            } else if let Some(head) = words(rest).next().filter(|head| rest.starts_with(*head)) {
                found.push((line, head.to_owned()));
            }
        }
    }
    // `crate::Error` and the like are re-exports of the root, not modules.
    found.retain(|(_, module)| module.starts_with(|c: char| c.is_lowercase()));
    found.sort();
    found.dedup();
    found
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Every function with a body: name, first line, number of lines.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let Some(name) = words(&code[at + 3..]).next() else { continue };
        let (mut depth, mut brackets, mut end) = (0_usize, 0_i32, None);
        for (i, c) in code[at..].char_indices() {
            match c {
                '[' | '(' => brackets += 1,
                ']' | ')' => brackets -= 1,
                ';' if depth == 0 && brackets == 0 => break,
                '{' => depth += 1,
                '}' if depth <= 1 => {
                    end = (depth == 1).then_some(at + i);
                    break;
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
        if let Some(end) = end {
            let line = code[..at].matches('\n').count() + 1;
            found.push((name.to_owned(), line, code[at..end].matches('\n').count() + 1));
        }
    }
    found
}

/// The text with comments and the insides of literals turned to blanks; line ends stay.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = literal_end(&chars, i);
        if end == i {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(chars[i..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    out
}

/// Where the comment or literal that starts at `i` ends; `i` if none starts there.
fn literal_end(chars: &[char], i: usize) -> usize {
    let at = |k: usize| chars.get(k).copied().unwrap_or('\0');
    let in_word = i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_');
    match at(i) {
        '/' if at(i + 1) == '/' => (i..chars.len()).find(|&k| chars[k] == '\n').unwrap_or(chars.len()),
        '/' if at(i + 1) == '*' => {
            let (mut depth, mut k) = (0, i);
            while k < chars.len() {
                match (at(k), at(k + 1)) {
                    ('/', '*') => (depth, k) = (depth + 1, k + 2),
                    ('*', '/') => (depth, k) = (depth - 1, k + 2),
                    _ => k += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            k.min(chars.len())
        }
        'r' if !in_word || at(i - 1) == 'b' => {
            let hashes = (i + 1..chars.len()).take_while(|&k| chars[k] == '#').count();
            if at(i + 1 + hashes) != '"' {
                return i;
            }
            let closes = |k: usize| chars[k] == '"' && (1..=hashes).all(|h| at(k + h) == '#');
            (i + 2 + hashes..chars.len()).find(|&k| closes(k)).map_or(chars.len(), |k| k + 1 + hashes)
        }
        '"' => quoted_end(chars, i, '"'),
        '\'' if at(i + 1) == '\\' || (at(i + 2) == '\'' && at(i + 1) != '\'') => quoted_end(chars, i, '\''),
        _ => i,
    }
}

fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut k = start + 1;
    while k < chars.len() && chars[k] != quote {
        k += if chars[k] == '\\' { 2 } else { 1 };
    }
    (k + 1).min(chars.len())
}

// --- the checker is checked: planted violations ---

/// One file, one planted wrong, part of what must be said about it.
#[track_caller]
fn catches(name: &str, text: &str, says: &str) {
    let wrong = check(name, text);
    assert!(wrong.len() == 1 && wrong[0].contains(says), "expected one complaint of {says:?}, got {wrong:#?}");
}

#[track_caller]
fn accepts(name: &str, text: &str) {
    let wrong = check(name, text);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn imports_upward_and_sideways_are_caught() {
    catches("store/disk.rs", "//! x\nuse crate::ship::Thing;\n", "store uses ship, which stands above it");
    catches("store.rs", "//! x\nfn f() { crate::mysql::connect() }\n", "store uses its sibling mysql");
    catches(
        "chunk/seal.rs",
        "//! x\nuse crate::{error::Error, store::{Key, Store}};\n",
        "chunk uses its sibling store",
    );
    catches("export.rs", "//! x\nuse crate::find;\n", "export uses its sibling find");
    catches("novelty.rs", "//! x\nuse crate::error::Error;\n", "novelty has no layer");
    catches("main.rs", "//! x\nuse binvault::{cli, nowhere};\n", "nowhere has no layer");
}

#[test]
fn imports_downward_and_of_ones_own_are_fine() {
    accepts(
        "ship/cut.rs",
        "//! x\nuse crate::ship::Limits;\nuse crate::{chunk, error::{Error, Result}, mysql::event};\n",
    );
    accepts("position.rs", "//! x\nuse crate::clock;\nuse crate::Error;\n");
    accepts(
        "store.rs",
        "//! See crate::ship.\n/* crate::cli */ const A: &str = \"crate::cli\"; const B: &str = r#\"crate::run \" \"#;\n",
    );
    accepts("main.rs", "//! x\nuse binvault::cli;\n");
}

#[test]
fn sizes_are_counted() {
    let body = "    f();\n".repeat(FUNCTION_LINES_MAX - 1);
    catches("store.rs", &format!("//! x\nfn g(a: [u8; 3]) -> u8 {{\n{body}}}\n"), "fn g has 71 lines");
    let body = "    f(\"}\", '}', '\\'');\n".repeat(FUNCTION_LINES_MAX - 2);
    accepts("store.rs", &format!("//! x\ntrait T {{ fn h(&self); }}\nfn g<'a>(a: &'a u8) {{\n{body}}}\nfn i() {{}}\n"));
    catches("store.rs", &format!("//! x\n{}", "// y\n".repeat(FILE_LINES_MAX)), "501 lines");
    catches("store.rs", "use std::fs;\n", "module doc");
}

#[test]
fn words_are_banned_and_doors_are_single() {
    let marker = format!("//! x\n// {}{}: later\n", "TO", "DO");
    catches("store.rs", &marker, "store.rs:2: says");
    catches("ship.rs", "//! x\nfn f() { let (a, b) = mpsc::unbounded_channel(); }\n", "bounded");
    catches("ship.rs", "//! x\nuse backoff::ExponentialBackoff;\n", "only src/retry.rs names backoff");
    catches("ship.rs", "//! x\nuse std::time::SystemTime;\n", "only src/clock.rs names SystemTime");
    accepts("retry.rs", "//! x\nuse backoff::ExponentialBackoff;\n");
    accepts("ship.rs", "//! With backoff, and never unbounded.\nconst S: &str = \"SystemTime\";\n");
}
