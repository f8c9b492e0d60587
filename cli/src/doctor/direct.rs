//! What can be reached without the proxy: looked at from inside a sandbox, where the answer should be nothing.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use super::names::DOMAIN;
use crate::failure::Failure;
use crate::terminal;

/// Of no network (RFC 5737). Where there is a route at all, packets to it leave.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const PATIENCE: Duration = Duration::from_secs(2);

/// Prints what can be reached, with a service on this port of the host's loopback.
pub(crate) fn tell_ways_out(port: u16) -> Result<ExitCode, Failure> {
    let found = ways_out(port);
    if found.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    terminal::data(found.join(", "))?;
    Ok(ExitCode::FAILURE)
}

fn ways_out(port: u16) -> Vec<String> {
    let mut found = on_loopback(port);
    let no_route = [ErrorKind::NetworkUnreachable, ErrorKind::HostUnreachable];
    let connected = TcpStream::connect_timeout(&SocketAddr::new(ELSEWHERE, 443), PATIENCE);
    if connected.map_or_else(|error| !no_route.contains(&error.kind()), |_| true) {
        found.push("a route to other networks".to_owned());
    }
    let sent =
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| socket.send_to(b"", (ELSEWHERE, 53)));
    if sent.is_ok() {
        found.push("a route for UDP".to_owned());
    }
    if (DOMAIN, 443).to_socket_addrs().is_ok() {
        found.push("somebody who resolves names".to_owned());
    }
    found
}

fn on_loopback(port: u16) -> Vec<String> {
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let addresses = addresses.map(|address| SocketAddr::new(address, port)).into_iter();
    let answering = addresses.filter(|address| TcpStream::connect_timeout(address, PATIENCE).is_ok());
    answering.map(|address| format!("the host's loopback ({address})")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_past_the_proxy_is_told() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(on_loopback(address.port()), [format!("the host's loopback ({address})")]);
    }
}
