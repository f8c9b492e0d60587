//! The fuzz targets: what hostile bytes reach first, each held to a naive oracle.
//!
//! A target is a function over any bytes that panics where a promise is broken. libFuzzer calls it through `fuzz_targets/`, and
//! `tests/seeds.rs` calls it in every test run over `seeds/` and what pseudo-random changes make of them.

#![expect(clippy::expect_used, reason = "a target that cannot go on has found something")]

pub mod client_hello;
pub mod config;
pub mod guard;
pub mod matcher;
pub mod redactor;
mod splits;
pub mod swap;
pub mod websocket;

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which its seeds' folder and its file in `fuzz_targets/` have too.
    pub name: &'static str,
    /// Holds any bytes to what was promised.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "client_hello", run: client_hello::run },
    Target { name: "config", run: config::run },
    Target { name: "guard", run: guard::run },
    Target { name: "matcher", run: matcher::run },
    Target { name: "redactor", run: redactor::run },
    Target { name: "swap", run: swap::run },
    Target { name: "websocket", run: websocket::run },
];
