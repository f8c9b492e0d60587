//! A page of metrics, read as strictly as Prometheus' own linter reads it (text format, version 0.0.4).

use std::collections::{BTreeMap, BTreeSet};

/// Every sample, by its name and labels as written, for example `keyferry_requests_total{outcome="refused"}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Page(BTreeMap<String, f64>);

impl Page {
    /// Reads a page.
    ///
    /// # Panics
    /// When it breaks a rule of the format.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let mut samples = BTreeMap::new();
        let mut families = BTreeSet::new();
        let mut family: Option<(&str, &str)> = None;
        let mut help = None;
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# HELP ") {
                let (name, words) = comment.split_once(' ').unwrap_or((comment, ""));
                assert!(is_name(name) && !words.is_empty(), "a metric without words: {line}");
                help = Some(name);
            } else if let Some(comment) = line.strip_prefix("# TYPE ") {
                let (name, kind) = comment.split_once(' ').expect("a name and a type");
                assert_eq!(help, Some(name), "HELP stands in front of TYPE: {line}");
                assert!(families.insert(name), "a family comes once, in one piece: {line}");
                assert!(matches!(kind, "counter" | "gauge" | "histogram"), "an unknown type: {line}");
                let is_total = name.ends_with("_total");
                assert_eq!(is_total, kind == "counter", "a counter, and no other, ends in _total: {line}");
                family = Some((name, kind));
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a series and a value");
                let (name, kind) = family.expect("a sample belongs to a family");
                let (own, labels) = series.split_once('{').unwrap_or((series, "}"));
                let suffixes: &[&str] =
                    if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                let suffix = own.strip_prefix(name).expect("a sample of its family");
                assert!(suffixes.contains(&suffix), "a sample of another family: {line}");
                check_labels(labels.strip_suffix('}').expect("labels end"), line);
                let value: f64 = value.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
                assert!(value.is_finite() && value >= 0.0, "none of ours is negative: {line}");
                assert!(samples.insert(series.to_owned(), value).is_none(), "a sample comes once: {line}");
            }
        }
        let page = Self(samples);
        page.check_histograms();
        page
    }

    /// The value of a series.
    ///
    /// # Panics
    /// When there is no such series.
    #[track_caller]
    pub fn get(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.0.keys()))
    }

    /// Every series of that family with a value other than 0, without the family's name.
    pub fn counted(&self, family: &str) -> BTreeMap<&str, f64> {
        let of_family = self.0.iter().filter_map(|(series, &value)| {
            let labels =
                series.strip_prefix(family).filter(|rest| rest.is_empty() || rest.starts_with('{'))?;
            (value != 0.0).then_some((labels, value))
        });
        of_family.collect()
    }

    /// Every series.
    pub fn series(&self) -> BTreeSet<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// Buckets hold what those below them hold, and the last holds all.
    fn check_histograms(&self) {
        let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (series, &value) in &self.0 {
            let Some((name, labels)) = series.split_once("_bucket{") else { continue };
            let (others, bound) = labels.rsplit_once("le=\"").expect("a bucket has a bound");
            let bound = bound.trim_end_matches("\"}").replace("+Inf", "inf");
            let others = others.trim_end_matches(',');
            let labels = if others.is_empty() { String::new() } else { format!("{{{others}}}") };
            let bound = bound.parse().expect("a bound is a number");
            buckets.entry(format!("{name}_count{labels}")).or_default().push((bound, value));
        }
        for (count, mut buckets) in buckets {
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{count}: {buckets:?}");
            let last = buckets.last().expect("a bucket");
            assert_eq!(*last, (f64::INFINITY, self.get(&count)), "{count}");
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
}

fn check_labels(labels: &str, line: &str) {
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("not a label: {line}"));
        let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let inner = inner.unwrap_or_else(|| panic!("a value stands in quotes: {line}"));
        // Ours hold nothing that would have to be escaped.
        assert!(is_name(name) && !inner.contains(['"', '\\', '\n']), "{line}");
    }
}
