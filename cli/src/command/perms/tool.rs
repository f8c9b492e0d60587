//! A tool's secrets on their way into control.

use std::collections::HashMap;

use keyferry_control::secret::SecretKind;
use serde_json::json;

use super::Options;
use super::report::Report;
use crate::control_client::{ControlClient, Grantee, Resource, SecretRef, path};
use crate::failure::Failure;
use crate::perms::{managed_labels, registrations, tool_role};
use crate::terminal;
use crate::tools::{self, Declaration, Tool};

/// Finds a tool, and says what is odd about its manifest.
pub(super) fn find(options: &Options, name: &str) -> Result<Tool, Failure> {
    let tool = tools::find(&options.roots(), name).map_err(Failure::config)?;
    tool.warnings.iter().for_each(|warning| terminal::warning(warning));
    Ok(tool)
}

/// Upserts what a tool declares, or what of it is named, and grants it to a role. Tells how many there are.
pub(super) async fn register(
    client: &ControlClient,
    options: &Options,
    tool: &Tool,
    names: &[String],
    role: &Grantee,
) -> Result<usize, Failure> {
    let policy = options.policy()?;
    let chosen = choose(tool, names)?;
    // A policy that does not fit makes secrets that look right and never have a value.
    terminal::talk(format!("values of {}: {policy}", tool.name));
    let registrations = registrations(tool, chosen, &policy, client.namespace());
    for registration in &registrations {
        let about = |failure: Failure| {
            failure.about(&format!("secret {:?} of tool {}", registration.name, tool.name))
        };
        let data = registration.data.clone();
        let answer = client.put_secret(registration.kind, &registration.foreign_id, data).await;
        let secret =
            answer.and_then(crate::control_client::Answer::resource).map_err(|error| about(error.into()))?;
        let granted = client.grant(role, (registration.kind, secret.id()), &[]).await;
        granted.map_err(|error| about(error.into()))?;
    }
    Ok(registrations.len())
}

fn choose<'a>(tool: &'a Tool, names: &[String]) -> Result<Vec<&'a Declaration>, Failure> {
    if names.is_empty() {
        return Ok(tool.secrets.iter().collect());
    }
    let one = |name: &String| {
        tool.secrets.iter().find(|secret| secret.name == *name).ok_or_else(|| {
            let known: Vec<_> = tool.secrets.iter().map(|secret| secret.name.as_str()).collect();
            Failure::config(format!(
                "tool {} declares no secret {name:?}\nhint: it declares {}",
                tool.name,
                known.join(", ")
            ))
        })
    };
    names.iter().map(one).collect()
}

/// The tool's own role, made where there is none.
pub(super) async fn role(client: &ControlClient, tool: &Tool) -> Result<Resource, Failure> {
    let foreign_id = tool_role(&tool.name);
    let mut labels = managed_labels();
    labels.insert("tool".to_owned(), json!(tool.name));
    labels.insert("overlay".to_owned(), json!(tool.overlay));
    let data = json!({ "namespace": client.namespace(), "name": tool.name, "labels": labels });
    Ok(client.put(&path(["roles", &foreign_id]), data).await?.resource()?)
}

/// Grants secrets that are there, each in a line.
pub(super) async fn grant(
    client: &ControlClient,
    grantee: &Grantee,
    secrets: &[String],
    report: &mut Report,
) -> Result<(), Failure> {
    for name in secrets {
        let secret = client.secret(name).await?;
        let answer = client.grant(grantee, (secret.kind, secret.resource.id()), &[]).await?;
        let said = if answer.is_new() { "granted" } else { "already granted" };
        let grant = answer.resource()?;
        let line = format!("secret {name}: {said} ({})", grant.id());
        report.did(&line, json!({ "secret": secret.resource.id(), "grant": grant.id(), "result": said }))?;
    }
    Ok(())
}

/// Takes grants of secrets back; what is not there is no error.
pub(super) async fn revoke(
    client: &ControlClient,
    grantee: &Grantee,
    secrets: &[String],
    missing: &str,
    report: &mut Report,
) -> Result<(), Failure> {
    if secrets.is_empty() {
        return Ok(());
    }
    let grants = client.grants_of(grantee).await?;
    for name in secrets {
        let SecretRef { kind, resource } = client.secret(name).await?;
        match grants.iter().find(|grant| grant.granted() == Some((kind, resource.id()))) {
            Some(grant) => {
                client.revoke(grant.id()).await?;
                let line = format!("secret {name}: grant {} revoked", grant.id());
                report.did(
                    &line,
                    json!({ "secret": resource.id(), "grant": grant.id(), "result": "revoked" }),
                )?;
            }
            None => {
                let line = format!("secret {name}: {missing} — nothing to do");
                report.did(&line, json!({ "secret": resource.id(), "result": "nothing" }))?;
            }
        }
    }
    Ok(())
}

/// What the secrets of grants are called, each asked for once.
#[derive(Default)]
pub(super) struct Names(HashMap<(SecretKind, String), String>);

impl Names {
    /// `KIND NAME (ID)`.
    pub(super) async fn of(&mut self, client: &ControlClient, grant: &Resource) -> Result<String, Failure> {
        let Some((kind, id)) = grant.granted() else { return Ok(String::new()) };
        let key = (kind, id.to_owned());
        if !self.0.contains_key(&key) {
            let secret = client.find_secret(kind, id).await?;
            let name = secret.as_ref().and_then(|it| it.text("name").or(it.text("foreign_id")));
            self.0.insert(key.clone(), name.unwrap_or(id).to_owned());
        }
        Ok(format!("{} {} ({id})", kind.name(), self.0.get(&key).map_or(id, String::as_str)))
    }
}
