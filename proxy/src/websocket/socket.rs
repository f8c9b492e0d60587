//! An open WebSocket as an exchange: what is looked for in it, what may end it, and what its record says.

use std::sync::Arc;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use keyferry_config::policy::{Plan, Reason};

use super::direction::{Direction, Stop};
use super::extension::Deflate;
use super::frame::Side;
use super::relay::{Event, Relay};
use super::search::Search;
use crate::audit::Recorder;
use crate::data_plane::DataPlane;
use crate::open::OpenExchange;
use crate::session::Bound;
use crate::transform::secrets;
use crate::transform::swap::Swaps;

/// RFC 6455 section 7.4.1.
const GOING_AWAY: u16 = 1001;
const POLICY: u16 = 1008;

/// One of them.
pub(super) struct Socket {
    pub(super) plane: Arc<DataPlane>,
    pub(super) bound: Arc<Bound>,
    pub(super) open: Arc<OpenExchange>,
    pub(super) plan: Plan,
    pub(super) deflate: Option<Deflate>,
    pub(super) recorder: Recorder,
}

enum Ended {
    ByItself,
    Stopped(Stop),
    Draining,
    /// A new policy refuses it; the record says so by itself.
    Aborted,
}

impl Socket {
    /// Relays from the end of the handshake to the end of the connection.
    pub(super) async fn run(mut self, client: OnUpgrade, upstream: OnUpgrade) {
        let swaps = self.swaps().await;
        let swap = swaps.clone().map(Search::Swap);
        let redact = self.bound.redactor().await.map(Search::Redact);
        let (client, upstream) = match tokio::try_join!(client, upstream) {
            Ok((client, upstream)) => (TokioIo::new(client), TokioIo::new(upstream)),
            Err(error) => return self.recorder.fail(Reason::UpstreamReset, error.to_string()),
        };
        let out = Direction::new(Side::Client, self.deflate, swap);
        let back = Direction::new(Side::Server, self.deflate, redact);
        let flow = self.recorder.count_request_body();
        let mut relay = Relay::new(client, upstream, out, back, flow);

        let (plane, open) = (Arc::clone(&self.plane), Arc::clone(&self.open));
        let ended = tokio::select! {
            biased;
            () = open.aborted() => Ended::Aborted,
            () = plane.drain.begun() => Ended::Draining,
            ended = self.carry(&mut relay, swaps.as_deref()) => ended,
        };
        // First what the record says: the rest may be cut short.
        let redacted = relay.back().tally().map_or(0, |tally| tally.redacted);
        self.recorder.entry().redacted += redacted;
        let told = match &ended {
            Ended::ByItself => None,
            Ended::Stopped(Stop { code, refusal }) => {
                let status = self.recorder.entry().status;
                self.recorder.refuse(refusal);
                self.recorder.entry().status = status;
                Some((*code, refusal.reason.code()))
            }
            Ended::Draining => Some((GOING_AWAY, "")),
            Ended::Aborted => Some((POLICY, Reason::PolicyChanged.code())),
        };
        if matches!(ended, Ended::ByItself | Ended::Draining) {
            self.recorder.finish();
        }
        relay.close(told, &mut self.recorder.entry().bytes_out).await;
    }

    async fn carry(
        &mut self,
        relay: &mut Relay<TokioIo<Upgraded>, TokioIo<Upgraded>>,
        swaps: Option<&Swaps>,
    ) -> Ended {
        loop {
            match relay.run(&mut self.recorder.entry().bytes_out).await {
                Event::Over => return Ended::ByItself,
                Event::Stop(stop) => return Ended::Stopped(stop),
                Event::Stale => self.refresh(relay, swaps).await,
            }
        }
    }

    /// Values change while a WebSocket is open (T58).
    async fn refresh(
        &mut self,
        relay: &mut Relay<TokioIo<Upgraded>, TokioIo<Upgraded>>,
        swaps: Option<&Swaps>,
    ) {
        if let Some(swaps) = swaps {
            let Bound { generation, scope, .. } = &*self.bound;
            let actions = secrets::actions(&self.plan, scope, generation, &mut self.recorder).await;
            relay.out().search(Search::Swap(Arc::new(swaps.with(actions))));
        }
        if let Some(redactor) = self.bound.redactor().await {
            relay.back().search(Search::Redact(redactor));
        }
    }

    /// What the client's messages are searched for; nothing if whatever they hold may go on.
    async fn swaps(&mut self) -> Option<Arc<Swaps>> {
        let Bound { generation, scope, .. } = &*self.bound;
        if generation.policy.placeholders().is_empty() {
            return None;
        }
        let actions = secrets::actions(&self.plan, scope, generation, &mut self.recorder).await;
        let idle = self.plan.body.is_empty() && actions.iter().all(|action| action.leaves());
        (!idle).then(|| Arc::new(Swaps::new(&generation.policy, actions)))
    }
}
