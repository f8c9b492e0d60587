//! `keyferry perms roles`.

use serde_json::json;

use super::principals::head;
use super::report::{Report, dash, identities};
use super::tool::Names;
use super::{Filter, Options, tool};
use crate::command::shown;
use crate::control_client::{ControlClient, Grantee, Resource, path};
use crate::failure::Failure;
use crate::perms::managed_labels;

#[derive(clap::Subcommand)]
pub(super) enum Roles {
    /// List roles
    List(Filter),
    /// Show the secrets of a role
    Show(Role),
    /// Grant secrets to a role, or those that a tool declares
    Grant(Grant),
    /// Take secrets from a role; what is not there is no error
    Revoke(Revoke),
}

#[derive(clap::Args)]
pub(super) struct Role {
    /// Its name or id
    #[arg(value_name = "ROLE")]
    role: String,
}

#[derive(clap::Args)]
pub(super) struct Grant {
    /// Its name or id; with --tool, one that is not there is made
    #[arg(value_name = "ROLE")]
    role: String,
    /// A secret that is there, by id or name
    #[arg(long = "secret", value_name = "ID")]
    secrets: Vec<String>,
    /// A tool whose secrets are registered and granted
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Of the tool's secrets only this one
    #[arg(long = "secret-name", value_name = "NAME", requires = "tool")]
    secret_names: Vec<String>,
}

#[derive(clap::Args)]
pub(super) struct Revoke {
    /// Its name or id
    #[arg(value_name = "ROLE")]
    role: String,
    /// A secret, by id or name
    #[arg(long = "secret", value_name = "ID", required = true)]
    secrets: Vec<String>,
}

impl Roles {
    pub(super) async fn run(&self, client: &ControlClient, options: &Options) -> Result<(), Failure> {
        match self {
            Self::List(filter) => {
                let mut found = client.list_named("roles", &filter.labels()).await?;
                found.retain(|role| filter.keeps(role));
                identities(found, "role", client.namespace(), options.json)
            }
            Self::Show(Role { role }) => show(client, client.role(role).await?, options.json).await,
            Self::Grant(grant) => grant.run(client, options).await,
            Self::Revoke(Revoke { role, secrets }) => {
                let role = client.role(role).await?;
                let mut report = Report::on("role", &role, options.json)?;
                tool::revoke(client, &Grantee::Role(role), secrets, "not granted to this role", &mut report)
                    .await?;
                report.end()
            }
        }
    }
}

async fn show(client: &ControlClient, role: Resource, json: bool) -> Result<(), Failure> {
    let grantee = Grantee::Role(role);
    let (role, grants) = (grantee.resource(), client.grants_of(&grantee).await?);
    if json {
        let grants: Vec<_> = grants.into_iter().map(Resource::into_value).collect();
        return shown::json(&json!({ "role": role.value(), "grants": grants }));
    }
    let (name, title) = (dash(role.text("foreign_id")), role.text("name").unwrap_or_default());
    shown::line(&format!("role: {name} ({}) — {title}", role.id()))?;
    head("secrets", grants.is_empty(), "none")?;
    let mut names = Names::default();
    for grant in &grants {
        shown::line(&format!("  {} (grant {})", names.of(client, grant).await?, grant.id()))?;
    }
    Ok(())
}

impl Grant {
    async fn run(&self, client: &ControlClient, options: &Options) -> Result<(), Failure> {
        if self.secrets.is_empty() && self.tool.is_none() {
            return Err(Failure::config("there is nothing to grant\nhint: give --secret ID or --tool NAME"));
        }
        options.policy()?;
        let tool = self.tool.as_ref().map(|name| tool::find(options, name)).transpose()?;
        let role = match (client.find_role(&self.role).await?, &tool) {
            (Some(role), _) => role,
            (None, Some(_)) => {
                let data =
                    json!({ "namespace": client.namespace(), "name": self.role, "labels": managed_labels() });
                client.put(&path(["roles", &self.role]), data).await?.resource()?
            }
            (None, None) => client.role(&self.role).await?,
        };
        let mut report = Report::on("role", &role, options.json)?;
        let grantee = Grantee::Role(role);
        tool::grant(client, &grantee, &self.secrets, &mut report).await?;
        if let Some(tool) = &tool {
            let count = tool::register(client, options, tool, &self.secret_names, &grantee).await?;
            let (from, to) = (tool.directory.display(), grantee.resource().called());
            let line =
                format!("tool {} (from {from}): {count} secret(s) registered and granted to {to}", tool.name);
            report.did(&line, json!({ "tool": tool.name, "secrets": count, "result": "granted" }))?;
        }
        report.end()
    }
}
