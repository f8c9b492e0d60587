//! Who is who in a data directory: the operator's key, the proxy, and the first sandbox. Control shows a token once, so they are kept
//! beside the keyring, in a file of mode 0600.

use keyferry_control::{Bootstrap, BootstrapError, Bootstrapped, Control};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;

use super::data_dir::DataDir;
use crate::control_client::{ControlClient, Resource, path};
use crate::failure::Failure;

const FILE: &str = "identities.json";
/// What the proxy, the first principal and its sandbox are called.
const NAME: &str = "default";

/// What is kept.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Identities {
    api_key: Option<Secret>,
    proxy: Option<Known>,
    sandbox: Option<Known>,
}

/// A resource and its token.
#[derive(Clone, Serialize, Deserialize)]
struct Known {
    id: String,
    token: Secret,
}

/// Written to its file and nowhere else.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
struct Secret(SecretString);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose_secret())
    }
}

impl Identities {
    pub(super) fn read(data: &DataDir) -> Result<Self, Failure> {
        let Some(text) = data.read(FILE)? else { return Ok(Self::default()) };
        serde_json::from_str(&text).map_err(|_| {
            let file = data.file(FILE);
            Failure::config(format!(
                "{} cannot be read\nhint: remove it, and new tokens are made",
                file.display()
            ))
        })
    }

    fn keep(&self, data: &DataDir) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self).map_err(Failure::fatal)?;
        data.write_private(FILE, &text)
    }

    /// Makes the first operator. The key that is good afterwards is `given`, the one that is kept, or a new one.
    pub(super) async fn api_key(
        &mut self,
        data: &DataDir,
        control: &Control,
        owner: &ControlClient,
        given: Option<SecretString>,
    ) -> Result<SecretString, Failure> {
        let kept = self.api_key.as_ref().map(|key| key.0.clone());
        let chosen = given.clone().or(kept);
        let bootstrap = Bootstrap { email: None, api_key: chosen.clone() };
        let key = match control.bootstrap(bootstrap).await.map_err(bootstrap_failure)? {
            Bootstrapped::WithNewKey(key) => key,
            Bootstrapped::WithGivenKey => chosen.unwrap_or_default(),
            Bootstrapped::Already => match chosen {
                Some(key) if owner.is_good(&key).await? => key,
                Some(_) if given.is_some() => {
                    return Err(Failure::config(format!(
                        "KEYFERRY_BOOTSTRAP_API_KEY is no key of {}, which was made with another\nhint: unset it",
                        data.path().display()
                    )));
                }
                Some(_) | None => {
                    let made = owner.post(&path(["api_keys"]), json!({ "name": "keyferry up" })).await?;
                    token_of(&made.resource()?)?
                }
            },
        };
        if given.is_none() {
            self.api_key = Some(Secret(key.clone()));
            self.keep(data)?;
        }
        Ok(key)
    }

    /// The token of the proxy of this process, registered where it is not, serving these namespaces.
    pub(super) async fn proxy(
        &mut self,
        data: &DataDir,
        owner: &ControlClient,
        namespaces: &[String],
    ) -> Result<SecretString, Failure> {
        if let Some(known) = &self.proxy {
            let at = path(["proxies", &known.id]);
            if owner.find(&at).await?.is_some() {
                owner.put(&at, json!({ "namespaces": namespaces })).await?;
                return Ok(known.token.0.clone());
            }
        }
        let body = json!({ "name": NAME, "kind": "shared", "namespaces": namespaces });
        let made = owner.post(&path(["proxies"]), body).await?.resource()?;
        let token = token_of(&made)?;
        self.proxy = Some(Known { id: made.id().to_owned(), token: Secret(token.clone()) });
        self.keep(data)?;
        Ok(token)
    }

    /// The proxy URL of the first sandbox, made with its principal where it is not there.
    pub(super) async fn proxy_url(
        &mut self,
        data: &DataDir,
        owner: &ControlClient,
        proxy: std::net::SocketAddr,
    ) -> Result<SecretString, Failure> {
        let live = match &self.sandbox {
            Some(known) => owner.find(&path(["sandboxes", &known.id])).await?,
            None => None,
        };
        if live.is_none_or(|sandbox| sandbox.text("status") != Some("live")) {
            let principal =
                owner.put(&path(["principals", NAME]), json!({ "namespace": owner.namespace() })).await?;
            let body = json!({ "name": NAME, "principal_id": principal.resource()?.id() });
            let made = owner.post(&path(["sandboxes"]), body).await?.resource()?;
            self.sandbox = Some(Known { id: made.id().to_owned(), token: Secret(token_of(&made)?) });
            self.keep(data)?;
        }
        match &self.sandbox {
            Some(Known { id, token }) => {
                Ok(format!("http://{id}:{}@{proxy}", token.0.expose_secret()).into())
            }
            None => Err(Failure::fatal("the first sandbox was not made")),
        }
    }
}

fn token_of(made: &Resource) -> Result<SecretString, Failure> {
    made.text("token").map(SecretString::from).ok_or_else(|| Failure::fatal("control made no token"))
}

fn bootstrap_failure(error: BootstrapError) -> Failure {
    match error {
        BootstrapError::Key | BootstrapError::Email => Failure::config(error),
        BootstrapError::NoRandomness(_) | BootstrapError::Store(_) => Failure::fatal(error),
    }
}
