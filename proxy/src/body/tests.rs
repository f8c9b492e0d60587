use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::*;

/// Sends a body of five bytes, one after each of these pauses, and says what was read of it.
async fn read(pauses: &[u64]) -> Result<Bytes, BodyError> {
    let (mut client, server) = tokio::io::duplex(1024);
    let (result, mut results) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Incoming>| {
        let result = result.clone();
        async move {
            let body = RequestBody::stream(request.into_body(), Arc::default(), None);
            let _ = result.send(body.collect().await.map(http_body_util::Collected::to_bytes));
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(server), service);
    let serving = tokio::spawn(async move { connection.await.map_err(drop) });
    client.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n").await.unwrap();
    for &pause in pauses {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        // The other side may have given up.
        let _ = client.write_all(b"x").await;
    }
    let read = results.recv().await.unwrap();
    serving.abort();
    read
}

#[tokio::test(start_paused = true)]
async fn t32_a_body_that_stands_still_is_given_up_and_one_that_comes_slowly_is_not() {
    assert_eq!(read(&[50, 50, 50, 50, 50]).await.unwrap(), "xxxxx");
    let given_up = read(&[1, 1, 200]).await;
    assert!(matches!(given_up, Err(BodyError::Stalled(REQUEST_PROGRESS))), "{given_up:?}");
}
