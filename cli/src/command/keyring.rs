//! `keyferry keyring`: the keys around secrets in the database.

mod init;
mod rotate;
mod status;

use std::path::PathBuf;

use keyferry_seal::Keys;
use keyferry_store::{DatabaseUrl, Schema, Store};
use secrecy::SecretString;

use crate::environment;
use crate::failure::Failure;

/// Make, count and rotate the keys that seal secrets in the database
#[derive(clap::Subcommand)]
pub(crate) enum Keyring {
    Init(init::Init),
    Status(status::Status),
    Rotate(rotate::Rotate),
}

impl Keyring {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Init(init) => init.run(),
            Self::Status(status) => status.run(),
            Self::Rotate(rotate) => rotate.run(),
        }
    }
}

/// Which keys, and which database.
#[derive(clap::Args)]
pub(crate) struct Where {
    /// The file with the keys. Without it, the keys are those in the variable KEYFERRY_KEYRING
    #[arg(long, value_name = "FILE", env = "KEYFERRY_KEYRING_FILE")]
    keyring: Option<PathBuf>,
    /// sqlite:FILE or postgres://USER@HOST/DATABASE. One with a password is better given by the variable, which `ps` does not show
    #[arg(long, value_name = "URL", env = "KEYFERRY_DATABASE_URL", hide_env_values = true)]
    database: SecretString,
}

impl Where {
    fn keys(&self) -> Result<Keys, Failure> {
        const VARIABLE: &str = "KEYFERRY_KEYRING";
        if let Some(file) = &self.keyring {
            return Keys::from_file(file).map_err(Failure::config);
        }
        let text = environment::variable(VARIABLE).ok_or_else(|| {
            Failure::config(format!("no keyring is named\nhint: give --keyring FILE, or set {VARIABLE}"))
        })?;
        let keyring = keyferry_seal::Keyring::parse(&SecretString::from(text), VARIABLE);
        keyring.map(Keys::fixed).map_err(Failure::config)
    }

    /// The database, brought up to what `schemas` say.
    pub(crate) async fn open(&self, schemas: &[Schema]) -> Result<Store, Failure> {
        let keys = self.keys()?;
        let url = DatabaseUrl::parse(&self.database).map_err(Failure::config)?;
        Store::open(&url, keys, schemas).await.map_err(Failure::fatal)
    }

    async fn attach(&self, keys: Keys) -> Result<Store, Failure> {
        let url = DatabaseUrl::parse(&self.database).map_err(Failure::config)?;
        Store::attach(&url, keys).await.map_err(Failure::fatal)
    }
}

fn block_on(future: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime
        .map_err(|error| Failure::fatal(format!("the runtime cannot be started: {error}")))?
        .block_on(future)
}
