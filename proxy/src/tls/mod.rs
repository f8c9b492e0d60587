//! Both sides of the interception: the authority that signs leafs for sandboxes, and what we demand of upstreams.

mod authority;
mod certificate;
pub(crate) mod client_hello;
mod generate;
mod leaf;
mod upstream;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

pub use authority::{Authority, AuthorityError};
pub use certificate::{AuthorityCertificate, Moment, Validity, Warning};
pub use generate::{GenerateError, GeneratedPem, NewAuthority};
pub use leaf::{LeafCache, LeafError, LeafSettings};
pub use upstream::{UpstreamTls, UpstreamTlsError};

/// The one cryptography provider of the process, handed to every configuration by name: a process-wide default would be
/// state that any dependency may change.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
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
