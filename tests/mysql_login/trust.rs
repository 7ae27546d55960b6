//! TLS modes against the server's self-made certificates and against ones with a name.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::*;

/// A CA and, signed by it, a certificate with these names; files in `dir`.
struct Certificates {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

fn issue(dir: &Path, title: &str, names: &[&str]) -> Certificates {
    let write = |name: &str, pem: String| {
        let path = dir.join(format!("{title}-{name}.pem"));
        std::fs::write(&path, pem).unwrap();
        path
    };
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, format!("{title} CA"));
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, title);
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, &ca).unwrap();
    Certificates { ca: write("ca", ca.pem()), cert: write("cert", cert.pem()), key: write("key", key.serialize_pem()) }
}

fn with_ca(mode: TlsMode, ca: &Path) -> TlsOptions {
    TlsOptions { ca: Some(ca.to_owned()), ..tls(mode) }
}

#[tokio::test]
async fn the_server_s_own_certificates_are_good_for_all_but_the_name() {
    let server = &shared();
    server.sql("CREATE USER trust IDENTIFIED BY 'pw'");
    let at = |tls| tcp(server.port(), "trust", "pw", tls);
    let ca = server.datadir().join("ca.pem");

    assert!(!connect(&at(tls(TlsMode::Disabled))).await.is_tls());
    for options in
        [tls(TlsMode::Auto), tls(TlsMode::Required), with_ca(TlsMode::VerifyCa, &ca), with_ca(TlsMode::Auto, &ca)]
    {
        let mut connection = connect(&at(options.clone())).await;
        assert!(connection.is_tls(), "{options:?}");
        let version = connection.query("SHOW STATUS LIKE 'Ssl_version'").await.unwrap();
        assert_eq!(version[0].get_at(1), Some("TLSv1.3"));
    }
    let hint = assert_says(&refused(&at(with_ca(TlsMode::VerifyFull, &ca))).await, Kind::Refused, false, None);
    assert!(hint.contains("verify-ca"), "{hint}");

    let stranger = issue(&server.scratch(), "stranger", &["127.0.0.1"]);
    for mode in [TlsMode::Auto, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let error = refused(&at(with_ca(mode, &stranger.ca))).await;
        let hint = assert_says(&error, Kind::Refused, false, None);
        assert!(hint.contains("stranger-ca.pem") && hint.contains("ca.pem in its data directory"), "{hint}");
    }
}

#[tokio::test]
async fn tls_1_2_is_spoken_too() {
    let server = Mysqld::start("tls12", &["--tls-version=TLSv1.2"]);
    server.sql("CREATE USER agent IDENTIFIED BY 'pw'");
    let mut connection =
        connect(&tcp(server.port(), "agent", "pw", with_ca(TlsMode::VerifyCa, &server.datadir().join("ca.pem")))).await;
    let version = connection.query("SHOW STATUS LIKE 'Ssl_version'").await.unwrap();
    assert_eq!(version[0].get_at(1), Some("TLSv1.2"));
}

#[tokio::test]
async fn a_certificate_with_a_name_is_good_for_that_name_only() {
    let dir = tempfile::tempdir().unwrap();
    let named = issue(dir.path(), "named", &["127.0.0.1", "db.example"]);
    let option = |name: &str, path: &Path| format!("--ssl-{name}={}", path.display());
    let options = [option("ca", &named.ca), option("cert", &named.cert), option("key", &named.key)];
    let server = Mysqld::start("named", &options.each_ref().map(String::as_str));
    server.sql("CREATE USER agent IDENTIFIED BY 'pw'");
    let full = tcp(server.port(), "agent", "pw", with_ca(TlsMode::VerifyFull, &named.ca));
    assert!(connect(&full).await.is_tls());

    // The same server by a name that is not in its certificate.
    let mut other = full.clone();
    other.address = Address::Tcp { host: "localhost".to_owned(), port: server.port() };
    let error = refused(&other).await;
    let hint = assert_says(&error, Kind::Refused, false, None);
    assert!(hint.contains("not made for localhost"), "{hint}");
    other.tls.mode = TlsMode::VerifyCa;
    assert!(connect(&other).await.is_tls());
}

#[tokio::test]
async fn an_account_may_demand_a_client_certificate() {
    let server = &shared();
    server.sql("CREATE USER certified IDENTIFIED BY 'pw' REQUIRE X509");
    let (dir, stranger) = (server.datadir(), issue(&server.scratch(), "client", &[]));
    let mut options = tcp(server.port(), "certified", "pw", with_ca(TlsMode::VerifyCa, &dir.join("ca.pem")));
    assert_says(&refused(&options).await, Kind::Refused, false, Some(1045));
    (options.tls.cert, options.tls.key) = (Some(dir.join("client-cert.pem")), Some(dir.join("client-key.pem")));
    assert!(connect(&options).await.is_tls());
    // One that the server's CA did not sign.
    (options.tls.cert, options.tls.key) = (Some(stranger.cert.clone()), Some(stranger.key.clone()));
    let hint = assert_says(&refused(&options).await, Kind::Refused, false, None);
    assert!(hint.contains("client certificate"), "{hint}");
    // A key that is not the certificate's, and files that are none.
    options.tls.key = Some(dir.join("client-key.pem"));
    assert_says(&refused(&options).await, Kind::Config, false, None);
    options.tls.cert = Some(dir.join("auto.cnf"));
    assert_says(&refused(&options).await, Kind::Config, false, None);
    options.tls.cert = Some(dir.join("absent.pem"));
    assert!(refused(&options).await.chain().contains("absent.pem"));
}

#[tokio::test]
async fn servers_with_only_tls_and_with_none() {
    let strict = Mysqld::start("strict", &["--require-secure-transport=ON"]);
    strict.sql("CREATE USER agent IDENTIFIED BY 'pw'");
    let hint = assert_says(&refused(&clear(&strict, "agent", "pw")).await, Kind::Refused, false, Some(3159));
    assert!(hint.contains("TLS mode"), "{hint}");
    assert!(connect(&tcp(strict.port(), "agent", "pw", tls(TlsMode::Auto))).await.is_tls());
    assert!(!connect(&socket(&strict, "agent", "pw")).await.is_tls());

    let bare = Mysqld::start("bare", &["--tls-version="]);
    bare.sql("CREATE USER agent IDENTIFIED BY 'pw'");
    assert!(!connect(&tcp(bare.port(), "agent", "pw", tls(TlsMode::Auto))).await.is_tls());
    let error = refused(&tcp(bare.port(), "agent", "pw", tls(TlsMode::Required))).await;
    assert!(assert_says(&error, Kind::Refused, false, None).contains("disabled"));
}
