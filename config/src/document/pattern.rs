//! Whether a host or path pattern is one at all. What it matches is the policy's business.

use std::net::IpAddr;

use crate::policy::Host;

/// Why a pattern is none. Neither text holds the pattern, which may come from the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadPattern {
    pub(super) message: String,
    pub(super) hint: Option<&'static str>,
}

impl BadPattern {
    fn new(message: impl Into<String>, hint: impl Into<Option<&'static str>>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

/// Wildcards cost the matcher memory; a text without them may be as long as it likes.
const MAX_GLOB: usize = 1024;

const WILDCARDS: [char; 4] = ['*', '?', '[', '\\'];

/// A host: a name, an address, `*`, `*.suffix`, or a glob.
pub(super) fn host(pattern: &str) -> Result<(), BadPattern> {
    if pattern.contains("://") {
        return Err(BadPattern::new(
            "a host holds no scheme",
            "write the host alone, and the scheme as schemes: [https] in a rule",
        ));
    }
    if address(pattern).is_some() || pattern == "*" {
        return Ok(());
    }
    if pattern.contains('/') {
        return Err(BadPattern::new(
            "a host holds no path",
            "write the host alone, and the path as paths: [\"/v1/*\"] in a rule; a range of addresses is a cidr",
        ));
    }
    if pattern.contains(':') {
        return Err(BadPattern::new(
            "a host holds no port",
            "write the host alone, and the port as ports: [8443] in a rule",
        ));
    }
    if pattern.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(BadPattern::new("a host holds no space", None));
    }
    let name = pattern.strip_suffix('.').unwrap_or(pattern);
    let suffix = match name.strip_prefix("*.") {
        Some(suffix) if !suffix.contains(WILDCARDS) => suffix,
        None if !name.contains(WILDCARDS) => name,
        _ => return host_glob(name),
    };
    name_like(suffix)
}

/// An address literal, in brackets or not.
fn address(text: &str) -> Option<IpAddr> {
    let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inside {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

fn name_like(name: &str) -> Result<(), BadPattern> {
    match name.parse::<Host>() {
        Ok(Host::Name(_)) => Ok(()),
        Ok(Host::Ip(_)) => {
            Err(BadPattern::new("an address has no names below it", "ranges of addresses are a cidr"))
        }
        Err(error) => Err(BadPattern::new(error.to_string(), None)),
    }
}

fn host_glob(name: &str) -> Result<(), BadPattern> {
    if name == "*" {
        return Err(BadPattern::new("nothing follows the `*.`", "write `*` for every host"));
    }
    if !name.is_ascii() {
        return Err(BadPattern::new(
            "a wildcard and letters outside of ASCII do not go together",
            "write the labels in their xn-- form",
        ));
    }
    // As it is matched: a range that runs forwards in mixed case may run backwards then.
    glob(&name.to_ascii_lowercase())?;
    let after = name.rfind(['*', '?', '[', ']', '\\']).map_or(0, |last| last + 1);
    match name[after..].split_once('.') {
        Some((_, suffix)) if !suffix.is_empty() => name_like(suffix),
        Some(_) => Err(BadPattern::new("a label is empty", None)),
        None => Ok(()),
    }
}

/// A path: it begins with `/`, and may be a glob or end in `/*`.
pub(super) fn path(pattern: &str) -> Result<(), BadPattern> {
    if !pattern.starts_with('/') {
        return Err(BadPattern::new("a path begins with `/`", "write \"/*\" for every path"));
    }
    if pattern.contains(WILDCARDS) { glob(pattern) } else { Ok(()) }
}

/// The wildcards of a shell: `*`, `?`, `[a-z]`, `[!a-z]`, `\` before a character that is meant literally.
fn glob(pattern: &str) -> Result<(), BadPattern> {
    if pattern.len() > MAX_GLOB {
        return Err(BadPattern::new(
            format!("a pattern with wildcards holds at most {MAX_GLOB} bytes"),
            None,
        ));
    }
    let mut rest = pattern.chars();
    while let Some(character) = rest.next() {
        match character {
            '\\' if rest.next().is_none() => {
                return Err(BadPattern::new(
                    "`\\` at the end escapes nothing",
                    "write `\\\\` for a backslash",
                ));
            }
            '[' => class(&mut rest)?,
            _ => {}
        }
    }
    Ok(())
}

/// The inside of `[…]`: single characters and ranges, a `-` only as the first or the last.
fn class(rest: &mut std::str::Chars<'_>) -> Result<(), BadPattern> {
    let open = || BadPattern::new("`[` opens a class that no `]` closes", "write `\\[` for a bracket");
    let mut members: Vec<(char, bool)> = Vec::new();
    let mut first = true;
    loop {
        let character = rest.next().ok_or_else(open)?;
        match character {
            ']' if members.is_empty() => {
                return Err(BadPattern::new("`[]` is a class of nothing", "write `\\[` for a bracket"));
            }
            ']' => break,
            '!' | '^' if first => {}
            '\\' => members.push((rest.next().ok_or_else(open)?, true)),
            _ => members.push((character, false)),
        }
        first = false;
    }
    let dash = |index: usize| members.get(index) == Some(&('-', false));
    let mut index = usize::from(dash(0));
    while index < members.len() {
        if dash(index) {
            if index + 1 != members.len() {
                return Err(BadPattern::new(
                    "a `-` in a class belongs between two characters",
                    "write `\\-` for a dash",
                ));
            }
            index += 1;
        } else if dash(index + 1) && index + 2 < members.len() {
            let (low, high) = (members[index].0, members[index + 2].0);
            if low > high || dash(index + 2) {
                return Err(BadPattern::new("a range in a class runs backwards", "write it as [a-z]"));
            }
            index += 3;
        } else {
            index += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_globs_are_accepted() {
        for pattern in [
            "api.example",
            "API.example.",
            "*",
            "*.example",
            "*.bücher.example",
            "bücher.example",
            "api-*.example",
            "*.api-[a-z0-9-]?.example",
            "api\\*.example",
            "*.*",
            "*example",
            "my_host",
            "192.0.2.7",
            "::1",
            "[2001:db8::1]",
        ] {
            assert_eq!(host(pattern), Ok(()), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let cases = [
            ("https://api.example", "a host holds no scheme"),
            ("api.example:8443", "a host holds no port"),
            ("*.example:443", "a host holds no port"),
            ("[::1]:443", "a host holds no port"),
            ("api.example/v1", "a host holds no path"),
            ("10.0.0.0/8", "a host holds no path"),
            ("api example", "a host holds no space"),
            ("api..example", "the host name or one of its labels is empty or too long"),
            ("*.", "nothing follows the `*.`"),
            ("*.10.0.0.1", "an address has no names below it"),
            ("10.0.0", "the host looks like an IPv4 address but is not four decimal numbers"),
            ("api-[a-z.example", "`[` opens a class that no `]` closes"),
            ("api-[].example", "`[]` is a class of nothing"),
            ("api-[z-a].example", "a range in a class runs backwards"),
            ("api-[a-c-e].example", "a `-` in a class belongs between two characters"),
            ("api.example\\", "`\\` at the end escapes nothing"),
            ("bü*.example", "a wildcard and letters outside of ASCII do not go together"),
            ("api%2e.example", "the host contains a character that no host name may contain"),
        ];
        for (pattern, message) in cases {
            assert_eq!(host(pattern).map_err(|bad| bad.message), Err(message.to_owned()), "{pattern}");
        }
    }

    #[test]
    fn paths_begin_with_a_slash() {
        for pattern in ["/", "/*", "/v1/*", "/v?/[a-z]*/x", "/a\\*b", "/ü/*"] {
            assert_eq!(path(pattern), Ok(()), "{pattern}");
        }
        for (pattern, message) in [
            ("", "a path begins with `/`"),
            ("*", "a path begins with `/`"),
            ("v1/*", "a path begins with `/`"),
            ("/v[1", "`[` opens a class that no `]` closes"),
        ] {
            assert_eq!(path(pattern).map_err(|bad| bad.message), Err(message.to_owned()), "{pattern}");
        }
    }
}
