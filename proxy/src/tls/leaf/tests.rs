//! Leafs as clients judge them, and a cache that mints no more than it must.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use rcgen::KeyPair;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use rustls_pki_types::{ServerName, UnixTime};

use super::*;
use crate::tls::fixture::{Pair, openssl_ok, text};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn host(text: &str) -> Host {
    text.parse().unwrap()
}

fn settings() -> LeafSettings {
    LeafSettings { capacity: 100, lifetime: 3 * DAY }
}

fn cache(pair: &Pair) -> LeafCache {
    LeafCache::new(pair.load().unwrap(), settings()).unwrap()
}

/// A name of 253 bytes with labels of up to 63.
fn longest_name() -> String {
    let name = [63, 63, 63, 61].map(|length| "a".repeat(length)).join(".");
    assert_eq!(name.len(), 253);
    name
}

fn minted(cache: &LeafCache) -> usize {
    cache.minter.minted.load(Ordering::Relaxed)
}

/// A whole TLS handshake in memory, for what the client saw: the chain and the protocol.
fn handshake(
    config: Arc<ServerConfig>,
    client: ClientConfig,
    name: &str,
) -> (Vec<CertificateDer<'static>>, Option<Vec<u8>>) {
    let client = connected(config, client, name);
    let chain = client.peer_certificates().unwrap().iter().map(|der| der.clone().into_owned()).collect();
    (chain, client.alpn_protocol().map(<[u8]>::to_vec))
}

fn connected(config: Arc<ServerConfig>, client: ClientConfig, name: &str) -> ClientConnection {
    let mut client =
        ClientConnection::new(Arc::new(client), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    let mut server = ServerConnection::new(config).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().unwrap();
    }
    client
}

/// A client that trusts `pair` and nothing else, and prefers what its library does.
fn client(pair: &Pair, protocols: &[&[u8]]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(pair))
        .with_no_client_auth();
    config.alpn_protocols = alpn(protocols);
    config
}

fn roots(pair: &Pair) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(pair.load().unwrap().certificate_der().clone()).unwrap();
    roots
}

#[tokio::test]
async fn the_suite_with_the_cheapest_hash_is_taken_whatever_the_client_puts_first() {
    let pair = Pair::generated();
    let config = cache(&pair).server_config(&host("api.example")).await.unwrap();

    let connection = connected(config, client(&pair, &[]), "api.example");

    let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
    assert_eq!(suite, Some(rustls::CipherSuite::TLS13_AES_128_GCM_SHA256));
}

#[tokio::test]
async fn rustls_and_openssl_take_a_leaf_for_names_of_any_length_and_for_addresses() {
    let pair = Pair::generated();
    let leafs = cache(&pair);
    let longest = longest_name();
    let hosts = [
        "api.example",
        "localhost",
        "under_score.example",
        "xn--bcher-kva.example",
        &longest,
        "192.0.2.7",
        "2001:db8::7",
    ];

    for name in hosts {
        let config = leafs.server_config(&host(name)).await.unwrap();

        let (chain, _) = handshake(config, client(&pair, &[]), name);

        assert_eq!(chain.len(), 2);
        assert_eq!(&chain[1], pair.load().unwrap().certificate_der());
        let file = pair.folder.path().join("leaf.crt");
        let der = pair.folder.path().join("leaf.der");
        std::fs::write(&der, &chain[0]).unwrap();
        openssl_ok(&["x509", "-inform", "DER", "-in", text(&der), "-out", text(&file)]);
        let check = if matches!(host(name), Host::Ip(_)) { "-verify_ip" } else { "-verify_hostname" };
        openssl_ok(&[
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            check,
            name,
            "-CAfile",
            text(&pair.certificate),
            text(&file),
        ]);
    }
}

#[tokio::test]
async fn a_leaf_says_what_go_and_rustls_demand_and_no_more() {
    let pair = Pair::generated();
    let (chain, _) = handshake(
        cache(&pair).server_config(&host("api.example")).await.unwrap(),
        client(&pair, &[]),
        "api.example",
    );
    let der = pair.folder.path().join("leaf.der");
    std::fs::write(&der, &chain[0]).unwrap();

    let shown = openssl_ok(&[
        "x509",
        "-inform",
        "DER",
        "-in",
        text(&der),
        "-noout",
        "-subject",
        "-issuer",
        "-ext",
        "subjectAltName,keyUsage,extendedKeyUsage,basicConstraints",
    ]);

    assert_eq!(
        // Versions of openssl differ in the blanks.
        shown.replace(" = ", "="),
        "subject=CN=api.example\n\
         issuer=CN=test authority\n\
         X509v3 Subject Alternative Name: \n    DNS:api.example\n\
         X509v3 Key Usage: critical\n    Digital Signature\n\
         X509v3 Extended Key Usage: \n    TLS Web Server Authentication\n\
         X509v3 Basic Constraints: critical\n    CA:FALSE\n"
    );
    let identifiers = |file: &[&str]| {
        let mut arguments = vec!["x509", "-noout", "-ext", "subjectKeyIdentifier,authorityKeyIdentifier"];
        arguments.extend(file);
        openssl_ok(&arguments)
            .lines()
            .map(|line| line.trim().trim_start_matches("keyid:").to_owned())
            .collect::<Vec<_>>()
    };
    let authority = identifiers(&["-in", text(&pair.certificate)]);
    let leaf = identifiers(&["-inform", "DER", "-in", text(&der)]);
    assert_eq!(leaf[..2], ["X509v3 Authority Key Identifier:".to_owned(), authority[1].clone()]);
}

#[tokio::test]
async fn a_leaf_is_good_for_its_own_host_only() {
    let pair = Pair::generated();
    let (chain, _) = handshake(
        cache(&pair).server_config(&host("api.example")).await.unwrap(),
        client(&pair, &[]),
        "api.example",
    );
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(&pair)), crypto_provider())
        .build()
        .unwrap();
    let verdict = |name: &str| {
        verifier
            .verify_server_cert(
                &chain[0],
                &[],
                &ServerName::try_from(name.to_owned()).unwrap(),
                &[],
                UnixTime::now(),
            )
            .is_ok()
    };

    assert_eq!(
        ["api.example", "API.example", "www.api.example", "example", "192.0.2.7"].map(verdict),
        [true, true, false, false, false]
    );
}

#[tokio::test]
async fn both_http_versions_are_offered_and_no_early_data_t40() {
    let pair = Pair::generated();
    let config = cache(&pair).server_config(&host("api.example")).await.unwrap();

    let agreed =
        |protocols: &[&[u8]]| handshake(Arc::clone(&config), client(&pair, protocols), "api.example").1;

    assert_eq!(agreed(&[b"h2", b"http/1.1"]), Some(b"h2".to_vec()));
    assert_eq!(agreed(&[b"http/1.1"]), Some(b"http/1.1".to_vec()));
    assert_eq!(agreed(&[]), None);
    assert_eq!(config.max_early_data_size, 0);
}

#[tokio::test]
async fn sessions_resume_by_ticket_without_a_store() {
    let pair = Pair::generated();
    let leafs = cache(&pair);
    let config = leafs.server_config(&host("api.example")).await.unwrap();
    assert!(!config.session_storage.can_cache());
    let client_config = client(&pair, &[]);
    let connect = || {
        let mut client = ClientConnection::new(
            Arc::new(client_config.clone()),
            ServerName::try_from("api.example").unwrap(),
        )
        .unwrap();
        let mut server = ServerConnection::new(Arc::clone(&config)).unwrap();
        for _ in 0..4 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
        client.handshake_kind()
    };

    assert_eq!(
        [connect(), connect()],
        [Some(rustls::HandshakeKind::Full), Some(rustls::HandshakeKind::Resumed)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_wait_one_leaf_is_minted() {
    for pair in [Pair::generated(), rsa_pair()] {
        let leafs = cache(&pair);
        let waiters: Vec<_> = (0..100)
            .map(|_| {
                let leafs = leafs.clone();
                tokio::spawn(async move { leafs.server_config(&host("api.example")).await.unwrap() })
            })
            .collect();
        let mut configs = Vec::new();
        for waiter in waiters {
            configs.push(waiter.await.unwrap());
        }

        assert!(configs.iter().all(|config| Arc::ptr_eq(config, &configs[0])));
        assert_eq!(minted(&leafs), 1);
    }
}

/// Signing with RSA takes another path, and openssl makes the pair.
fn rsa_pair() -> Pair {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("rsa.crt"), folder.path().join("rsa.key"));
    openssl_ok(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        text(&key),
        "-out",
        text(&certificate),
        "-subj",
        "/CN=RSA authority",
        "-addext",
        "keyUsage=critical,keyCertSign",
    ]);
    Pair::write(std::fs::read(certificate).unwrap(), std::fs::read(key).unwrap())
}

#[tokio::test]
async fn a_leaf_of_an_rsa_authority_verifies() {
    let pair = rsa_pair();
    let config = cache(&pair).server_config(&host("api.example")).await.unwrap();

    assert_eq!(handshake(config, client(&pair, &[]), "api.example").0.len(), 2);
}

#[tokio::test]
async fn t77_a_flood_of_names_leaves_the_cache_within_its_bound() {
    let leafs = LeafCache::new(Pair::generated().load().unwrap(), LeafSettings { capacity: 8, ..settings() })
        .unwrap();

    for n in 0..200 {
        leafs.server_config(&host(&format!("n{n}.example"))).await.unwrap();
    }

    leafs.leafs.run_pending_tasks().await;
    assert!(leafs.leafs.entry_count() <= 8, "{} leafs are kept", leafs.leafs.entry_count());
    assert_eq!(minted(&leafs), 200);
}

/// A clock that a test moves.
fn clock() -> (Arc<AtomicI64>, impl Fn() -> OffsetDateTime + Send + Sync + 'static) {
    let start = OffsetDateTime::now_utc();
    let offset = Arc::new(AtomicI64::new(0));
    let read = Arc::clone(&offset);
    (offset, move || start + time::Duration::seconds(read.load(Ordering::Relaxed)))
}

#[tokio::test]
async fn t88_a_leaf_is_renewed_at_half_its_life_and_after_a_jump_of_the_clock() {
    let pair = Pair::changed(|_| ());
    let (offset, clock) = clock();
    let leafs = LeafCache::with_clock(pair.load().unwrap(), settings(), clock).unwrap();
    let mut seen = Vec::new();

    for seconds in [0, 36 * 3600 - 1, 36 * 3600, 36 * 3600 + 1, 0] {
        offset.store(seconds, Ordering::Relaxed);
        leafs.server_config(&host("api.example")).await.unwrap();
        seen.push(minted(&leafs));
    }

    // The last step is a jump back to before the second leaf began.
    assert_eq!(seen, [1, 1, 2, 2, 3]);
}

#[tokio::test]
async fn a_leaf_begins_an_hour_ago_and_stays_within_its_authority() {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    let minute = time::Duration::MINUTE;
    // The fixture's authority began a day ago and lasts a year; this one is ten minutes old and ends in an hour.
    let short = Pair::keyed(&KeyPair::generate().unwrap(), |params| {
        params.not_before = now - minute * 10;
        params.not_after = now + minute * 60;
    });
    let validity = async |pair: &Pair| {
        let leafs = LeafCache::with_clock(pair.load().unwrap(), settings(), move || now).unwrap();
        let config = leafs.server_config(&host("api.example")).await.unwrap();
        let (chain, _) = handshake(config, client(pair, &[]), "api.example");
        let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
        (leaf.validity().not_before.to_datetime() - now, leaf.validity().not_after.to_datetime() - now)
    };

    assert_eq!(validity(&Pair::changed(|_| ())).await, (-minute * 60, time::Duration::days(3)));
    assert_eq!(validity(&short).await, (-minute * 10, minute * 60));
}

#[tokio::test]
async fn an_authority_that_has_ended_mints_nothing() {
    let pair = Pair::changed(|_| ());
    let (offset, clock) = clock();
    let leafs = LeafCache::with_clock(pair.load().unwrap(), settings(), clock).unwrap();
    offset.store(366 * 24 * 3600, Ordering::Relaxed);

    let error = leafs.server_config(&host("api.example")).await.unwrap_err();

    let not_after = pair.load().unwrap().validity().not_after;
    assert_eq!(error, LeafError::AuthorityExpired { host: host("api.example"), not_after });
}

#[tokio::test]
async fn serials_differ_although_the_key_is_shared() {
    let pair = Pair::generated();
    let leafs = cache(&pair);
    let mut serials = std::collections::HashSet::new();
    let mut keys = std::collections::HashSet::new();
    for name in ["a.example", "b.example", "c.example"] {
        let (chain, _) = handshake(leafs.server_config(&host(name)).await.unwrap(), client(&pair, &[]), name);
        let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
        serials.insert(leaf.raw_serial().to_vec());
        keys.insert(leaf.public_key().raw.to_vec());
    }

    assert_eq!((serials.len(), keys.len()), (3, 1));
}

/// The budget is 60 µs in a release build; this only holds that nobody adds a key generation or a second signature.
#[test]
fn a_cold_leaf_is_cheap() {
    let leafs = cache(&Pair::generated());
    let best = (0..50)
        .map(|n| {
            let host = host(&format!("n{n}.example"));
            let start = Instant::now();
            leafs.minter.mint(&host).unwrap();
            start.elapsed()
        })
        .min()
        .unwrap();
    println!("cold leaf: {best:?}");

    assert!(best < Duration::from_millis(5), "a leaf takes {best:?}");
}
