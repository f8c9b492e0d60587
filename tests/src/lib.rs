//! The bench on which the end-to-end tests stand: origin servers, a name server, the proxy under
//! test and the sandbox in which real clients run. Everything listens on loopback only.

#![expect(clippy::expect_used, reason = "a harness that cannot be built should say so and stop the test")]

pub mod agents;
pub mod audit;
pub mod authority;
pub mod clients;
pub mod collector;
pub mod control;
pub mod dns;
pub mod document;
pub mod exposition;
pub mod git_server;
pub mod http1;
pub mod http2;
pub mod local_sandbox;
pub mod model_apis;
pub mod npm_registry;
pub mod operator;
pub mod origin;
pub mod package_index;
pub mod parts;
pub mod ports;
pub mod proxy;
pub mod raw_origin;
pub mod sandbox;
pub mod sealed_rows;
pub mod soak;
pub mod socket_bridge;
pub mod tunnel;
pub mod up;

/// How long anything in a test may take before the test says what it waited for.
/// Generous: two cores may be shared by several tests, each with servers and clients.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Waits for `future`, or fails the test with what it was waiting for.
///
/// # Panics
/// When [`PATIENCE`] runs out.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("still waiting after {PATIENCE:?}: {what}"),
    }
}
