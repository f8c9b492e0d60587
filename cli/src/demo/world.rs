//! What one run of the demonstration is made of: names, certificates, secrets made for this run alone.

use std::fs;
use std::path::{Path, PathBuf};

use keyferry_proxy::tls::{Authority, GeneratedPem, NewAuthority, crypto_provider};

use crate::failure::Failure;

/// The hosts that the proxy may call.
pub(super) const ALLOWED_HOSTS: [&str; 3] = ["api.localhost", "git.localhost", "other.localhost"];

/// A folder, its files, and two secrets.
pub(super) struct World {
    folder: PathBuf,
    pub(super) api_key: Secret,
    pub(super) git_password: Secret,
    pub(super) listener_password: String,
}

/// What the service wants and what the sandbox has.
pub(super) struct Secret {
    pub(super) real: String,
    pub(super) placeholder: String,
}

impl World {
    pub(super) fn create(folder: &Path) -> Result<Self, Failure> {
        let world = Self {
            folder: folder.to_owned(),
            api_key: Secret::new("sk-demo-")?,
            git_password: Secret::new("git-demo-")?,
            listener_password: random_hex()?,
        };
        for (name, certificate, key) in [
            ("keyferry demo proxy", world.proxy_certificate(), world.file("ca.key")),
            ("keyferry demo service", world.service_certificate(), world.service_key()),
        ] {
            let GeneratedPem { certificate: pem, key: secret } =
                Authority::generate(&NewAuthority { name: name.to_owned(), days: 31 })
                    .map_err(Failure::fatal)?;
            write(&certificate, pem.as_bytes())?;
            write_private(&key, secret.as_bytes())?;
        }
        Ok(world)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn configuration(&self) -> PathBuf {
        self.file("keyferry.yaml")
    }

    pub(super) fn proxy_certificate(&self) -> PathBuf {
        self.file("ca.crt")
    }

    pub(super) fn service_certificate(&self) -> PathBuf {
        self.file("service-ca.crt")
    }

    pub(super) fn service_key(&self) -> PathBuf {
        self.file("service-ca.key")
    }

    pub(super) fn audit(&self) -> PathBuf {
        self.file("audit.jsonl")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.file("proxy.log")
    }

    pub(super) fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    pub(super) fn real_values(&self) -> [&str; 2] {
        [&self.api_key.real, &self.git_password.real]
    }

    /// Written where the proxy reads it, and worth reading: this is all that an operator writes.
    pub(super) fn write_configuration(&self, proxy_port: u16, service_port: u16) -> Result<(), Failure> {
        let [api, git, other] = ALLOWED_HOSTS;
        let (key, password) = (&self.api_key.placeholder, &self.git_password.placeholder);
        let text = format!(
            r#"proxy:
  tunnel_listen: "127.0.0.1:{proxy_port}"
  auth: {{ user: sandbox, password: {{ type: env, var: DEMO_LISTENER_PASSWORD }} }}
  allowed_ports: [{service_port}]
  upstream_allow_cidrs: ["127.0.0.0/8", "::1/128"]   # the service of this demonstration is on loopback
tls: {{ ca_cert: ca.crt, ca_key: ca.key, upstream_ca: service-ca.crt }}
transforms:
  - name: allowlist
    config:
      domains: [{api}, {git}, {other}]
  - name: secrets
    config:
      secrets:
        - source: {{ type: env, var: DEMO_API_KEY }}
          replace: {{ proxy_value: {key}, match_headers: [Authorization, X-Api-Key] }}
          rules: [{{ host: {api} }}]
        - source: {{ type: env, var: DEMO_GIT_PASSWORD }}
          replace: {{ proxy_value: {password}, match_headers: [Authorization] }}
          rules: [{{ host: {git} }}]
audit: {{ sink: file, path: audit.jsonl }}
"#
        );
        write(&self.configuration(), text.as_bytes())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Secret {
    fn new(prefix: &str) -> Result<Self, Failure> {
        Ok(Self { real: format!("{prefix}{}", random_hex()?), placeholder: format!("kf_{}", random_hex()?) })
    }

    /// Enough of it to recognise.
    pub(super) fn shown_real(&self) -> String {
        let digits = self.real.len() - 32;
        format!("{}…", &self.real[..digits + 4])
    }
}

pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    fs::write(path, content).map_err(|error| Failure::fatal(format!("{}: {error}", path.display())))
}

fn write_private(path: &Path, content: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .map_err(|error| Failure::fatal(format!("{}: {error}", path.display())))
}

/// 128 random bits.
fn random_hex() -> Result<String, Failure> {
    let mut bytes = [0_u8; 16];
    crypto_provider().secure_random.fill(&mut bytes).map_err(|_| Failure::fatal("no random numbers"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
