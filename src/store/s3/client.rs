//! The options of an S3 store, and the client they make.
//!
//! Owns: credentials, region, endpoint, TLS roots, timeouts, checksums. Does not own: requests, errors, retries.
//!
//! Why TLS is set up by hand: without CA certificates on the machine the SDK's own client panics (debug builds) or
//! trusts nobody and says so at the first request (release builds), and a CA file that is no PEM makes it panic; here
//! both are errors at the start that say what to do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};

use crate::store::{StoreError, StoreErrorKind};

/// How many idle connections are kept for the next upload.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// The region that is signed for where a store of one's own does not care.
const REGION_ANY: &str = "us-east-1";

/// An S3 store.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// The bucket.
    pub bucket: String,
    /// Under which prefix, without `/` at the ends; may be empty.
    pub prefix: String,
    /// `https://host:port` of a store that is not Amazon's. `None`: Amazon's, or what `AWS_ENDPOINT_URL` says.
    pub endpoint: Option<String>,
    /// `None`: from the environment or profile; with an endpoint and nothing there, `us-east-1`.
    pub region: Option<String>,
    /// `https://host/bucket/key` instead of `https://bucket.host/key`. `None`: if there is an endpoint.
    pub path_style: Option<bool>,
    /// Storage class of new objects, as the store names it (`STANDARD_IA`).
    pub storage_class: Option<String>,
    /// Encryption at rest by the store (besides ours).
    pub sse: Sse,
    /// PEM file of certificates to trust, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Access key; `None`: the default chain (environment, profile, web identity, container, instance).
    pub access_key: Option<String>,
    /// Secret to `access_key`.
    pub secret_key: Option<SecretString>,
    /// Session token to `access_key`, for temporary keys.
    pub session_token: Option<SecretString>,
    /// Whether `If-None-Match` is used.
    pub put_if_absent: PutIfAbsent,
    /// Whether requests carry a checksum besides the signature.
    pub checksums: Checksums,
    /// Limit on connecting, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Limit on one request until its answer begins, in milliseconds; a PUT's body is within.
    pub attempt_timeout_ms: u64,
    /// Limit on a whole call, in milliseconds; a GET's body is within.
    pub operation_timeout_ms: u64,
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            prefix: String::new(),
            endpoint: None,
            region: None,
            path_style: None,
            storage_class: None,
            sse: Sse::None,
            ca_file: None,
            access_key: None,
            secret_key: None,
            session_token: None,
            put_if_absent: PutIfAbsent::Auto,
            checksums: Checksums::Auto,
            connect_timeout_ms: 5_000,
            attempt_timeout_ms: 60_000,
            operation_timeout_ms: 90_000,
        }
    }
}

/// Encryption at rest by the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Sse {
    /// What the bucket does by default; no header is sent.
    #[default]
    None,
    /// `AES256`.
    Aes256,
    /// `aws:kms`.
    Kms {
        /// The key; `None`: the account's default.
        key_id: Option<String>,
    },
}

/// Whether `If-None-Match: *` is used to put new objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PutIfAbsent {
    /// Yes, until the store says that it does not know it; then look before each put.
    #[default]
    Auto,
    /// Yes; a store that does not know it is an error.
    Always,
    /// No: look before each put.
    Never,
}

/// Whether requests carry a checksum besides the signature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Checksums {
    /// With Amazon's S3 as `WhenSupported` (buckets with Object Lock demand it), with an own endpoint as `WhenRequired`
    /// (several stores refuse it).
    #[default]
    Auto,
    /// Only where the protocol demands it.
    WhenRequired,
    /// Wherever the protocol knows it: a CRC on each PUT, checked on each whole GET.
    WhenSupported,
}

fn config_error(message: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Config, message)
}

/// Makes the client.
pub(super) async fn build(options: &S3Options) -> Result<Client, StoreError> {
    let plain = options.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    check_endpoint(options.endpoint.as_deref())?;
    let http = http_client(options.ca_file.as_deref(), plain)?;

    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    if let Some(region) = region(options) {
        loader = loader.region(Region::new(region));
    }
    match (&options.access_key, &options.secret_key) {
        (Some(access), Some(secret)) => {
            let token = options.session_token.as_ref().map(|token| token.expose_secret().to_owned());
            let secret = secret.expose_secret();
            loader = loader.credentials_provider(Credentials::new(access, secret, token, None, "configuration"));
        }
        (None, None) => {}
        _ => return Err(config_error("s3: an access key needs its secret key, and the other way round")),
    }
    let shared = loader.load().await;
    if shared.region().is_none() {
        return Err(config_error("s3: no region: set it in the configuration or in AWS_REGION"));
    }

    let mut config = aws_sdk_s3::config::Builder::from(&shared)
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(timeouts(options))
        .force_path_style(options.path_style.unwrap_or(options.endpoint.is_some()));
    if let Some(endpoint) = &options.endpoint {
        config = config.endpoint_url(endpoint);
    }
    let supported = match options.checksums {
        Checksums::Auto => options.endpoint.is_none(),
        Checksums::WhenRequired => false,
        Checksums::WhenSupported => true,
    };
    config = if supported {
        config
            .request_checksum_calculation(RequestChecksumCalculation::WhenSupported)
            .response_checksum_validation(ResponseChecksumValidation::WhenSupported)
    } else {
        config
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
    };
    Ok(Client::from_conf(config.build()))
}

fn timeouts(options: &S3Options) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_millis(options.connect_timeout_ms))
        .operation_attempt_timeout(Duration::from_millis(options.attempt_timeout_ms))
        .operation_timeout(Duration::from_millis(options.operation_timeout_ms))
        .build()
}

/// The configured region; with an endpoint of one's own, rather any than a question to a metadata service.
fn region(options: &S3Options) -> Option<String> {
    let from_environment =
        || ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(|name| std::env::var(name).ok());
    match (&options.region, &options.endpoint) {
        (Some(region), _) => Some(region.clone()),
        (None, Some(_)) => Some(from_environment().unwrap_or_else(|| REGION_ANY.into())),
        (None, None) => None,
    }
}

fn check_endpoint(endpoint: Option<&str>) -> Result<(), StoreError> {
    let Some(endpoint) = endpoint else { return Ok(()) };
    let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains('@') => Ok(()),
        Some(_) => Err(config_error("s3: the endpoint must be http(s)://host[:port], without credentials")),
        None => Err(config_error(format!("s3: the endpoint {endpoint:?} must begin with https:// or http://"))),
    }
}

/// An HTTP client that trusts the system's roots and the CA file's; `plain` does without any.
fn http_client(ca_file: Option<&Path>, plain: bool) -> Result<SharedHttpClient, StoreError> {
    let system = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(system.certs);
    let mut trust = TrustStore::empty().with_native_roots(usable > 0);
    if let Some(path) = ca_file {
        trust.add_pem_certificate(read_ca_file(path)?);
    } else if usable == 0 && !plain {
        return Err(config_error(
            "s3: this machine has no CA certificates to check the store's with: install the package ca-certificates, \
             set SSL_CERT_FILE, or name a CA file in the configuration",
        ));
    }
    let context = TlsContext::builder().with_trust_store(trust).build();
    let context = context.map_err(|error| config_error("s3: set up TLS").with_source(error))?;
    let provider = Provider::Rustls(CryptoMode::AwsLc);
    Ok(Builder::new()
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .tls_provider(provider)
        .tls_context(context)
        .build_https())
}

/// Reads the CA file and makes sure that the TLS library will take it.
fn read_ca_file(path: &Path) -> Result<Vec<u8>, StoreError> {
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|error| config_error(format!("read CA file {shown}")).with_source(error))?;
    let certificates: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| config_error(format!("CA file {shown} is not PEM")).with_source(error))?;
    if certificates.is_empty() {
        return Err(config_error(format!("CA file {shown} holds no certificate")));
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| {
            config_error(format!("CA file {shown} holds a certificate that is none")).with_source(error)
        })?;
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_that_cannot_be_used_are_refused_without_repeating_secrets() {
        for good in [None, Some("http://127.0.0.1:9000"), Some("https://s3.example.org")] {
            check_endpoint(good).unwrap();
        }
        for bad in ["127.0.0.1:9000", "https://", "https://key:hush@host"] {
            let error = check_endpoint(Some(bad)).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Config);
            assert!(!error.message.contains("hush"));
        }
    }

    #[test]
    fn a_ca_file_that_is_none_is_an_error_not_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        assert_eq!(http_client(Some(&path), true).unwrap_err().kind, StoreErrorKind::Config);
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in ["", "no certificate", junk] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(http_client(Some(&path), true).unwrap_err().kind, StoreErrorKind::Config, "{text:?} was taken");
        }
    }

    #[test]
    fn secrets_are_not_in_debug() {
        let options =
            S3Options { secret_key: Some("hush".into()), session_token: Some("hush".into()), ..S3Options::default() };
        assert!(!format!("{options:?}").contains("hush"));
    }
}
