//! Stand-ins for the APIs of model providers, at their own names and port: each demands its key as the provider does, offers what the
//! provider's clients need, and streams a model that uses one tool and then answers.

mod anthropic;
mod google;
mod model;
mod openai;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response, StatusCode};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use crate::origin::{Body, Handler, Origin, Received, channel, full};

pub use model::{Model, Usage};

/// A running stand-in. Dropping it stops it.
pub struct ModelApi {
    /// Where it is served.
    pub origin: Origin,
    shared: Arc<Shared>,
}

/// Whose API it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The Responses API.
    OpenAi,
    /// The Messages API.
    Anthropic,
    /// The Gemini API.
    Google,
}

impl Provider {
    /// Its host.
    #[must_use]
    pub fn host(self) -> &'static str {
        match self {
            Self::OpenAi => "api.openai.com",
            Self::Anthropic => "api.anthropic.com",
            Self::Google => "generativelanguage.googleapis.com",
        }
    }
}

/// How a stand-in is to be.
pub struct Setup {
    /// Whose API it is.
    pub provider: Provider,
    /// The key that it demands.
    pub key: &'static str,
    /// What its model does.
    pub model: Model,
    /// Whether OpenAI's is offered over WebSocket, too; otherwise an upgrade is answered 426.
    pub web_sockets: bool,
    /// Each piece of an answer to a request as long as this waits for [`ModelApi::open_gate`].
    pub held_from: usize,
}

/// A request that arrived, with all of its body.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Its head.
    pub head: Received,
    /// How long its body was.
    pub length: usize,
    /// Its body; null if it was not JSON.
    pub body: Value,
    /// Whether it was a message on a WebSocket, whose handshake the head is.
    pub message: bool,
}

impl Arrived {
    /// Without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.target.split('?').next().unwrap_or_default()
    }
}

struct Shared {
    setup: Setup,
    gate: Semaphore,
    arrived: Mutex<Vec<Arrived>>,
    changed: watch::Sender<()>,
}

impl ModelApi {
    /// Starts it at its provider's port, on an address of loopback that is its own.
    ///
    /// # Panics
    /// When this user may not listen there.
    pub async fn start(setup: Setup) -> Self {
        let name = setup.provider.host();
        let shared = Arc::new(Shared {
            setup,
            gate: Semaphore::new(0),
            arrived: Mutex::default(),
            changed: watch::Sender::new(()),
        });
        let of_handler = Arc::clone(&shared);
        let handler: Handler = Arc::new(move |request| {
            let shared = Arc::clone(&of_handler);
            Box::pin(async move { shared.answer(request).await })
        });
        let origin = Origin::builder(name).default_port().handler(handler).start().await;
        Self { origin, shared }
    }

    /// Every request that arrived, in order.
    ///
    /// # Panics
    /// Never: nobody panics while holding the lock.
    #[must_use]
    pub fn arrived(&self) -> Vec<Arrived> {
        self.shared.arrived.lock().expect("no holder of this lock panics").clone()
    }

    /// Waits until one of them is so.
    pub async fn wait_for(&self, what: &str, is_so: impl Fn(&Arrived) -> bool) {
        let mut changes = self.shared.changed.subscribe();
        let arrival = async {
            while !self.arrived().iter().any(&is_so) {
                changes.changed().await.expect("the log outlives those who wait on it");
            }
        };
        crate::within(what, arrival).await;
    }

    /// Lets that many pieces of held answers go.
    pub fn open_gate(&self, pieces: usize) {
        self.shared.gate.add_permits(pieces);
    }
}

impl Shared {
    async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Response<Body> {
        let head = Received::head(&request);
        let upgrade = request.headers().contains_key("sec-websocket-key");
        let upgraded = upgrade.then(|| hyper::upgrade::on(&mut request));
        let body = match request.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => Bytes::new(),
        };
        let arrived = Arrived {
            head,
            length: body.len(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            message: false,
        };
        self.note(arrived.clone());
        match self.setup.provider {
            Provider::OpenAi => openai::answer(self, &arrived, upgraded),
            Provider::Anthropic => anthropic::answer(self, &arrived),
            Provider::Google => google::answer(self, &arrived),
        }
    }

    fn note(&self, arrived: Arrived) {
        self.arrived.lock().expect("no holder of this lock panics").push(arrived);
        self.changed.send_replace(());
    }

    /// Whether the request carries the key, in a header and with these words before it.
    fn is_key(&self, request: &Arrived, header: &str, before: &str) -> bool {
        let shown = request.head.header(header).and_then(|value| value.strip_prefix(before));
        shown == Some(self.setup.key)
    }

    /// Waits, where a request of that length has to.
    async fn pass_gate(&self, length: usize) {
        if length >= self.setup.held_from {
            self.gate.acquire().await.expect("the gate is never closed").forget();
        }
    }

    /// Server-sent events that answer a request of that length, each a piece of its own.
    fn stream(self: Arc<Self>, length: usize, events: Vec<String>) -> Response<Body> {
        let (sender, body) = channel();
        tokio::spawn(async move {
            for event in events {
                self.pass_gate(length).await;
                if sender.send(Ok(Frame::data(Bytes::from(event)))).await.is_err() {
                    return;
                }
            }
        });
        let answer = Response::builder().header(CONTENT_TYPE, "text/event-stream; charset=utf-8");
        answer.header("cache-control", "no-cache").body(body).expect("a constant head")
    }
}

/// An answer in one piece.
fn document(status: StatusCode, content: &Value) -> Response<Body> {
    let answer = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    answer.body(full(content.to_string())).expect("a constant head")
}
