//! `keyferry status`.

use serde_json::json;

use super::control_options::ControlOptions;
use super::{proxies, shown};
use crate::control_client::{ControlClient, Resource, path};
use crate::failure::Failure;

/// Tell what runs: the control service, its proxies, and the state that each of them has applied
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry status
  keyferry status --json

Exit codes: 0 control runs and its database answers, 1 it does not, 2 the command line is wrong or names no service.")]
pub(crate) struct Status {
    #[command(flatten)]
    control: ControlOptions,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) fn run(self) -> Result<(), Failure> {
        self.control.ask_what_runs(async |client| self.tell(client).await)
    }

    async fn tell(&self, client: &ControlClient) -> Result<(), Failure> {
        client.ready().await?;
        let all = client.list(&path(["proxies"])).await?;
        if self.json {
            let all: Vec<_> = all.into_iter().map(Resource::into_value).collect();
            return shown::json(
                &json!({ "control": { "url": client.endpoint().to_string(), "ready": true }, "proxies": all }),
            );
        }
        shown::line(&format!("control  {}  ready", client.endpoint()))?;
        let rows: Vec<_> = all
            .iter()
            .map(|proxy| {
                let [name, _, kind, status, applied, address] = proxies::row(proxy);
                [name, kind, status, applied, address, shown::cell(proxy.text("seen_at"))]
            })
            .collect();
        shown::table(["PROXY", "KIND", "STATUS", "APPLIED", "ADDRESS", "SEEN"], &rows, "no proxies")
    }
}
