//! Export: the archive's chunks become the server's own binlog files again.
//!
//! Owns: choosing files, fetching and opening chunks in parallel, writing files atomically.
//! Does not own: which chunks make a file (`archive`), whether the bytes are good binlog (`verify --deep`).
//!
//! Invariants: a file appears whole or not at all; nothing that exists is overwritten; a chunk's bytes count only after
//! its digest, its header's MAC, its length and its name were found to agree.

mod write;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use self::write::NewFile;
use crate::archive::{Archive, FileChunks, Piece};
use crate::chunk::OpenedChunk;
use crate::chunk::keys::Identities;
use crate::error::{Context, Error, Kind, Result};
use crate::position::{BinlogFile, Incarnation, ServerUuid};

/// Chunks being fetched and opened at a time.
const PIECES_AT_A_TIME: usize = 4;

/// What to export.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only this server's files; needed where the archive has several and names are given.
    pub server: Option<ServerUuid>,
    /// Only these files; empty: all.
    pub files: Vec<BinlogFile>,
    /// Only from this file on.
    pub from: Option<BinlogFile>,
    /// Only up to this file.
    pub until: Option<BinlogFile>,
}

/// A file to be exported.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its chunks.
    pub chunks: FileChunks,
    /// Where it goes.
    pub path: PathBuf,
    /// Its bytes: up to the first hole, or the end.
    pub bytes: u64,
}

/// A file that was exported.
#[derive(Debug, Clone, Serialize)]
pub struct Exported {
    /// The server it is of.
    pub server: ServerUuid,
    /// The file.
    pub file: BinlogFile,
    /// When it was begun, as in its incarnation's name.
    pub created: String,
    /// Where it is now.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Chunks read for it.
    pub chunks: usize,
}

/// Told how many raw bytes were written.
pub type OnBytes = Arc<dyn Fn(u64) + Send + Sync>;

/// Chooses the files and their places; writes nothing.
///
/// # Errors
/// [`Kind::Config`] if a named file is not in the archive or a target exists; [`Kind::Gap`] if a file has a hole and
/// `partial` does not allow for that.
pub async fn plan(archive: &Archive, selection: &Selection, to: &Path, partial: bool) -> Result<Vec<Planned>> {
    let servers = match selection.server {
        Some(server) => vec![server],
        None => archive.servers().await?,
    };
    let mut planned = Vec::new();
    for server in &servers {
        let folder = if servers.len() > 1 { to.join(server.to_string()) } else { to.to_owned() };
        let all = archive.incarnations(server).await?;
        let chosen = all.iter().filter(|file| selection.takes(&file.file));
        // The newest life of a name gets the plain name; older ones keep their time.
        let newest: BTreeMap<&BinlogFile, u32> = chosen.map(|file| (&file.file, file.created_s)).collect();
        let mut before: Option<(&Incarnation, u64)> = None;
        for file in &all {
            let taken = selection.takes(&file.file);
            if !taken && before.is_none() {
                continue;
            }
            let chunks = archive.chunks(server, file).await?;
            if let Some(before) = before.take().filter(|_| !partial) {
                joins(archive, &chunks, before, selection).await?;
            }
            if !taken {
                continue;
            }
            before = Some((file, chunks.cover.contiguous_end));
            let plain = newest.get(&file.file) == Some(&file.created_s);
            let name = if plain { file.file.to_string() } else { file.to_string() };
            planned.push(place(chunks, folder.join(name), partial)?);
        }
    }
    for wanted in &selection.files {
        if !planned.iter().any(|file| file.chunks.incarnation.file == *wanted) {
            return Err(Error::config(format!("{wanted} is not in the archive")).hint("`binvault list` shows what is"));
        }
    }
    Ok(planned)
}

/// Holds what a file's first chunk says of the file before it against that one: a missing tail, or a file that is
/// missing as a whole, shows nowhere else.
async fn joins(
    archive: &Archive,
    chunks: &FileChunks,
    (before, end): (&Incarnation, u64),
    selection: &Selection,
) -> Result<()> {
    // A header that cannot be read is told when its own file is exported.
    let first = archive.first_meta(chunks).await.ok().flatten();
    let Some(link) = first.and_then(|meta| meta.follows) else { return Ok(()) };
    let is_before = link.file == before.file && link.created_s == before.created_s;
    // A file may go on from the middle of another: what stands behind there is another history.
    let have = match is_before {
        true => end,
        false if !selection.takes(&link.file) => return Ok(()),
        false => {
            let linked = link.incarnation();
            archive.chunks(&chunks.server, &linked).await?.cover.contiguous_end
        }
    };
    if have >= link.end {
        return Ok(());
    }
    let (file, ended, follower) = (&link.file, link.end, &chunks.incarnation.file);
    let have = if have > 0 { format!("only up to {have}") } else { "not at all".to_owned() };
    Err(Error::new(Kind::Gap, format!("{file}, which {follower} follows, ended at {ended}; the archive has it {have}"))
        .hint("--partial writes what is there; `binvault run` fetches what is missing if the server still has it"))
}

fn place(chunks: FileChunks, path: PathBuf, partial: bool) -> Result<Planned> {
    let (bytes, file) = (chunks.cover.contiguous_end, &chunks.incarnation);
    if let Some(hole) = chunks.cover.holes.first().filter(|_| !partial) {
        return Err(Error::new(Kind::Gap, format!("{file} has a hole: bytes {hole} are not in the archive"))
            .hint("--partial writes what stands before the first hole"));
    }
    if path.symlink_metadata().is_ok() {
        return Err(Error::config(format!("{} exists", path.display()))
            .hint("export never overwrites: choose an empty folder, or move the file away"));
    }
    Ok(Planned { chunks, path, bytes })
}

impl Selection {
    fn takes(&self, file: &BinlogFile) -> bool {
        (self.files.is_empty() || self.files.contains(file))
            && self.from.as_ref().is_none_or(|from| file >= from)
            && self.until.as_ref().is_none_or(|until| file <= until)
    }
}

/// Exports one planned file.
///
/// # Errors
/// Whatever keeps a chunk from being read, opened or written, naming the chunk; the target is then not there.
pub async fn export(archive: &Archive, planned: &Planned, keys: &Identities, on_bytes: OnBytes) -> Result<Exported> {
    let chunks = &planned.chunks;
    let path = planned.path.clone();
    let new = tokio::task::spawn_blocking(move || NewFile::create(&path)).await.map_err(broke_down)??;
    let new = Arc::new(new);
    let keys = Arc::new(keys.clone());
    let pieces = chunks.cover.contiguous().to_vec();
    let copied = stream::iter(pieces.iter().copied().map(Ok))
        .try_for_each_concurrent(PIECES_AT_A_TIME, |piece| {
            let (new, keys, on_bytes) = (Arc::clone(&new), Arc::clone(&keys), Arc::clone(&on_bytes));
            copy_piece(archive, chunks, piece, keys, new, on_bytes)
        })
        .await;
    if let Err(error) = copied {
        new.discard();
        return Err(error);
    }
    let new = Arc::into_inner(new).ok_or_else(|| Error::failed("a writer of the file is still at work"))?;
    let bytes = planned.bytes;
    tokio::task::spawn_blocking(move || new.finish(bytes)).await.map_err(broke_down)??;
    Ok(Exported {
        server: chunks.server,
        file: chunks.incarnation.file.clone(),
        created: crate::position::created_text(chunks.incarnation.created_s),
        path: planned.path.clone(),
        bytes,
        chunks: pieces.len(),
    })
}

fn broke_down(panic: tokio::task::JoinError) -> Error {
    Error::failed("a writing thread broke down").source(panic)
}

async fn copy_piece(
    archive: &Archive,
    chunks: &FileChunks,
    piece: Piece,
    keys: Arc<Identities>,
    new: Arc<NewFile>,
    on_bytes: OnBytes,
) -> Result<()> {
    let Some(chunk) = chunks.chunks.get(piece.index) else { return Err(Error::failed("a piece of no chunk")) };
    let object = archive.object(chunk).await?;
    let name = chunk.name.clone();
    let written = tokio::task::spawn_blocking(move || {
        let opened = OpenedChunk::new(&name, &object, &keys);
        let copied = opened.and_then(|opened| {
            opened.copy(piece.take, |offset, bytes| {
                let written = new.file().write_all_at(bytes, offset);
                written.context(|| format!("write {}", new.path().display()))?;
                on_bytes(bytes.len() as u64);
                Ok(())
            })
        });
        copied.map(drop).context(|| format!("open {name}"))
    });
    written.await.map_err(broke_down)?
}

/// Exports everything planned, file by file.
///
/// # Errors
/// The first file's that fails; those before it stay.
pub async fn export_all(
    archive: &Archive,
    planned: &[Planned],
    keys: &Identities,
    on_bytes: OnBytes,
) -> Result<Vec<Exported>> {
    let files = stream::iter(planned).then(|file| export(archive, file, keys, Arc::clone(&on_bytes)));
    files.try_collect().await
}
