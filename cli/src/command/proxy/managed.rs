//! Where the proxy's policy comes from, if not from its configuration.

use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use keyferry_proxy::{Kept, ManagedOptions};
use keyferry_seal::{Keyring, Keys};
use secrecy::SecretString;

use crate::environment;
use crate::failure::Failure;

const URL: [&str; 2] = ["KEYFERRY_CONTROL_PLANE_URL", "IRON_CONTROL_PLANE_URL"];
const TOKEN: [&str; 2] = ["KEYFERRY_PROXY_TOKEN", "IRON_PROXY_TOKEN"];
const KEYRING: &str = "KEYFERRY_KEYRING";

/// The control service, and what is kept of what it says.
#[derive(clap::Args)]
pub(crate) struct Managed {
    /// The control service: https://HOST, http://127.0.0.1:PORT or unix:PATH. The proxy's token is in the variable
    /// KEYFERRY_PROXY_TOKEN. Without this, KEYFERRY_CONTROL_PLANE_URL or IRON_CONTROL_PLANE_URL is the address
    #[arg(long, value_name = "URL")]
    control: Option<String>,
    /// Where sandboxes reach this proxy, if not at its first listener
    #[arg(long, value_name = "ADDRESS", env = "KEYFERRY_PROXY_ADDRESS", value_parser = NonEmptyStringValueParser::new())]
    address: Option<String>,
    /// The file with the keys that seal the last policy on disk. Without it, the keys are those in the variable KEYFERRY_KEYRING;
    /// without both, no policy is kept
    #[arg(long, value_name = "FILE", env = "KEYFERRY_KEYRING_FILE")]
    keyring: Option<PathBuf>,
    /// Where the last policy is kept, for a start without the control service [default: policy.sealed beside the configuration]
    #[arg(long, value_name = "FILE", env = "KEYFERRY_POLICY_FILE")]
    policy_file: Option<PathBuf>,
    /// Where sandboxes have sockets of their own (DIR/ID/proxy.sock). Without it, only sandboxes with a token are served
    #[arg(long, value_name = "DIR", env = "KEYFERRY_SANDBOX_SOCKETS")]
    sandbox_sockets: Option<PathBuf>,
}

impl Managed {
    /// `None` where the configuration is the policy.
    pub(crate) fn options(self, config: &Path) -> Result<Option<ManagedOptions>, Failure> {
        let set = |name: &&str| environment::variable(name).filter(|value| !value.is_empty());
        let control = self.control.clone().or_else(|| URL.iter().find_map(set));
        let token = TOKEN.iter().find_map(set).map(SecretString::from);
        match (control, token) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(Failure::config(format!(
                "the proxy has the address of a control service and no token\nhint: create a proxy there, and set {}",
                TOKEN[0]
            ))),
            (None, Some(_)) => Err(Failure::config(format!(
                "the proxy has a token and no address of a control service\nhint: give --control, or set {}",
                URL[0]
            ))),
            (Some(control), Some(token)) => {
                let control = control.parse().map_err(Failure::config)?;
                let kept = self.kept(config)?;
                let Self { address, sandbox_sockets, .. } = self;
                Ok(Some(ManagedOptions { control, token, kept, address, sandbox_sockets }))
            }
        }
    }

    fn kept(&self, config: &Path) -> Result<Option<Kept>, Failure> {
        let keys = match &self.keyring {
            Some(file) => Keys::from_file(file).map_err(Failure::config)?,
            None => match environment::variable(KEYRING).map(SecretString::from) {
                Some(text) => Keys::fixed(Keyring::parse(&text, KEYRING).map_err(Failure::config)?),
                None => return Ok(None),
            },
        };
        let path = self.policy_file.clone().unwrap_or_else(|| config.with_file_name("policy.sealed"));
        Ok(Some(Kept { path, keys }))
    }
}
