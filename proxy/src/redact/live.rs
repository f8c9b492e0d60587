//! Redactors of the values that are live, made anew when one changes and shared by all tunnels that look for the same secrets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use keyferry_config::policy::{Placement, Policy, Scope};
use smallvec::SmallVec;

use super::{Redactor, label};
use crate::data_plane::Generation;

/// How many sets of secrets are kept. A policy has few, whatever hosts a sandbox chooses; past this they are made again.
const CAPACITY: usize = 1024;

/// The redactors of one generation, by the numbers of the secrets that they look for.
#[derive(Debug, Default)]
pub(crate) struct Redactors(Mutex<HashMap<SecretNumbers, Arc<LiveRedactor>>>);

type SecretNumbers = SmallVec<[u32; 8]>;

impl Redactors {
    /// The redactor of what `scope` must not let back; none where no secret is bound. A tunnel asks once.
    pub(crate) fn of(&self, scope: &Scope) -> Option<Arc<LiveRedactor>> {
        let numbers: SecretNumbers = scope.redacted_secrets().collect();
        if numbers.is_empty() {
            return None;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CAPACITY && !known.contains_key(&numbers) {
            known.clear();
        }
        Some(Arc::clone(known.entry(numbers).or_default()))
    }
}

/// Knows the values that some responses must not hold.
#[derive(Debug, Default)]
pub(crate) struct LiveRedactor(ArcSwapOption<Made>);

#[derive(Debug)]
struct Made {
    /// Of each bound secret, in turn.
    versions: Vec<u64>,
    redactor: Arc<Redactor>,
}

impl LiveRedactor {
    /// The redactor for the values that are live now. A bound secret that was never needed is fetched: the upstream may know its value
    /// all the same.
    pub(crate) async fn current(&self, scope: &Scope, generation: &Generation) -> Arc<Redactor> {
        for number in scope.redacted_secrets() {
            let handle = &generation.secrets[number as usize];
            if handle.current().is_none() {
                // A value that cannot be had went nowhere from here; the handle logs why.
                let _ = Box::pin(handle.value()).await;
            }
        }
        let latest = || scope.redacted_secrets().map(|number| generation.secrets[number as usize].latest());
        let made = self.0.load_full();
        if let Some(made) = made.filter(|made| latest().eq(made.versions.iter().copied())) {
            return Arc::clone(&made.redactor);
        }
        let versions = latest().collect();
        let redactor = Arc::new(make(scope, generation));
        self.0.store(Some(Arc::new(Made { versions, redactor: Arc::clone(&redactor) })));
        redactor
    }
}

fn make(scope: &Scope, generation: &Generation) -> Redactor {
    let values: Vec<_> = scope
        .redacted_secrets()
        .flat_map(|number| {
            let label = stand_in(&generation.policy, number);
            generation.secrets[number as usize].live().into_iter().map(move |value| (label.clone(), value))
        })
        .collect();
    Redactor::new(values.iter().map(|(label, value)| (label.clone(), &**value)))
}

/// What the sandbox sees in place of a value.
fn stand_in(policy: &Policy, number: u32) -> String {
    let secret = policy.secret(number);
    match secret.placement() {
        Placement::Replace(replace) => policy.placeholders().text(replace.placeholder).to_owned(),
        Placement::Header(..) | Placement::Query(..) => label(secret.name()),
    }
}

#[cfg(test)]
mod tests {
    use keyferry_config::document;
    use keyferry_config::policy::{Destination, Scheme};

    use super::*;

    const POLICY: &str = "
transforms:
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: A }
          replace: { proxy_value: placeholder-a }
          rules: [{ host: '*.a.example' }]
        - source: { type: env, var: B }
          replace: { proxy_value: placeholder-b }
          rules: [{ host: b.example }]
";

    /// A tunnel to each of many hosts must not cost the tables of a search each.
    #[test]
    fn tunnels_with_the_same_secrets_share_a_redactor() {
        let loaded = document::parse("test.yaml", POLICY, &|_| None, document::Options::default()).unwrap();
        let policy = Arc::new(Policy::compile(&loaded.document, 1).unwrap());
        let redactors = Redactors::default();
        let of = |host: &str| {
            let destination = Destination { scheme: Scheme::Https, host: host.parse().unwrap(), port: 443 };
            redactors.of(&Scope::new(Arc::clone(&policy), destination))
        };

        let [first, second, other] =
            ["one.a.example", "two.a.example", "b.example"].map(|host| of(host).unwrap());

        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &other));
        assert!(of("c.example").is_none());
    }
}
