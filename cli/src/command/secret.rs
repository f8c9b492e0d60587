//! `keyferry secret`: values, and where they may go.

use keyferry_control::secret::SecretKind;
use serde_json::{Value, json};

use super::control_options::ControlOptions;
use super::secret_value::ValueOptions;
use super::shown;
use super::target::Target;
use crate::control_client::{ControlClient, Resource, SecretRef};
use crate::failure::Failure;

/// Add, list and remove secrets of a control service
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry secret add github --host api.github.com --value-file token.txt
  keyferry secret list
  keyferry secret rm github")]
pub(crate) struct Secret {
    #[command(flatten)]
    control: ControlOptions,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    Add(Box<Add>),
    /// List secrets of every kind; no value is shown
    #[command(visible_alias = "ls", after_help = "Examples:\n  keyferry secret list --json")]
    List(List),
    /// Remove a secret, and with it every grant of it
    #[command(after_help = "Examples:\n  keyferry secret rm github")]
    Rm(Rm),
}

/// Add a secret that sandboxes may use and never see
///
/// The value is typed, piped in, or read from a file. It goes to the hosts that are named and nowhere else: in the place of a
/// placeholder, which is made here unless --placeholder gives one, or set in a header or a query parameter.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry secret add github --host api.github.com < token.txt
  keyferry secret add models --host api.example --header x-api-key --method POST --path '/v1/*' --value-file key.txt
  keyferry secret add search --host search.example --header Authorization --format 'Bearer {{ .Value }}' --from-env TOKEN")]
struct Add {
    /// What it is called
    #[arg(value_name = "NAME")]
    name: String,
    /// Where it may go, as often as needed: a host, *.suffix or a range, perhaps with a port
    #[arg(long = "host", value_name = "HOST[:PORT]", required = true)]
    hosts: Vec<Target>,
    /// Only with these methods
    #[arg(long = "method", value_name = "METHOD")]
    methods: Vec<String>,
    /// Only to these paths, such as '/v1/*'
    #[arg(long = "path", value_name = "PATTERN")]
    paths: Vec<String>,
    /// The text that stands for it in the sandbox
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["header", "query"])]
    placeholder: Option<String>,
    /// Where the placeholder is looked for
    #[arg(long = "in", value_name = "PLACE", value_enum, conflicts_with_all = ["header", "query"])]
    places: Vec<Place>,
    /// Set it in this header instead
    #[arg(long, value_name = "NAME", conflicts_with = "query")]
    header: Option<String>,
    /// Set it in this query parameter instead
    #[arg(long, value_name = "NAME")]
    query: Option<String>,
    /// The text around it there
    #[arg(long, value_name = "FORMAT", requires = "header")]
    format: Option<String>,
    #[command(flatten)]
    value: ValueOptions,
    /// Replace the secret of that name, where there is one
    #[arg(long)]
    update: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Place {
    Headers,
    Query,
    Path,
    Body,
}

#[derive(clap::Args)]
struct List {
    /// Only those with this label
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Rm {
    /// Its name or id
    #[arg(value_name = "NAME")]
    name: String,
}

impl Secret {
    pub(crate) fn run(self) -> Result<(), Failure> {
        self.control.ask(async |client| match &self.verb {
            Verb::Add(add) => add.run(client).await,
            Verb::List(list) => list.run(client).await,
            Verb::Rm(rm) => rm.run(client).await,
        })
    }
}

impl Add {
    async fn run(&self, client: &ControlClient) -> Result<(), Failure> {
        let placeholder = self.placeholder(client).await?;
        let mut data = json!({ "namespace": client.namespace(), "source": self.value.source(&self.name)? });
        let rules: Vec<_> = self.hosts.iter().map(|host| host.rule(&self.methods, &self.paths)).collect();
        data["rules"] = json!(rules);
        match &placeholder {
            Some(placeholder) => data["replace_config"] = self.replace(placeholder),
            None => {
                data["inject_config"] =
                    json!({ "header": self.header, "query_param": self.query, "formatter": self.format });
            }
        }
        let answer = if self.update {
            client.put_secret(SecretKind::Static, &self.name, data).await?
        } else {
            data["foreign_id"] = json!(self.name);
            client.create_secret(SecretKind::Static, data).await?
        };
        shown::warnings(&answer);
        let (made, secret) = (answer.is_new(), answer.resource()?);
        if self.json {
            return shown::json(secret.value());
        }
        let done = if made { "added" } else { "replaced" };
        shown::line(&format!("secret {} ({}): {done}", secret.called(), secret.id()))?;
        match placeholder {
            Some(placeholder) => shown::line(&format!("placeholder: {placeholder}")),
            None => Ok(()),
        }
    }

    fn replace(&self, placeholder: &str) -> Value {
        let places = if self.places.is_empty() { &[Place::Headers][..] } else { &self.places };
        let mut replace = json!({ "proxy_value": placeholder });
        for (place, key) in
            [(Place::Query, "match_query"), (Place::Path, "match_path"), (Place::Body, "match_body")]
        {
            if places.contains(&place) {
                replace[key] = json!(true);
            }
        }
        replace
    }

    /// What stands for the value in the sandbox, unless it is set without one. A replaced secret keeps its own.
    async fn placeholder(&self, client: &ControlClient) -> Result<Option<String>, Failure> {
        if self.header.is_some() || self.query.is_some() {
            return Ok(None);
        }
        if let Some(placeholder) = &self.placeholder {
            return Ok(Some(placeholder.clone()));
        }
        let before = match self.update {
            true => client.find_secret(SecretKind::Static, &self.name).await?,
            false => None,
        };
        placeholder_of(before.as_ref()).map(Some)
    }
}

/// The placeholder of a secret; of one that has none or is not there yet, one that occurs nowhere by chance and that proxies
/// recognise as one of ours.
pub(super) fn placeholder_of(secret: Option<&Resource>) -> Result<String, Failure> {
    let kept = secret.and_then(|secret| secret.value().pointer("/replace_config/proxy_value")?.as_str());
    kept.map_or_else(generated, |kept| Ok(kept.to_owned()))
}

/// 128 random bits, in a form that proxies recognise as ours.
pub(crate) fn generated() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::fatal("there is no randomness"))?;
    Ok(format!("kf_{:032x}", u128::from_be_bytes(bytes)))
}

impl List {
    async fn run(&self, client: &ControlClient) -> Result<(), Failure> {
        let secrets = client.secrets(&self.labels).await?;
        if self.json {
            let list = secrets.into_iter().map(|SecretRef { kind, resource }| {
                let mut value = resource.into_value();
                value["kind"] = json!(kind.name());
                value
            });
            return shown::json(&list.collect());
        }
        let rows: Vec<_> = secrets
            .iter()
            .map(|SecretRef { kind, resource }| {
                let off = resource.value()["enabled"] == json!(false);
                let state = if off { "disabled" } else { "enabled" };
                let name = shown::cell(resource.text("foreign_id").or(resource.text("name")));
                [name, kind.name().to_owned(), resource.id().to_owned(), hosts(resource), state.to_owned()]
            })
            .collect();
        let none = format!("no secrets in namespace {:?}", client.namespace());
        shown::table(["NAME", "KIND", "ID", "HOSTS", "STATE"], &rows, &none)
    }
}

fn hosts(secret: &Resource) -> String {
    let rules = secret.value()["rules"].as_array();
    let hosts: Vec<_> = rules
        .into_iter()
        .flatten()
        .filter_map(|rule| rule["host"].as_str().or(rule["cidr"].as_str()))
        .collect();
    shown::cell(Some(&hosts.join(",")))
}

impl Rm {
    async fn run(&self, client: &ControlClient) -> Result<(), Failure> {
        let secret = client.secret(&self.name).await?;
        client.delete_secret(&secret).await?;
        shown::line(&format!("secret {} ({}): removed", secret.resource.called(), secret.resource.id()))
    }
}

/// `key=value`, as labels are filtered by.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is written as KEY=VALUE".to_owned()),
    }
}
