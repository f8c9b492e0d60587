//! A client that writes to the proxy byte by byte: for what no real client would send.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::{EchConfig, EchGreaseConfig, EchMode};
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_128;
use rustls::crypto::hpke::Hpke as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, EchConfigListBytes, ServerName};
use rustls::{AlertDescription, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::crypto_provider;
use crate::http1::{self, Answer};
use crate::proxy::Proxy;
use crate::within;

/// A bare connection to the proxy's listener.
///
/// # Panics
/// When it refuses.
pub async fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).await.expect("connect to the proxy");
    stream.set_nodelay(true).expect("a socket of ours");
    stream
}

/// Sends bytes and reads the answer to them.
///
/// # Panics
/// When there is none.
pub async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: impl AsRef<[u8]>,
) -> Answer {
    stream.write_all(request.as_ref()).await.expect("send the request");
    stream.flush().await.expect("send the request");
    within("the answer", http1::read_answer(stream)).await.expect("an answer")
}

/// Asks for a tunnel and returns what the proxy says: on 200 the stream is the tunnel.
///
/// # Panics
/// When it says nothing.
pub async fn ask(proxy: &Proxy, authority: &str) -> (TcpStream, Answer) {
    let mut stream = connect(proxy).await;
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("send CONNECT");
    let answer =
        within("the answer to CONNECT", read_connect(&mut stream)).await.expect("an answer to CONNECT");
    (stream, answer)
}

/// A granted CONNECT has no body, whatever its fields say; any other answer may have one.
async fn read_connect(stream: &mut TcpStream) -> io::Result<Answer> {
    let mut peeked = [0; 12];
    loop {
        stream.readable().await?;
        if stream.peek(&mut peeked).await? >= peeked.len() {
            break;
        }
        tokio::task::yield_now().await;
    }
    if peeked.ends_with(b"200") {
        http1::read_answer_head(stream).await
    } else {
        http1::read_answer(stream).await
    }
}

/// An open tunnel.
///
/// # Panics
/// When the proxy refuses it.
pub async fn open(proxy: &Proxy, authority: &str) -> TcpStream {
    let (stream, answer) = ask(proxy, authority).await;
    assert_eq!(answer.status, 200, "the tunnel to {authority} was refused: {answer:#?}");
    stream
}

/// What a ClientHello says.
pub struct Hello<'a> {
    /// The name whose certificate is expected.
    pub name: &'a str,
    /// Whether the name is sent along.
    pub sni: bool,
    /// The protocols offered.
    pub alpn: &'a [&'a str],
    /// Whether another ClientHello is encrypted in it (RFC 9849).
    pub encrypted: Encrypted<'a>,
}

/// An encrypted ClientHello.
#[derive(Clone, Copy, Debug)]
pub enum Encrypted<'a> {
    /// None.
    No,
    /// One that nobody can read, as browsers send it everywhere.
    Grease,
    /// One for the name that is expected; this name stands outside.
    Behind(&'a str),
}

impl<'a> Hello<'a> {
    /// As an HTTP/1.1 client sends it.
    pub fn http1(name: &'a str) -> Self {
        Self { name, sni: true, alpn: &["http/1.1"], encrypted: Encrypted::No }
    }

    /// As an HTTP/2 client sends it.
    pub fn http2(name: &'a str) -> Self {
        Self { name, sni: true, alpn: &["h2"], encrypted: Encrypted::No }
    }
}

/// TLS inside a tunnel, trusting the proxy's authority alone.
///
/// # Errors
/// Those of the handshake.
pub async fn secure(proxy: &Proxy, tunnel: TcpStream, hello: Hello<'_>) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(proxy.ca_certificate()).map_err(io::Error::other)?;
    roots.add(ca).map_err(io::Error::other)?;
    let builder = rustls::ClientConfig::builder_with_provider(crypto_provider());
    let builder = match encryption(hello.encrypted)? {
        None => builder.with_safe_default_protocol_versions(),
        Some(mode) => builder.with_ech(mode),
    };
    let mut config = builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    config.enable_sni = hello.sni;
    config.alpn_protocols = hello.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = match hello.name.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(hello.name.to_owned()).map_err(io::Error::other)?,
    };
    within("the TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, tunnel)).await
}

fn encryption(encrypted: Encrypted<'_>) -> io::Result<Option<EchMode>> {
    let suite = DH_KEM_P256_HKDF_SHA256_AES_128;
    let (key, _) = suite.generate_key_pair().map_err(io::Error::other)?;
    match encrypted {
        Encrypted::No => Ok(None),
        Encrypted::Grease => Ok(Some(EchGreaseConfig::new(suite, key).into())),
        Encrypted::Behind(outer) => {
            let list = EchConfigListBytes::from(ech_config_list(&key.0, outer));
            EchConfig::new(list, &[suite]).map(|config| Some(config.into())).map_err(io::Error::other)
        }
    }
}

/// As the DNS of a server would tell it (RFC 9849 section 4): one configuration for P-256, HKDF-SHA256 and AES-128-GCM.
fn ech_config_list(key: &[u8], outer: &str) -> Vec<u8> {
    let short = |length: usize| (length as u16).to_be_bytes();
    let contents = [
        [7, 0, 0x10].as_slice(),
        &short(key.len()),
        key,
        &[0, 4, 0, 1, 0, 1, 0, outer.len() as u8],
        outer.as_bytes(),
        &[0, 0],
    ]
    .concat();
    let config = [[0xfe, 0x0d].as_slice(), &short(contents.len()), &contents].concat();
    [short(config.len()).as_slice(), &config].concat()
}

/// A tunnel with TLS in it, for HTTP/1.1.
///
/// # Panics
/// When the proxy refuses either.
pub async fn open_secure(proxy: &Proxy, authority: &str) -> TlsStream<TcpStream> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let tunnel = open(proxy, authority).await;
    secure(proxy, tunnel, Hello::http1(host)).await.expect("a handshake with the proxy's leaf")
}

/// The TLS alert behind an error, if there is one.
pub fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(description) => Some(*description),
        _ => None,
    }
}
