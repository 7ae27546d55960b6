//! Looking into the chunks of a file for transactions, reading as few of them as can be.

use std::ops::ControlFlow;

use crate::archive::{Archive, FileState, ReadOptions};
use crate::chunk::ChunkMeta;
use crate::error::{Context, Error, Result};
use crate::mysql::walk::{Step, Transaction, TransactionWalk};
use crate::position::{ByteRange, GtidSet};

/// One file, as the scan reads it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan<'a> {
    pub(super) archive: &'a Archive,
    pub(super) read: &'a ReadOptions,
    pub(super) file: &'a FileState,
}

/// An offset where a transaction may begin, and what was executed before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footing {
    pub(super) offset: u64,
    pub(super) executed: GtidSet,
}

impl Scan<'_> {
    /// Number of pieces that cover the file.
    pub(super) fn pieces(&self) -> usize {
        self.file.chunks.cover.contiguous().len()
    }

    /// The last offset at or before the piece's first byte that no transaction spans.
    pub(super) async fn footing(&self, piece: usize) -> Result<Footing> {
        let mut piece = piece;
        while let Some(before) = piece.checked_sub(1) {
            if let Some(footing) = self.behind(before).await? {
                return Ok(footing);
            }
            piece = before;
        }
        Ok(Footing { offset: 0, executed: self.file.executed_before().unwrap_or_default() })
    }

    /// The footing behind a piece; `None` if a transaction spans its end.
    async fn behind(&self, piece: usize) -> Result<Option<Footing>> {
        let (meta, executed) = self.at_end_of(piece).await?;
        let between = meta.open.is_none() && meta.resume == meta.end;
        Ok(between.then_some(Footing { offset: meta.end, executed }))
    }

    /// What the header of a piece's chunk says, and what was executed at the chunk's end.
    async fn at_end_of(&self, piece: usize) -> Result<(ChunkMeta, GtidSet)> {
        let chunks = &self.file.chunks;
        let chunk = chunks.cover.contiguous().get(piece).and_then(|piece| chunks.chunks.get(piece.index));
        let meta = self.archive.meta(chunk.ok_or_else(|| Error::failed("a piece of no chunk"))?).await?;
        let nothing = GtidSet::new();
        let executed = self.file.with_unlogged(meta.executed.resolve(self.file.previous().unwrap_or(&nothing)));
        Ok((meta, executed))
    }

    /// What the header says of the chunk that begins at an offset; `None` if none does, it begins inside a transaction, or
    /// its header cannot be read either.
    pub(super) async fn meta_at(&self, offset: u64) -> Option<ChunkMeta> {
        let piece = self.file.chunks.cover.contiguous().iter().find(|piece| piece.take.start() == offset)?;
        let meta = self.archive.meta(self.file.chunks.chunks.get(piece.index)?).await.ok()?;
        (meta.start == offset && !meta.starts_inside).then_some(meta)
    }

    /// The first piece at whose end `holds` is true of the executed set; `holds` must never become false again.
    /// `None` if it is true nowhere. Reads as many headers as a binary search asks for.
    pub(super) async fn first_piece(&self, holds: impl Fn(&GtidSet) -> bool) -> Result<Option<usize>> {
        let (mut low, mut high) = (0, self.pieces());
        while low < high {
            let middle = low.midpoint(high);
            let (_, executed) = self.at_end_of(middle).await?;
            if holds(&executed) {
                high = middle;
            } else {
                low = middle.saturating_add(1);
            }
        }
        Ok((low < self.pieces()).then_some(low))
    }

    /// The last footing whose executed set is within `limit`: where reading may begin for who has all of `limit`.
    pub(super) async fn footing_within(&self, limit: &GtidSet) -> Result<Footing> {
        let beyond = self.first_piece(|executed| !executed.is_subset_of(limit)).await?;
        self.footing(beyond.unwrap_or_else(|| self.pieces())).await
    }

    /// Shows the transactions from `from` on to `visit`, until it breaks or the file's contiguous bytes end. Adds the GTIDs
    /// of those it went on from to `from.executed` and puts `from.offset` behind them.
    pub(super) async fn run(
        &self,
        from: &mut Footing,
        mut visit: impl FnMut(&Transaction) -> ControlFlow<()>,
    ) -> Result<()> {
        let end = self.file.contiguous_end();
        let Some(range) = ByteRange::new(from.offset, end) else { return Ok(()) };
        let checksum = self.file.first.as_ref().map(|meta| meta.checksum).unwrap_or_default();
        let mut walk = match from.offset {
            0 => TransactionWalk::at_file_start(),
            offset => TransactionWalk::inside(offset, checksum),
        };
        let what = || format!("look for transactions in {}", self.file.incarnation().file);
        let mut reader = self.archive.read_range(self.file.chunks.clone(), range, self.read);
        let mut ended = false;
        while let Some(block) = reader.next().await.context(what)? {
            walk.feed(&block.bytes, &mut |step| {
                if let Step::End(transaction) = step
                    && !ended
                {
                    ended = pass(from, transaction, &mut visit);
                }
                Ok(())
            })
            .context(what)?;
            if ended {
                return Ok(());
            }
        }
        if let Some(open) = walk.finish() {
            pass(from, &open, &mut visit);
        }
        Ok(())
    }
}

/// Shows a transaction; `true` if that was the last one to be seen.
fn pass(
    from: &mut Footing,
    transaction: &Transaction,
    visit: &mut impl FnMut(&Transaction) -> ControlFlow<()>,
) -> bool {
    if visit(transaction).is_break() {
        return true;
    }
    if transaction.complete {
        from.offset = transaction.end;
        if let Some(gtid) = &transaction.gtid {
            from.executed.add(gtid);
        }
    }
    false
}
