//! The sandbox's side of a TLS handshake, judged before a leaf is minted (invariant 3, T01, T21, T77).

use std::io;
use std::sync::Arc;

use keyferry_config::policy::{Host, Reason, Refusal};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::LeafCache;

/// A fatal alert `unrecognized_name`, in cleartext since no keys are agreed on (RFC 8446 section 6.2, RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A finished handshake.
#[derive(Debug)]
pub(crate) struct Accepted<IO> {
    pub(crate) stream: TlsStream<IO>,
    pub(crate) sni: Option<Arc<str>>,
    pub(crate) is_h2: bool,
}

/// A handshake that did not finish.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) refusal: Refusal,
    pub(crate) sni: Option<String>,
}

/// Ends TLS for a tunnel to `host`. The server name must be the host's, or absent.
pub(crate) async fn accept<IO>(leafs: &LeafCache, host: &Host, io: IO) -> Result<Accepted<IO>, Failed>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |reason, message: String, sni: Option<&str>| Failed {
        refusal: Refusal::new(reason, message),
        sni: sni.map(str::to_owned),
    };
    let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), io);
    let start = match (&mut acceptor).await {
        Ok(start) => start,
        Err(error) => {
            return Err(failed(
                Reason::MalformedRequest,
                format!("the TLS ClientHello cannot be read: {error}"),
                None,
            ));
        }
    };
    let sni = start.client_hello().server_name().map(str::to_owned);
    if let Some(sni) = sni.as_deref()
        && sni.parse().ok().as_ref() != Some(host)
    {
        let mut io = start.io;
        // The client may be gone; then there is nobody to tell.
        let _ = io.write_all(&UNRECOGNIZED_NAME).await;
        let _ = io.shutdown().await;
        let message = format!("the TLS server name {sni} is not {host}, which the tunnel is for");
        return Err(failed(Reason::DestinationMismatch, message, Some(sni)));
    }
    let sni = sni.as_deref();
    let config = leafs
        .server_config(host)
        .await
        .map_err(|error| failed(Reason::MalformedRequest, error.to_string(), sni))?;
    let stream = start.into_stream(config).await.map_err(|error| {
        failed(Reason::MalformedRequest, format!("the TLS handshake failed: {}", explain(&error)), sni)
    })?;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Accepted { stream, sni: sni.map(Arc::from), is_h2 })
}

/// A client that does not trust our authority says so with an alert; what to do about it is worth a word.
fn explain(error: &io::Error) -> String {
    use rustls::AlertDescription::{BadCertificate, CertificateUnknown, DecryptError, UnknownCA};
    let alert = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match alert {
        Some(rustls::Error::AlertReceived(
            UnknownCA | BadCertificate | CertificateUnknown | DecryptError,
        )) => {
            format!("{error}; the client does not trust keyferry's authority, see `keyferry ca bundle`")
        }
        _ => error.to_string(),
    }
}
