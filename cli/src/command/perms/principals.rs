//! `keyferry perms principals`.

use serde_json::{Value, json};

use super::report::{Report, dash, identities};
use super::tool::Names;
use super::{Filter, Options, tool};
use crate::command::shown;
use crate::control_client::{ControlClient, Grantee, Resource, path};
use crate::failure::Failure;
use crate::perms::{Derived, tool_role};

#[derive(clap::Subcommand)]
pub(super) enum Principals {
    /// List principals
    List(Filter),
    /// Show the roles, grants and placeholders of a principal
    Show(Who),
    /// Grant tools, roles and secrets to a principal, which is made where there is none
    Grant(Change),
    /// Take them back; what is not there is no error
    Revoke(Change),
}

/// A principal.
#[derive(clap::Args)]
pub(super) struct Who {
    /// The key of a thread (slack:T…:C…), the principal's name, or its id
    #[arg(value_name = "PRINCIPAL")]
    principal: String,
    /// Who writes in a Slack conversation of two
    #[arg(long, value_name = "ID")]
    slack_user: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct Change {
    #[command(flatten)]
    who: Who,
    /// A tool, by the name of its directory
    #[arg(long = "tool", value_name = "NAME")]
    tools: Vec<String>,
    /// A role that is there, by name or id
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A secret that is there, by id or name
    #[arg(long = "secret", value_name = "ID")]
    secrets: Vec<String>,
    /// A grant, by its id; for `revoke` alone
    #[arg(long = "grant-id", value_name = "ID")]
    grants: Vec<String>,
}

impl Principals {
    pub(super) async fn run(&self, client: &ControlClient, options: &Options) -> Result<(), Failure> {
        match self {
            Self::List(filter) => {
                let mut found = client.list_named("principals", &filter.labels()).await?;
                found.retain(|principal| filter.keeps(principal));
                identities(found, "principal", client.namespace(), options.json)
            }
            Self::Show(who) => show(client, &who.find(client).await?, options.json).await,
            Self::Grant(change) => change.grant(client, options).await,
            Self::Revoke(change) => change.revoke(client, options).await,
        }
    }
}

impl Who {
    fn derived(&self) -> Derived {
        Derived::of(&self.principal, self.slack_user.as_deref())
    }

    async fn find(&self, client: &ControlClient) -> Result<Resource, Failure> {
        client.principal(&self.derived().foreign_id).await
    }

    /// One that is there stays as it is: a session may have said more about it than its key does.
    async fn ensure(&self, client: &ControlClient) -> Result<Resource, Failure> {
        let derived = self.derived();
        if let Some(found) = client.find_principal(&derived.foreign_id).await? {
            return Ok(found);
        }
        let data = derived.data(client.namespace());
        Ok(client.put(&path(["principals", &derived.foreign_id]), data).await?.resource()?)
    }
}

async fn show(client: &ControlClient, principal: &Resource, json: bool) -> Result<(), Failure> {
    let mut names = Names::default();
    let mut roles = Vec::new();
    for role in client.list(&path(["principals", principal.id(), "roles"])).await? {
        let grants = client.grants_of(&Grantee::Role(role.clone())).await?;
        roles.push((role, grants));
    }
    let direct = client.grants_of(&Grantee::Principal(principal.clone())).await?;
    let effective = client.get(&path(["principals", principal.id(), "effective_config"])).await?;
    let secrets = effective.value()["secrets"].as_array().map(Vec::as_slice).unwrap_or_default();
    let placeholders: Vec<&str> =
        secrets.iter().filter_map(|secret| secret.pointer("/replace/proxy_value")?.as_str()).collect();
    if json {
        let values = |all: &[Resource]| all.iter().map(|it| it.value().clone()).collect::<Value>();
        let roles =
            roles.iter().map(|(role, grants)| json!({ "role": role.value(), "grants": values(grants) }));
        return shown::json(&json!({
            "principal": principal.value(),
            "roles": roles.collect::<Value>(),
            "grants": values(&direct),
            "placeholders": placeholders,
        }));
    }
    let (name, title) = (dash(principal.text("foreign_id")), principal.text("name").unwrap_or_default());
    shown::line(&format!("principal: {name} ({}) — {title}", principal.id()))?;
    head("roles", roles.is_empty(), "none")?;
    for (role, grants) in &roles {
        shown::line(&format!("  {} ({})", dash(role.text("foreign_id")), role.id()))?;
        for grant in grants {
            shown::line(&format!("    grants {}", names.of(client, grant).await?))?;
        }
    }
    head("direct grants", direct.is_empty(), "none")?;
    for grant in &direct {
        shown::line(&format!("  {} (grant {})", names.of(client, grant).await?, grant.id()))?;
    }
    head("effective replace-secrets", placeholders.is_empty(), "none surfaced")?;
    placeholders.iter().try_for_each(|placeholder| shown::line(&format!("  {placeholder}")))
}

pub(super) fn head(title: &str, is_empty: bool, none: &str) -> Result<(), Failure> {
    if is_empty { shown::line(&format!("{title}: ({none})")) } else { shown::line(&format!("{title}:")) }
}

impl Change {
    async fn grant(&self, client: &ControlClient, options: &Options) -> Result<(), Failure> {
        if !self.grants.is_empty() {
            return Err(Failure::config("--grant-id is for `principals revoke` alone"));
        }
        if self.tools.is_empty() && self.roles.is_empty() && self.secrets.is_empty() {
            return Err(Failure::config("there is nothing to grant\nhint: give --tool, --role or --secret"));
        }
        options.policy()?;
        // What can be wrong with a tool is found before anything is written.
        let tools = self.tools.iter().map(|name| tool::find(options, name)).collect::<Result<Vec<_>, _>>()?;
        let principal = self.who.ensure(client).await?;
        let mut report = Report::on("principal", &principal, options.json)?;
        for tool in &tools {
            let role = tool::role(client, tool).await?;
            let count = tool::register(client, options, tool, &[], &Grantee::Role(role.clone())).await?;
            let assigned = assign(client, &principal, &role).await?;
            let said = if assigned { "role assigned" } else { "role already assigned" };
            let line = format!(
                "tool {} (from {}): role {} ({}) — {count} secret(s) registered, {said}",
                tool.name,
                tool.directory.display(),
                role.called(),
                role.id()
            );
            let value = json!({ "tool": tool.name, "role": role.id(), "secrets": count, "result": said });
            report.did(&line, value)?;
        }
        for name in &self.roles {
            let role = client.role(name).await?;
            let said = if assign(client, &principal, &role).await? { "assigned" } else { "already assigned" };
            report.did(
                &format!("role {name} ({}): {said}", role.id()),
                json!({ "role": role.id(), "result": said }),
            )?;
        }
        tool::grant(client, &Grantee::Principal(principal), &self.secrets, &mut report).await?;
        report.end()
    }

    async fn revoke(&self, client: &ControlClient, options: &Options) -> Result<(), Failure> {
        let given = [&self.tools, &self.roles, &self.secrets, &self.grants];
        if given.iter().all(|list| list.is_empty()) {
            return Err(Failure::config(
                "there is nothing to revoke\nhint: give --tool, --role, --secret or --grant-id",
            ));
        }
        let principal = self.who.find(client).await?;
        let mut report = Report::on("principal", &principal, options.json)?;
        let assigned = client.list(&path(["principals", principal.id(), "roles"])).await?;
        let of_tools = self.tools.iter().map(|tool| (tool, tool_role(tool)));
        let roles = of_tools.chain(self.roles.iter().map(|role| (role, role.clone())));
        for (label, name) in roles {
            let role =
                assigned.iter().find(|role| role.text("foreign_id") == Some(&name) || role.id() == name);
            match role {
                Some(role) => {
                    client.delete(&path(["principals", principal.id(), "roles", role.id()])).await?;
                    let value = json!({ "role": role.id(), "result": "unassigned" });
                    report.did(&format!("{label}: role {name} unassigned"), value)?;
                }
                None => {
                    let value = json!({ "role": name, "result": "nothing" });
                    report.did(&format!("{label}: role {name} was not assigned — nothing to do"), value)?;
                }
            }
        }
        let grantee = Grantee::Principal(principal);
        let missing = "no direct grant on this principal";
        tool::revoke(client, &grantee, &self.secrets, missing, &mut report).await?;
        for id in &self.grants {
            revoke_grant(client, &grantee, id, &mut report).await?;
        }
        report.end()
    }
}

/// Of this principal's own alone: the id of another's grant is a mistake, not an order.
async fn revoke_grant(
    client: &ControlClient,
    grantee: &Grantee,
    id: &str,
    report: &mut Report,
) -> Result<(), Failure> {
    if client.grants_of(grantee).await?.iter().any(|grant| grant.id() == id) {
        client.revoke(id).await?;
        report.did(&format!("grant {id}: revoked"), json!({ "grant": id, "result": "revoked" }))
    } else {
        let line = format!("grant {id}: no grant of this principal — nothing to do");
        report.did(&line, json!({ "grant": id, "result": "nothing" }))
    }
}

/// Whether the principal did not have it before.
async fn assign(client: &ControlClient, principal: &Resource, role: &Resource) -> Result<bool, Failure> {
    let roles = path(["principals", principal.id(), "roles"]);
    Ok(client.post(&roles, json!({ "role_id": role.id() })).await?.is_new())
}
