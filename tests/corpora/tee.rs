//! A TCP proxy that keeps what both sides say.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What was said on a connection.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) by_client: Vec<u8>,
    pub(crate) by_server: Vec<u8>,
}

/// Passes connections on to a port, for as long as the process lives.
pub(crate) struct Tee {
    pub(crate) port: u16,
    said: Arc<Mutex<Vec<Arc<Mutex<Said>>>>>,
}

impl Tee {
    /// Before a port of this host.
    pub(crate) fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, said) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let all = Arc::clone(&said);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let said = Arc::new(Mutex::new(Said::default()));
                all.lock().unwrap().push(Arc::clone(&said));
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let kept = Arc::clone(&said);
                pass(from, to, move |bytes| kept.lock().unwrap().by_client.extend_from_slice(bytes));
                pass(server, client, move |bytes| said.lock().unwrap().by_server.extend_from_slice(bytes));
            }
        });
        Self { port, said }
    }

    /// What was said on all connections so far.
    pub(crate) fn said(&self) -> Vec<Said> {
        let all = self.said.lock().unwrap();
        all.iter().map(|said| std::mem::take(&mut *said.lock().unwrap())).collect()
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, keep: impl Fn(&[u8]) + Send + 'static) {
    std::thread::spawn(move || {
        let mut room = vec![0; 64 << 10];
        while let Ok(got @ 1..) = from.read(&mut room) {
            keep(&room[..got]);
            if to.write_all(&room[..got]).is_err() {
                break;
            }
        }
        drop(to.shutdown(Shutdown::Both));
    });
}
