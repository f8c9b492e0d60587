//! Where things are inside of a sandbox.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The private home. Not in `/tmp`, where some agents refuse to keep their state.
pub const HOME: &str = "/home/agent";
/// The user's name. Its number is never 0.
pub const USER: &str = "agent";
/// The certificates that programs trust, where Debian has them. The same file is where others look.
pub const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The same certificates for Java, where Debian's Java looks.
pub const TRUST_STORE: &str = "/etc/ssl/certs/java/cacerts";
/// Where programs are found, beside the command's own directories.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The port of loopback on which the way to the proxy begins.
pub const PROXY_PORT: u16 = 3128;

pub(crate) const INIT: &str = "/run/keyferry/init";
pub(crate) const ORDER: &str = "/run/keyferry/sandbox.json";
pub(crate) const PROXY_SOCKET: &str = "/run/keyferry/proxy/proxy.sock";

/// Descriptors with which the init starts. Its own input is the control channel, its own error output is read by the driver.
pub(crate) const COMMAND_STDIN: i32 = 3;
pub(crate) const COMMAND_STDOUT: i32 = 4;
pub(crate) const COMMAND_STDERR: i32 = 5;

/// Both ends of loopback.
pub(crate) const PROXY_ADDRESSES: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PROXY_PORT),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), PROXY_PORT),
];

/// Other places where the bundle is looked for: Red Hat's, Alpine's and OpenSSL's own.
pub(crate) const CA_BUNDLE_ELSEWHERE: [&str; 3] =
    ["/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem"];
