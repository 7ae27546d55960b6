//! The little HTTP that tests need: asking an agent, and being the hook that it tells.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// A port that nobody has.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks; status line with headers, and body. Empty if nobody answers.
pub fn get(port: u16, path: &str) -> (String, String) {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return Default::default() };
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    if write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").is_err() {
        return Default::default();
    }
    let mut answer = String::new();
    drop(stream.read_to_string(&mut answer));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (head.to_owned(), body.to_owned())
}

/// The number of the answer's status; 0 if nobody answers.
pub fn status(port: u16, path: &str) -> u16 {
    get(port, path).0.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// A metric's value, with its labels as they stand.
pub fn metric(port: u16, name: &str) -> Option<f64> {
    let (_, body) = get(port, "/metrics");
    let line = body.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
}

/// A web hook: keeps what it is told, and answers as it is set to.
pub struct Hook {
    pub port: u16,
    told: Arc<Mutex<Vec<Value>>>,
    answer: Arc<AtomicU16>,
}

impl Hook {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (told, answer) = (Arc::<Mutex<Vec<Value>>>::default(), Arc::new(AtomicU16::new(200)));
        let (keep, says) = (Arc::clone(&told), Arc::clone(&answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if let Some(body) = request(&stream) {
                    let code = says.load(Ordering::SeqCst);
                    drop(write!(&stream, "HTTP/1.1 {code} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
                    if code == 200 {
                        keep.lock().unwrap().push(body);
                    }
                }
            }
        });
        Self { port, told, answer }
    }

    /// What it answers from now on.
    pub fn answer(&self, code: u16) {
        self.answer.store(code, Ordering::SeqCst);
    }

    /// What it was told and took.
    pub fn told(&self) -> Vec<Value> {
        self.told.lock().unwrap().clone()
    }
}

/// Reads one POST.
fn request(stream: &TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    reader.read_line(&mut line).ok()?;
    assert!(line.starts_with("POST /secret-hook "), "{line}");
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}
