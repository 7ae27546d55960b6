//! The way to the server: TCP or a unix socket, with or without TLS, behind one type.
//!
//! Owns: opening it, its socket options, and what an I/O error on it means. Does not own: when TLS starts.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::error::{Error, Kind, Result};

/// Silence on a TCP connection before the kernel asks whether the peer still lives.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Pause between such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Unanswered questions before the connection counts as dead.
const KEEPALIVE_PROBES: u32 = 3;

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host name or an address (an IPv6 address without brackets), and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A unix socket.
    Socket(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A connection's bytes.
#[derive(Debug)]
pub enum Stream {
    /// TCP in clear.
    Tcp(TcpStream),
    /// A unix socket in clear.
    Unix(UnixStream),
    /// TLS over TCP.
    TlsTcp(Box<TlsStream<TcpStream>>),
    /// TLS over a unix socket.
    TlsUnix(Box<TlsStream<UnixStream>>),
    /// A pipe to a simulated server, which passes for a unix socket.
    #[cfg(feature = "simulation")]
    Simulated(tokio::io::DuplexStream),
}

impl Stream {
    /// Opens the connection, in clear. A name with several addresses is tried address by address.
    ///
    /// # Errors
    /// [`Kind::Unreachable`].
    pub async fn open(address: &Address) -> Result<Self> {
        #[cfg(feature = "simulation")]
        if let Address::Socket(path) = address
            && let Some(connecting) = crate::simulation::connect(path)
        {
            return connecting.await.map(Self::Simulated).map_err(|error| unreachable(address, error));
        }
        match address {
            Address::Socket(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Self::Unix(stream)),
                Err(error) => Err(unreachable(address, error)
                    .hint("is the server running, is this its socket, and may this user open it?")),
            },
            Address::Tcp { host, port } => open_tcp(address, host, *port).await,
        }
    }

    /// Whether TLS protects it.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::TlsTcp(_) | Self::TlsUnix(_))
    }

    /// Whether it ends on this very machine, seen from the kernel and not from a name.
    pub fn is_local(&self) -> bool {
        let tcp = match self {
            Self::Unix(_) | Self::TlsUnix(_) => return true,
            Self::Tcp(tcp) => tcp,
            Self::TlsTcp(tls) => tls.get_ref().0,
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => return true,
        };
        tcp.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
    }

    /// Whether it is a unix socket.
    pub fn is_unix(&self) -> bool {
        #[cfg(feature = "simulation")]
        if matches!(self, Self::Simulated(_)) {
            return true;
        }
        matches!(self, Self::Unix(_) | Self::TlsUnix(_))
    }
}

async fn open_tcp(address: &Address, host: &str, port: u16) -> Result<Stream> {
    let found: Vec<SocketAddr> = match tokio::net::lookup_host((host, port)).await {
        Ok(found) => found.collect(),
        Err(error) => {
            return Err(Error::new(Kind::Unreachable, format!("the host name {host:?} is unknown"))
                .source(error)
                .hint("check the host in the source's address, and this machine's name resolution"));
        }
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in found {
        match TcpStream::connect(candidate).await {
            Ok(stream) => {
                prepare(&stream).map_err(|error| unreachable(address, error))?;
                return Ok(Stream::Tcp(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(unreachable(address, last)
        .hint("is the server running, listening on this address, and is the way open (firewall)?"))
}

fn unreachable(address: &Address, error: io::Error) -> Error {
    Error::new(Kind::Unreachable, format!("connect to {address}")).source(error)
}

/// Small packets leave at once; a peer that vanished without a word is noticed.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}

macro_rules! on_inner {
    ($self:expr, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
            Stream::TlsTcp($inner) => $call,
            Stream::TlsUnix($inner) => $call,
            #[cfg(feature = "simulation")]
            Stream::Simulated($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_inner!(self, inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_inner!(self, inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_inner!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_inner!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_people_write_them() {
        let tcp = |host: &str| Address::Tcp { host: host.to_owned(), port: 3306 }.to_string();
        assert_eq!(tcp("db.example"), "db.example:3306");
        assert_eq!(tcp("::1"), "[::1]:3306");
        assert_eq!(Address::Socket("/run/s".into()).to_string(), "/run/s");
    }
}
