//! Listening sockets.

use std::io;
use std::net::SocketAddr;

use keyferry_config::document::ListenAddr;
use tokio::net::TcpListener;

/// Connections that wait to be accepted: what Linux allows by default.
const BACKLOG: u32 = 4096;

/// A socket that listens, and where.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
}

/// Listens on `address`.
pub(crate) fn bind(address: &ListenAddr) -> io::Result<Bound> {
    let address = address.socket_addr();
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    // A restarted proxy must not wait for the connections of the one before it.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok(Bound { listener, address })
}
