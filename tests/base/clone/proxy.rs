//! A TCP proxy before the donor that looks at the clone passing through it, and can stop it at a chosen state.
//!
//! It takes no TLS. It only looks at the donor's packets; bytes are passed on as they are.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;
use crate::support::wait_until;

/// States of a clone.
pub(crate) const FILE_COPY: u32 = 2;
/// Pages that were changed.
pub(crate) const PAGE_COPY: u32 = 3;
/// The redo.
pub(crate) const REDO_COPY: u32 = 4;

#[derive(Default)]
struct Shared {
    /// The state at whose data the donor's bytes stop; 0: at none.
    hold_at: AtomicU32,
    held: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

/// Runs until it is dropped.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    /// Before a server.
    pub(crate) fn start(server: &Mysqld) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, to) = (listener.local_addr().unwrap().port(), server.port());
        let (shared, ended) = (Arc::new(Shared::default()), Arc::new(AtomicBool::new(false)));
        let (of_listener, at_end) = (Arc::clone(&shared), Arc::clone(&ended));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if at_end.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                // A donor that is down: the client learns it by the end of its connection.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", to)) {
                    join(client, server, &of_listener);
                }
            }
        });
        Self { port, shared, ended }
    }

    /// Lets a configuration reach its server through here.
    pub(crate) fn before(&self, config: &AgentConfig, server: &Mysqld) {
        config.edit(&format!(":{}\"", server.port()), &format!(":{}\"", self.port));
        config.source("tls = \"disabled\"");
    }

    /// From now on a clone is held at its first data of this state, or at the state's end if it has none.
    pub(crate) fn hold_at(&self, state: u32) {
        self.shared.held.store(false, Ordering::SeqCst);
        self.shared.hold_at.store(state, Ordering::SeqCst);
    }

    /// Waits until one is held.
    pub(crate) fn wait_held(&self) {
        wait_until("a clone is held", Duration::from_secs(90), || self.shared.held.load(Ordering::SeqCst));
    }

    /// Lets everything pass.
    pub(crate) fn release(&self) {
        self.shared.hold_at.store(0, Ordering::SeqCst);
    }

    /// Cuts every connection, and lets new ones pass.
    pub(crate) fn cut(&self) {
        self.release();
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.cut();
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn join(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    let clone = |socket: &TcpStream| socket.try_clone().unwrap();
    shared.sockets.lock().unwrap().extend([clone(&client), clone(&server)]);
    let (mut from, mut to) = (clone(&client), clone(&server));
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from, &mut to));
        drop(to.shutdown(Shutdown::Write));
    });
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        drop(pass(server, &client, &shared));
        drop(client.shutdown(Shutdown::Both));
    });
}

/// Passes the server's packets on, one by one.
fn pass(mut from: TcpStream, mut to: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    loop {
        let mut packet = vec![0; 4];
        from.read_exact(&mut packet)?;
        let length = usize::from(packet[0]) | usize::from(packet[1]) << 8 | usize::from(packet[2]) << 16;
        packet.resize(4 + length, 0);
        from.read_exact(&mut packet[4..])?;
        let hold_at = shared.hold_at.load(Ordering::SeqCst);
        if hold_at != 0 && is_at(&packet[4..], hold_at) {
            shared.held.store(true, Ordering::SeqCst);
            while shared.hold_at.load(Ordering::SeqCst) == hold_at {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        to.write_all(&packet)?;
    }
}

/// Whether this announces data of the state, or the state's end.
fn is_at(payload: &[u8], state: u32) -> bool {
    let field = |at: usize| payload.get(3 + at..7 + at).map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()));
    if payload.first() != Some(&2) || payload.get(1) != Some(&12) || field(0) != Some(100) || field(12) != Some(state) {
        return false;
    }
    match field(8) {
        Some(5) => true,
        Some(3) => payload.get(3 + 44..3 + 46) == Some(&[0, 0][..]),
        _ => false,
    }
}
