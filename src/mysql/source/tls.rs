//! Our own certificate, for clients that want TLS.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio_rustls::TlsAcceptor;

use crate::error::{Error, Result};
use crate::mysql::tls::{bad_file, read_certificates};

/// Takes a certificate chain and its key from PEM files.
///
/// # Errors
/// [`crate::error::Kind::Config`] if one cannot be read or they do not belong together.
pub fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor> {
    let chain = read_certificates(cert, "server certificate")?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| bad_file("server key", key, error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::config("set up TLS").source(error))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|error| bad_file("server certificate", cert, error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
