//! `keyferry grant` and `keyferry revoke`: who may use which secret.

use serde_json::json;

use super::control_options::ControlOptions;
use super::shown;
use crate::control_client::{ControlClient, Grantee};
use crate::failure::Failure;

/// Let a principal use secrets
///
/// Proxies that are connected enforce it within a second. Granting again changes the priority and the end, where they are given.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry grant alice github
  keyferry grant alice github --for 8h
  keyferry grant --role team-a github models")]
pub(crate) struct Grant {
    #[command(flatten)]
    control: ControlOptions,
    #[command(flatten)]
    who: Who,
    /// The secrets, by name or id
    #[arg(value_name = "SECRET", required = true)]
    secrets: Vec<String>,
    /// For how long, such as 8h or 30m; for ever, if absent
    #[arg(long = "for", value_name = "DURATION", value_parser = shown::end_in)]
    end: Option<jiff::Timestamp>,
    /// Which of two secrets for one place wins: the higher. 100 for a principal and 0 for a role, if absent
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    priority: Option<i64>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// Take secrets from a principal
///
/// Proxies that are connected enforce it within a second: exchanges that carry the secret end. What is not granted is no error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry revoke alice github
  keyferry revoke --role team-a github")]
pub(crate) struct Revoke {
    #[command(flatten)]
    control: ControlOptions,
    #[command(flatten)]
    who: Who,
    /// The secrets, by name or id
    #[arg(value_name = "SECRET", required = true)]
    secrets: Vec<String>,
}

/// A principal, or a role.
#[derive(clap::Args)]
pub(super) struct Who {
    /// The principal, by name or id; with --role, a role
    #[arg(value_name = "PRINCIPAL")]
    name: String,
    /// It is a role
    #[arg(long)]
    role: bool,
}

impl Who {
    pub(super) async fn find(&self, client: &ControlClient) -> Result<Grantee, Failure> {
        if self.role {
            client.role(&self.name).await.map(Grantee::Role)
        } else {
            client.principal(&self.name).await.map(Grantee::Principal)
        }
    }
}

impl Grant {
    pub(crate) fn run(self) -> Result<(), Failure> {
        self.control.ask(async |client| {
            let grantee = self.who.find(client).await?;
            let mut more = Vec::new();
            more.extend(self.end.map(|end| ("expires_at", json!(end))));
            more.extend(self.priority.map(|priority| ("priority", json!(priority))));
            // All of them are known before the first is granted.
            let mut secrets = Vec::new();
            for name in &self.secrets {
                secrets.push(client.secret(name).await?);
            }
            let mut grants = Vec::new();
            for secret in &secrets {
                let answer = client.grant(&grantee, (secret.kind, secret.resource.id()), &more).await?;
                let grant = answer.resource()?;
                if !self.json {
                    let end = grant.text("expires_at").map(|end| format!(" until {end}")).unwrap_or_default();
                    let (who, what) = (grantee.resource().called(), secret.resource.called());
                    shown::line(&format!("{who}: {what} granted{end} ({})", grant.id()))?;
                }
                grants.push(grant.into_value());
            }
            if self.json { shown::json(&json!(grants)) } else { Ok(()) }
        })
    }
}

impl Revoke {
    pub(crate) fn run(self) -> Result<(), Failure> {
        self.control.ask(async |client| {
            let grantee = self.who.find(client).await?;
            let grants = client.grants_of(&grantee).await?;
            for name in &self.secrets {
                let secret = client.secret(name).await?;
                let id = secret.resource.id();
                let grant = grants.iter().find(|grant| grant.granted() == Some((secret.kind, id)));
                let (who, what) = (grantee.resource().called(), secret.resource.called());
                match grant {
                    Some(grant) => {
                        client.revoke(grant.id()).await?;
                        shown::line(&format!("{who}: {what} revoked"))?;
                    }
                    None => shown::line(&format!("{who}: {what} was not granted directly; nothing to do"))?,
                }
            }
            Ok(())
        })
    }
}
