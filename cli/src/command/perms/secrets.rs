//! `keyferry perms secrets`.

use serde_json::json;

use super::report::dash;
use super::{Filter, Options};
use crate::command::shown;
use crate::control_client::{ControlClient, SecretRef};
use crate::failure::Failure;

#[derive(clap::Subcommand)]
pub(super) enum Secrets {
    /// List secrets of every kind
    List(Filter),
    /// Show a secret as JSON, without its values
    Show(Secret),
}

#[derive(clap::Args)]
pub(super) struct Secret {
    /// Its id or name
    #[arg(value_name = "SECRET")]
    secret: String,
}

impl Secrets {
    pub(super) async fn run(&self, client: &ControlClient, options: &Options) -> Result<(), Failure> {
        match self {
            Self::List(filter) => list(client, filter, options.json).await,
            Self::Show(Secret { secret: name }) => {
                let SecretRef { kind, resource } = client.secret(name).await?;
                if !options.json {
                    shown::line(&format!("secret: {name} (type {})", kind.name()))?;
                }
                shown::json(resource.value())
            }
        }
    }
}

async fn list(client: &ControlClient, filter: &Filter, json: bool) -> Result<(), Failure> {
    let mut found = client.secrets(&filter.labels()).await?;
    found.retain(|secret| filter.keeps(&secret.resource));
    let name = |secret: &SecretRef| secret.resource.text("foreign_id").map(str::to_owned);
    found.sort_by_key(|secret| (name(secret), secret.kind));
    if json {
        let all = found.into_iter().map(|SecretRef { kind, resource }| {
            let mut value = resource.into_value();
            value["kind"] = json!(kind.name());
            value
        });
        return shown::json(&all.collect());
    }
    if found.is_empty() {
        return shown::line(&format!("no secrets found in namespace {:?}", client.namespace()));
    }
    let kinds = found.iter().map(|secret| secret.kind.name().len()).max().unwrap_or_default();
    let names =
        found.iter().map(|secret| dash(secret.resource.text("foreign_id")).len()).max().unwrap_or_default();
    for SecretRef { kind, resource } in &found {
        let (kind, name, title) =
            (kind.name(), dash(resource.text("foreign_id")), resource.text("name").unwrap_or_default());
        shown::line(format!("{kind:<kinds$}  {name:<names$}  {}  {title}", resource.id()).trim_end())?;
    }
    shown::line(&format!("({} secret(s))", found.len()))
}
