//! What the init of a sandbox does, for clients of the bench: a port of loopback that leads to a Unix socket.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinHandle;

/// Leads there until it is dropped.
pub struct SocketBridge {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl SocketBridge {
    /// A port that leads to this socket, or to whichever is there when a client comes.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn to(socket: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let task = tokio::spawn(serve(listener, socket.to_owned()));
        Self { address, task }
    }

    /// What a sandbox has in `HTTPS_PROXY`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for SocketBridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, socket: PathBuf) {
    while let Ok((mut client, _)) = listener.accept().await {
        let socket = socket.clone();
        tokio::spawn(async move {
            if let Ok(mut proxy) = UnixStream::connect(socket).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut proxy).await;
            }
        });
    }
}
