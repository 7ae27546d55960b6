//! A TCP proxy before a server that cuts the first look into a binlog: a dump that shall end by itself.
//!
//! It takes no TLS. It looks at the client's commands; bytes are passed on as they are.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// COM_BINLOG_DUMP and COM_BINLOG_DUMP_GTID.
const DUMPS: [u8; 2] = [0x12, 0x1e];
/// BINLOG_DUMP_NON_BLOCK, in the flags of both.
const NON_BLOCK: u8 = 1;

/// Listens for as long as the process lives; gives the port, and how many looks it has cut.
pub(crate) fn before(server_port: u16, cuts: u32) -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let cut = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&cut);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            if let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)) {
                join(&client, &server, cuts, &counter);
            }
        }
    });
    (port, cut)
}

fn join(client: &TcpStream, server: &TcpStream, cuts: u32, counter: &Arc<AtomicU32>) {
    let clone = |socket: &TcpStream| socket.try_clone().unwrap();
    let (mut from, mut to) = (clone(server), clone(client));
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from, &mut to));
        drop(to.shutdown(Shutdown::Both));
    });
    let (mut from, mut to, counter) = (clone(client), clone(server), Arc::clone(counter));
    std::thread::spawn(move || {
        let mut bytes = [0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if is_a_look(&bytes[..count]) && counter.load(Ordering::SeqCst) < cuts {
                counter.fetch_add(1, Ordering::SeqCst);
                break;
            }
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        drop((to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both)));
    });
}

/// Whether a command asks for a dump that ends with the log. A client sends one command at a time.
fn is_a_look(bytes: &[u8]) -> bool {
    let [_, _, _, 0, command, rest @ ..] = bytes else { return false };
    // The flags come first in one, behind four bytes of position in the other.
    let flags = rest.get(if *command == DUMPS[0] { 4 } else { 0 });
    DUMPS.contains(command) && flags.is_some_and(|flags| flags & NON_BLOCK != 0)
}
