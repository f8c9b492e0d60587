//! Medians of rounds.

use super::measure::Sample;
use super::patience::is_quiet;
use crate::load::Outcome;

/// A figure over all rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) least: f64,
    pub(super) median: f64,
    pub(super) most: f64,
}

impl Spread {
    /// None if there are no values.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&least, &most) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { least, median, most })
    }
}

/// All runs.
#[derive(Clone, Debug)]
pub(super) struct Samples(pub(super) Vec<Sample>);

impl Samples {
    /// A figure of one target in one scenario, of the runs that nobody disturbed where there are some; none if it did not run.
    pub(super) fn figure(
        &self,
        scenario: &str,
        target: &str,
        figure: impl Fn(&Outcome) -> Option<f64>,
    ) -> Option<Spread> {
        let outcomes: Vec<&Outcome> = self.runs(scenario, target).filter_map(Sample::outcome).collect();
        let any_quiet = outcomes.iter().any(|outcome| is_quiet(outcome));
        let counts = outcomes.into_iter().filter(|outcome| !any_quiet || is_quiet(outcome));
        Spread::of(counts.filter_map(figure))
    }

    /// How many of them somebody else disturbed.
    pub(super) fn disturbed(&self) -> usize {
        self.0.iter().filter_map(Sample::outcome).filter(|outcome| !is_quiet(outcome)).count()
    }

    /// Whether every one of its runs failed.
    pub(super) fn failed(&self, scenario: &str, target: &str) -> bool {
        let mut runs = self.runs(scenario, target).peekable();
        runs.peek().is_some() && runs.all(|sample| sample.outcome().is_none())
    }

    fn runs<'a>(&'a self, scenario: &'a str, target: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.scenario == scenario && sample.target == target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_middle_two() {
        let spread = |values: &[f64]| {
            Spread::of(values.iter().copied()).map(|spread| (spread.least, spread.median, spread.most))
        };
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some((1.0, 2.0, 3.0)));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), Some((1.0, 2.5, 4.0)));
        assert_eq!(spread(&[]), None);
    }
}
