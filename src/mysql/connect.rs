//! From an address and a password to a connection that is ready for commands.
//!
//! Owns: the greeting, the start of TLS, the login's conversation, the connection's state, and giving the bare stream
//! away for the dump. Does not own: how a method proves the password (`auth`), what TLS trusts (`tls`).
//!
//! Invariants: nothing that the server sent in clear before TLS is believed after it; a connection whose answer was
//! not read to its end (time-out, cancelled task) refuses further work.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use mysql_common::constants::CapabilityFlags;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket, HandshakeResponse, SslRequest};
use mysql_common::proto::{MyDeserialize, MySerialize};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::codec::Framed;

use crate::clock;
use crate::error::{Context, Error, Kind, Result};

use super::auth::{Channel, Login};
use super::fault::{ERR_HEADER, ServerError};
use super::packet::{LOGIN_PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX, PacketCodec, PacketError};
use super::stream::{Address, Stream};
use super::tls::{Plan, TlsOptions, tls_error};
use super::version::Version;

/// utf8mb4_general_ci: known to every server since 5.5.3.
const COLLATION: u8 = 45;
/// What we say we can take: the protocol's own limit, so that the server's setting decides.
const MAX_PACKET_BYTES: u32 = 1 << 30;
/// More packets than any login has.
const LOGIN_ROUNDS_MAX: usize = 16;

/// What must be known to reach a server.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// Where it is.
    pub address: Address,
    /// Other members of its cluster, one of which may take its place.
    pub others: Vec<Address>,
    /// The account's name.
    pub user: String,
    /// Its password; `None` is an empty one.
    pub password: Option<SecretString>,
    /// How the connection is protected.
    pub tls: TlsOptions,
    /// Limit for everything until the login is done.
    pub connect_timeout: Duration,
    /// Limit for the answer to one query.
    pub query_timeout: Duration,
}

impl SourceOptions {
    /// Ten seconds to connect.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// One minute for an answer.
    pub const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

    /// Options with the default time limits and TLS mode.
    pub fn new(address: Address, user: impl Into<String>, password: Option<SecretString>) -> Self {
        Self {
            address,
            others: Vec::new(),
            user: user.into(),
            password,
            tls: TlsOptions::default(),
            connect_timeout: Self::CONNECT_TIMEOUT,
            query_timeout: Self::QUERY_TIMEOUT,
        }
    }

    fn whom(&self) -> String {
        format!("as {:?} to {}", self.user, self.address)
    }
}

/// A logged-in connection.
pub struct Connection {
    pub(super) link: Link,
    pub(super) options: SourceOptions,
    pub(super) version: Version,
    pub(super) deprecate_eof: bool,
    /// A command went out whose answer has not been read to its end.
    pub(super) busy: bool,
    id: u32,
}

/// The bare stream, behind a command that was sent and whose answer has not been read.
#[derive(Debug)]
pub struct RawStream {
    /// The socket; packets follow in the classic framing, whose sequence numbers need not be checked.
    pub stream: Stream,
    /// Bytes that were already read from it and come first.
    pub leftover: BytesMut,
    /// The server's number for this connection, as in `KILL`.
    pub connection_id: u32,
    /// The server's version.
    pub version: Version,
}

impl Connection {
    /// Connects, starts TLS as the options demand, and logs in. `program` says to the server what this connection is
    /// for (the connect attribute `program_name`, seen in `performance_schema.session_connect_attrs`).
    ///
    /// # Errors
    /// [`Kind::Unreachable`] (a retry may help), [`Kind::Refused`] (it cannot), [`Kind::Config`] for unusable TLS files.
    pub async fn connect(options: &SourceOptions, program: &str) -> Result<Self> {
        options.tls.check()?;
        let limit = options.connect_timeout;
        let Some(done) = clock::with_timeout(limit, Box::pin(login(options, program))).await else {
            return Err(Error::new(
                Kind::Unreachable,
                format!("connect {}: no answer within {} s", options.whom(), limit.as_secs_f32()),
            )
            .hint("is the server there, and does a firewall drop packets on the way?"));
        };
        done
    }

    /// The server's number for this connection, as in `KILL` and the process list.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The server's version.
    pub fn server_version(&self) -> &Version {
        &self.version
    }

    /// Whether TLS protects this connection.
    pub fn is_tls(&self) -> bool {
        self.link.framed.get_ref().is_tls()
    }

    /// The options that it was opened with.
    pub fn options(&self) -> &SourceOptions {
        &self.options
    }

    /// Sends a command (its first byte is the command's number) and reads nothing. After this the connection is only
    /// good for [`Connection::into_raw`].
    ///
    /// # Errors
    /// [`Kind::Unreachable`] when the connection is lost.
    pub async fn write_command(&mut self, payload: &[u8]) -> Result<()> {
        self.start_command()?;
        let limit = self.options.query_timeout;
        match clock::with_timeout(limit, self.link.send(payload)).await {
            Some(done) => done,
            None => Err(self.link.silent(limit)),
        }
    }

    /// Gives the stream away.
    pub fn into_raw(self) -> RawStream {
        let parts = self.link.framed.into_parts();
        RawStream { stream: parts.io, leftover: parts.read_buf, connection_id: self.id, version: self.version }
    }

    pub(super) fn start_command(&mut self) -> Result<()> {
        if self.busy {
            return Err(Error::new(
                Kind::Unreachable,
                format!("the connection to {} was left in the middle of an answer", self.options.address),
            ));
        }
        self.busy = true;
        self.link.framed.codec_mut().start_command();
        Ok(())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {} {} ({})", self.id, self.options.whom(), self.version)
    }
}

/// Packets to and from the server.
pub(super) struct Link {
    framed: Framed<Stream, PacketCodec>,
    address: Address,
}

impl Link {
    pub(super) async fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.framed.send(payload).await.map_err(|error| self.lost(error))
    }

    pub(super) async fn receive(&mut self) -> Result<Bytes> {
        match self.framed.next().await {
            Some(Ok(payload)) => Ok(payload),
            Some(Err(error)) => Err(self.lost(error)),
            None => Err(Error::new(Kind::Unreachable, format!("{} closed the connection", self.address))),
        }
    }

    pub(super) fn silent(&self, limit: Duration) -> Error {
        let seconds = limit.as_secs_f32();
        Error::new(Kind::Unreachable, format!("{} gave no answer within {seconds} s", self.address))
    }

    fn lost(&self, error: PacketError) -> Error {
        // TLS 1.3 refuses a client's certificate only after the handshake, at the first read.
        if let PacketError::Io(io) = &error
            && tls_error(io).is_some()
        {
            return Error::new(Kind::Refused, format!("talk TLS with {}", self.address))
                .source(error)
                .hint("if the server asks for a client certificate, give one that its CA signed");
        }
        if let PacketError::TooLarge { limit, .. } = error {
            if limit == LOGIN_PAYLOAD_BYTES_MAX {
                return self.nonsense("a packet that no login has").source(error);
            }
            return Error::failed(format!("exchange packets with {}", self.address)).source(error).definite();
        }
        Error::new(Kind::Unreachable, format!("lose the connection to {}", self.address)).source(error)
    }

    fn nonsense(&self, what: &str) -> Error {
        Error::new(Kind::Refused, format!("{} sends {what}", self.address))
            .hint("is this the port of a MySQL server (not of its X protocol or of a proxy)?")
    }
}

/// What we need of the greeting.
struct Greeting {
    version: Version,
    id: u32,
    capabilities: CapabilityFlags,
    nonce: Vec<u8>,
    plugin: AuthPlugin<'static>,
}

impl Greeting {
    fn parse(payload: &[u8]) -> Option<Self> {
        // The length of the login data, behind the version's NUL and 20 further bytes. mysql_common computes with it
        // as a signed byte; real servers send 0 or 21.
        let version_end = payload.iter().position(|byte| *byte == 0)?;
        if *payload.first()? != 10 || *payload.get(version_end.checked_add(21)?)? > 127 {
            return None;
        }
        let packet = HandshakePacket::deserialize((), &mut ParseBuf(payload)).ok()?;
        Some(Self {
            version: Version::parse(&packet.server_version_str()),
            id: packet.connection_id(),
            capabilities: packet.capabilities(),
            nonce: packet.nonce(),
            plugin: AuthPlugin::from_bytes(packet.auth_plugin_name_ref().unwrap_or_default()).into_owned(),
        })
    }

    fn our_capabilities(&self) -> CapabilityFlags {
        // No QUERY_ATTRIBUTES (they change COM_QUERY), no LOCAL_FILES, no MULTI_STATEMENTS, no compression.
        let wanted = CapabilityFlags::CLIENT_LONG_PASSWORD
            | CapabilityFlags::CLIENT_PROTOCOL_41
            | CapabilityFlags::CLIENT_TRANSACTIONS
            | CapabilityFlags::CLIENT_SECURE_CONNECTION
            | CapabilityFlags::CLIENT_PLUGIN_AUTH
            | CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
            | CapabilityFlags::CLIENT_CONNECT_ATTRS
            | CapabilityFlags::CLIENT_DEPRECATE_EOF;
        wanted & (self.capabilities | CapabilityFlags::CLIENT_LONG_PASSWORD)
    }
}

/// Reads a packet as each of those that a server may send during the login: the door of `fuzzing`.
pub(crate) fn read_login(payload: &[u8], options: &SourceOptions) {
    let greeted = Greeting::parse(payload);
    let greeted = greeted.and_then(|greeting| Login::new(&greeting.plugin, &greeting.nonce, b"", Channel::Clear));
    for mut login in greeted.into_iter().chain(switch(payload, b"", Channel::Clear, options).ok()) {
        login.first_answer(false);
        drop(login.answer(payload));
    }
}

async fn login(options: &SourceOptions, program: &str) -> Result<Connection> {
    let stream = Stream::open(&options.address).await?;
    let codec = PacketCodec::new(LOGIN_PAYLOAD_BYTES_MAX);
    let mut link = Link { framed: Framed::new(stream, codec), address: options.address.clone() };
    let hello = link.receive().await.context(|| format!("wait for the greeting of {}", options.address))?;
    if hello.first() == Some(&ERR_HEADER) {
        return Err(ServerError::parse(&hello).into_error(format!("connect {}", options.whom())));
    }
    let greeting = Greeting::parse(&hello).ok_or_else(|| link.nonsense("no MySQL greeting"))?;
    let mut capabilities = greeting.our_capabilities();
    if !capabilities.contains(CapabilityFlags::CLIENT_PROTOCOL_41 | CapabilityFlags::CLIENT_PLUGIN_AUTH) {
        return Err(Error::new(Kind::Refused, format!("{} speaks a protocol older than MySQL 5.6", options.address))
            .hint("MySQL 5.7 or later is needed"));
    }
    if let Some(mode) = tls_mode(options, &greeting, link.framed.get_ref())? {
        capabilities |= CapabilityFlags::CLIENT_SSL;
        link = start_tls(link, options, capabilities, mode).await?;
    }
    prove(&mut link, options, &greeting, capabilities, program).await?;
    link.framed.codec_mut().set_limit(PAYLOAD_BYTES_MAX);
    Ok(Connection {
        link,
        options: options.clone(),
        version: greeting.version,
        deprecate_eof: capabilities.contains(CapabilityFlags::CLIENT_DEPRECATE_EOF),
        busy: false,
        id: greeting.id,
    })
}

fn tls_mode(options: &SourceOptions, greeting: &Greeting, stream: &Stream) -> Result<Option<super::tls::TlsMode>> {
    let offered = greeting.capabilities.contains(CapabilityFlags::CLIENT_SSL);
    match options.tls.plan(stream.is_unix(), stream.is_local()) {
        Plan::Clear => Ok(None),
        Plan::IfOffered => Ok(offered.then_some(super::tls::TlsMode::Required)),
        Plan::Demand(mode) if offered => Ok(Some(mode)),
        Plan::Demand(mode) => Err(Error::new(
            Kind::Refused,
            format!("{} offers no TLS, but the TLS mode is {mode}", options.address),
        )
        .hint("give the server certificates (ssl_ca, ssl_cert, ssl_key); or set the TLS mode to disabled, and the binlog passes the network in clear")),
    }
}

async fn start_tls(
    mut link: Link,
    options: &SourceOptions,
    capabilities: CapabilityFlags,
    mode: super::tls::TlsMode,
) -> Result<Link> {
    let mut request = Vec::new();
    SslRequest::new(capabilities, MAX_PACKET_BYTES, COLLATION).serialize(&mut request);
    link.send(&request).await?;
    let parts = link.framed.into_parts();
    if !parts.read_buf.is_empty() {
        return Err(Error::new(
            Kind::Refused,
            format!("{} sends bytes in clear where TLS must start", options.address),
        )
        .hint("somebody in between may be tampering with the connection"));
    }
    let stream = options.tls.start(parts.io, mode, &options.address).await?;
    Ok(Link { framed: Framed::new(stream, parts.codec), address: link.address })
}

async fn prove(
    link: &mut Link,
    options: &SourceOptions,
    greeting: &Greeting,
    capabilities: CapabilityFlags,
    program: &str,
) -> Result<()> {
    let password = options.password.as_ref().map_or("", |secret| secret.expose_secret()).as_bytes();
    let stream = link.framed.get_ref();
    let channel = match (stream.is_tls(), stream.is_unix()) {
        (true, _) => Channel::Tls,
        (false, true) => Channel::Unix,
        (false, false) => Channel::Clear,
    };
    // If the server's own default is unknown to us, the account may still have another method: offer one, and let the
    // server switch.
    let mut state = Login::new(&greeting.plugin, &greeting.nonce, password, channel)
        .or_else(|| Login::new(&AuthPlugin::CachingSha2Password, &greeting.nonce, password, channel))
        .ok_or_else(|| link.nonsense("a greeting without a nonce"))?;
    let mut response = Vec::new();
    HandshakeResponse::new(
        Some(state.first_answer(false)),
        (8, 0, 0),
        Some(options.user.as_bytes()),
        None::<Vec<u8>>,
        Some(state.plugin()),
        capabilities,
        capabilities.contains(CapabilityFlags::CLIENT_CONNECT_ATTRS).then(|| attributes(program)),
        MAX_PACKET_BYTES,
    )
    .serialize(&mut response);
    link.send(&response).await?;
    for _ in 0..LOGIN_ROUNDS_MAX {
        let payload = link.receive().await.context(|| format!("log in {}", options.whom()))?;
        match payload.split_first() {
            Some((0x00, _)) => return Ok(()),
            Some((&ERR_HEADER, _)) => {
                return Err(ServerError::parse(&payload).into_error(format!("log in {}", options.whom())));
            }
            Some((0x01, data)) => {
                let answer = state.answer(data).context(|| format!("log in {}", options.whom()))?;
                if let Some(answer) = answer {
                    link.send(&answer).await?;
                }
            }
            Some((0xfe, _)) => {
                state = switch(&payload, password, channel, options)?;
                link.send(&state.first_answer(true)).await?;
            }
            _ => return Err(link.nonsense("an unknown packet during the login")),
        }
    }
    Err(link.nonsense("a login without an end"))
}

fn switch<'a>(payload: &[u8], password: &'a [u8], channel: Channel, options: &SourceOptions) -> Result<Login<'a>> {
    let request = AuthSwitchRequest::deserialize((), &mut ParseBuf(payload)).ok();
    let login = request.as_ref().and_then(|r| Login::new(&r.auth_plugin(), r.plugin_data(), password, channel));
    login.ok_or_else(|| {
        let method = request.map_or("mysql_old_password".to_owned(), |request| {
            String::from_utf8_lossy(request.auth_plugin().as_bytes()).into_owned()
        });
        Error::new(
            Kind::Refused,
            format!("log in {}: the account uses {method}, which is not supported", options.whom()),
        )
        .hint("use an account with caching_sha2_password, mysql_native_password or sha256_password")
    })
}

fn attributes(program: &str) -> HashMap<String, String> {
    [
        ("program_name", program.to_owned()),
        ("_client_name", env!("CARGO_PKG_NAME").to_owned()),
        ("_client_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("_os", std::env::consts::OS.to_owned()),
        ("_platform", std::env::consts::ARCH.to_owned()),
        ("_pid", std::process::id().to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The greeting of a MySQL 9.7.4, cut at the nonce and put together again.
    fn greeting() -> Vec<u8> {
        let mut bytes = b"\x0a9.7.4\0\x0b\0\0\0ABCDEFGH\0\xff\xff\xff\x02\0\xff\xdf\x15".to_vec();
        bytes.extend([0; 10]);
        bytes.extend(b"IJKLMNOPQRST\0caching_sha2_password\0");
        bytes
    }

    #[test]
    fn a_greeting_is_read() {
        let greeting = Greeting::parse(&greeting()).unwrap();
        assert_eq!((greeting.version.text.as_str(), greeting.id), ("9.7.4", 11));
        assert_eq!(greeting.nonce, b"ABCDEFGHIJKLMNOPQRST");
        assert_eq!(greeting.plugin, AuthPlugin::CachingSha2Password);
        let ours = greeting.our_capabilities();
        assert!(ours.contains(CapabilityFlags::CLIENT_DEPRECATE_EOF));
        for never in [CapabilityFlags::CLIENT_LOCAL_FILES, CapabilityFlags::CLIENT_COMPRESS] {
            assert!(greeting.capabilities.contains(never) && !ours.contains(never));
        }
    }

    proptest! {
        #[test]
        fn a_damaged_greeting_never_panics(at in 0usize..70, byte: u8, cut in 0usize..80) {
            let mut bytes = greeting();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut);
            let _ = Greeting::parse(&bytes);
        }

        #[test]
        fn a_damaged_switch_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let payload: Vec<u8> = [0xfe].into_iter().chain(bytes).collect();
            let options = SourceOptions::new(Address::Socket("/s".into()), "u", None);
            let _ = switch(&payload, b"pw", Channel::Clear, &options);
        }
    }

    #[test]
    fn a_method_that_we_lack_is_named() {
        let options = SourceOptions::new(Address::Socket("/s".into()), "u", None);
        let cases: [(&[u8], &str); 3] = [
            (b"\xfeclient_ed25519\0nonce", "client_ed25519"),
            (b"\xfemysql_clear_password\0", "mysql_clear_password"),
            (b"\xfe", "mysql_old_password"),
        ];
        for (payload, name) in cases {
            let error = switch(payload, b"pw", Channel::Tls, &options).err().unwrap();
            assert_eq!(error.kind(), Kind::Refused);
            assert!(error.to_string().contains(name), "{error:?}");
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        let options =
            SourceOptions::new(Address::Socket("/s".into()), "u", Some(SecretString::from("hunter2".to_owned())));
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
