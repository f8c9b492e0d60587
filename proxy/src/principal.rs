//! Somebody on whose behalf requests leave, with the policy that counts for them now.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::data_plane::Generation;
use crate::open::OpenTunnels;

/// One principal: what it may do, and what it has open. A new policy is put in place of the old one and reaches what is open.
#[derive(Debug)]
pub(crate) struct Principal {
    /// What records and the pool call it.
    pub(crate) id: Arc<str>,
    pub(crate) generation: ArcSwap<Generation>,
    pub(crate) open: OpenTunnels,
}

/// What a new policy ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) tunnels: usize,
    pub(crate) exchanges: usize,
}

impl Principal {
    pub(crate) fn new(id: &str, generation: Generation) -> Arc<Self> {
        Arc::new(Self {
            id: id.into(),
            generation: ArcSwap::from_pointee(generation),
            open: OpenTunnels::default(),
        })
    }

    /// This counts from now on. What is open is judged by [`Principal::judge_again`].
    pub(crate) fn put(&self, generation: Generation) {
        self.generation.store(Arc::new(generation));
    }

    /// Ends what the policy that is in force does not allow.
    pub(crate) fn judge_again(&self) -> Ended {
        let policy = Arc::clone(&self.generation.load().policy);
        let (tunnels, exchanges) = self.open.judge_again(&policy);
        Ended { tunnels, exchanges }
    }
}

impl std::ops::AddAssign for Ended {
    fn add_assign(&mut self, more: Self) {
        self.tunnels += more.tunnels;
        self.exchanges += more.exchanges;
    }
}
