//! The environment, handed in: only the command line reads the real one.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use secrecy::SecretString;

/// Looks up a variable of the environment.
#[derive(Clone)]
pub struct Environment(Arc<Lookup>);

type Lookup = dyn Fn(&str) -> Option<SecretString> + Send + Sync;

impl Environment {
    /// An environment behind a function, which answers at once.
    pub fn new(lookup: impl Fn(&str) -> Option<SecretString> + Send + Sync + 'static) -> Self {
        Self(Arc::new(lookup))
    }

    /// An environment of exactly these variables.
    pub fn of<N: Into<String>, V: Into<SecretString>>(variables: impl IntoIterator<Item = (N, V)>) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        let variables: HashMap<String, SecretString> = variables.collect();
        Self::new(move |name| variables.get(name).cloned())
    }

    pub(crate) fn get(&self, name: &str) -> Option<SecretString> {
        (self.0)(name)
    }
}

/// Neither names nor values (T46).
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}
