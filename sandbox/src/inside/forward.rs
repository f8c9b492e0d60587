//! The way to the proxy: from loopback, where clients look for it, to its socket.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use tokio::net::UnixStream;

use super::Broken;
use crate::layout;

/// What a connection holds in each direction.
const BUFFER: usize = 64 * 1024;

/// Listens on both addresses of loopback. A system without IPv6 has one.
pub(super) fn listen() -> Result<Vec<TcpListener>, Broken> {
    let mut listeners = Vec::new();
    for address in layout::PROXY_ADDRESSES {
        match TcpListener::bind(address) {
            Ok(listener) => {
                listener.set_nonblocking(true).map_err(Broken::at("listen on loopback"))?;
                listeners.push(listener);
            }
            Err(error) if address.is_ipv6() && without_ipv6(&error) => {}
            Err(error) => return Err(Broken::at("listen on loopback")(error)),
        }
    }
    Ok(listeners)
}

fn without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Carries connections until the sandbox ends. Where the proxy is gone, a connection ends as it began.
pub(super) async fn serve(listener: TcpListener) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(carry(client))),
            // Out of descriptors: those that wait are served when others end.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn carry(mut client: tokio::net::TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut proxy = UnixStream::connect(layout::PROXY_SOCKET).await?;
    // splice(2) between these two kinds of sockets takes half as long again.
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut proxy, BUFFER, BUFFER).await?;
    Ok(())
}
