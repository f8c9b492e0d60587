//! Something that happens once, and whoever ends with it. Every connection asks at each of its polls, so asking takes no lock.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// Tells one listener.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: AtomicBool,
    waker: AtomicWaker,
}

/// Tells any number of listeners, later ones too.
#[derive(Debug, Default)]
pub(crate) struct Broadcast {
    raised: AtomicBool,
    listeners: Mutex<Vec<Weak<Signal>>>,
}

impl Signal {
    pub(crate) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Ready once it is raised.
    pub(crate) fn poll_raised(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.is_raised() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Completes once it is raised.
    pub(crate) async fn raised(&self) {
        poll_fn(|cx| self.poll_raised(cx)).await;
    }
}

impl Broadcast {
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    pub(crate) fn raise(&self) {
        let listeners = {
            let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            self.raised.store(true, Ordering::Release);
            std::mem::take(&mut *listeners)
        };
        listeners.iter().filter_map(Weak::upgrade).for_each(|listener| listener.raise());
    }

    /// Completes once it is raised.
    pub(crate) async fn raised(&self) {
        self.listener().raised().await;
    }

    fn listener(&self) -> Arc<Signal> {
        let listener = Arc::new(Signal::default());
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_raised() {
            listener.raise();
            return listener;
        }
        // The dead are swept when the list would grow, so that each is looked at a bounded number of times.
        if listeners.len() == listeners.capacity() {
            listeners.retain(|listener| listener.strong_count() > 0);
        }
        listeners.push(Arc::downgrade(&listener));
        listener
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_hears_of_it_whenever_they_ask() {
        let broadcast = Arc::new(Broadcast::default());
        let early: Vec<_> = (0..3)
            .map(|_| {
                let broadcast = Arc::clone(&broadcast);
                tokio::spawn(async move { broadcast.raised().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(!broadcast.is_raised() && early.iter().all(|task| !task.is_finished()));

        broadcast.raise();

        for task in early {
            task.await.expect("heard");
        }
        broadcast.raised().await;
    }

    #[tokio::test]
    async fn those_that_no_longer_listen_are_forgotten() {
        let broadcast = Broadcast::default();
        for _ in 0..1_000 {
            drop(broadcast.listener());
        }
        let held = broadcast.listeners.lock().expect("the list").capacity();
        assert!(held < 16, "room for {held}");
    }
}
