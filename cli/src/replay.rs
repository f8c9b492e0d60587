//! Yesterday's traffic under another policy: each audit record is judged again by `config::policy`.

mod changes;
mod judge;
mod log;
mod shape;

pub(crate) use changes::{Changes, Kind};
pub(crate) use judge::Judge;
pub(crate) use log::{Line, Log};
