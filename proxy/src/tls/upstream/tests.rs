//! Whom we believe, and that it is never ourselves.

use std::sync::Arc;

use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::server::Acceptor;

use super::*;
use crate::tls::Authority;
use crate::tls::fixture::{Pair, authority_params, text};

/// A server's certificate chain, signed by the key and under the name in `issuer`.
fn leaf(issuer: &Issuer<'_, KeyPair>) -> (CertificateDer<'static>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["api.example".to_owned()]).unwrap();
    (params.signed_by(&key, issuer).unwrap().into(), key)
}

fn issuer(pair: &Pair) -> Issuer<'static, KeyPair> {
    let key = KeyPair::from_pem(&std::fs::read_to_string(&pair.key).unwrap()).unwrap();
    Issuer::from_ca_cert_der(pair.load().unwrap().certificate_der(), key).unwrap()
}

fn server(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    config.alpn_protocols = alpn(&H2_AND_HTTP1);
    Arc::new(config)
}

/// What our client says after a handshake with `server`: the protocol, or the error.
fn connect(client: &Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Option<Vec<u8>>, rustls::Error> {
    let name = ServerName::try_from("api.example").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut wire.as_slice()).unwrap();
    let accepted = acceptor.accept().unwrap().expect("a whole ClientHello");
    let mut server = accepted.into_connection(server).map_err(|(error, _)| error)?;
    while client.is_handshaking() {
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
        wire.clear();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
    }
    Ok(client.alpn_protocol().map(<[u8]>::to_vec))
}

fn der(pair: &Pair) -> CertificateDer<'static> {
    pair.load().unwrap().certificate_der().clone()
}

fn unknown_issuer() -> Result<Option<Vec<u8>>, rustls::Error> {
    Err(CertificateError::UnknownIssuer.into())
}

#[test]
fn a_server_under_a_system_root_or_under_upstream_ca_is_believed_and_no_other() {
    let [own, system, extra, stranger] = ["own", "system", "extra", "stranger"].map(Pair::named);
    let tls =
        UpstreamTls::with_system_roots(vec![der(&system)], vec![], Some(&extra.certificate), &der(&own))
            .unwrap();

    let verdicts = [&system, &extra, &stranger, &own].map(|pair| {
        let (certificate, key) = leaf(&issuer(pair));
        connect(tls.h2_or_http1(), server(vec![certificate, der(pair)], &key))
    });

    assert_eq!(
        verdicts,
        [Ok(Some(b"h2".to_vec())), Ok(Some(b"h2".to_vec())), unknown_issuer(), unknown_issuer()]
    );
}

#[test]
fn t55_our_own_authority_among_the_systems_roots_vouches_for_nobody() {
    let [own, system] = ["own", "system"].map(Pair::named);
    let key = KeyPair::from_pem(&std::fs::read_to_string(&own.key).unwrap()).unwrap();
    // The same key under another certificate, as after a renewal.
    let renewed = Pair::keyed(&key, |params| {
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "renewed");
    });

    let tls = UpstreamTls::with_system_roots(
        vec![der(&own), der(&system), der(&renewed)],
        vec![],
        None,
        &der(&own),
    )
    .unwrap();

    for pair in [&own, &renewed] {
        let (certificate, key) = leaf(&issuer(pair));
        assert_eq!(connect(tls.h2_or_http1(), server(vec![certificate], &key)), unknown_issuer());
    }
}

#[test]
fn t55_our_own_authority_as_an_intermediate_vouches_for_nobody() {
    let system = Pair::generated();
    let key = KeyPair::generate().unwrap();
    let root = Pair::changed(|_| ());
    let certificate = authority_params().signed_by(&key, &issuer(&root)).unwrap();
    let own = Pair::write(certificate.pem(), key.serialize_pem());
    let believing = UpstreamTls::with_system_roots(vec![der(&root)], vec![], None, &der(&system)).unwrap();
    let careful = UpstreamTls::with_system_roots(vec![der(&root)], vec![], None, &der(&own)).unwrap();
    let (certificate, key) = leaf(&issuer(&own));
    let server = server(vec![certificate, der(&own)], &key);

    // The chain is sound; only whose it is makes the difference.
    assert_eq!(connect(believing.h2_or_http1(), Arc::clone(&server)), Ok(Some(b"h2".to_vec())));
    assert_eq!(connect(careful.h2_or_http1(), server), unknown_issuer());
}

#[test]
fn an_upstream_ca_that_contains_our_own_authority_is_refused() {
    let [own, other] = ["own", "other"].map(Pair::named);
    let bundle =
        [std::fs::read(&other.certificate).unwrap(), std::fs::read(&own.certificate).unwrap()].concat();
    let bundle = Pair::write(bundle, "");

    let error =
        UpstreamTls::with_system_roots(vec![], vec![], Some(&bundle.certificate), &der(&own)).unwrap_err();

    assert_eq!(
        error.to_string(),
        format!(
            "tls.upstream_ca: {} contains keyferry's own certificate authority\n\
             hint: name the file with the upstreams' authorities; the bundle of `keyferry ca bundle` is for sandboxes",
            bundle.certificate.display()
        )
    );
}

#[test]
fn a_wrong_name_and_an_expired_certificate_are_refused() {
    let [own, system] = ["own", "system"].map(Pair::named);
    let tls = UpstreamTls::with_system_roots(vec![der(&system)], vec![], None, &der(&own)).unwrap();
    let verdict = |params: &CertificateParams| {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer(&system)).unwrap();
        connect(tls.h2_or_http1(), server(vec![certificate.into()], &key)).unwrap_err().to_string()
    };
    let other_name = CertificateParams::new(["www.example".to_owned()]).unwrap();
    let mut expired = CertificateParams::new(["api.example".to_owned()]).unwrap();
    expired.not_after = time::OffsetDateTime::now_utc() - time::Duration::DAY;

    assert!(verdict(&other_name).contains("not valid for name"), "{}", verdict(&other_name));
    assert!(verdict(&expired).contains("expired"), "{}", verdict(&expired));
}

#[test]
fn upgrades_are_offered_http1_alone() {
    let [own, system] = ["own", "system"].map(Pair::named);
    let tls = UpstreamTls::with_system_roots(vec![der(&system)], vec![], None, &der(&own)).unwrap();
    let (certificate, key) = leaf(&issuer(&system));

    let agreed = connect(tls.http1_only(), server(vec![certificate], &key));

    assert_eq!(agreed, Ok(Some(b"http/1.1".to_vec())));
}

#[test]
fn without_a_single_root_nothing_starts() {
    let own = Pair::generated();
    let errors = vec!["failed to open file at '/etc/ssl/certs/ca-certificates.crt'".to_owned()];

    let error = UpstreamTls::with_system_roots(vec![der(&own)], errors, None, &der(&own)).unwrap_err();

    assert_eq!(
        error.to_string(),
        "no root certificates were found on this system\n  failed to open file at '/etc/ssl/certs/ca-certificates.crt'\n\
         hint: install the package ca-certificates, or name a PEM file in tls.upstream_ca"
    );
}

#[test]
fn bad_files_are_refused_by_name() {
    let own = Pair::generated();
    let good = std::fs::read_to_string(&own.certificate).unwrap();
    let refusal = |content: &str| {
        let file = Pair::write(content, "");
        let path = format!("{}/", text(file.folder.path()));
        UpstreamTls::with_system_roots(vec![], vec![], Some(&file.certificate), &der(&own))
            .unwrap_err()
            .to_string()
            .replace(&path, "")
    };
    let other = std::fs::read_to_string(Pair::generated().certificate).unwrap();

    let nothing = "tls.upstream_ca: there is no certificate in ca.crt\n\
                   hint: it must hold PEM blocks that begin with -----BEGIN CERTIFICATE-----";
    assert_eq!(
        [refusal(""), refusal("text"), refusal(&std::fs::read_to_string(&own.key).unwrap())],
        [nothing; 3]
    );
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for content in [format!("{other}{broken}"), format!("{other}{}", &good[..200])] {
        let said = refusal(&content);
        assert!(said.starts_with("tls.upstream_ca: certificate 2 in ca.crt cannot be read: "), "{said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let own = Pair::generated();
    let path = own.folder.path().join("nowhere.pem");

    let error = UpstreamTls::with_system_roots(vec![], vec![], Some(&path), &der(&own)).unwrap_err();

    let expected =
        format!("tls.upstream_ca: {} cannot be read: No such file or directory (os error 2)", path.display());
    assert_eq!(error.to_string(), expected);
}

#[test]
fn this_machines_roots_load() {
    let own = Pair::generated();
    let authority: Authority = own.load().unwrap();

    assert!(UpstreamTls::new(None, authority.certificate_der()).is_ok());
}
