//! Servers, files and chunks, as the listing shows them.

use crate::chunk::{ChunkMeta, ChunkName, HEADER_BYTES_MAX, HeaderRead, Link, OBJECT_BYTES_MAX, read_header};
use crate::error::{Context, Error, Result};
use crate::position::{ByteRange, CommitTime, Incarnation, ServerUuid};
use crate::store::{self, Key, ListDepth, ObjectMeta};

use super::{Archive, Cover, ENTRIES_MAX};

/// First read of an object's head, in bytes: nearly every age header of ours fits.
const HEAD_BYTES: u64 = 16 << 10;

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
        let first = self.chunks.iter().filter(|chunk| chunk.name.range.start() == 0);
        first.max_by_key(|chunk| (chunk.name.range.end(), std::cmp::Reverse(&chunk.name.digest)))
    }

    /// The chunk that holds the last contiguous byte.
    pub fn last_contiguous(&self) -> Option<&StoredChunk> {
        self.chunks.get(self.cover.contiguous().last()?.index)
    }
}

/// Whether the times of files, by which they are sorted, tell the order in which they were written: numbers go up then. Where
/// one does not, or a name comes again, the server was reset, or its clock was set back: then the links tell.
fn times_tell(files: &[Incarnation]) -> bool {
    files.is_sorted_by(|earlier, later| earlier.file < later.file)
}

/// Each file behind the one that it follows, if that is there; else in the order given. None is lost.
fn behind_links(files: Vec<(Incarnation, Option<Link>)>) -> Vec<Incarnation> {
    let before = |file: &Incarnation, link: &Option<Link>| {
        link.as_ref().is_some_and(|link| link.file == file.file && link.created_s == file.created_s)
    };
    let is_root = |link: &Option<Link>| !files.iter().any(|(file, _)| before(file, link));
    let mut out: Vec<Incarnation> = Vec::with_capacity(files.len());
    // The next to be taken is the last; links that lead round leave no root, and are taken in the end as they come.
    let mut next: Vec<&Incarnation> = files.iter().rev().map(|(file, _)| file).collect();
    next.extend(files.iter().rev().filter(|(_, link)| is_root(link)).map(|(file, _)| file));
    while let Some(file) = next.pop() {
        if !out.contains(file) {
            out.push(file.clone());
            next.extend(files.iter().rev().filter(|(_, link)| before(file, link)).map(|(follower, _)| follower));
        }
    }
    out
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
        let mut files: Vec<Incarnation> = Vec::new();
        for name in self.folders(&ChunkName::server_folder(server)).await? {
            match name.parse() {
                Ok(file) => files.push(file),
                Err(_) => tracing::warn!(%server, folder = %name, "a folder of the server is no binlog file's"),
            }
        }
        files.sort();
        if times_tell(&files) {
            return Ok(files);
        }
        let mut linked = Vec::with_capacity(files.len());
        for file in files {
            let chunks = self.chunks(server, &file).await?;
            let link = match chunks.first() {
                // A damaged one is found and named where its bytes are wanted.
                Some(first) => self.meta(first).await.ok().and_then(|meta| meta.follows),
                None => None,
            };
            linked.push((file, link));
        }
        Ok(behind_links(linked))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::BinlogFile;

    fn file(number: u64, created_s: u32) -> Incarnation {
        Incarnation { file: BinlogFile::new(&format!("b.{number:06}")).unwrap(), created_s }
    }

    /// A file's number and time.
    type Short = (u64, u32);

    fn linked(files: &[(u64, u32, Option<Short>)]) -> Vec<Short> {
        let link = |(number, created_s): Short| Link { file: file(number, 0).file, created_s, end: 9 };
        let mut all: Vec<_> =
            files.iter().map(|(n, created, follows)| (file(*n, *created), follows.map(link))).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        behind_links(all).iter().map(|file| (file.file.number(), file.created_s)).collect()
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_change_the_order_of_files() {
        let back = [(1, 100, None), (2, 200, Some((1, 100))), (3, 50, Some((2, 200))), (4, 60, Some((3, 50)))];
        assert_eq!(linked(&back), [(1, 100), (2, 200), (3, 50), (4, 60)]);
        let reset = [(5, 10, None), (6, 20, Some((5, 10))), (1, 30, None), (2, 40, Some((1, 30)))];
        assert_eq!(linked(&reset), [(5, 10), (6, 20), (1, 30), (2, 40)]);
    }

    #[test]
    fn a_name_that_came_back_between_two_files_does_not_part_them() {
        let files = [file(1, 100), file(1, 101), file(2, 102)];
        assert!(!times_tell(&files) && times_tell(&files[1..]));
        let reset = [(1, 100, None), (1, 101, None), (2, 102, Some((1, 100)))];
        assert_eq!(linked(&reset), [(1, 100), (2, 102), (1, 101)]);
    }

    #[test]
    fn no_file_is_lost_whatever_links_say() {
        let round = [(1, 10, Some((2, 20))), (2, 20, Some((1, 10))), (3, 30, Some((9, 9)))];
        assert_eq!(linked(&round), [(3, 30), (1, 10), (2, 20)]);
        let two_followers = [(1, 10, None), (3, 30, Some((1, 10))), (2, 20, Some((1, 10)))];
        assert_eq!(linked(&two_followers), [(1, 10), (2, 20), (3, 30)]);
    }
}
