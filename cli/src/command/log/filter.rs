//! Which records are asked for.

use jiff::{SignedDuration, Timestamp};
use keyferry_config::document::GoDuration;
use keyferry_contract::audit::{Action, Line, Record};

#[derive(clap::Args)]
pub(super) struct Filter {
    /// Only those of this principal
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Only those for this host, or for the names under it: *.example
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Only those that ended so
    #[arg(long, value_name = "VERDICT", conflicts_with = "refused")]
    verdict: Option<Verdict>,
    /// Only those that were refused: --verdict reject
    #[arg(long)]
    refused: bool,
    /// Only those with this code, such as host_not_allowed
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Only those that began at that time or later: 2026-11-22T12:30:00Z, or 15m for so long ago
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Only those inside tunnels to this target
    #[arg(long, value_name = "HOST:PORT")]
    tunnel: Option<String>,
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Verdict {
    Allow,
    Reject,
    Error,
    ClientCancel,
}

#[derive(Clone, Copy)]
enum Since {
    Time(Timestamp),
    Ago(SignedDuration),
}

impl std::str::FromStr for Since {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(time) = text.parse() {
            return Ok(Self::Time(time));
        }
        let ago = text.parse().map(|GoDuration(ago)| Self::Ago(ago));
        ago.map_err(|_| "write a time such as 2026-11-22T12:30:00Z, or a duration such as 15m")
    }
}

/// A filter at a certain moment.
pub(super) struct Wanted {
    filter: Filter,
    since: Timestamp,
}

impl Filter {
    pub(super) fn at(self, now: Timestamp) -> Wanted {
        let since = match self.since {
            None => Timestamp::MIN,
            Some(Since::Time(time)) => time,
            Some(Since::Ago(ago)) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        };
        Wanted { filter: self, since }
    }

    /// Whether requests are picked by what they are: then lines about the log itself are not asked for.
    fn picks(&self) -> bool {
        let Self { principal, host, verdict, refused, reason, since: _, tunnel } = self;
        *refused || verdict.is_some() || [principal, host, reason, tunnel].into_iter().any(Option::is_some)
    }
}

impl Wanted {
    pub(super) fn takes(&self, line: &Line<'_>) -> bool {
        match line {
            Line::Request(record) => record.time >= self.since && self.picks(record),
            Line::Event(event) => event.time >= self.since && !self.filter.picks(),
        }
    }

    fn picks(&self, record: &Record<'_>) -> bool {
        let Filter { principal, host, verdict, refused, reason, since: _, tunnel } = &self.filter;
        let audit = &record.audit;
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        let verdict = if *refused { Some(Verdict::Reject) } else { *verdict };
        is(principal, Some(&audit.principal))
            && host.as_deref().is_none_or(|pattern| is_host(pattern, &audit.host))
            && verdict.is_none_or(|verdict| verdict == audit.action.into())
            && is(reason, audit.reason.as_deref())
            && is(tunnel, record.tunnel.as_ref().map(|tunnel| &*tunnel.target))
    }
}

fn is_host(pattern: &str, host: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    match pattern.strip_prefix('*') {
        Some(suffix) if suffix.starts_with('.') => host.ends_with(suffix),
        _ => host == pattern,
    }
}

impl From<Action> for Verdict {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Reject => Self::Reject,
            Action::Error => Self::Error,
            Action::ClientCancel => Self::ClientCancel,
        }
    }
}
