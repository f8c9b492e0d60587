//! "Did you mean": the valid word that is nearest to the one that was written.

/// The candidate that a small slip turns into `word`, if there is one.
fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(word);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&folded, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| {
            let longer = folded.len().max(candidate.len());
            *distance <= (longer / 3).clamp(1, 3) || (candidate.len() >= 4 && folded.starts_with(candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The hint for a word that is not one of `candidates`.
pub(crate) fn hint(word: &str, candidates: &[&str]) -> Option<String> {
    match nearest(word, candidates.iter().copied()) {
        Some(candidate) => Some(format!("did you mean \"{candidate}\"?")),
        None if candidates.is_empty() => None,
        None => Some(format!("valid here: {}", candidates.join(", "))),
    }
}

/// `matchHeaders`, `match-headers` and `match_headers` are the same word to a person.
fn fold(word: &str) -> String {
    // Long garbage is never a slip, and the distance is quadratic in its length.
    word.chars().take(64).filter(|c| !matches!(c, '_' | '-')).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_anything_else_does_not() {
        let keys = ["match_headers", "match_body", "require", "proxy_value", "host", "ports"];
        let cases = [
            ("requrie", Some("require")),
            ("matchHeaders", Some("match_headers")),
            ("proxy-value", Some("proxy_value")),
            ("port", Some("ports")),
            ("hots", Some("host")),
            ("hostname", Some("host")),
            ("banana", None),
            ("", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, keys), expected, "{word}");
        }
    }
}
