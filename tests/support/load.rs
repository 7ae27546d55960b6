//! A writer in the background: several clients, at full speed or at a steady pace, until told to stop.
//!
//! Invariant: a server that stops, dies or restarts does not end the load; each client comes back by itself and counts what
//! was acknowledged. While a [`Gate`] is held, nobody writes who passes through it.

use super::lab::{self, Mysqld};
use super::oltp;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// How fast a [`Load`] writes.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As fast as the server takes it.
    Full,
    /// So many transactions a second, all clients together.
    PerSecond(u32),
}

/// What writers pass through, batch by batch.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<RwLock<()>>);

impl Gate {
    /// Writes something, unless somebody holds the gate: then behind that.
    pub fn pass<T>(&self, work: impl FnOnce() -> T) -> T {
        let _open = self.0.read().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// Does something while nothing is being written.
    pub fn held<T>(&self, work: impl FnOnce() -> T) -> T {
        let _closed = self.0.write().unwrap_or_else(PoisonError::into_inner);
        work()
    }
}

/// Running writers; they stop when this is dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    gate: Gate,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts up to four clients with the transactions of [`super::oltp`] on `server`; makes their tables.
    pub fn start(server: &Mysqld, clients: u32, pace: Pace) -> Self {
        assert!((1..=4).contains(&clients), "one to four clients");
        oltp::prepare(server);
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let gate = Gate::default();
        let (batch, pause) = match pace {
            Pace::Full => (50, Duration::ZERO),
            Pace::PerSecond(rate) => {
                let batch = (rate / clients / 50).max(1);
                (batch, Duration::from_secs(u64::from(batch * clients)) / rate.max(1))
            }
        };
        let clients = (1..=clients)
            .map(|table| {
                let (stop, done, gate, socket) = (Arc::clone(&stop), Arc::clone(&done), gate.clone(), server.socket());
                let work = format!("CALL run{table}({batch}); SELECT 'done';");
                let acknowledged = move || {
                    done.fetch_add(u64::from(batch), Ordering::Relaxed);
                };
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        write(&socket, &work, pause, &gate, &stop, &acknowledged);
                        std::thread::sleep(Duration::from_millis(50));
                    }
                })
            })
            .collect();
        Self { stop, done, gate, clients }
    }

    /// Transactions that the server has acknowledged so far.
    pub fn transactions(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// What the clients pass through.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Waits until `count` more transactions are acknowledged.
    pub fn wait_for(&self, count: u64) {
        let target = self.transactions() + count;
        super::wait_until("the load goes on", Duration::from_secs(120), || self.transactions() >= target);
    }

    /// Stops the clients and waits for them; the number of transactions acknowledged.
    pub fn stop(mut self) -> u64 {
        self.end();
        self.transactions()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            drop(client.join());
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

/// One client's life: a batch, an answer, a pause. Returns when told to stop or when the server goes away.
fn write(socket: &Path, work: &str, pause: Duration, gate: &Gate, stop: &AtomicBool, acknowledged: &dyn Fn()) {
    let mut command = lab::tool("mysql");
    command
        .args(["-uroot", "--batch", "--skip-column-names", "--unbuffered", "oltp"])
        .arg(format!("--socket={}", socket.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut client = command.spawn().expect("start the mysql client");
    let mut input = client.stdin.take().expect("piped");
    let mut answers = BufReader::new(client.stdout.take().expect("piped"));
    let mut line = String::new();
    while !stop.load(Ordering::Relaxed) {
        line.clear();
        let answered = gate.pass(|| {
            let sent = writeln!(input, "{work}").and_then(|()| input.flush());
            sent.and_then(|()| answers.read_line(&mut line))
        });
        if answered.is_err() || line.trim() != "done" {
            break;
        }
        acknowledged();
        std::thread::sleep(pause);
    }
    drop(input);
    drop(client.wait());
}
