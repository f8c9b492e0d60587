//! The shapes that services, and the tools that read their output, exchange.

pub mod audit;
pub mod chain;
pub mod sync;
