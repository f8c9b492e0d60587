//! `keyferry up`.

use std::net::SocketAddr;
use std::path::PathBuf;

use keyferry_config::document::{ListenAddr, LogLevel};
use secrecy::ExposeSecret;
use serde_json::json;

use super::control_options::data_dir;
use super::proxy::{Shutdown, raise_descriptor_limit};
use crate::environment;
use crate::failure::Failure;
use crate::log::Log;
use crate::terminal;
use crate::up::{self, Wanted};

/// Run control and a shared proxy in one process, over one folder
///
/// The folder is made where it is not there: database, keyring, certificate authority, the first API key, a first principal and a
/// sandbox of it, whose proxy URL is printed. `keyferry secret`, `grant` and the other verbs reach this service through a socket in the
/// folder, without a key.
///
/// Logs JSON lines on stderr. SIGTERM and SIGINT end both.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry up
  keyferry up --data-dir ./data --control 127.0.0.1:7443 --proxy 127.0.0.1:3128
  keyferry up --config proxy.yaml --json

Exit codes: 0 ended by a signal, 1 something failed (a port or the folder in use, for example), 2 the configuration is wrong.")]
pub(crate) struct Up {
    /// The folder [default: ~/.local/share/keyferry] [env: KEYFERRY_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the control API listens, on loopback
    #[arg(long, value_name = "ADDRESS", env = "KEYFERRY_CONTROL_LISTEN", default_value = "127.0.0.1:7443")]
    control: SocketAddr,
    /// Where the proxy listens [default: that of the configuration, or 127.0.0.1:3128]
    #[arg(long, value_name = "ADDRESS", value_parser = listener)]
    proxy: Option<String>,
    /// The proxy's own settings: listeners, limits, roots, ranges; everything but the policy [default: proxy.yaml in the folder, if
    /// it is there]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The namespaces whose sandboxes the proxy serves
    #[arg(long = "namespace", value_name = "NAME", default_value = "default")]
    namespaces: Vec<String>,
    /// Print one line of JSON once everything is ready
    #[arg(long)]
    json: bool,
    /// Serve nobody but the owner, for as long as a command needs it; `keyferry run` and the verbs start it so
    #[arg(long, hide = true)]
    while_used: bool,
}

impl Up {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if self.while_used {
            // What ends the command that started it is not meant for it. It fails where nobody else's session is to be left.
            let _ = rustix::process::setsid();
        }
        // Where nobody is told where they are, ports of their own collide with nobody's.
        let unseen = self.while_used.then(|| "127.0.0.1:0".to_owned());
        let wanted = Wanted {
            data_dir: data_dir(self.data_dir)?,
            control: (!self.while_used).then_some(self.control),
            proxy: self.proxy.or(unseen),
            config: self.config,
            namespaces: self.namespaces,
            api_key: environment::variable("KEYFERRY_BOOTSTRAP_API_KEY")
                .filter(|key| !key.is_empty())
                .map(Into::into),
            while_used: self.while_used,
        };
        let _log = Log::to_stderr(LogLevel::Info);
        raise_descriptor_limit();
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::fatal(format!("the runtime cannot be started: {error}")))?
            .block_on(async {
                let shutdown = Shutdown::listen()?;
                let up = up::Up::start(wanted).await?;
                match (self.while_used, self.json) {
                    (true, _) => {}
                    (false, true) => print_json(&up)?,
                    (false, false) => print_text(&up)?,
                }
                up.run_until(shutdown.requested()).await;
                Ok(())
            })
    }
}

fn print_json(up: &up::Up) -> Result<(), Failure> {
    terminal::data(json!({
        "control_url": up.control_url,
        "proxy_url": up.proxy_url.expose_secret(),
        "api_key": up.api_key.expose_secret(),
        "ca_file": up.ca_file,
        "ca_bundle": up.ca_bundle,
    }))
}

fn print_text(up: &up::Up) -> Result<(), Failure> {
    terminal::data(format!("control  {}", up.control_url.as_deref().unwrap_or_default()))?;
    terminal::data(format!("data     {}", up.data_dir.display()))?;
    terminal::data(format!("export HTTPS_PROXY={}", up.proxy_url.expose_secret()))?;
    terminal::data(format!("export SSL_CERT_FILE={}", quoted(&up.ca_bundle.to_string_lossy())))
}

/// A word for a shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%".contains(&byte);
    if text.bytes().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn listener(text: &str) -> Result<String, String> {
    let read = text.parse::<ListenAddr>().map(|_| text.to_owned());
    read.map_err(|error| format!("{} ({})", error.message, error.hint))
}
