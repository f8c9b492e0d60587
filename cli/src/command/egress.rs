//! `keyferry allow` and `keyferry deny`: where a principal may go beside where its secrets go.

use serde_json::{Value, json};

use super::control_options::ControlOptions;
use super::grant::Who;
use super::shown;
use super::target::Target;
use crate::control_client::{ControlClient, Grantee, Resource, path};
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
            let own = OwnRules::of(client, &grantee).await?;
            let mut done = Vec::new();
            for host in &self.hosts {
                let mut rule = host.rule(&self.methods, &self.paths);
                rule["action"] = json!(action);
                let (line, value) = if self.remove { own.remove(rule).await? } else { own.add(rule).await? };
                if !self.json {
                    shown::line(&line)?;
                }
                done.push(value);
            }
            if self.json { shown::json(&json!(done)) } else { Ok(()) }
        })
    }
}

/// The rules of a principal's or role's own.
pub(super) struct OwnRules<'a> {
    client: &'a ControlClient,
    whose: &'a str,
    collection: String,
    rules: Vec<Resource>,
}

impl<'a> OwnRules<'a> {
    pub(super) async fn of(client: &'a ControlClient, grantee: &'a Grantee) -> Result<Self, Failure> {
        let collection = path([grantee.collection(), grantee.resource().id(), "egress_rules"]);
        let rules = client.list(&collection).await?;
        Ok(Self { client, whose: grantee.resource().called(), collection, rules })
    }

    /// Adds one, unless it is there: what was done, in a line, and the rule.
    pub(super) async fn add(&self, rule: Value) -> Result<(String, Value), Failure> {
        if let Some(known) = self.find(&rule, says_the_same) {
            return Ok((self.line(known.value(), "is there already"), known.value().clone()));
        }
        let answer = self.client.post(&self.collection, rule).await?;
        shown::warnings(&answer);
        let added = answer.resource()?.into_value();
        Ok((self.line(&added, "added"), added))
    }

    /// Takes one back, whatever it says of foreign credentials where none says exactly this: what was done, in a line, and the rule.
    pub(super) async fn remove(&self, rule: Value) -> Result<(String, Value), Failure> {
        let Some(known) = self.find(&rule, says_the_same).or_else(|| self.find(&rule, means_the_same)) else {
            return Ok((self.line(&rule, "there is no such rule; nothing to do"), rule));
        };
        self.client.delete(&format!("{}/{}", self.collection, known.id())).await?;
        Ok((self.line(known.value(), "removed"), known.value().clone()))
    }

    fn find(&self, rule: &Value, same: fn(&Value, &Value) -> bool) -> Option<&Resource> {
        self.rules.iter().find(|known| same(known.value(), rule))
    }

    fn line(&self, rule: &Value, said: &str) -> String {
        format!("{}: {}: {said}", self.whose, text(rule))
    }
}

/// The parts of a rule that decide.
const PARTS: [&str; 7] = ["action", "host", "cidr", "http_methods", "paths", "ports", "schemes"];

fn says_the_same(known: &Value, rule: &Value) -> bool {
    means_the_same(known, rule) && part(known, "foreign_credentials") == part(rule, "foreign_credentials")
}

/// The same requests, with the same end.
fn means_the_same(known: &Value, rule: &Value) -> bool {
    PARTS.iter().all(|key| part(known, key) == part(rule, key))
}

/// Left out and empty are the same.
fn part(rule: &Value, key: &str) -> Value {
    match rule.get(key) {
        Some(Value::Array(list)) if list.is_empty() => Value::Null,
        Some(value) => value.clone(),
        None => Value::Null,
    }
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
    parts.extend(rule["foreign_credentials"].as_str().map(|what| format!("(foreign credentials: {what})")));
    parts.join(" ")
}

/// The rules of a principal's or role's own, each in a line.
pub(super) async fn of(client: &ControlClient, grantee: &Grantee) -> Result<Vec<String>, Failure> {
    let own = OwnRules::of(client, grantee).await?;
    Ok(own.rules.iter().map(|rule| text(rule.value())).collect())
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
            json!({ "action": "deny", "host": "a.example", "ports": [8443], "foreign_credentials": "deny" }),
        ] {
            assert!(!says_the_same(&shown, &other), "{other}");
        }
        assert_eq!(text(&shown), "deny a.example:8443");
    }
}
