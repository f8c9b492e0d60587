//! The sockets of sandboxes: what the tunnel listener serves, to somebody who is known.

use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::mpsc::UnboundedReceiver;

use super::tunnel::{OUT_OF_DESCRIPTORS, admit};
use crate::data_plane::DataPlane;
use crate::identity::{Opened, Peer};

/// Serves the sockets that are opened, until draining begins.
pub(crate) async fn serve_sockets(plane: Arc<DataPlane>, mut opened: UnboundedReceiver<Opened>) {
    loop {
        let next = tokio::select! {
            next = opened.recv() => next,
            () = plane.drain.begun() => return,
        };
        let Some(next) = next else { return };
        plane.drain.spawn(accept(Arc::clone(&plane), next));
    }
}

/// Accepts connections until the sandbox ends, or draining begins.
async fn accept(plane: Arc<DataPlane>, Opened { listener, sandbox }: Opened) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, sandbox = &*sandbox.id, "the socket of a sandbox cannot be served");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sandbox.ended() => return,
            () = plane.drain.begun() => return,
        };
        match accepted {
            Ok((stream, _)) => admit(&plane, stream, Peer::Sandbox(Arc::clone(&sandbox))),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
            }
        }
    }
}
