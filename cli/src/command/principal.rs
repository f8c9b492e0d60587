//! `keyferry principal`: who sandboxes act for.

use serde_json::{Value, json};

use super::control_options::ControlOptions;
use super::secret::label;
use super::{egress, shown};
use crate::control_client::{ControlClient, Grantee, Resource, path};
use crate::failure::Failure;

/// Add, list, show and remove principals
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry principal add alice
  keyferry principal list
  keyferry principal show alice
  keyferry principal rm alice")]
pub(crate) struct Principal {
    #[command(flatten)]
    control: ControlOptions,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Add a principal; one that is there stays as it is, but for what is given
    #[command(after_help = "Examples:\n  keyferry principal add alice --kind user --title 'Alice Example'")]
    Add(Add),
    /// List principals
    #[command(visible_alias = "ls", after_help = "Examples:\n  keyferry principal list --label team=a")]
    List(List),
    /// Show a principal: its roles, rules, and the secrets that it has and why
    #[command(after_help = "Examples:\n  keyferry principal show alice")]
    Show(Show),
    /// Remove a principal, its grants, rules and sandboxes
    #[command(after_help = "Examples:\n  keyferry principal rm alice")]
    Rm(Rm),
}

#[derive(clap::Args)]
struct Add {
    /// What operators call it
    #[arg(value_name = "NAME")]
    name: String,
    /// What people call it
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// What it stands for: user, service, workflow, slack_channel and so on
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// A label; all that it has are replaced
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
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
struct Show {
    /// Its name or id
    #[arg(value_name = "PRINCIPAL")]
    name: String,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Rm {
    /// Its name or id
    #[arg(value_name = "PRINCIPAL")]
    name: String,
}

impl Principal {
    pub(crate) fn run(self) -> Result<(), Failure> {
        self.control.ask(async |client| match &self.verb {
            Verb::Add(add) => add.run(client).await,
            Verb::List(list) => list.run(client).await,
            Verb::Show(show) => show.run(client).await,
            Verb::Rm(rm) => rm.run(client).await,
        })
    }
}

impl Add {
    async fn run(&self, client: &ControlClient) -> Result<(), Failure> {
        let mut data = json!({ "namespace": client.namespace() });
        for (key, given) in [("name", &self.title), ("kind", &self.kind)] {
            if let Some(given) = given {
                data[key] = json!(given);
            }
        }
        if !self.labels.is_empty() {
            data["labels"] = self.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        }
        let answer = client.put(&path(["principals", &self.name]), data).await?;
        let (made, principal) = (answer.is_new(), answer.resource()?);
        if self.json {
            return shown::json(principal.value());
        }
        let done = if made { "added" } else { "is there" };
        shown::line(&format!("principal {} ({}): {done}", principal.called(), principal.id()))
    }
}

impl List {
    async fn run(&self, client: &ControlClient) -> Result<(), Failure> {
        let principals = client.list_named("principals", &self.labels).await?;
        if self.json {
            return shown::json(&principals.into_iter().map(Resource::into_value).collect());
        }
        let rows: Vec<_> = principals
            .iter()
            .map(|principal| {
                let [kind, name] = ["kind", "name"].map(|key| shown::cell(principal.text(key)));
                [shown::cell(principal.text("foreign_id")), principal.id().to_owned(), kind, name]
            })
            .collect();
        let none = format!("no principals in namespace {:?}", client.namespace());
        shown::table(["NAME", "ID", "KIND", "TITLE"], &rows, &none)
    }
}

impl Show {
    async fn run(&self, client: &ControlClient) -> Result<(), Failure> {
        let principal = client.principal(&self.name).await?;
        let roles = client.list(&path(["principals", principal.id(), "roles"])).await?;
        let access = client.get(&path(["principals", principal.id(), "explain"])).await?;
        if self.json {
            let roles: Vec<_> = roles.into_iter().map(Resource::into_value).collect();
            let (secrets, rules) = (&access.value()["secrets"], &access.value()["rules"]);
            let mut all = principal.into_value();
            all["roles"] = json!(roles);
            all["secrets"] = secrets.clone();
            all["rules"] = rules.clone();
            return shown::json(&all);
        }
        let title = principal.text("name").map(|name| format!(", {name}")).unwrap_or_default();
        shown::line(&format!("principal {} ({}){title}", principal.called(), principal.id()))?;
        let roles = roles.iter().map(|role| format!("{} ({})", role.called(), role.id()));
        section("roles", roles)?;
        section("rules of its own", egress::of(client, &Grantee::Principal(principal)).await?)?;
        let secrets = access.value()["secrets"].as_array().into_iter().flatten();
        section("secrets", secrets.map(secret_line))
    }
}

fn section(title: &str, lines: impl IntoIterator<Item = String>) -> Result<(), Failure> {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_none() {
        return shown::line(&format!("{title}: none"));
    }
    shown::line(&format!("{title}:"))?;
    lines.try_for_each(|line| shown::line(&format!("  {line}")))
}

/// A secret of the answer of `explain`.
fn secret_line(secret: &Value) -> String {
    let text = |key: &str| secret[key].as_str();
    let name = text("foreign_id").or(text("name")).or(text("secret_id")).unwrap_or_default();
    let state = if secret["delivered"] == json!(true) { "" } else { "not delivered, " };
    let end = text("not_after").map(|end| format!(", until {end}")).unwrap_or_default();
    format!("{name}: {state}{}{end}", text("reason").unwrap_or_default())
}

impl Rm {
    async fn run(&self, client: &ControlClient) -> Result<(), Failure> {
        let principal = client.principal(&self.name).await?;
        client.delete(&path(["principals", principal.id()])).await?;
        shown::line(&format!("principal {} ({}): removed", principal.called(), principal.id()))
    }
}
