//! The connection to the control service: a stream where there is one, and asking again and again elsewhere.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use jiff::Timestamp;
use keyferry_contract::sync::{
    Capability, Generation, Message, PolicyOf, Reach, Request, Response as Polled, Serves,
};
use tokio::time::{sleep, timeout};

use super::connect::{Requests, SyncError, whole};
use super::enforce::Taken;
use super::events::Events;
use super::standing::Standing;

/// Control shows life every 10 s; three times as long without is a dead connection.
const SILENCE: Duration = Duration::from_secs(30);
/// How long after a failure control is asked again: from here, doubling, to there.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Hears control until it revokes this proxy.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) requests: Arc<Requests>,
    pub(super) standing: Arc<Standing>,
    pub(super) poll_interval: Duration,
    /// Where sandboxes reach this proxy.
    pub(super) address: Option<String>,
}

impl Client {
    pub(super) async fn run(self) {
        let mut wait = FIRST_WAIT;
        let mut streams = true;
        // Where a state did not fit what is held, everything is asked for.
        let mut resume = true;
        loop {
            let heard_before = self.standing.line().last_sync;
            let error = if streams { self.stream(resume).await } else { self.poll().await };
            self.standing.enforcer().abandon();
            let error = match error {
                Ok(()) => {
                    wait = FIRST_WAIT;
                    self.pause(jittered(self.poll_interval, 10)).await;
                    continue;
                }
                Err(SyncError::Revoked) => {
                    self.standing.enforcer().revoke();
                    self.standing.line().error = Some(SyncError::Revoked.to_string());
                    self.standing.announce(None);
                    return;
                }
                Err(SyncError::NoStream) => {
                    tracing::info!("the control service has no stream, and is asked again and again");
                    streams = false;
                    continue;
                }
                Err(error) => error,
            };
            resume = !matches!(error, SyncError::Enforce(_) | SyncError::Malformed(_));
            if self.standing.line().last_sync != heard_before {
                wait = FIRST_WAIT;
            }
            tracing::warn!(%error, "the control service was not heard; what it said last stays in force for now");
            self.standing.line().error = Some(error.to_string());
            self.pause(jittered(wait, 50)).await;
            wait = wait.saturating_mul(2).min(LONGEST_WAIT);
        }
    }

    /// Until then, or until somebody pokes.
    async fn pause(&self, wait: Duration) {
        tokio::select! {
            () = sleep(wait) => {}
            () = self.standing.poke.notified() => {}
        }
    }

    /// Hears the stream to its end, which is always an error.
    async fn stream(&self, resume: bool) -> Result<(), SyncError> {
        let sockets = self.standing.enforcer().sockets.is_some();
        let can = |capability: &Capability| *capability != Capability::SandboxSockets || sockets;
        let names: Vec<&str> = Capability::ALL.into_iter().filter(can).map(Capability::name).collect();
        let path = format!("/api/v1/proxy/stream?capabilities={}", names.join(","));
        let held = self.standing.enforcer().state.clone().filter(|_| resume);
        let held = held.map(|held| (HeaderName::from_static("last-event-id"), held.to_string()));
        let response = self.requests.send(Method::GET, &path, held.as_slice(), Vec::new()).await;
        let response = response.map_err(|error| match error {
            SyncError::Refused { status: StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED } => {
                SyncError::NoStream
            }
            other => other,
        })?;
        self.standing.line().by = Some("stream");
        let mut body = response.into_body();
        let mut events = Events::default();
        // Whether this connection knows what is held, so that its signs of life stand by it.
        let mut told = !held.as_slice().is_empty();
        loop {
            let frame = tokio::select! {
                frame = timeout(SILENCE, body.frame()) => frame.map_err(|_| SyncError::Silent)?,
                () = self.standing.poke.notified() => {
                    // The stream is as new as can be, if it lives.
                    continue;
                }
            };
            let frame = frame.ok_or(SyncError::Ended)?.map_err(|_| SyncError::Ended)?;
            let Ok(bytes) = frame.into_data() else { continue };
            let mut committed = false;
            events.push(&bytes, |data| {
                let message = serde_json::from_slice::<Message>(data).map_err(malformed)?;
                match self.standing.enforcer().take(message, Timestamp::now())? {
                    Taken::More => Ok(()),
                    Taken::InForce => {
                        committed = true;
                        Ok(())
                    }
                    Taken::Revoked => Err(SyncError::Revoked),
                }
            })?;
            told |= committed;
            if told && !committed {
                self.standing.enforcer().confirm(Duration::ZERO);
            }
            if told {
                self.standing.heard(self.address.as_deref());
            }
        }
    }

    /// Asks once, as iron-proxy does.
    async fn poll(&self) -> Result<(), SyncError> {
        let config_hash = self.standing.status().config_hash;
        let one = |capability: &Capability| {
            !matches!(capability, Capability::Sandboxes | Capability::SandboxSockets)
        };
        let capabilities = Capability::ALL.into_iter().filter(one).collect();
        let body = serde_json::to_vec(&Request { config_hash: config_hash.clone(), capabilities });
        let body = body.map_err(malformed)?;
        let response = self.requests.send(Method::POST, "/api/v1/proxy/sync", &[], body).await?;
        let text = whole(response).await?;
        let Polled { config_hash: hash, payload } = serde_json::from_slice(&text).map_err(malformed)?;
        self.standing.line().by = Some("poll");
        {
            let mut enforcer = self.standing.enforcer();
            match payload {
                Some(payload) => {
                    // iron-control counts nothing: its states are counted here.
                    let counted = || Generation {
                        epoch: String::new(),
                        number: enforcer.state.as_ref().map_or(1, |held| held.number + 1),
                    };
                    let generation = payload.generation.unwrap_or_else(counted);
                    let of = PolicyOf {
                        id: payload.principal_id.clone().unwrap_or_default(),
                        config_hash: hash,
                        status: payload.status,
                        principal_id: payload.principal_id,
                        requester_principal_id: None,
                        policy: payload.policy,
                    };
                    let now = Timestamp::now();
                    let begin = Message::Begin { reach: Reach::Everything, serves: Serves::Dedicated };
                    for message in [begin, Message::Policy(of), Message::Commit { generation }] {
                        enforcer.take(message, now)?;
                    }
                }
                None if config_hash.as_ref() == Some(&hash) => enforcer.confirm(Duration::ZERO),
                None => return Err(SyncError::Malformed("an answer without a policy".to_owned())),
            }
        }
        self.standing.heard(self.address.as_deref());
        Ok(())
    }
}

/// Says what is enforced, whenever that changes.
pub(super) async fn report(requests: Arc<Requests>, standing: Arc<Standing>) {
    let mut applied = standing.applied.subscribe();
    let mut wait = FIRST_WAIT;
    while applied.changed().await.is_ok() {
        loop {
            let Some(report) = applied.borrow_and_update().clone() else { break };
            let Ok(body) = serde_json::to_vec(&report) else { break };
            match requests.send(Method::POST, "/api/v1/proxy/applied", &[], body).await {
                Ok(_) => {
                    wait = FIRST_WAIT;
                    break;
                }
                // iron-control does not want to know.
                Err(SyncError::Refused {
                    status: StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED,
                }) => return,
                Err(error) => {
                    tracing::debug!(%error, "what is applied could not be reported");
                    sleep(wait).await;
                    wait = wait.saturating_mul(2).min(LONGEST_WAIT);
                }
            }
        }
    }
}

/// Ends what has ended, when it has.
pub(super) async fn watch_the_clock(standing: Arc<Standing>) {
    /// A clock that is set leaves no end unnoticed for longer.
    const LOOK: Duration = Duration::from_secs(5);
    loop {
        let next = standing.enforcer().tick(Timestamp::now());
        tokio::select! {
            () = sleep(next.min(LOOK).max(Duration::from_millis(1))) => {}
            () = standing.changed.notified() => {}
        }
    }
}

/// Some per cent more or less, so that many proxies do not ask at once.
fn jittered(wait: Duration, percent: u32) -> Duration {
    let mut byte = [0; 1];
    // Without randomness all ask at once, which is no harm to this one.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    let share = f64::from(byte[0]) / 127.5 - 1.0;
    wait.mul_f64(1.0 + share * f64::from(percent) / 100.0)
}

fn malformed(error: serde_json::Error) -> SyncError {
    // Its own words may hold a piece of the text.
    SyncError::Malformed(format!("{:?} at line {} column {}", error.classify(), error.line(), error.column()))
}
