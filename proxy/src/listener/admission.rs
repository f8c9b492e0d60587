//! How many connections there may be: in all, and from one address, so that one client leaves room for others (T78).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyferry_config::policy::{Reason, Refusal};

use crate::identity::Peer;

/// All connections: each may need two descriptors, and 20,000 are a common limit.
const MAX_CONNECTIONS: usize = 8_192;
/// Those of one address. Sandboxes behind one address share it.
const MAX_PER_CLIENT: usize = 6_144;
/// Connections beyond the limits that are told so; more are closed without a word.
const MAX_REFUSALS: usize = 256;

/// Whose connections are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    Address(IpAddr),
    Sandbox(Arc<str>),
}

impl From<&Peer> for Client {
    fn from(peer: &Peer) -> Self {
        match peer {
            Peer::At(address) => Self::Address(address.ip()),
            Peer::Sandbox(sandbox) => Self::Sandbox(Arc::clone(&sandbox.id)),
        }
    }
}

/// Counts the connections of the tunnel listeners, and of the sockets of sandboxes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admission(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_client: HashMap<Client, usize>,
    refusals: usize,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Admission,
    /// The client, if it was let in.
    client: Option<Client>,
}

/// What becomes of a connection.
#[derive(Debug)]
pub(crate) enum Entry {
    Admitted(Admitted),
    /// It is answered with this.
    Refused(Admitted, Refusal),
    /// It is closed.
    Dropped,
}

impl Admission {
    pub(crate) fn enter(&self, client: Client) -> Entry {
        let mut counts = self.counts();
        let of_client = counts.by_client.get(&client).copied().unwrap_or(0);
        if counts.all < MAX_CONNECTIONS && of_client < MAX_PER_CLIENT {
            counts.all += 1;
            counts.by_client.insert(client.clone(), of_client + 1);
            return Entry::Admitted(Admitted { admission: self.clone(), client: Some(client) });
        }
        if counts.refusals >= MAX_REFUSALS {
            return Entry::Dropped;
        }
        counts.refusals += 1;
        let whose = match client {
            _ if of_client < MAX_PER_CLIENT => "",
            Client::Address(_) => " from this address",
            Client::Sandbox(_) => " of this sandbox",
        };
        let refusal = Refusal::new(Reason::Overloaded, format!("there are too many connections{whose}"));
        Entry::Refused(Admitted { admission: self.clone(), client: None }, refusal)
    }

    /// How many connections there are.
    pub(crate) fn open(&self) -> usize {
        self.counts().all
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(client) = self.client.take() else {
            counts.refusals -= 1;
            return;
        };
        counts.all -= 1;
        if let Some(of_client) = counts.by_client.get_mut(&client) {
            *of_client -= 1;
            if *of_client == 0 {
                counts.by_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(client: [u8; 4]) -> Client {
        Client::Address(client.into())
    }

    fn admitted(admission: &Admission, client: Client, count: usize) -> Vec<Admitted> {
        let enter = |_| match admission.enter(client.clone()) {
            Entry::Admitted(admitted) => Some(admitted),
            Entry::Refused(..) | Entry::Dropped => None,
        };
        (0..count).map_while(enter).collect()
    }

    #[test]
    fn t78_one_client_leaves_room_for_others_and_all_of_them_for_the_process() {
        let admission = Admission::default();
        let greedy = admitted(&admission, at([10, 0, 0, 1]), usize::MAX);
        assert_eq!(greedy.len(), MAX_PER_CLIENT);
        let others = admitted(&admission, Client::Sandbox("sbx_1".into()), usize::MAX);
        assert_eq!(others.len(), MAX_CONNECTIONS - MAX_PER_CLIENT);

        let told: Vec<_> = (0..MAX_REFUSALS).map(|_| admission.enter(at([10, 0, 0, 3]))).collect();
        assert!(told.iter().all(
            |entry| matches!(entry, Entry::Refused(_, refusal) if refusal.reason == Reason::Overloaded)
        ));
        assert!(matches!(admission.enter(at([10, 0, 0, 3])), Entry::Dropped));

        drop((greedy, others, told));
        assert_eq!(admitted(&admission, at([10, 0, 0, 3]), 10).len(), 10);
        let counts = admission.counts();
        assert_eq!((counts.all, counts.by_client.len(), counts.refusals), (0, 0, 0));
    }
}
