//! `keyferry explain`.

mod from_control;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use keyferry_config::policy::{Destination, Explanation, RequestHead, SecretExplanation, UrlError};
use owo_colors::Stream;

use super::control_options::ControlOptions;
use super::shown;
use crate::configuration::{self, Leniency};
use crate::control_client::{path, with_query};
use crate::failure::Failure;
use crate::terminal;

/// Tell what would become of a request: which rule decides, which secrets go where, and why not
///
/// Decides as the proxy does and sends nothing. Names are not resolved, so whether an address may be dialled is not part of
/// the answer.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry explain --config keyferry.yaml GET https://api.example/v1/models
  keyferry explain --config keyferry.yaml POST https://api.example/v1/messages -H 'Authorization: Bearer EXAMPLE_API_KEY'
  keyferry explain --config keyferry.yaml GET https://api.example/ --json
  keyferry explain --principal alice GET https://api.example/v1/models")]
pub(crate) struct Explain {
    /// The configuration
    #[arg(long, short, value_name = "FILE", required_unless_present = "principal")]
    config: Option<PathBuf>,
    /// Ask the control service about this principal instead
    #[arg(long, value_name = "PRINCIPAL", conflicts_with_all = ["config", "headers", "lenient"])]
    principal: Option<String>,
    /// And about this user who asks in the principal's channel
    #[arg(long, value_name = "PRINCIPAL", requires = "principal")]
    requester: Option<String>,
    /// The request's method
    #[arg(value_name = "METHOD")]
    method: Method,
    /// The request's URL, https or http
    #[arg(value_name = "URL", value_parser = Target::parse)]
    url: Target,
    /// A header of the request, as often as needed
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    leniency: Leniency,
    #[command(flatten)]
    control: ControlOptions,
}

impl Explain {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match (&self.config, &self.principal) {
            (Some(config), _) => self.judge(config),
            (None, Some(principal)) => self.ask(principal),
            (None, None) => Err(Failure::config("give --config FILE or --principal PRINCIPAL")),
        }
    }

    fn judge(&self, config: &Path) -> Result<(), Failure> {
        let document = configuration::load(config, &self.leniency)?;
        let policy = Arc::new(configuration::compile(config, &document)?);
        let headers: HeaderMap = self.headers.iter().fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value.clone());
            headers
        });
        let request = RequestHead { method: &self.method, target: &self.url.target, headers: &headers };
        let explanation = policy.explain(&self.url.destination, &request);
        if self.json {
            let json = serde_json::to_string_pretty(&explanation).map_err(Failure::fatal)?;
            return terminal::data(json);
        }
        terminal::data(text(&explanation))
    }

    fn ask(&self, principal: &str) -> Result<(), Failure> {
        self.control.ask(async |client| {
            let principal = client.principal(principal).await?;
            let requester = match &self.requester {
                Some(requester) => Some(client.principal(requester).await?),
                None => None,
            };
            let mut query = vec![("method", self.method.as_str()), ("url", self.url.text.as_str())];
            query.extend(requester.as_ref().map(|requester| ("requester_principal_id", requester.id())));
            let asked = with_query(path(["principals", principal.id(), "explain"]), query);
            let answer = client.get(&asked).await?;
            if self.json {
                return shown::json(answer.value());
            }
            terminal::data(from_control::text(answer.value()))
        })
    }
}

/// A URL as a request sees it.
#[derive(Clone, Debug)]
struct Target {
    text: String,
    destination: Destination,
    target: String,
}

impl Target {
    fn parse(text: &str) -> Result<Self, UrlError> {
        let text_of = text.to_owned();
        Destination::of_url(text).map(|(destination, target)| Self { text: text_of, destination, target })
    }
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a header is written as 'Name: value'")?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is not the name of a header"))?;
    let value =
        value.trim().parse().map_err(|_| "the value holds a character that no header may hold".to_owned())?;
    Ok((name, value))
}

fn text(explanation: &Explanation) -> String {
    let mut text = format!("{} {}\n\n", explanation.method, explanation.url);
    // Writing to a String does not fail.
    let _ = match explanation.reason {
        None => writeln!(text, "{}  {}", terminal::good(Stream::Stdout, "forward"), granted_by(explanation)),
        Some(reason) => {
            writeln!(text, "{}  {reason}{}", terminal::bad(Stream::Stdout, "refuse"), decided_by(explanation))
        }
    };
    for line in explanation.message.iter().map(String::as_str) {
        let _ = writeln!(text, "  {line}");
    }
    if let Some(hint) = explanation.hint {
        let _ = writeln!(text, "  hint: {hint}");
    }
    if let Some(foreign) = &explanation.foreign_credentials {
        let places = foreign.locations.join(", ");
        let _ = writeln!(text, "\ncredentials of the client's own\n  {} at {places}", foreign.outcome);
    }
    if !explanation.secrets.is_empty() {
        let width =
            explanation.secrets.iter().map(|secret| secret.secret.chars().count()).max().unwrap_or_default();
        let _ = writeln!(text, "\nsecrets");
        for secret in &explanation.secrets {
            let _ = writeln!(text, "  {:<width$}  {}", secret.secret, outcome(secret));
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn granted_by(explanation: &Explanation) -> String {
    match (&explanation.rule, explanation.warned) {
        (_, true) => "no rule allows it, but an allowlist with `warn: true` lets it pass".to_owned(),
        (Some(rule), false) => format!("by {rule}"),
        (None, false) => "by default_action: allow".to_owned(),
    }
}

fn decided_by(explanation: &Explanation) -> String {
    explanation.rule.as_ref().map(|rule| format!(" by {rule}")).unwrap_or_default()
}

fn outcome(secret: &SecretExplanation) -> String {
    let SecretExplanation { outcome, locations, why, .. } = secret;
    if locations.is_empty() {
        format!("{outcome}: {why}")
    } else {
        format!("{outcome} at {}: {why}", locations.join(", "))
    }
}
