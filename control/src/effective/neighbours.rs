//! Which secrets may meet: those that write the same place, for hosts that overlap. Without it each would be compared with all.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Candidate;
use super::hosts::Pattern;
use crate::secret::Target;

/// Candidates, by what they write and where.
pub(super) struct Neighbours {
    by_target: HashMap<Target, Writers>,
}

impl Neighbours {
    /// Of those that are delivered, by their place in the list.
    pub(super) fn of(candidates: &[Candidate<'_>]) -> Self {
        let mut by_target: HashMap<Target, Writers> = HashMap::new();
        for (at, candidate) in candidates.iter().enumerate().filter(|(_, candidate)| candidate.held.delivered)
        {
            for target in candidate.secret.spec.facts().targets() {
                let writers = by_target.entry(target).or_default();
                candidate.rules.iter().for_each(|placed| writers.insert(&placed.hosts, at));
            }
        }
        Self { by_target }
    }

    /// The weaker ones that the candidate at `at` may meet, and what both write; the strongest first.
    pub(super) fn weaker(&self, candidates: &[Candidate<'_>], at: usize) -> Vec<(usize, Target)> {
        let mut found = BTreeSet::new();
        for target in candidates[at].secret.spec.facts().targets() {
            let Some(writers) = self.by_target.get(&target) else { continue };
            for placed in &candidates[at].rules {
                writers.meeting(&placed.hosts, |other| {
                    if other < at && !candidates[other].rules.is_empty() {
                        found.insert((other, target.clone()));
                    }
                });
            }
        }
        found.into_iter().rev().collect()
    }
}

/// The writers of one place.
#[derive(Default)]
struct Writers {
    /// By names that are read from their end: whatever is under a suffix stands together.
    names: BTreeMap<String, Vec<usize>>,
    suffixes: BTreeMap<String, Vec<usize>>,
    /// Those that may meet any name.
    wide: Vec<usize>,
    nets: Vec<usize>,
}

impl Writers {
    fn insert(&mut self, hosts: &Pattern, at: usize) {
        match hosts {
            Pattern::Name(name) => self.names.entry(from_its_end(name)).or_default().push(at),
            Pattern::Suffix(suffix) => self.suffixes.entry(from_its_end(suffix)).or_default().push(at),
            Pattern::Any | Pattern::Glob(_) => self.wide.push(at),
            Pattern::Net(_) => self.nets.push(at),
        }
    }

    /// Shows all that may overlap with these hosts, some of them more than once.
    fn meeting(&self, hosts: &Pattern, mut show: impl FnMut(usize)) {
        match hosts {
            Pattern::Name(name) => {
                let name = from_its_end(name);
                self.names.get(&name).into_iter().flatten().for_each(|at| show(*at));
                self.above(&name, &mut show);
            }
            Pattern::Suffix(suffix) => {
                let suffix = from_its_end(suffix);
                for known in [&self.names, &self.suffixes] {
                    let below = known.range(format!("{suffix}.")..format!("{suffix}/"));
                    below.flat_map(|(_, all)| all).for_each(|at| show(*at));
                }
                self.names.get(&suffix).into_iter().flatten().for_each(|at| show(*at));
                self.above(&suffix, &mut show);
            }
            Pattern::Any | Pattern::Glob(_) => {
                let known = self.names.values().chain(self.suffixes.values());
                known.chain([&self.wide]).flatten().for_each(|at| show(*at));
            }
            Pattern::Net(_) => self.nets.iter().for_each(|at| show(*at)),
        }
    }

    /// The patterns that hold a name and what is under it.
    fn above(&self, name: &str, show: &mut impl FnMut(usize)) {
        let ends = name.match_indices('.').map(|(end, _)| end).chain([name.len()]);
        let suffixes = ends.filter_map(|end| self.suffixes.get(&name[..end]));
        suffixes.chain([&self.wide]).flatten().for_each(|at| show(*at));
    }
}

fn from_its_end(name: &str) -> String {
    name.chars().rev().collect()
}
