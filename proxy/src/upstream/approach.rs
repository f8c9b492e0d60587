//! How far an exchange has come towards its upstream: for its error, its metrics and its trace, also when its time runs out in the middle.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// What is being waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The name's addresses.
    Dns,
    /// A TCP connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The head of the response.
    Header,
}

/// Written where the phases happen, read where the exchange is.
#[derive(Debug)]
pub(crate) struct Approach {
    phase: AtomicU8,
    dialled: OnceLock<Dialled>,
}

/// A connection that was made for the exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialled {
    pub(crate) began: Instant,
    /// None where the destination is an address.
    pub(crate) dns: Option<Duration>,
    pub(crate) connect: Duration,
    /// None where it is in cleartext.
    pub(crate) tls: Option<Duration>,
    pub(crate) ended: Instant,
}

impl Approach {
    pub(crate) fn new() -> Self {
        Self { phase: AtomicU8::new(Phase::Header as u8), dialled: OnceLock::new() }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(crate) fn phase(&self) -> Phase {
        let phase = self.phase.load(Ordering::Relaxed);
        [Phase::Dns, Phase::Connect, Phase::Tls]
            .into_iter()
            .find(|&known| known as u8 == phase)
            .unwrap_or(Phase::Header)
    }

    /// A connection stands; of several the first counts.
    pub(crate) fn dialled_as(&self, dialled: Dialled) {
        self.enter(Phase::Header);
        // A second one means that the first was of no use; its time is in the total.
        let _ = self.dialled.set(dialled);
    }

    pub(crate) fn dialled(&self) -> Option<&Dialled> {
        self.dialled.get()
    }
}

impl Phase {
    /// What an exchange whose time is over was waiting for.
    pub(crate) fn overdue(self) -> &'static str {
        match self {
            Self::Dns => "the upstream's name was not resolved",
            Self::Connect => "the upstream accepted no connection",
            Self::Tls => "the upstream did not finish the TLS handshake",
            Self::Header => "the upstream sent no response",
        }
    }
}
