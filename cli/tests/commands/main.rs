//! The commands as people and scripts meet them: what goes to stdout, what to stderr, and the exit code.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod ca;
mod check;
mod config_print;
mod control_service;
mod demo;
mod explain;
mod help;
mod keyferry;
mod perms;
mod policy_replay;
mod policy_test;
mod presets;
mod references;
mod unsupported;
mod verbs;
