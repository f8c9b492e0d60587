//! Which control service a command asks, and about which namespace.

use std::path::PathBuf;

use secrecy::SecretString;

use crate::control_client::{ControlClient, Endpoint};
use crate::environment;
use crate::failure::Failure;
use crate::service::Service;

/// Without an address, the keyferry of a data directory is asked through the owner's socket.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Which control service")]
pub(crate) struct ControlOptions {
    /// Its address: https://HOST, http://127.0.0.1:7443 or unix:PATH [env: KEYFERRY_CONTROL_URL or IRON_CONTROL_URL]
    #[arg(long, value_name = "URL", alias = "iron-control-url", global = true)]
    control_url: Option<String>,
    /// An API key for it. Better given by the variable, which `ps` does not show [env: KEYFERRY_CONTROL_API_KEY or
    /// IRON_CONTROL_API_KEY]
    #[arg(long, value_name = "KEY", alias = "iron-control-api-key", global = true)]
    control_api_key: Option<SecretString>,
    /// The namespace [default: default] [env: KEYFERRY_CONTROL_NAMESPACE or IRON_CONTROL_NAMESPACE]
    #[arg(long, value_name = "NAME", global = true)]
    namespace: Option<String>,
    /// The data directory of the keyferry to ask, where no address is given; one is started where none runs [env: KEYFERRY_DATA_DIR]
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

impl ControlOptions {
    /// The service that is named, if one is.
    fn named(&self) -> Result<Option<ControlClient>, Failure> {
        let named = match (&self.control_url, &self.data_dir) {
            (Some(url), _) => Some(url.clone()),
            (None, Some(_)) => None,
            (None, None) => twin("CONTROL_URL"),
        };
        let Some(url) = named else { return Ok(None) };
        let endpoint: Endpoint = url.parse().map_err(Failure::config)?;
        let key = self.control_api_key.clone().or_else(|| twin("CONTROL_API_KEY").map(Into::into));
        self.client(endpoint, key.as_ref()).map(Some)
    }

    fn client(&self, endpoint: Endpoint, key: Option<&SecretString>) -> Result<ControlClient, Failure> {
        ControlClient::new(endpoint, key, namespace(self.namespace.clone())).map_err(Failure::config)
    }

    /// Runs `ask` with a connection to be made: to the service that is named, or to the keyferry of the data directory, which is started
    /// for as long where it does not run.
    pub(crate) fn ask(
        &self,
        ask: impl AsyncFnOnce(&ControlClient) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        block_on(async {
            if let Some(client) = self.named()? {
                return ask(&client).await;
            }
            let service = Service::of(&self.data_dir()?, &namespace(self.namespace.clone()), "verb").await?;
            match &self.control_api_key {
                // The owner may ask as somebody else.
                Some(key) => {
                    let endpoint = service.client().endpoint().clone();
                    ask(&self.client(endpoint, Some(key))?).await
                }
                None => ask(service.client()).await,
            }
        })
    }

    /// The same, and nothing is started.
    pub(crate) fn ask_what_runs(
        &self,
        ask: impl AsyncFnOnce(&ControlClient) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        block_on(async {
            let client = match self.named()? {
                Some(client) => client,
                // A key from the environment is for another service than this one, which needs none.
                None => self.client(Endpoint::socket(self.socket()?), self.control_api_key.as_ref())?,
            };
            ask(&client).await
        })
    }

    /// The data directory, whether or not anybody uses it.
    pub(crate) fn data_dir(&self) -> Result<PathBuf, Failure> {
        data_dir(self.data_dir.clone())
    }

    fn socket(&self) -> Result<PathBuf, Failure> {
        let socket = self.data_dir()?.join("control.sock");
        if socket.exists() {
            return Ok(socket);
        }
        let socket = socket.display();
        Err(Failure::config(format!(
            "no control service is named, and none is at {socket}\n\
             hint: start `keyferry up`, or set KEYFERRY_CONTROL_URL and KEYFERRY_CONTROL_API_KEY"
        )))
    }
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::fatal(format!("the runtime cannot be started: {error}")))?
        .block_on(work)
}

/// The namespace that counts.
pub(super) fn namespace(named: Option<String>) -> String {
    named.or_else(|| twin("CONTROL_NAMESPACE")).unwrap_or_else(|| "default".to_owned())
}

/// Where `keyferry up` keeps what it makes.
pub(crate) fn data_dir(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let from_home = || {
        let set = |name| environment::variable(name).filter(|text| !text.is_empty()).map(PathBuf::from);
        let data = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")));
        data.map(|data| data.join("keyferry"))
    };
    let set =
        || environment::variable("KEYFERRY_DATA_DIR").filter(|text| !text.is_empty()).map(PathBuf::from);
    named.or_else(set).or_else(from_home).ok_or_else(|| {
        Failure::config(
            "there is no home for a data directory\nhint: give --data-dir DIR, or set KEYFERRY_DATA_DIR",
        )
    })
}

/// Ours wins over that of iron-control's own clients; an empty one counts as unset.
fn twin(name: &str) -> Option<String> {
    ["KEYFERRY_", "IRON_"]
        .into_iter()
        .find_map(|prefix| environment::variable(&format!("{prefix}{name}")).filter(|text| !text.is_empty()))
}
