//! Pages of the documentation, and the shell commands in them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::repo;

/// The lines of a fence ```` ```sh ````.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// `README.md`, `docs/restore.md`.
    pub(crate) page: String,
    /// Of its first command.
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// README and everything under `docs/`.
pub(crate) fn pages() -> Vec<String> {
    let mut pages: Vec<PathBuf> =
        fs::read_dir(repo().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    let name = |page: PathBuf| format!("docs/{}", page.file_name().unwrap().to_str().unwrap());
    [vec!["README.md".to_owned()], pages.into_iter().map(name).collect()].concat()
}

pub(crate) fn text(page: &str) -> String {
    fs::read_to_string(repo().join(page)).unwrap()
}

/// The blocks of a page.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let text = text(page);
    let mut lines = text.lines().enumerate();
    let mut blocks = Vec::new();
    while let Some((_, line)) = lines.next() {
        if line.trim() != "```sh" {
            continue;
        }
        let inside: Vec<(usize, &str)> = lines.by_ref().take_while(|(_, line)| line.trim() != "```").collect();
        let line = inside.first().map_or(0, |(line, _)| line + 1);
        let text = inside.iter().map(|(_, line)| format!("{line}\n")).collect();
        blocks.push(Block { page: page.to_owned(), line, text });
    }
    blocks
}

/// What stands between backquotes and begins with the program's name, with its page.
pub(crate) fn mentions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for page in pages() {
        for line in text(&page).lines() {
            let spans = line.split('`').skip(1).step_by(2);
            let ours = spans.filter(|span| span.starts_with("binvault ")).map(str::to_owned);
            found.extend(ours.map(|span| (page.clone(), span)));
        }
    }
    found
}

/// Whether a folder has a unit of the name that `systemctl` is given.
pub(crate) fn unit_exists(folder: &Path, unit: &str) -> bool {
    let Some((name, rest)) = unit.split_once('@') else { return false };
    let kind = rest.rsplit_once('.').map_or("service", |(_, kind)| kind);
    folder.join(format!("{name}@.{kind}")).is_file()
}
