//! The redactor of one destination, made anew when a value changes.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use keyferry_config::policy::{Placement, Policy, Scope};

use super::{Redactor, label};
use crate::data_plane::Generation;

/// Knows the values that responses from one destination must not hold.
#[derive(Debug, Default)]
pub(crate) struct LiveRedactor(ArcSwapOption<Made>);

#[derive(Debug)]
struct Made {
    /// Of each bound secret, in turn.
    versions: Vec<u64>,
    redactor: Arc<Redactor>,
}

impl LiveRedactor {
    /// The redactor for the values that are live now; none where no secret is bound. A bound secret that was never needed is fetched: the
    /// upstream may know its value all the same.
    pub(crate) async fn current(&self, scope: &Scope, generation: &Generation) -> Option<Arc<Redactor>> {
        if !scope.redacts() {
            return None;
        }
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
            return Some(Arc::clone(&made.redactor));
        }
        let versions = latest().collect();
        let redactor = Arc::new(make(scope, generation));
        self.0.store(Some(Arc::new(Made { versions, redactor: Arc::clone(&redactor) })));
        Some(redactor)
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
