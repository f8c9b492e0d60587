//! `keyferry sandbox`: identities at a shared proxy.

use serde_json::json;

use super::control_options::ControlOptions;
use super::proxies::one_called;
use super::shown;
use crate::control_client::{ControlClient, Resource, path, with_query};
use crate::failure::Failure;
use crate::terminal;

/// Create, list, rotate and remove sandboxes of a shared proxy
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry sandbox create job-1 --principal alice
  keyferry sandbox list
  keyferry sandbox rotate job-1
  keyferry sandbox rm job-1")]
pub(crate) struct Sandbox {
    #[command(flatten)]
    control: ControlOptions,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    Create(Create),
    /// List sandboxes
    #[command(visible_alias = "ls", after_help = "Examples:\n  keyferry sandbox list --principal alice")]
    List(List),
    /// Give a sandbox a new token, which is printed as `create` does; the old one ends
    #[command(after_help = "Examples:\n  keyferry sandbox rotate job-1")]
    Rotate(Rotate),
    /// End a sandbox: its connections close
    #[command(after_help = "Examples:\n  keyferry sandbox rm job-1")]
    Rm(Rm),
}

/// Create a sandbox of a principal and print its proxy URL, or its socket
///
/// The URL holds the sandbox's token and is printed once, on stdout. With --transport unix there is no token: whoever connects to the
/// socket is the sandbox.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry sandbox create job-1 --principal alice
  keyferry sandbox create job-2 --principal alice --for 8h --source 10.0.3.7/32")]
struct Create {
    /// What it is called
    #[arg(value_name = "NAME")]
    name: String,
    /// Whose policy it has
    #[arg(long, value_name = "PRINCIPAL")]
    principal: String,
    /// The user who asks in the principal's channel
    #[arg(long, value_name = "PRINCIPAL")]
    requester: Option<String>,
    /// For how long, such as 8h; until it is removed, if absent
    #[arg(long = "for", value_name = "DURATION", value_parser = shown::end_in)]
    end: Option<jiff::Timestamp>,
    /// Where it may come from; anywhere, if absent
    #[arg(long = "source", value_name = "RANGE")]
    sources: Vec<String>,
    /// How it reaches the proxy
    #[arg(long, value_name = "TRANSPORT", value_parser = ["token", "unix"], default_value = "token")]
    transport: String,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct List {
    /// Only those of this principal
    #[arg(long, value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Rotate {
    /// Its name or id
    #[arg(value_name = "SANDBOX")]
    name: String,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Rm {
    /// Its name or id
    #[arg(value_name = "SANDBOX")]
    name: String,
}

impl Sandbox {
    pub(crate) fn run(self) -> Result<(), Failure> {
        self.control.ask(async |client| match &self.verb {
            Verb::Create(create) => create.run(client).await,
            Verb::List(list) => list.run(client).await,
            Verb::Rotate(rotate) => rotate.run(client).await,
            Verb::Rm(rm) => rm.run(client).await,
        })
    }
}

impl Create {
    async fn run(&self, client: &ControlClient) -> Result<(), Failure> {
        let mut data = json!({
            "name": self.name,
            "principal_id": client.principal(&self.principal).await?.id(),
            "source_cidrs": self.sources,
            "transport": self.transport,
        });
        if let Some(requester) = &self.requester {
            data["requester_principal_id"] = json!(client.principal(requester).await?.id());
        }
        if let Some(end) = self.end {
            data["expires_at"] = json!(end);
        }
        let sandbox = client.post(&path(["sandboxes"]), data).await?.resource()?;
        show_once(&sandbox, self.json, "created")
    }
}

/// What nobody can ask for again.
fn show_once(sandbox: &Resource, json: bool, done: &str) -> Result<(), Failure> {
    if json {
        return shown::json(sandbox.value());
    }
    let name = sandbox.text("name").unwrap_or_default();
    terminal::talk(super::log::printable::text(&format!("sandbox {name} ({}): {done}", sandbox.id())));
    if sandbox.value()["pending"] == json!(true) {
        terminal::warning(
            "no connected proxy has applied it yet\nhint: `keyferry proxies list` shows what each has applied",
        );
    }
    match (sandbox.text("proxy_url"), sandbox.text("token")) {
        (Some(url), _) => shown::line(url),
        (None, Some(token)) => {
            terminal::warning(
                "no shared proxy says where it is reached, so this is the token alone\n\
                 hint: `keyferry proxies add NAME --shared --address HOST:PORT`",
            );
            shown::line(token)
        }
        // A socket needs no token.
        (None, None) => sandbox.text("socket").map_or(Ok(()), shown::line),
    }
}

impl List {
    async fn run(&self, client: &ControlClient) -> Result<(), Failure> {
        let principal = match &self.principal {
            Some(name) => Some(client.principal(name).await?),
            None => None,
        };
        let sandboxes = of(client, principal.as_ref()).await?;
        if self.json {
            return shown::json(&sandboxes.into_iter().map(Resource::into_value).collect());
        }
        let rows: Vec<_> = sandboxes
            .iter()
            .map(|sandbox| {
                ["name", "id", "principal_id", "status", "expires_at"]
                    .map(|key| shown::cell(sandbox.text(key)))
            })
            .collect();
        let none = format!("no sandboxes in namespace {:?}", client.namespace());
        shown::table(["NAME", "ID", "PRINCIPAL", "STATUS", "ENDS"], &rows, &none)
    }
}

async fn of(client: &ControlClient, principal: Option<&Resource>) -> Result<Vec<Resource>, Failure> {
    let mut query = vec![("namespace", client.namespace())];
    query.extend(principal.map(|principal| ("principal_id", principal.id())));
    Ok(client.list(&with_query(path(["sandboxes"]), query)).await?)
}

impl Rotate {
    async fn run(&self, client: &ControlClient) -> Result<(), Failure> {
        let sandbox = one_called(of(client, None).await?, "sandbox", &self.name)?;
        let rotated = client.act(&path(["sandboxes", sandbox.id(), "rotate"])).await?;
        show_once(&rotated, self.json, "has a new token")
    }
}

impl Rm {
    async fn run(&self, client: &ControlClient) -> Result<(), Failure> {
        let sandbox = one_called(of(client, None).await?, "sandbox", &self.name)?;
        client.delete(&path(["sandboxes", sandbox.id()])).await?;
        shown::line(&format!("sandbox {} ({}): removed", self.name, sandbox.id()))
    }
}
