//! Durations as Go writes them, which is what iron-proxy reads: `300ms`, `1h30m`, `-1ns`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Serialize, Serializer};

use super::field::Field;
use super::place::At;
use super::problem::ValueError;
use super::schema::text_schema;

/// A duration in Go's syntax. jiff's own reader wants units in descending order and a fraction only at the end, and it takes
/// days and words; Go takes `1m1h`, `1.5h30m` and nothing longer than an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoDuration(pub SignedDuration);

impl GoDuration {
    /// The same as a span of time; `None` if it is negative.
    pub fn to_std(self) -> Option<Duration> {
        Duration::try_from(self.0).ok()
    }
}

impl From<Duration> for GoDuration {
    fn from(time: Duration) -> Self {
        Self(SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        if rest < 0 {
            f.write_str("-")?;
            rest = -rest;
        }
        for (unit, nanoseconds) in [
            ("h", 3_600_000_000_000),
            ("m", 60_000_000_000),
            ("s", 1_000_000_000),
            ("ms", 1_000_000),
            ("ns", 1),
        ] {
            let count = rest / nanoseconds;
            rest %= nanoseconds;
            if count != 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// For `#[serde(serialize_with)]`: a span of time as the file writes it.
pub(super) fn write<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    GoDuration::from(*time).serialize(serializer)
}

/// A time of at least so many nanoseconds.
pub(super) fn at_least(written: Field<GoDuration>, at: &At<'_>, least: u128) -> Option<Duration> {
    let written = written.get()?;
    let time = written.to_std().filter(|time| time.as_nanos() >= least);
    if time.is_none() {
        let bound = if least == 0 { "cannot be negative" } else { "must be more than zero" };
        at.error(format!("{bound}: {}", at.shown()), ());
    }
    time
}

/// A duration that may also be a whole number of nanoseconds, as iron-proxy's judge takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nanoseconds(pub(super) GoDuration);

impl FromStr for Nanoseconds {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse() {
            Ok(nanoseconds) => Ok(Self(GoDuration(SignedDuration::from_nanos(nanoseconds)))),
            Err(_) => text.parse().map(Self),
        }
    }
}

text_schema!(GoDuration, "duration", { "type": ["string", "integer"], "description": "A duration such as 300ms, 30s, 5m or 1h30m.", "pattern": "^[-+0-9.a-zµμ]+$", "maximum": 0, "minimum": 0 });
text_schema!(Nanoseconds, "duration or nanoseconds", { "type": ["string", "integer"], "description": "A duration such as 300ms, or a number of nanoseconds.", "pattern": "^[-+0-9.a-zµμ]+$" });

const ERROR: ValueError = ValueError {
    message: "not a duration",
    hint: "write numbers with units, such as 300ms, 30s, 5m or 1h30m",
};

impl FromStr for GoDuration {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self(SignedDuration::ZERO));
        }
        if rest.is_empty() {
            return Err(ERROR);
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let (nanoseconds, after) = component(rest).ok_or(ERROR)?;
            total = total.checked_add(nanoseconds).ok_or(ERROR)?;
            rest = after;
        }
        // Go counts nanoseconds in 64 bits, about 292 years.
        let total = i64::try_from(if negative { -total } else { total }).map_err(|_| ERROR)?;
        Ok(Self(SignedDuration::from_nanos(total)))
    }
}

/// One number with its unit, in nanoseconds, and what follows it.
fn component(text: &str) -> Option<(i128, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    // Longer names first: `m` begins `ms`.
    const UNITS: [(&str, i128); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let (unit, rest) = UNITS.iter().find_map(|(name, unit)| Some((*unit, rest.strip_prefix(name)?)))?;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()?.into() };
    let mut nanoseconds = unit.checked_mul(whole)?;
    let mut scale = unit;
    for digit in fraction.bytes() {
        scale /= 10;
        nanoseconds += i128::from(digit - b'0') * scale;
    }
    Some((nanoseconds, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        let cases: [(&str, i64); 16] = [
            ("300ms", 300_000_000),
            ("30s", 30_000_000_000),
            ("5m", 300_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1m1h", 3_660_000_000_000),
            ("1.5h30m", 7_200_000_000_000),
            ("-1ns", -1),
            ("+2s", 2_000_000_000),
            ("0", 0),
            ("0s", 0),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("7us", 7_000),
            ("7µs", 7_000),
            ("7μs", 7_000),
            ("0.0000000001s", 0),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(text.parse(), Ok(GoDuration(SignedDuration::from_nanos(nanoseconds))), "{text}");
        }
    }

    #[test]
    fn is_written_as_it_is_read() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (-1, "-1ns"),
            (5_400_000_000_000, "1h30m"),
            (300_000_000, "300ms"),
            (60_000_000_007, "1m7ns"),
            (i64::MIN, "-2562047h47m16s854ms775808ns"),
        ] {
            let duration = GoDuration(SignedDuration::from_nanos(nanoseconds));
            assert_eq!((duration.to_string().as_str(), expected.parse()), (expected, Ok(duration)));
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        let cases = [
            "30",
            "-",
            "s",
            ".s",
            "1d",
            "1 s",
            "1h ",
            "1h-1m",
            "1e3s",
            "PT1S",
            "1min",
            "ten",
            "9999999h",
            "99999999999999999999s",
        ];
        for text in cases {
            assert_eq!(text.parse::<GoDuration>(), Err(ERROR), "{text}");
        }
    }
}
