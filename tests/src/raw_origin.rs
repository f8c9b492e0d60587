//! An origin that writes its answer byte by byte: for what no HTTP library would send.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::authority::{Authority, Validity};
use crate::http1;

/// A running one. Dropping it stops it.
pub struct RawOrigin {
    name: String,
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl RawOrigin {
    /// Serves HTTP/1.1 over TLS: `script` gets each connection once a request's head has arrived.
    ///
    /// # Panics
    /// When loopback has no free port.
    pub async fn start<F>(name: &str, script: impl Fn(RawConnection) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind the raw origin");
        let address = socket.local_addr().expect("its address");
        let tls = Authority::trusted().issue(name, Validity::Current).server_config(&["http/1.1"]);
        let acceptor = TlsAcceptor::from(tls);
        let connections = Arc::new(AtomicUsize::new(0));
        let (script, counter) = (Arc::new(script), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let (acceptor, script) = (acceptor.clone(), Arc::clone(&script));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let Ok(head) = http1::read_head(&mut stream).await else { return };
                    script(RawConnection { stream, head }).await;
                });
            }
        });
        Self { name: name.to_owned(), address, connections, task }
    }

    /// The name that it goes by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `name:port`
    pub fn authority(&self) -> String {
        format!("{}:{}", self.name, self.port())
    }

    /// The address of a resource, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.authority())
    }

    /// How many connections were opened to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection on which a request's head has arrived.
pub struct RawConnection {
    stream: TlsStream<TcpStream>,
    head: String,
}

impl RawConnection {
    /// The head, up to and with its empty line.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// The value of a field of the head.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(known, value)| known.eq_ignore_ascii_case(name).then(|| value.trim()))
    }

    /// Sends bytes as they are. That the other side is gone is for the test to see there.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
        let _ = self.stream.flush().await;
    }

    /// The connection itself, behind the head.
    pub fn stream(&mut self) -> &mut TlsStream<TcpStream> {
        &mut self.stream
    }

    /// What comes next, none at the end of the stream.
    pub async fn receive(&mut self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 16 * 1024];
        match self.stream.read(&mut buffer).await {
            Ok(0) | Err(_) => None,
            Ok(length) => {
                buffer.truncate(length);
                Some(buffer)
            }
        }
    }

    /// Reads until the other side has sent its end.
    pub async fn receive_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(part) = self.receive().await {
            all.extend(part);
        }
        all
    }

    /// Says that nothing more comes from here, and keeps reading possible.
    pub async fn finish_sending(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Tears the connection down with a TCP reset.
    ///
    /// # Panics
    /// When the system does not let it.
    pub fn reset(self) {
        self.stream.get_ref().0.set_zero_linger().expect("a socket of ours");
    }
}
