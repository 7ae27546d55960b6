//! A TCP proxy before a server that is told of each dump that is asked for, and may hold or cut it.
//!
//! It takes no TLS. It looks at the client's commands; bytes are passed on as they are.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

/// COM_BINLOG_DUMP and COM_BINLOG_DUMP_GTID.
const DUMPS: [u8; 2] = [0x12, 0x1e];
/// BINLOG_DUMP_NON_BLOCK, in the flags of both.
const NON_BLOCK: u8 = 1;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dump {
    /// A look into a binlog: it ends with the log.
    Look,
    /// All that comes.
    Stream,
}

/// Listens for as long as the process lives; gives the port. A dump goes to the server once it `passes`, or is cut.
pub(crate) fn before(server_port: u16, passes: impl Fn(Dump) -> bool + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let passes = Arc::new(passes);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            if let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)) {
                join(&client, &server, Arc::clone(&passes));
            }
        }
    });
    port
}

fn join(client: &TcpStream, server: &TcpStream, passes: Arc<impl Fn(Dump) -> bool + Send + Sync + 'static>) {
    let clone = |socket: &TcpStream| socket.try_clone().unwrap();
    let (mut from, mut to) = (clone(server), clone(client));
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from, &mut to));
        drop(to.shutdown(Shutdown::Both));
    });
    let (mut from, mut to) = (clone(client), clone(server));
    std::thread::spawn(move || {
        let mut bytes = [0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let goes_on = dump(&bytes[..count]).is_none_or(|dump| passes(dump));
            if !goes_on || to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        drop((to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both)));
    });
}

/// The dump that a command asks for. A client sends one command at a time.
fn dump(bytes: &[u8]) -> Option<Dump> {
    let [_, _, _, 0, command, rest @ ..] = bytes else { return None };
    // The flags come first in one, behind four bytes of position in the other.
    let flags = rest.get(if *command == DUMPS[0] { 4 } else { 0 })?;
    let dump = if flags & NON_BLOCK != 0 { Dump::Look } else { Dump::Stream };
    DUMPS.contains(command).then_some(dump)
}
