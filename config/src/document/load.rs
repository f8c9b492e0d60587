//! From the text of a file to a [`Document`], or to everything that is wrong with it.

use serde::Deserialize;

use super::field::{Block, Field};
use super::place::{At, Findings, Place};
use super::problem::{Problems, Severity};
use super::{Action, Audit, Dns, Document, Log, Management, Metrics, Proxy, Tls, Transform};
use super::{interpolate, node, overrides};

/// How strictly a file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Unknown keys inside a transform's `config` are warnings. iron-proxy ignores them, so a file written for it may hold
    /// some.
    pub lenient: bool,
}

/// A file that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What it says.
    pub document: Document,
    /// What its author should look at.
    pub warnings: Problems,
}

/// Reads `text`. `file_name` is for messages alone; `environment` answers `${NAME}` and `IRON_*`.
///
/// The error holds every problem that was found, warnings included.
pub fn parse(
    file_name: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    options: Options,
) -> Result<Loaded, Problems> {
    let mut root = node::parse(text).map_err(|problem| Problems::new(file_name, vec![problem]))?;
    let findings = Findings::new(options.lenient);
    let place = Place::root(root.origin, &findings);
    interpolate::interpolate(&mut root, &place, environment);
    overrides::apply(&mut root, &place, environment);
    let document = Document::read(&At::root(&root, &findings));
    let problems = Problems::new(file_name, findings.into_list());
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(problems);
    }
    Ok(Loaded { document, warnings: problems })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    #[serde(rename = "proxy")]
    _proxy: Block,
    #[serde(rename = "tls")]
    _tls: Block,
    default_action: Field<Action>,
    #[serde(rename = "transforms")]
    _transforms: Block,
    #[serde(rename = "dns")]
    _dns: Block,
    #[serde(rename = "management")]
    _management: Block,
    #[serde(rename = "metrics")]
    _metrics: Block,
    #[serde(rename = "log")]
    _log: Block,
    #[serde(rename = "audit")]
    _audit: Block,
}

impl Document {
    fn read(at: &At<'_>) -> Self {
        let Some(keys) = at.decode::<Keys>() else { return Self::default() };
        let proxy = Proxy::read(&at.key("proxy"));
        let metrics = Metrics::read(&at.key("metrics"));
        if let Some(listen) = metrics.listen.filter(|listen| listen.port() != 0)
            && proxy.tunnel_listen.iter().any(|tunnel| *tunnel == listen)
        {
            let at = at.key("metrics").key("listen");
            at.error(
                format!("proxy.tunnel_listen has this address already: {}", at.shown()),
                "take another port",
            );
        }
        Self {
            tls: Tls::read(&at.key("tls"), !proxy.tunnel_listen.is_empty()),
            default_action: keys.default_action.get().unwrap_or(Action::Deny),
            transforms: Transform::read_list(&at.key("transforms")),
            dns: Dns::read(&at.key("dns")),
            log: Log::read(&at.key("log")),
            audit: Audit::read(&at.key("audit")),
            proxy,
            management: Management::read(&at.key("management")),
            metrics,
        }
    }
}
