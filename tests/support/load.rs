//! A writer in the background: several clients, at full speed or at a steady pace, until told to stop.
//!
//! Invariant: a server that stops, dies or restarts does not end the load; each client comes back by itself and counts what
//! was acknowledged.

use super::lab::{self, Mysqld};
use super::oltp;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// Running writers; they stop when this is dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts up to four clients with the transactions of [`super::oltp`] on `server`; makes their tables.
    pub fn start(server: &Mysqld, clients: u32, pace: Pace) -> Self {
        assert!((1..=4).contains(&clients), "one to four clients");
        oltp::prepare(server);
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (batch, pause) = match pace {
            Pace::Full => (50, Duration::ZERO),
            Pace::PerSecond(rate) => {
                let batch = (rate / clients / 50).max(1);
                (batch, Duration::from_secs(u64::from(batch * clients)) / rate.max(1))
            }
        };
        let clients = (1..=clients)
            .map(|table| {
                let (stop, done, socket) = (Arc::clone(&stop), Arc::clone(&done), server.socket());
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        write(&socket, table, batch, pause, &stop, &done);
                        std::thread::sleep(Duration::from_millis(50));
                    }
                })
            })
            .collect();
        Self { stop, done, clients }
    }

    /// Transactions that the server has acknowledged so far.
    pub fn transactions(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
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
fn write(socket: &Path, table: u32, batch: u32, pause: Duration, stop: &AtomicBool, done: &AtomicU64) {
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
        let sent = writeln!(input, "CALL run{table}({batch}); SELECT 'done';").and_then(|()| input.flush());
        if sent.is_err() || answers.read_line(&mut line).is_err() || line.trim() != "done" {
            break;
        }
        done.fetch_add(u64::from(batch), Ordering::Relaxed);
        std::thread::sleep(pause);
    }
    drop(input);
    drop(client.wait());
}
