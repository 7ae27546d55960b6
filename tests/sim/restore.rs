//! Every plan that is made leads to a state that the server was in: each transaction once, none too many. And where
//! nothing is missing, a plan is made.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use binvault::archive::{Archive, BaseManifest, ReadOptions};
use binvault::error::Kind;
use binvault::position::{BinlogFile, CommitTime, GtidSet, Position};
use binvault::timeline::{Edge, Lines, Plan, PlanOptions, Target, plan};

use crate::agent::keys;
use crate::check::{self, Counts};
use crate::dice::Dice;
use crate::server::{Server, Transaction};
use crate::store::Shelf;
use crate::world::{World, lock};

/// Targets tried in each head's history, besides its end.
const TARGETS: u64 = 3;

/// What a plan is held against.
struct Judge<'a> {
    server: &'a Server,
    shelf: &'a Shelf,
    lines: &'a Lines,
    /// Index of the head's line.
    head: usize,
    /// The head's last file, and where it ends there.
    end: (usize, u64),
    clock_went_back: bool,
    /// All that the server held at the head's end.
    history: Vec<&'a Transaction>,
}

/// A target, and the number of the history's transactions that are executed there.
struct Wish {
    target: Target,
    edge: Option<Edge>,
    upto: usize,
}

/// Plans restores to the end of every history in the archive and to places within.
pub(crate) async fn plans(
    world: &World,
    shelf: &Shelf,
    archive: &Archive,
    dice: &mut Dice,
    counts: &mut Counts,
) -> Result<(), String> {
    let lines = Lines::read(archive).await.map_err(|error| error.chain())?;
    let bases = archive.bases().await.map_err(|error| error.chain())?.complete;
    let clock_went_back = world.clock_went_back.load(Ordering::Relaxed);
    for head in lines.heads() {
        let name = lines.head(head).map_err(|error| error.chain())?.name;
        let wishes = {
            let server = lock(&world.server);
            let judge = Judge::new(&server, shelf, &lines, (head, clock_went_back))?;
            (0..=TARGETS).filter_map(|number| judge.wish(number, dice)).collect::<Vec<_>>()
        };
        for Wish { target, edge, upto } in wishes {
            let what = format!("--to {target} {edge:?} --head {name}");
            let options = PlanOptions {
                target: target.clone(),
                edge,
                head: Some(name.clone()),
                base: None,
                into_server: false,
                skip: GtidSet::new(),
                read: ReadOptions::new(keys()),
            };
            let planned = plan(archive, &options).await;
            let server = lock(&world.server);
            let judge = Judge::new(&server, shelf, &lines, (head, clock_went_back))?;
            let judged = match planned {
                Ok(plan) => judge.plan(&plan, upto),
                Err(error) if error.kind() == Kind::Gap => {
                    counts.refused += 1;
                    let whole =
                        target == Target::Latest && !shelf.misled() && bases.iter().any(|base| judge.leads(base));
                    if whole { Err(format!("is refused: {}", error.chain())) } else { Ok(()) }
                }
                Err(error) => Err(format!("fails: {}", error.chain())),
            };
            judged.map_err(|wrong| format!("{what} {wrong}"))?;
            counts.plans += 1;
        }
    }
    unnamed(world, shelf, &lines)
}

/// Where no head is named, the latest is the history that the server wrote last, or nobody can tell, and that is said.
fn unnamed(world: &World, shelf: &Shelf, lines: &Lines) -> Result<(), String> {
    let server = lock(&world.server);
    let Some(newest) = server.files.iter().rposition(|file| shelf.covered(file) > 0) else { return Ok(()) };
    let Ok(head) = lines.latest() else { return Ok(()) };
    let line = lines.line(head).map_err(|error| error.chain())?;
    let ends = line.files.last().and_then(|file| server.incarnation(file.incarnation()));
    // By no record, where whoever began with it saw an empty archive; and then times may deceive.
    let untold = || {
        let epoch = server.files[newest].epoch;
        world.clock_went_back.load(Ordering::Relaxed) && shelf.begun_unseeing(&server, |file| file.epoch == epoch)
    };
    if ends == Some(newest) || check::names_came_again(&server, shelf) || untold() {
        return Ok(());
    }
    let [chosen, newest] = [ends.unwrap_or_default(), newest].map(|file| {
        let file = &server.files[file];
        format!("{} of {}, epoch {}", file.name(), file.created_s, file.epoch)
    });
    Err(format!("the latest history is said to end in {chosen}, but {newest} was written later"))
}

/// Whether a GTID came again where the archive has not seen both transactions.
pub(crate) fn numbers_came_again(server: &Server, shelf: &Shelf) -> bool {
    beyond_knowing(server, shelf, |_| true)
}

/// Whether a GTID stands for two of the transactions of concern, or of those archived, of which the archive has seen one at
/// most: after a reset, a clone or a crash numbers come again, and nobody can tell them apart then.
fn beyond_knowing(server: &Server, shelf: &Shelf, of_concern: impl Fn(u64) -> bool) -> bool {
    let mut seen: BTreeMap<String, (u64, bool)> = BTreeMap::new();
    for file in &server.files {
        let covered = shelf.covered(file);
        for one in &file.transactions {
            let archived = one.end <= covered;
            let Some(gtid) = one.gtid.as_ref().filter(|_| archived || of_concern(one.id)) else { continue };
            match seen.insert(gtid.to_string(), (one.id, archived)) {
                Some((id, was_archived)) if id != one.id && !(archived && was_archived) => return true,
                _ => {}
            }
        }
    }
    false
}

impl<'a> Judge<'a> {
    fn new(
        server: &'a Server,
        shelf: &'a Shelf,
        lines: &'a Lines,
        (head, clock_went_back): (usize, bool),
    ) -> Result<Self, String> {
        let line = lines.line(head).map_err(|error| error.chain())?;
        let last = line.files.last().ok_or("a line of nothing")?;
        let file = server.incarnation(last.incarnation()).ok_or("a file that never was")?;
        let end = (file, last.contiguous_end());
        let all = |id: u64| server.files.iter().flat_map(|file| &file.transactions).find(|one| one.id == id);
        let history = server.state_at(end.0, end.1).into_iter().filter_map(all).collect();
        Ok(Self { server, shelf, lines, head, end, clock_went_back, history })
    }

    fn file_of(&self, transaction: &Transaction) -> Option<usize> {
        self.server.files.iter().position(|file| file.transactions.iter().any(|one| one.id == transaction.id))
    }

    /// A target in the history: its end, a GTID, a time, a position.
    fn wish(&self, number: u64, dice: &mut Dice) -> Option<Wish> {
        if number == 0 {
            return Some(Wish { target: Target::Latest, edge: None, upto: self.history.len() });
        }
        let chosen = usize::try_from(dice.below(self.history.len() as u64)).unwrap();
        let transaction = *self.history.get(chosen)?;
        let edge = dice.pick(&[Edge::Before, Edge::After]);
        let upto = chosen + usize::from(edge == Edge::After);
        match number {
            1 => {
                let gtid = transaction.gtid.clone()?;
                // After a reset a GTID comes again.
                let twice = self.history.iter().filter(|one| one.gtid.as_ref() == Some(&gtid)).count() > 1;
                (!twice).then_some(Wish { target: Target::Gtid(gtid), edge: Some(edge), upto })
            }
            // Where the clock was set back, a time is no place.
            2 if self.history.is_sorted_by_key(|one| one.commit_us) && !self.clock_went_back => {
                let time = CommitTime::from_micros(transaction.commit_us);
                let known = |one: &&&Transaction| {
                    self.file_of(one).is_some_and(|file| self.shelf.covered(&self.server.files[file]) > 0)
                };
                let late = |one: &&Transaction| match edge {
                    Edge::Before => one.commit_us >= transaction.commit_us,
                    Edge::After => one.commit_us > transaction.commit_us,
                };
                let first_late = self.history.iter().filter(known).find(|one| late(one)).map(|one| one.id);
                let upto = self.history.iter().position(|one| Some(one.id) == first_late);
                Some(Wish { target: Target::Time(time), edge: Some(edge), upto: upto.unwrap_or(self.history.len()) })
            }
            2 => None,
            _ => {
                let index = self.file_of(transaction)?;
                let files = &self.server.files;
                let name = files[index].name();
                // A name means its newest file.
                let newest = !files[index + 1..=self.end.0].iter().any(|file| file.name() == name);
                let file = BinlogFile::new(&name).ok().filter(|_| newest && self.shelf.covered(&files[index]) > 0)?;
                let target = Target::At(Position { file, offset: transaction.end });
                Some(Wish { target, edge: None, upto: chosen + 1 })
            }
        }
    }

    /// Whether everything from a base backup to the head's end is archived, and in one and the same epoch, and the files say so:
    /// behind one that a crash has ended, before anything was ever executed, a reset would look the same.
    fn leads(&self, base: &BaseManifest) -> bool {
        let coordinates = &base.coordinates;
        let begin = coordinates.incarnation().and_then(|incarnation| self.server.incarnation(&incarnation));
        let Some(begin) = begin.filter(|begin| *begin <= self.end.0) else { return false };
        let files = &self.server.files;
        let whole = |index: usize| {
            let (file, covered) = (&files[index], self.shelf.covered(&files[index]));
            let is_told = || file.says_so || !self.server.state_at(index, file.kept).is_empty();
            covered > 0 && (index == self.end.0 || (covered == file.written.bytes.len() as u64 && is_told()))
        };
        coordinates.by_gtid()
            && files[begin].epoch == files[self.end.0].epoch
            && (begin, coordinates.position) <= self.end
            && self.shelf.covered(&files[begin]) >= coordinates.position
            && (begin..=self.end.0).all(whole)
    }

    fn plan(&self, plan: &Plan, upto: usize) -> Result<(), String> {
        let coordinates = &plan.base.coordinates;
        let begin = coordinates.incarnation().and_then(|incarnation| self.server.incarnation(&incarnation));
        let begin = begin.ok_or("a base of nothing")?;
        let [epoch, wanted] = [begin, self.end.0].map(|file| self.server.files[file].epoch);
        if epoch != wanted && self.shelf.covered(&self.server.files[begin]) == 0 {
            // Taken behind a break, in a file of which the archive has nothing: it cannot know.
            return Ok(());
        }
        let mut reached = self.server.state_at(begin, coordinates.position);
        let of_concern = |id: u64| reached.contains(&id) || self.history.iter().any(|one| one.id == id);
        if beyond_knowing(self.server, self.shelf, of_concern) {
            return Ok(());
        }
        for play in &plan.playlist.files {
            let file = self.server.incarnation(&play.chunks.incarnation).ok_or("a file of nothing")?;
            for one in &self.server.files[file].transactions {
                let ours = |set: &GtidSet| one.gtid.as_ref().is_some_and(|gtid| set.contains(gtid));
                let within = one.start >= play.from && one.end <= play.until;
                let has = plan.by_gtid && ours(&coordinates.executed);
                if within && !has && play.only.as_ref().is_none_or(|only| ours(only)) {
                    reached.push(one.id);
                }
            }
        }
        let wanted: Vec<u64> = self.history[..upto].iter().map(|one| one.id).collect();
        if reached == wanted {
            return Ok(());
        }
        let line = self.lines.line(self.head).map(|line| line.name()).unwrap_or_default();
        let same = reached.iter().zip(&wanted).take_while(|(one, other)| one == other).count();
        Err(format!(
            "(line {line}) from base {} ends with {} transactions, not with {}; they part at {same}: {:?}, not {:?}",
            plan.base.id,
            reached.len(),
            wanted.len(),
            reached.get(same),
            wanted.get(same)
        ))
    }
}
