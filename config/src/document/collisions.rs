//! Two entries for one placeholder and the same hosts, where nobody said which one wins.

use std::collections::HashMap;

use super::place::At;
use super::rule::{Action, Rule};
use super::secrets::{SecretEntry, SecretMode};

/// Warns at the later of two entries that share a placeholder and may meet in a request.
pub(super) fn warn(entries: &[(At<'_>, SecretEntry)]) {
    let mut by_placeholder: HashMap<&str, Vec<&(At<'_>, SecretEntry)>> = HashMap::new();
    for pair in entries {
        if let SecretMode::Replace(replace) = &pair.1.mode {
            let earlier = by_placeholder.entry(&replace.proxy_value).or_default();
            let rival =
                earlier.iter().find(|(_, other)| !is_ranked(other, &pair.1) && may_meet(other, &pair.1));
            if let Some((place, _)) = rival {
                pair.0.warning(
                    format!("{} has the same placeholder and may have the same host", place.place().path()),
                    "give both a priority; without one the later entry wins",
                );
            }
            earlier.push(pair);
        }
    }
}

fn is_ranked(one: &SecretEntry, other: &SecretEntry) -> bool {
    matches!((one.priority, other.priority), (Some(one), Some(other)) if one != other)
}

fn may_meet(one: &SecretEntry, other: &SecretEntry) -> bool {
    let allowed = |entry: &SecretEntry| -> Vec<Rule> {
        entry.rules.iter().filter(|rule| rule.action == Action::Allow).cloned().collect()
    };
    let others = allowed(other);
    allowed(one).iter().any(|rule| others.iter().any(|other| rules_meet(rule, other)))
}

fn rules_meet(one: &Rule, other: &Rule) -> bool {
    match (&one.host, &other.host, &one.cidr, &other.cidr) {
        (Some(one), Some(other), ..) => hosts_meet(one, other),
        (.., Some(one), Some(other)) => one.contains(other) || other.contains(one),
        _ => false,
    }
}

/// Whether some host matches both. Between two globs it looks at their fixed ends only, so it may say yes too often.
fn hosts_meet(one: &str, other: &str) -> bool {
    let (one, other) = (Ends::of(one), Ends::of(other));
    one.meets(&other) || one.apex_meets(&other) || other.apex_meets(&one)
}

struct Ends {
    prefix: String,
    suffix: String,
    literal: bool,
    /// `*.example` also means `example`.
    apex: Option<String>,
}

impl Ends {
    fn literal(name: String) -> Self {
        Self { prefix: name.clone(), suffix: name, literal: true, apex: None }
    }

    fn of(pattern: &str) -> Self {
        let pattern = pattern.trim_end_matches('.').to_ascii_lowercase();
        let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\');
        let Some(first) = pattern.find(special) else { return Self::literal(pattern) };
        let last = pattern.rfind(special).unwrap_or(first);
        let apex = pattern.strip_prefix("*.").filter(|apex| !apex.contains(special)).map(str::to_owned);
        Self {
            prefix: pattern[..first].to_owned(),
            suffix: pattern[last + 1..].to_owned(),
            literal: false,
            apex,
        }
    }

    fn meets(&self, other: &Self) -> bool {
        match (self.literal, other.literal) {
            (true, true) => self.prefix == other.prefix,
            (true, false) => other.covers(&self.prefix),
            (false, true) => self.covers(&other.prefix),
            (false, false) => {
                let either = |one: &str, other: &str, test: fn(&str, &str) -> bool| {
                    test(one, other) || test(other, one)
                };
                either(&self.prefix, &other.prefix, |one, other| one.starts_with(other))
                    && either(&self.suffix, &other.suffix, |one, other| one.ends_with(other))
            }
        }
    }

    fn apex_meets(&self, other: &Self) -> bool {
        self.apex.as_ref().is_some_and(|apex| Self::literal(apex.clone()).meets(other))
    }

    fn covers(&self, name: &str) -> bool {
        name.len() >= self.prefix.len() + self.suffix.len()
            && name.starts_with(&self.prefix)
            && name.ends_with(&self.suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_meet_where_one_name_can_match_both() {
        for (one, other, expected) in [
            ("api.example", "API.example.", true),
            ("api.example", "web.example", false),
            ("*.example", "api.example", true),
            ("*.example", "example", true),
            ("*.example", "badexample", false),
            ("*.example", "*.api.example", true),
            ("*.example", "*.test", false),
            ("api-*.example", "api-1.example", true),
            ("api-*.example", "web-*.example", false),
            ("*", "anything.test", true),
            ("*", "*.example", true),
        ] {
            assert_eq!(hosts_meet(one, other), expected, "{one} {other}");
            assert_eq!(hosts_meet(other, one), expected, "{other} {one}");
        }
    }
}
