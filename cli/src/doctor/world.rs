//! What clients are tried with: a keyferry of its own on a folder of its own, a service, and a secret that opens it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use keyferry_control::secret::SecretKind;
use keyferry_proxy::tls::{Authority, GeneratedPem, NewAuthority};
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::names;
use super::service::Clinic;
use crate::command::secret::generated;
use crate::control_client::Grantee;
use crate::failure::Failure;
use crate::service::Service;

/// Whose sandboxes they are.
pub(super) const PRINCIPAL: &str = "default";
/// What the variable with the placeholder is called.
const SECRET: &str = "DOCTOR_TOKEN";

pub(super) struct World {
    folder: TempDir,
    keyferry: Service,
    pub(super) service: Clinic,
}

impl World {
    pub(super) async fn create() -> Result<Self, Failure> {
        let folder = folder().map_err(|error| Failure::fatal(format!("no temporary folder: {error}")))?;
        let (certificate, key) = (folder.path().join("service.crt"), folder.path().join("service.key"));
        let new = NewAuthority { name: "keyferry doctor service".to_owned(), days: 2 };
        let GeneratedPem { certificate: pem, key: secret } =
            Authority::generate(&new).map_err(Failure::fatal)?;
        write(&certificate, pem.as_bytes())?;
        // The folder is its owner's alone.
        write(&key, secret.as_bytes())?;
        let value = generated()?;
        let service = Clinic::open(&certificate, &key, SecretString::from(value.as_str())).await?;

        let data = folder.path().join("data");
        DirBuilder::new().mode(0o700).create(&data).map_err(failed(&data))?;
        let settings = json!({
            "proxy": { "upstream_allow_cidrs": ["127.0.0.0/8"], "drain_timeout": "1s" },
            "tls": { "upstream_ca": certificate },
            "dns": { "upstream_resolver": names::serve().await?.to_string() },
            "audit": { "sink": "file", "path": data.join("audit.jsonl") },
        });
        // A text in JSON is one in YAML.
        write(&data.join("proxy.yaml"), settings.to_string().as_bytes())?;
        let keyferry = Service::alone(&data, "doctor").await?;
        let world = Self { folder, keyferry, service };
        match world.grant(&value).await {
            Ok(()) => Ok(world),
            Err(failure) => {
                world.end(true).await;
                Err(failure)
            }
        }
    }

    async fn grant(&self, value: &str) -> Result<(), Failure> {
        let client = self.keyferry.client();
        let secret = json!({
            "namespace": client.namespace(),
            "foreign_id": SECRET,
            "source": { "source_type": "control_plane", "secret": value },
            "rules": [{ "host": format!("*.{}", names::DOMAIN), "ports": [self.service.port()] }],
            "replace_config": { "proxy_value": generated()? },
        });
        let secret = client.create_secret(SecretKind::Static, secret).await?.resource()?;
        let principal = Grantee::Principal(client.principal(PRINCIPAL).await?);
        client.grant(&principal, (SecretKind::Static, secret.id()), &[]).await?;
        Ok(())
    }

    pub(super) fn keyferry(&self) -> &Service {
        &self.keyferry
    }

    /// A directory for one client.
    pub(super) fn workspace(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.path().join("work").join(name);
        fs::create_dir_all(&path).map_err(failed(&path))?;
        Ok(path)
    }

    /// What the proxy wrote about this host last.
    pub(super) fn record_of(&self, host: &str) -> Option<Value> {
        let text = fs::read_to_string(self.keyferry.data_dir().join("audit.jsonl")).ok()?;
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.rev().find(|record| record["audit"]["host"] == host)
    }

    /// Removes it. `left`: the keyferry has sandboxes to take back.
    pub(super) async fn end(self, left: bool) {
        self.keyferry.end(left).await;
    }
}

/// Where temporary folders are, or in `/tmp` where that would be too long a path for a sandbox's socket (unix(7): 108 bytes).
fn folder() -> std::io::Result<TempDir> {
    /// What stands behind it leaves so much.
    const LONGEST: usize = 50;
    let mut builder = tempfile::Builder::new();
    let folder = builder.prefix("keyferry-doctor-").tempdir()?;
    match folder.path().as_os_str().len() {
        0..=LONGEST => Ok(folder),
        _ => builder.tempdir_in("/tmp"),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    fs::write(path, content).map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| Failure::fatal(format!("{}: {error}", path.display()))
}
