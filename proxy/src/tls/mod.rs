//! Both sides of the interception: the authority that signs leafs for sandboxes, and what we demand of upstreams.

mod authority;
mod certificate;
pub(crate) mod client_hello;
mod generate;
mod leaf;
mod upstream;

use std::sync::{Arc, LazyLock};

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;

pub use authority::{Authority, AuthorityError};
pub use certificate::{AuthorityCertificate, Moment, Validity, Warning};
pub use generate::{GenerateError, GeneratedPem, NewAuthority};
pub use leaf::{LeafCache, LeafError, LeafSettings};
pub use upstream::{UpstreamTls, UpstreamTlsError};

/// The one cryptography provider of the process, handed to every configuration by name: a process-wide default would be
/// state that any dependency may change.
///
/// Of equally strong suites the cheapest comes first: a handshake derives its keys with the suite's hash, and processors have
/// instructions for SHA-256, not for SHA-384.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // Stable: all else keeps the library's order, the newer protocol first.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

/// What we offer by ALPN (RFC 7301), best first.
const H2_AND_HTTP1: [&[u8]; 2] = [b"h2", b"http/1.1"];
const HTTP1_ONLY: [&[u8]; 1] = [b"http/1.1"];

fn alpn(protocols: &[&[u8]]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.to_vec()).collect()
}

#[cfg(test)]
mod fixture;
