//! `keyferry allow` and `keyferry deny`: where a principal may go beside where its secrets go.

use serde_json::{Value, json};

use super::control_options::ControlOptions;
use super::grant::Who;
use super::shown;
use super::target::Target;
use crate::control_client::{ControlClient, Grantee, path};
use crate::failure::Failure;

/// Let a principal reach hosts
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry allow alice pypi.org files.pythonhosted.org
  keyferry allow alice api.example --method GET --path '/v1/*'
  keyferry allow --role team-a 10.1.0.0/16")]
pub(crate) struct Allow {
    #[command(flatten)]
    rules: Rules,
}

/// Keep a principal from reaching hosts, whatever allows them
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry deny alice uploads.example
  keyferry deny alice api.example --method DELETE
  keyferry deny alice uploads.example --remove")]
pub(crate) struct Deny {
    #[command(flatten)]
    rules: Rules,
}

#[derive(clap::Args)]
struct Rules {
    #[command(flatten)]
    control: ControlOptions,
    #[command(flatten)]
    who: Who,
    /// Hosts, *.suffixes or ranges, perhaps with a port
    #[arg(value_name = "HOST[:PORT]", required = true)]
    hosts: Vec<Target>,
    /// Only with these methods
    #[arg(long = "method", value_name = "METHOD")]
    methods: Vec<String>,
    /// Only to these paths, such as '/v1/*'
    #[arg(long = "path", value_name = "PATTERN")]
    paths: Vec<String>,
    /// Take the rule back instead
    #[arg(long)]
    remove: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

impl Allow {
    pub(crate) fn run(self) -> Result<(), Failure> {
        self.rules.run("allow")
    }
}

impl Deny {
    pub(crate) fn run(self) -> Result<(), Failure> {
        self.rules.run("deny")
    }
}

impl Rules {
    fn run(self, action: &'static str) -> Result<(), Failure> {
        self.control.ask(async |client| {
            let grantee = self.who.find(client).await?;
            let collection = path([grantee.collection(), grantee.resource().id(), "egress_rules"]);
            let existing = client.list(&collection).await?;
            let mut done = Vec::new();
            for host in &self.hosts {
                let mut rule = host.rule(&self.methods, &self.paths);
                rule["action"] = json!(action);
                let same = existing.iter().find(|known| says_the_same(known.value(), &rule));
                let (said, value) = match (self.remove, same) {
                    (true, Some(known)) => {
                        client.delete(&format!("{collection}/{}", known.id())).await?;
                        ("removed", known.value().clone())
                    }
                    (true, None) => ("there is no such rule; nothing to do", rule.clone()),
                    (false, Some(known)) => ("is there already", known.value().clone()),
                    (false, None) => {
                        let answer = client.post(&collection, rule.clone()).await?;
                        shown::warnings(&answer);
                        ("added", answer.resource()?.into_value())
                    }
                };
                if !self.json {
                    shown::line(&format!("{}: {}: {said}", grantee.resource().called(), text(&value)))?;
                }
                done.push(value);
            }
            if self.json { shown::json(&json!(done)) } else { Ok(()) }
        })
    }
}

/// The parts of a rule that decide.
const PARTS: [&str; 7] = ["action", "host", "cidr", "http_methods", "paths", "ports", "schemes"];

/// Left out and empty are the same.
fn says_the_same(known: &Value, rule: &Value) -> bool {
    let part = |rule: &Value, key: &str| match rule.get(key) {
        Some(Value::Array(list)) if list.is_empty() => Value::Null,
        Some(value) => value.clone(),
        None => Value::Null,
    };
    PARTS.iter().all(|key| part(known, key) == part(rule, key))
}

/// A rule in a line.
fn text(rule: &Value) -> String {
    let list = |key: &str| {
        let values = rule[key].as_array().into_iter().flatten();
        values
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect::<Vec<_>>()
    };
    let mut parts = vec![rule["action"].as_str().unwrap_or("allow").to_owned()];
    parts.extend(Some(list("http_methods").join(",")).filter(|methods| !methods.is_empty()));
    let place = rule["host"].as_str().or(rule["cidr"].as_str()).unwrap_or_default();
    let ports = list("ports").join(",");
    parts.push(if ports.is_empty() { place.to_owned() } else { format!("{place}:{ports}") });
    parts.extend(list("paths"));
    parts.extend(list("schemes").into_iter().map(|scheme| format!("({scheme})")));
    parts.join(" ")
}

/// The rules of a principal's or role's own, each in a line.
pub(super) async fn of(client: &ControlClient, grantee: &Grantee) -> Result<Vec<String>, Failure> {
    let rules = client.list(&path([grantee.collection(), grantee.resource().id(), "egress_rules"])).await?;
    Ok(rules.iter().map(|rule| text(rule.value())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_itself_however_it_is_written() {
        let rule = json!({ "action": "deny", "host": "a.example", "ports": [8443] });
        let shown = json!({ "id": "rqr_x", "action": "deny", "host": "a.example", "cidr": null, "http_methods": [],
            "paths": [], "ports": [8443], "created_at": "2026-01-01T00:00:00Z" });
        assert!(says_the_same(&shown, &rule));
        for other in [
            json!({ "action": "allow", "host": "a.example", "ports": [8443] }),
            json!({ "action": "deny", "host": "a.example" }),
            json!({ "action": "deny", "host": "a.example", "ports": [8443], "paths": ["/x"] }),
        ] {
            assert!(!says_the_same(&shown, &other), "{other}");
        }
        assert_eq!(text(&shown), "deny a.example:8443");
    }
}
