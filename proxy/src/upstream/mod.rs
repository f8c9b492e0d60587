//! Connections to upstreams: made, kept and lent out.

mod approach;
mod connect;
mod pool;

pub(crate) use approach::{Approach, Dialled, Phase};
pub(crate) use connect::{Connector, upgradeable};
pub(crate) use pool::{Lease, Pool, PoolKey, Slot};
