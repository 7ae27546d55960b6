//! TLS to the server: which mode, which certificates are trusted, and what a failure means.
//!
//! Owns: the modes, loading certificates and keys, the verifier that forgives a name. Does not own: the moment in the
//! conversation at which TLS starts (that is `connect`).
//!
//! The provider (aws-lc-rs) is named for each configuration; no process-wide default is needed or touched.
//! MySQL's self-made certificates carry no subjectAltName at all, so no host name can ever match them: that is what
//! [`TlsMode::VerifyCa`] is for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use crate::error::{Error, Kind, Result};

use super::stream::{Address, Stream};

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// What is right for the address: over a unix socket none; on the loopback interface TLS if the server offers it;
    /// anywhere else as [`TlsMode::Required`]. With a CA file, over TCP, as [`TlsMode::VerifyCa`].
    #[default]
    Auto,
    /// No TLS. Over a network this must be said explicitly: the binlog would pass in clear.
    Disabled,
    /// TLS, whoever the server is: safe against listeners, not against someone in between.
    Required,
    /// TLS with a certificate that a trusted CA signed, whatever name it carries.
    VerifyCa,
    /// TLS with a certificate that a trusted CA signed for this very host.
    VerifyFull,
}

impl TlsMode {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Disabled => "disabled",
            Self::Required => "required",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for TlsMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Auto, Self::Disabled, Self::Required, Self::VerifyCa, Self::VerifyFull];
        all.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| {
            Error::config(format!("{text:?} is no TLS mode"))
                .hint("use auto, disabled, required, verify-ca or verify-full")
        })
    }
}

/// What the user said about TLS. Files are PEM and are read anew for each connection, so they may be renewed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The mode.
    pub mode: TlsMode,
    /// Trusted CA certificates; without it the system's.
    pub ca: Option<PathBuf>,
    /// The client's certificate chain, for accounts with `REQUIRE X509`. Goes with `key`.
    pub cert: Option<PathBuf>,
    /// The client's private key.
    pub key: Option<PathBuf>,
}

/// What will be done on one connection, decided from the options and from where the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Stay in clear.
    Clear,
    /// TLS if the server offers it, without verifying.
    IfOffered,
    /// TLS in this mode (never `Auto` or `Disabled`), or fail.
    Demand(TlsMode),
}

impl TlsOptions {
    /// Refuses combinations that would silently not do what they look like.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub fn check(&self) -> Result<()> {
        if self.cert.is_some() != self.key.is_some() {
            return Err(Error::config("a TLS client certificate and its key go together, but only one is given"));
        }
        let certificates = self.ca.is_some() || self.cert.is_some();
        match self.mode {
            TlsMode::Disabled if certificates => Err(Error::config("TLS is disabled, but certificates are given")
                .hint("leave the mode out, or set it to verify-ca or verify-full")),
            TlsMode::Required if self.ca.is_some() => {
                Err(Error::config("the TLS mode required verifies nothing, but a CA is given")
                    .hint("set the mode to verify-ca or verify-full"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn plan(&self, is_unix: bool, is_local: bool) -> Plan {
        match self.mode {
            TlsMode::Disabled => Plan::Clear,
            TlsMode::Auto if is_unix => Plan::Clear,
            TlsMode::Auto if self.ca.is_some() => Plan::Demand(TlsMode::VerifyCa),
            TlsMode::Auto if is_local => Plan::IfOffered,
            TlsMode::Auto => Plan::Demand(TlsMode::Required),
            mode => Plan::Demand(mode),
        }
    }

    fn trusted(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.ca {
            for certificate in read_certificates(path, "CA certificates")? {
                roots.add(certificate).map_err(|error| bad_file("CA certificate", path, error))?;
            }
            return Ok(roots);
        }
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(Error::config("this system has no CA certificates to verify the server's with")
                .hint("name the server's CA file, or install the ca-certificates package"));
        }
        Ok(roots)
    }

    fn client_config(&self, mode: TlsMode) -> Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = self.verifier(mode, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::config("set up TLS").source(error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let chain = read_certificates(cert, "client certificate")?;
                let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| bad_file("client key", key, error))?;
                builder
                    .with_client_auth_cert(chain, key_der)
                    .map_err(|error| bad_file("client certificate", cert, error))
            }
            _ => Ok(builder.with_no_client_auth()),
        }
    }

    fn verifier(&self, mode: TlsMode, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
        if !matches!(mode, TlsMode::VerifyCa | TlsMode::VerifyFull) {
            return Ok(Arc::new(Lenient { chain: None, algorithms: provider.signature_verification_algorithms }));
        }
        let strict = WebPkiServerVerifier::builder_with_provider(Arc::new(self.trusted()?), Arc::clone(provider))
            .build()
            .map_err(|error| Error::config("set up the verification of the server's certificate").source(error))?;
        if mode == TlsMode::VerifyFull {
            return Ok(strict);
        }
        Ok(Arc::new(Lenient { chain: Some(strict), algorithms: provider.signature_verification_algorithms }))
    }

    /// Does the TLS handshake on a stream in clear.
    pub(crate) async fn start(&self, stream: Stream, mode: TlsMode, address: &Address) -> Result<Stream> {
        let connector = TlsConnector::from(Arc::new(self.client_config(mode)?));
        let name = server_name(address, mode)?;
        let failed = |error| self.failure(error, mode, address);
        match stream {
            Stream::Tcp(tcp) => {
                let tls = Box::pin(connector.connect(name, tcp)).await.map_err(failed)?;
                Ok(Stream::TlsTcp(Box::new(tls)))
            }
            Stream::Unix(unix) => {
                let tls = Box::pin(connector.connect(name, unix)).await.map_err(failed)?;
                Ok(Stream::TlsUnix(Box::new(tls)))
            }
            already => Ok(already),
        }
    }

    fn failure(&self, error: std::io::Error, mode: TlsMode, address: &Address) -> Error {
        let Some(cause) = tls_error(&error) else {
            return Error::new(Kind::Unreachable, format!("lose the connection to {address} while TLS starts"))
                .source(error);
        };
        let hint = match cause {
            rustls::Error::InvalidCertificate(why) => self.certificate_hint(why, mode, address),
            rustls::Error::PeerIncompatible(_) | rustls::Error::AlertReceived(_) => {
                "the server must speak TLS 1.2 or 1.3 with modern ciphers; if it asks for a client certificate, \
                 give one; a connection that stays on this host may do with the TLS mode disabled"
                    .to_owned()
            }
            _ => "see the server's error log; its certificate must be X.509 version 3".to_owned(),
        };
        Error::new(Kind::Refused, format!("start TLS (mode {mode}) with {address}")).source(error).hint(hint)
    }

    fn certificate_hint(&self, why: &CertificateError, mode: TlsMode, address: &Address) -> String {
        match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                let ca = self.ca.as_ref().map_or("one of this system's CAs".to_owned(), |ca| ca.display().to_string());
                format!(
                    "the server's certificate is not signed by {ca}: give the CA of this server (ca.pem in its data directory)"
                )
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
                "the server's certificate is not made for {address}: connect by a name that it carries, \
                 or use verify-ca (certificates that MySQL makes itself carry no name)"
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired: renew it, then ALTER INSTANCE RELOAD TLS".to_owned()
            }
            _ => format!(
                "the server's certificate cannot be used in mode {mode}; it must be X.509 version 3 and valid now"
            ),
        }
    }
}

/// The TLS library's error inside an I/O error, if there is one.
pub(crate) fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

fn server_name(address: &Address, mode: TlsMode) -> Result<ServerName<'static>> {
    let host = match address {
        Address::Tcp { host, .. } => host.as_str(),
        Address::Socket(_) => "localhost",
    };
    match ServerName::try_from(host.to_owned()) {
        Ok(name) => Ok(name),
        // Only a hint for the server then; nothing is compared with it.
        Err(_) if mode != TlsMode::VerifyFull => {
            ServerName::try_from("localhost").map_err(|error| Error::config("name the server").source(error))
        }
        Err(error) => Err(Error::config(format!("the host {host:?} cannot stand in a certificate"))
            .source(error)
            .hint("use verify-ca, or connect by a DNS name or an address")),
    }
}

pub(super) fn read_certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| bad_file(what, path, error))?;
    if certificates.is_empty() {
        return Err(Error::config(format!("read the {what}: no certificate in {}", path.display())));
    }
    Ok(certificates)
}

pub(super) fn bad_file(what: &str, path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::config(format!("read the {what} {}", path.display())).source(error).hint("it must be a readable PEM file")
}

/// Forgives the name in the certificate and, without a chain, whoever signed it. The peer still has to prove that it
/// holds the certificate's key.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp, now) {
            // The verifier compares names last, so the chain has been proven when it complains of the name.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(mode: TlsMode, ca: bool) -> TlsOptions {
        TlsOptions { mode, ca: ca.then(|| "/ca.pem".into()), ..TlsOptions::default() }
    }

    #[test]
    fn off_the_local_host_only_an_explicit_word_leaves_the_clear_text() {
        let auto = options(TlsMode::Auto, false);
        assert_eq!(auto.plan(true, true), Plan::Clear);
        assert_eq!(auto.plan(false, true), Plan::IfOffered);
        assert_eq!(auto.plan(false, false), Plan::Demand(TlsMode::Required));
        assert_eq!(options(TlsMode::Disabled, false).plan(false, false), Plan::Clear);
        assert_eq!(options(TlsMode::Auto, true).plan(false, true), Plan::Demand(TlsMode::VerifyCa));
        assert_eq!(options(TlsMode::Required, false).plan(true, true), Plan::Demand(TlsMode::Required));
    }

    #[test]
    fn combinations_that_would_silently_not_verify_are_refused() {
        assert!(options(TlsMode::Required, true).check().is_err());
        assert!(options(TlsMode::Disabled, true).check().is_err());
        assert!(TlsOptions { cert: Some("/c".into()), ..TlsOptions::default() }.check().is_err());
        for mode in [TlsMode::Auto, TlsMode::VerifyCa, TlsMode::VerifyFull] {
            assert!(options(mode, true).check().is_ok());
        }
    }

    #[test]
    fn modes_are_read_by_their_names() {
        for mode in [TlsMode::Auto, TlsMode::Disabled, TlsMode::Required, TlsMode::VerifyCa, TlsMode::VerifyFull] {
            assert_eq!(mode.as_str().parse::<TlsMode>().unwrap(), mode);
        }
        assert_eq!("prefer".parse::<TlsMode>().unwrap_err().kind(), Kind::Config);
    }
}
