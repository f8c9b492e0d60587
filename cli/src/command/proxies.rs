//! `keyferry proxies`: who enforces. (`keyferry proxy` is one.)

use serde_json::json;

use super::control_options::ControlOptions;
use super::shown;
use crate::control_client::{ControlClient, Resource, path};
use crate::failure::Failure;
use crate::terminal;

/// Register, list, assign and remove the proxies of a control service
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry proxies add edge --shared
  keyferry proxies add ci --principal alice
  keyferry proxies list
  keyferry proxies rm edge")]
pub(crate) struct Proxies {
    #[command(flatten)]
    control: ControlOptions,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Register a proxy; its token is printed, once
    #[command(after_help = "Examples:\n  keyferry proxies add edge --shared --address proxy.internal:3128")]
    Add(Add),
    /// List proxies, and what each of them enforces
    #[command(visible_alias = "ls", after_help = "Examples:\n  keyferry proxies list --json")]
    List(List),
    /// Assign another principal to a dedicated proxy, or none
    #[command(
        after_help = "Examples:\n  keyferry proxies assign ci bob\n  keyferry proxies assign ci --nobody"
    )]
    Assign(Assign),
    /// Remove a proxy: it is told so, and refuses everything
    #[command(after_help = "Examples:\n  keyferry proxies rm edge")]
    Rm(Rm),
}

#[derive(clap::Args)]
struct Add {
    /// What it is called
    #[arg(value_name = "NAME")]
    name: String,
    /// It serves the sandboxes of the namespace
    #[arg(long)]
    shared: bool,
    /// It serves this principal alone
    #[arg(long, value_name = "PRINCIPAL", conflicts_with = "shared")]
    principal: Option<String>,
    /// Where sandboxes reach it
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct List {
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Assign {
    /// Its name or id
    #[arg(value_name = "PROXY")]
    name: String,
    /// Whose policy it enforces from now on
    #[arg(value_name = "PRINCIPAL", required_unless_present = "nobody")]
    principal: Option<String>,
    /// Nobody's: it refuses everything
    #[arg(long, conflicts_with = "principal")]
    nobody: bool,
}

#[derive(clap::Args)]
struct Rm {
    /// Its name or id
    #[arg(value_name = "PROXY")]
    name: String,
}

impl Proxies {
    pub(crate) fn run(self) -> Result<(), Failure> {
        self.control.ask(async |client| match &self.verb {
            Verb::Add(add) => add.run(client).await,
            Verb::List(list) => list.run(client).await,
            Verb::Assign(assign) => assign.run(client).await,
            Verb::Rm(rm) => rm.run(client).await,
        })
    }
}

impl Add {
    async fn run(&self, client: &ControlClient) -> Result<(), Failure> {
        let mut data = json!({ "name": self.name, "kind": "dedicated" });
        if self.shared {
            data["kind"] = json!("shared");
            data["namespaces"] = json!([client.namespace()]);
        }
        if let Some(principal) = &self.principal {
            data["principal_id"] = json!(client.principal(principal).await?.id());
        }
        if let Some(address) = &self.address {
            data["address"] = json!(address);
        }
        let proxy = client.post(&path(["proxies"]), data).await?.resource()?;
        if self.json {
            return shown::json(proxy.value());
        }
        terminal::talk(format!(
            "proxy {} ({}): added; this is its token, which is not shown again",
            self.name,
            proxy.id()
        ));
        shown::line(proxy.text("token").unwrap_or_default())
    }
}

impl List {
    async fn run(&self, client: &ControlClient) -> Result<(), Failure> {
        let proxies = client.list(&path(["proxies"])).await?;
        if self.json {
            return shown::json(&proxies.into_iter().map(Resource::into_value).collect());
        }
        let rows: Vec<_> = proxies.iter().map(row).collect();
        shown::table(["NAME", "ID", "KIND", "STATUS", "APPLIED", "ADDRESS"], &rows, "no proxies")
    }
}

/// A proxy in a table.
pub(super) fn row(proxy: &Resource) -> [String; 6] {
    let applied = &proxy.value()["applied_generation"];
    let applied = applied["number"].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
    let [name, kind, status, address] =
        ["name", "kind", "status", "address"].map(|key| shown::cell(proxy.text(key)));
    [name, proxy.id().to_owned(), kind, status, applied, address]
}

impl Assign {
    async fn run(&self, client: &ControlClient) -> Result<(), Failure> {
        let proxy = find(client, &self.name).await?;
        let principal = match &self.principal {
            Some(name) => Some(client.principal(name).await?),
            None => None,
        };
        let id = principal.as_ref().map(Resource::id);
        client.put(&path(["proxies", proxy.id()]), json!({ "principal_id": id })).await?;
        let whose = principal.as_ref().map_or("nobody", Resource::called);
        shown::line(&format!("proxy {} ({}): assigned to {whose}", self.name, proxy.id()))
    }
}

impl Rm {
    async fn run(&self, client: &ControlClient) -> Result<(), Failure> {
        let proxy = find(client, &self.name).await?;
        client.delete(&path(["proxies", proxy.id()])).await?;
        shown::line(&format!("proxy {} ({}): removed", self.name, proxy.id()))
    }
}

/// A proxy by id, or by a name that only one has.
async fn find(client: &ControlClient, name: &str) -> Result<Resource, Failure> {
    one_called(client.list(&path(["proxies"])).await?, "proxy", name)
}

/// Names of proxies and sandboxes are texts for people, and two may have the same.
pub(super) fn one_called(all: Vec<Resource>, what: &str, name: &str) -> Result<Resource, Failure> {
    let mut found: Vec<_> =
        all.into_iter().filter(|one| one.id() == name || one.text("name") == Some(name)).collect();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(Failure::fatal(format!("there is no {what} {name:?}"))),
        (Some(last), false) => {
            let ids: Vec<_> = found.iter().chain([&last]).map(Resource::id).collect();
            Err(Failure::fatal(format!(
                "more than one {what} is called {name:?}\nhint: say which: {}",
                ids.join(", ")
            )))
        }
    }
}
