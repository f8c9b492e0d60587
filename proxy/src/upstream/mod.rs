//! Connections to upstreams: made, kept and lent out.

mod approach;
mod connect;
mod mark;
mod pool;

pub(crate) use approach::{Approach, Dialled, Phase};
pub(crate) use connect::{Connector, Peer, upgradeable};
pub(crate) use mark::LoopMark;
pub(crate) use pool::{Lease, Pool, PoolKey, Slot};
