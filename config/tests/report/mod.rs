//! What `keyferry check` prints for a file.

use keyferry_config::document::{Options, parse};

/// Everything that is wrong with a file, whether or not this version runs it; empty if there is nothing to say.
pub(crate) fn report(text: &str) -> String {
    match parse("f.yaml", text, &|_| None, Options::default()) {
        Ok(loaded) => loaded.warnings.to_string(),
        Err(problems) => problems.to_string(),
    }
}
