//! Servers, files and chunks, as the listing shows them.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::chunk::{ChunkMeta, ChunkName, HEADER_BYTES_MAX, HeaderRead, Link, OBJECT_BYTES_MAX, read_header};
use crate::error::{Context, Error, Result};
use crate::position::{ByteRange, CommitTime, Incarnation, ServerUuid};
use crate::store::{self, Key, ListDepth, ObjectMeta};

use super::order::{Placed, Times, breaks, in_order};
use super::{Archive, Cover, ENTRIES_MAX};

/// First read of an object's head, in bytes: nearly every age header of ours fits.
const HEAD_BYTES: u64 = 16 << 10;
/// Files that are looked at at a time: a store may be far away.
pub(super) const FILES_AT_A_TIME: usize = 8;
/// First chunks of a file that are asked what the file follows.
const FIRSTS_MAX: usize = 8;

/// A chunk in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChunk {
    /// What its name says.
    pub name: ChunkName,
    /// The object.
    pub object: ObjectMeta,
}

/// The chunks of one incarnation of a file.
#[derive(Debug, Clone)]
pub struct FileChunks {
    /// The server.
    pub server: ServerUuid,
    /// The file.
    pub incarnation: Incarnation,
    /// Its chunks, in the order of their ranges.
    pub chunks: Vec<StoredChunk>,
    /// How they cover the file.
    pub cover: Cover,
    /// Objects in its folder that are no chunks of it.
    pub strangers: Vec<Key>,
}

impl FileChunks {
    /// Bytes of all chunk objects.
    pub fn stored_bytes(&self) -> u64 {
        self.chunks.iter().fold(0, |sum, chunk| sum.saturating_add(chunk.object.size))
    }

    /// The highest commit time known up to the contiguous end.
    pub fn high_commit(&self) -> CommitTime {
        let covered = self.cover.contiguous().iter().filter_map(|piece| self.chunks.get(piece.index));
        covered.map(|chunk| chunk.name.high_commit).max().unwrap_or_default()
    }

    /// A chunk that begins at the file's first byte; of several the longest: a short one may end before the event that tells
    /// what was executed before the file.
    pub fn first(&self) -> Option<&StoredChunk> {
        // Of equal ones the same as `cover` takes: the first.
        self.firsts().rev().max_by_key(|chunk| chunk.name.range.end())
    }

    /// All of those.
    fn firsts(&self) -> impl DoubleEndedIterator<Item = &StoredChunk> {
        self.chunks.iter().filter(|chunk| chunk.name.range.start() == 0)
    }

    /// The chunk that holds the last contiguous byte.
    pub fn last_contiguous(&self) -> Option<&StoredChunk> {
        self.chunks.get(self.cover.contiguous().last()?.index)
    }
}

impl Archive {
    /// The servers that chunks are of, sorted.
    pub async fn servers(&self) -> Result<Vec<ServerUuid>> {
        let mut servers = Vec::new();
        for name in self.folders("chunks/").await? {
            match name.parse() {
                Ok(server) => servers.push(server),
                Err(_) => tracing::warn!(folder = %name, "a folder under chunks/ is no server's"),
            }
        }
        servers.sort();
        Ok(servers)
    }

    /// The incarnations of files that chunks are of, in the order the server wrote them.
    pub async fn incarnations(&self, server: &ServerUuid) -> Result<Vec<Incarnation>> {
        let files = self.listed(server).await?;
        self.in_order(server, files).await
    }

    /// The same by their times: one listing.
    pub async fn listed(&self, server: &ServerUuid) -> Result<Vec<Incarnation>> {
        let mut files: Vec<Incarnation> = Vec::new();
        for name in self.folders(&ChunkName::server_folder(server)).await? {
            match name.parse() {
                Ok(file) => files.push(file),
                Err(_) => tracing::warn!(%server, folder = %name, "a folder of the server is no binlog file's"),
            }
        }
        files.sort();
        Ok(files)
    }

    /// Brings files that stand by their times into the order in which the server wrote them. Where times deceive, that takes a
    /// listing and a header a file. (A file that landed behind the record of a reset, and was begun by a clock that was ahead, may
    /// stand among those behind the reset, until archiving begins again. `history` reads all headers anyway, and knows.)
    pub async fn in_order(&self, server: &ServerUuid, files: Vec<Incarnation>) -> Result<Vec<Incarnation>> {
        let breaks = breaks(server, &self.gaps().await?);
        let told = match (Times::of(&files, &breaks), files.first()) {
            (Times::Tell, _) | (_, None) => true,
            (Times::TellIfFirst, Some(first)) => {
                self.follows(server, first).await?.is_none_or(|before| !files.contains(&before))
            }
            (Times::Deceive, _) => false,
        };
        if told {
            return Ok(files);
        }
        let placed = stream::iter(files).map(|file| async {
            let follows = self.follows(server, &file).await?;
            Ok::<_, Error>(Placed::new(file, follows, &breaks))
        });
        Ok(in_order(&placed.buffered(FILES_AT_A_TIME).try_collect::<Vec<Placed>>().await?))
    }

    /// The file that one follows, as its first chunk says.
    async fn follows(&self, server: &ServerUuid, file: &Incarnation) -> Result<Option<Incarnation>> {
        let chunks = self.chunks(server, file).await?;
        match self.first_meta(&chunks).await {
            Ok(meta) => Ok(meta.and_then(|meta| meta.follows).map(|link| link.incarnation())),
            Err(error) if error.is_retryable() => Err(error),
            // A damaged one is found and named where its bytes are wanted.
            Err(_) => Ok(None),
        }
    }

    /// Metadata of a file's first chunk. Of several, one may be of an agent that did not see all that is archived before the file,
    /// or took the file for its own successor: the link of the one that saw most counts.
    ///
    /// # Errors
    /// As [`Self::meta`].
    pub(crate) async fn first_meta(&self, chunks: &FileChunks) -> Result<Option<ChunkMeta>> {
        let Some(first) = chunks.first() else { return Ok(None) };
        let another = |link: &Link| link.incarnation() != chunks.incarnation;
        let mut meta = self.meta(first).await?;
        meta.follows = meta.follows.filter(another);
        for other in chunks.firsts().filter(|other| *other != first).take(FIRSTS_MAX) {
            let link = match self.meta(other).await {
                Ok(meta) => meta.follows.filter(another),
                Err(error) if error.is_retryable() => return Err(error),
                // It is found, and named, where its bytes are wanted.
                Err(_) => None,
            };
            let links = [meta.follows.take(), link].into_iter().flatten();
            meta.follows = links.max_by_key(|link| (link.created_s, link.end));
        }
        Ok(Some(meta))
    }

    /// The chunks of a file.
    pub async fn chunks(&self, server: &ServerUuid, incarnation: &Incarnation) -> Result<FileChunks> {
        let folder = ChunkName::folder(server, incarnation);
        let listing = store::list_collect(self.store().as_ref(), &folder, ListDepth::Everything, ENTRIES_MAX).await;
        let listing = listing.map_err(Error::from).context(|| format!("list {folder}"))?;
        let (mut chunks, mut strangers) = (Vec::new(), Vec::new());
        for object in listing.objects {
            match ChunkName::parse(object.key.as_str()) {
                Ok(name) => chunks.push(StoredChunk { name, object }),
                Err(_) => strangers.push(object.key),
            }
        }
        // By name, so that what is chosen of equal ranges hangs on the digest last of all.
        chunks.sort_by_key(|chunk| (chunk.name.range, chunk.name.high_commit, chunk.name.digest.clone()));
        let ranges: Vec<ByteRange> = chunks.iter().map(|chunk| chunk.name.range).collect();
        let cover = Cover::of(&ranges);
        Ok(FileChunks { server: *server, incarnation: incarnation.clone(), chunks, cover, strangers })
    }

    /// Reads a chunk's metadata, without a key.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`] if the object is no chunk or not the one its name says.
    pub async fn meta(&self, chunk: &StoredChunk) -> Result<ChunkMeta> {
        let what = || format!("read the header of {}", chunk.object.key);
        let mut wanted = HEAD_BYTES;
        loop {
            let head = self.store().get_range(&chunk.object.key, 0, wanted).await.map_err(Error::from).context(what)?;
            match read_header(&head).context(what)? {
                HeaderRead::Whole(meta)
                    if meta.range()? == chunk.name.range && meta.incarnation() == chunk.name.incarnation =>
                {
                    return self.own(*meta).context(what);
                }
                HeaderRead::Whole(_) => {
                    return Err(Error::corrupt(format!("{}: name and metadata disagree", chunk.object.key)));
                }
                HeaderRead::NeedsMore if (head.len() as u64) < wanted || wanted >= HEADER_BYTES_MAX => {
                    return Err(Error::corrupt(format!("{}: the age header is cut short", chunk.object.key)));
                }
                HeaderRead::NeedsMore => wanted = wanted.saturating_mul(8).min(HEADER_BYTES_MAX),
            }
        }
    }

    /// Reads a chunk's whole object.
    ///
    /// # Errors
    /// If it cannot be read; [`crate::error::Kind::Corrupt`] if it is a chunk of another archive. (That it is a chunk at
    /// all, and the right one, shows when it is opened.)
    pub async fn object(&self, chunk: &StoredChunk) -> Result<bytes::Bytes> {
        let what = || format!("read {}", chunk.object.key);
        let body = store::get_known(self.store().as_ref(), &chunk.object, OBJECT_BYTES_MAX).await;
        let body = body.map_err(Error::from).context(what)?;
        if let Ok(HeaderRead::Whole(meta)) = read_header(&body) {
            self.own(*meta).context(what)?;
        }
        Ok(body)
    }

    /// A chunk's metadata, if it belongs to this archive.
    fn own(&self, meta: ChunkMeta) -> Result<ChunkMeta> {
        if meta.archive == self.id() {
            return Ok(meta);
        }
        Err(Error::corrupt(format!("the chunk belongs to archive {}, this one is {}", meta.archive, self.id())).hint(
            "it was copied here from another archive: move it out; or, if binvault.json was lost and made anew, \
             write the chunks' archive id into it",
        ))
    }
}
