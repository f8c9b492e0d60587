//! A data directory in which nothing runs: what is in it, without starting anything.

use std::path::Path;

use keyferry_control::Survey;
use keyferry_seal::{KeyId, Keyring, Keys};
use keyferry_store::{DatabaseUrl, Store};
use serde_json::json;

use super::super::shown;
use crate::failure::Failure;

/// The exit code of `keyferry status` where nothing runs, as service managers know it.
const NOT_RUNNING: u8 = 3;

/// Always ends in a failure: nothing runs.
pub(super) async fn tell(data_dir: &Path, as_json: bool) -> Result<(), Failure> {
    let shown_dir = data_dir.display().to_string();
    if !data_dir.join("keyferry.db").exists() {
        if as_json {
            shown::json(&json!({ "control": { "data_dir": shown_dir, "ready": false } }))?;
        }
        return Err(Failure::with_code(
            NOT_RUNNING,
            format!("nothing runs at {shown_dir}, and nothing is kept there\nhint: start `keyferry up`"),
        ));
    }
    let keys = Keys::from_file(&data_dir.join("keyring"));
    let survey = survey(data_dir, keys.as_ref().ok()).await?;
    let keyring = keys.as_ref().map(Keys::current);
    if as_json {
        let ids = |keyring: &Keyring| keyring.ids().map(|id| id.to_string()).collect::<Vec<_>>();
        let keyring = match &keyring {
            Ok(keyring) => json!({ "current": keyring.current().to_string(), "keys": ids(keyring) }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        let control = json!({ "data_dir": shown_dir, "ready": false });
        shown::json(&json!({ "control": control, "holds": survey, "keyring": keyring }))?;
    } else {
        let Survey { generation, principals, roles, secrets, grants, proxies, sandboxes } = &survey;
        shown::line(&format!("control  {shown_dir}  does not run"))?;
        shown::line(&format!("state    {} of epoch {}", generation.number, generation.epoch))?;
        shown::line(&format!(
            "holds    principals {principals}, roles {roles}, secrets {secrets}, grants {grants}, proxies {proxies}, \
             sandboxes {sandboxes}"
        ))?;
        shown::line(&match &keyring {
            Ok(keyring) => {
                let key = |id: KeyId| {
                    if id == keyring.current() { format!("{id} (current)") } else { id.to_string() }
                };
                format!("keyring  {}", keyring.ids().map(key).collect::<Vec<_>>().join(", "))
            }
            Err(error) => format!("keyring  {error}"),
        })?;
    }
    Err(Failure::with_code(NOT_RUNNING, format!("nothing runs at {shown_dir}\nhint: start `keyferry up`")))
}

/// Counting opens no value, so any keys will do where the right ones are lost.
async fn survey(data_dir: &Path, keys: Option<&Keys>) -> Result<Survey, Failure> {
    let keys = match keys {
        Some(keys) => keys.clone(),
        None => Keys::fixed(Keyring::generate().map_err(Failure::fatal)?),
    };
    let url = DatabaseUrl::sqlite(data_dir.join("keyferry.db"));
    let store = Store::attach(&url, keys).await.map_err(Failure::fatal)?;
    let survey = Survey::of(&store).await.map_err(Failure::fatal);
    store.close().await;
    survey
}
