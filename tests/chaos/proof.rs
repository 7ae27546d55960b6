//! The proof: a base backup in the middle, and restores on top of it, held against what stock tools make of the server's own
//! files: `mysqldump` of the same moment, and `mysqlbinlog | mysql` behind it.

use std::fs::File;

use crate::kept::Kept;
use crate::lab::tool;
use crate::oracle::{History, Seen, fingerprint};
use crate::place::Restored;
use crate::support::agent::{AgentConfig, said};
use crate::support::dice::Dice;
use crate::support::lab::Mysqld;
use crate::support::tail;
use crate::world::World;

/// Where the restores begin.
pub(crate) struct Midway {
    dump: Vec<u8>,
    /// What the dump has in it, and where the server's binlog stood then.
    executed: String,
    position: (String, u64),
    /// The base backup, and a position behind it.
    base: String,
    behind: (String, u64),
}

/// Waits until no break is on its way; then takes a dump by the stock tool while nothing is written, and a base backup while
/// everything goes on.
pub(crate) fn midway(world: &mut World<'_>) -> Midway {
    world.wait("the last break is recorded and gone on behind", |world| world.breaks.are_settled());
    world.wake_server();
    let server = &*world.server;
    let (dump, executed, position) = world.scene.load.gate().held(|| {
        let mut command = tool("mysqldump");
        command.args(["-uroot", &format!("--socket={}", server.socket().display()), "--set-gtid-purged=ON"]);
        let out = command.args(["--routines", "--databases", "oltp", "chaos"]).output().unwrap();
        assert!(out.status.success(), "mysqldump: {}", said(&out));
        (out.stdout, executed(server), server.position())
    });
    let base = base(world);
    let behind = world.server.position();
    world.say(&format!("base backup {base} at {executed}"));
    Midway { dump, executed, position, base, behind }
}

/// A base backup, not through the wires, while all that was begun goes on. Its id.
fn base(world: &mut World<'_>) -> String {
    let (answer, log) = (world.scene.direct.dir().join("base.json"), world.scene.direct.dir().join("base.log"));
    let mut taken = None;
    world.wait("a base backup is taken", |world| {
        let child = taken.get_or_insert_with(|| {
            let mut command = world.scene.direct.command(&["base", "--engine", "clone", "--json"]);
            command.stdout(File::create(&answer).unwrap()).stderr(File::create(&log).unwrap());
            command.spawn().unwrap()
        });
        let Some(status) = child.try_wait().unwrap() else { return false };
        if !status.success() {
            // Another one is being taken.
            world.say(&format!("no base backup yet ({status}): {}", tail(&log, 3)));
            taken = None;
        }
        status.success()
    });
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&answer).unwrap()).unwrap();
    report["base"]["id"].as_str().unwrap().to_owned()
}

/// What a server has executed.
pub(crate) fn executed(server: &Mysqld) -> String {
    server.value("SELECT @@GLOBAL.gtid_executed").replace('\n', "")
}

fn is_at(seen: &Seen, position: &(String, u64)) -> bool {
    (&seen.file, seen.start) >= (&position.0, position.1)
}

/// Restores to a transaction that the dice choose, and to the latest.
pub(crate) fn prove(midway: &Midway, dice: &mut Dice, kept: &Kept, source: &Mysqld, config: &AgentConfig) {
    let files = kept.of_epoch(kept.epoch()).into_iter().filter(|file| file.name >= midway.position.0);
    let history = History::of_files(files.map(|file| file.path).collect());
    let from = history.until(|seen| is_at(seen, &midway.position));
    let behind = history.until(|seen| is_at(seen, &midway.behind));
    let count = history.seen.len();
    assert!(behind < count, "nothing was written behind the base backup");
    let middle = usize::try_from(dice.between(behind as u64, count as u64 - 1)).unwrap();

    let reference = Mysqld::start("chaosref", &["--server-id=77"]);
    reference.sql_stream(|input| input.write_all(&midway.dump));
    assert_eq!(executed(&reference), midway.executed, "what the stock dump has in it");
    history.apply(&reference, from..middle + 1);
    let target = format!("gtid:{}", history.seen[middle].gtid.as_deref().expect("all have GTIDs"));
    println!("restore to {target}: {} of {} transactions behind the dump", middle + 1 - from, count - from);
    let restored = Restored::to(config, &target, &["--base", &midway.base]);
    restored.assert_executed(&executed(&reference));
    assert_eq!(
        fingerprint(|sql| restored.sql(sql)),
        fingerprint(|sql| reference.sql(sql)),
        "{target}: left is restored, right is made by stock tools"
    );
    drop((restored, reference));

    let restored = Restored::to(config, "latest", &[]);
    restored.assert_executed(&executed(source));
    assert_eq!(
        fingerprint(|sql| restored.sql(sql)),
        fingerprint(|sql| source.sql(sql)),
        "latest: left is restored, right is the source"
    );
    println!("restore to latest, from base {}: {}", restored.report["base"], restored.report["transactions"]);
}
