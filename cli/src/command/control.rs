//! `keyferry control`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::NonEmptyStringValueParser;
use jiff::Timestamp;
use keyferry_config::document::LogLevel;
use keyferry_control::{
    Bootstrap, BootstrapError, Bootstrapped, Listen, SCHEMA, ServeError, Server, Settings, TlsFiles,
};
use secrecy::ExposeSecret;

use super::keyring::Where;
use super::proxy::Shutdown;
use crate::environment;
use crate::failure::Failure;
use crate::log::Log;

/// Run the control service
///
/// Principals, roles, secrets and grants over an HTTP API, and what each proxy must enforce. Its answers to proxies carry live
/// values, so it listens on loopback, on a Unix socket, or with TLS, and refuses anything else.
///
/// On the first start it makes an operator and an API key, which stands once in the log; KEYFERRY_BOOTSTRAP_API_KEY gives one instead.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry keyring init --keyring keyring
  keyferry control --keyring keyring --database sqlite:keyferry.db

Exit codes: 0 ended by a signal, 1 something failed (a port in use, for example), 2 the configuration is wrong.")]
pub(crate) struct Control {
    #[command(flatten)]
    store: Where,
    /// HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDRESS", env = "KEYFERRY_CONTROL_LISTEN", default_value = "127.0.0.1:7443")]
    listen: String,
    /// The certificate to serve with, PEM
    #[arg(long, value_name = "FILE", env = "KEYFERRY_CONTROL_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", env = "KEYFERRY_CONTROL_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Where sandboxes reach the shared proxy, HOST:PORT, where no proxy says it of itself
    #[arg(long, value_name = "ADDRESS", env = "KEYFERRY_PROXY_ADDRESS", value_parser = NonEmptyStringValueParser::new())]
    proxy_address: Option<String>,
    /// Who the first operator is
    #[arg(long, value_name = "ADDRESS", env = "KEYFERRY_BOOTSTRAP_EMAIL")]
    bootstrap_email: Option<String>,
    /// The database was restored from a backup: proxies shall not take it for an older state of what they have
    #[arg(long)]
    new_epoch: bool,
}

impl Control {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let listen: Listen = self.listen.parse().map_err(serve_failure)?;
        Log::to_stderr(LogLevel::Info);
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::fatal(format!("the runtime cannot be started: {error}")))?
            .block_on(self.serve(listen))
    }

    async fn serve(self, listen: Listen) -> Result<(), Failure> {
        let shutdown = Shutdown::listen()?;
        let tls = self.tls_cert.zip(self.tls_key).map(|(certificate, key)| TlsFiles { certificate, key });
        // Before the database is touched: what must not listen must not change anything either.
        let server = Server::open(&listen, tls.as_ref()).await.map_err(serve_failure)?;
        let store = self.store.open(&[SCHEMA]).await?;
        if self.new_epoch {
            keyferry_control::Control::begin_epoch(&store).await.map_err(Failure::fatal)?;
        }
        let settings = Settings { proxy_address: self.proxy_address };
        let control = keyferry_control::Control::start(store.clone(), Arc::new(Timestamp::now), settings)
            .await
            .map_err(Failure::fatal)?;
        let api_key = environment::variable("KEYFERRY_BOOTSTRAP_API_KEY").filter(|key| !key.is_empty());
        let bootstrap = Bootstrap { email: self.bootstrap_email, api_key: api_key.map(Into::into) };
        match control.bootstrap(bootstrap).await.map_err(bootstrap_failure)? {
            Bootstrapped::WithNewKey(key) => {
                let key = key.expose_secret();
                tracing::info!(api_key = key, "the first operator's key; it is not shown again");
            }
            Bootstrapped::WithGivenKey => tracing::info!("the first operator has the key that was given"),
            Bootstrapped::Already => {}
        }
        tracing::info!(address = server.address, "control is ready");
        server.run(control.router(), shutdown.requested()).await;
        store.close().await;
        Ok(())
    }
}

pub(crate) fn serve_failure(error: ServeError) -> Failure {
    match error {
        ServeError::InTheClear(_) | ServeError::Address(_) | ServeError::Certificate { .. } => {
            Failure::config(error)
        }
        ServeError::Listen { .. } => Failure::fatal(error),
    }
}

fn bootstrap_failure(error: BootstrapError) -> Failure {
    match error {
        BootstrapError::Key | BootstrapError::Email => Failure::config(error),
        BootstrapError::NoRandomness(_) | BootstrapError::Store(_) => Failure::fatal(error),
    }
}
