//! A wire between the agent and what it talks to, which can be cut, torn, stopped or made slow: a TCP proxy.
//!
//! Owns: connections from its port to the other side, and what is done to them. Does not own: what is said on them.
//!
//! Invariant: bytes are passed on in order and unchanged, or not at all; what ends is the connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// How long a reader or writer may sleep before it looks again whether its connection is still there.
const LOOK: Duration = Duration::from_millis(20);

/// What a wire does with everything on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Passes,
    /// Connections stay open, and nothing moves on them: neither side is told anything.
    Silent,
    /// So many bytes a second and direction.
    Slow(u64),
    /// New connections are closed at once, and the old ones go on.
    Refuses,
}

struct Shared {
    state: Mutex<State>,
    /// So many further answers are swallowed, and the connection they were to go over ends.
    lose: AtomicU64,
    /// The next answer is torn off behind so many of its bytes; 0: it is not.
    tear_at: AtomicU64,
    ended: AtomicBool,
    /// Not owned: a socket is closed as soon as its pumps are through with it.
    joints: Mutex<Vec<Weak<Joint>>>,
}

/// A connection and the one behind it.
struct Joint {
    client: TcpStream,
    server: TcpStream,
    ended: AtomicBool,
}

/// Runs until it is dropped.
pub(crate) struct Wire {
    port: u16,
    shared: Arc<Shared>,
}

impl Wire {
    /// To a port of this machine.
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            state: Mutex::new(State::Passes),
            lose: AtomicU64::new(0),
            tear_at: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            joints: Mutex::default(),
        });
        let of_listener = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if of_listener.ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                if of_listener.state() == State::Refuses {
                    continue;
                }
                // The other side is down: the client learns it by the end of its connection.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", port)) {
                    join(client, server, &of_listener);
                }
            }
        });
        Self { port: own, shared }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set(&self, state: State) {
        *self.shared.state.lock().unwrap() = state;
    }

    /// Ends all connections, as a firewall or a dying host does: by a FIN, or by a RST.
    pub(crate) fn cut(&self, by_reset: bool) {
        for joint in self.shared.joints.lock().unwrap().drain(..).filter_map(|joint| joint.upgrade()) {
            joint.end(by_reset);
        }
    }

    /// The next answer is torn behind so many bytes.
    pub(crate) fn tear(&self, at: u64) {
        self.shared.tear_at.store(at, Ordering::SeqCst);
    }

    /// So many further answers are lost.
    pub(crate) fn lose(&self, answers: u64) {
        self.shared.lose.fetch_add(answers, Ordering::SeqCst);
    }

    /// Everything passes again, and nothing is planned.
    pub(crate) fn mend(&self) {
        self.set(State::Passes);
        self.tear(0);
        self.shared.lose.store(0, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.cut(false);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl Shared {
    fn state(&self) -> State {
        *self.state.lock().unwrap()
    }

    /// What becomes of an answer of so many bytes: how many pass, and whether the connection ends behind them.
    fn fate(&self, bytes: usize) -> (usize, bool) {
        let lost = self.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if lost {
            return (0, true);
        }
        match self.tear_at.swap(0, Ordering::SeqCst) {
            0 => (bytes, false),
            at => (bytes.saturating_sub(1).min(usize::try_from(at).unwrap()), true),
        }
    }
}

impl Joint {
    fn end(&self, by_reset: bool) {
        if by_reset {
            // The kernel sends a RST when the last owner closes the socket, which the two pumps do soon.
            for socket in [&self.client, &self.server] {
                let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
            }
        }
        self.ended.store(true, Ordering::SeqCst);
        if !by_reset {
            drop(self.client.shutdown(Shutdown::Both));
            drop(self.server.shutdown(Shutdown::Both));
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

fn join(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(LOOK)).unwrap();
        socket.set_write_timeout(Some(LOOK)).unwrap();
        drop(socket.set_nodelay(true));
    }
    let joint = Arc::new(Joint { client, server, ended: AtomicBool::new(false) });
    let mut joints = shared.joints.lock().unwrap();
    joints.retain(|joint| joint.strong_count() > 0);
    joints.push(Arc::downgrade(&joint));
    drop(joints);
    for answers in [false, true] {
        let (joint, shared) = (Arc::clone(&joint), Arc::clone(shared));
        std::thread::spawn(move || {
            // Ends in order, or not at all: then both sides are told.
            if pump(&joint, &shared, answers).is_none() {
                joint.end(false);
            }
        });
    }
}

/// Passes one direction on. `None`: the connection is over.
fn pump(joint: &Joint, shared: &Shared, answers: bool) -> Option<()> {
    let (mut from, to) = if answers { (&joint.server, &joint.client) } else { (&joint.client, &joint.server) };
    let mut buffer = vec![0; 16 << 10];
    while !joint.has_ended() {
        let state = shared.state();
        if state == State::Silent {
            std::thread::sleep(LOOK);
            continue;
        }
        let most = if matches!(state, State::Slow(_)) { 1 << 10 } else { buffer.len() };
        let read = match from.read(&mut buffer[..most]) {
            Ok(0) => {
                drop(to.shutdown(Shutdown::Write));
                return Some(());
            }
            Ok(read) => read,
            Err(error) if is_pause(&error) => continue,
            Err(_) => return None,
        };
        let (passes, ends) = if answers { shared.fate(read) } else { (read, false) };
        write(joint, to, &buffer[..passes])?;
        if ends {
            joint.end(true);
        }
        if let State::Slow(rate) = state {
            std::thread::sleep(Duration::from_micros(read as u64 * 1_000_000 / rate));
        }
    }
    Some(())
}

fn write(joint: &Joint, mut to: &TcpStream, mut bytes: &[u8]) -> Option<()> {
    while !bytes.is_empty() && !joint.has_ended() {
        #[allow(clippy::disallowed_methods, reason = "what is left is written in the next turn")]
        match to.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if is_pause(&error) => {}
            Err(_) => return None,
        }
    }
    Some(())
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
