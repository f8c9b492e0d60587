//! The proxy's own settings: those of a file, if there is one, with the authority and the listener of this data directory.

use std::fs;
use std::path::{Path, PathBuf};

use keyferry_config::document::{Document, Loaded, Options, parse};
use keyferry_proxy::Configuration;
use serde_json::json;

use super::data_dir::DataDir;
use crate::environment;

const LISTEN: &str = "KEYFERRY_PROXY_TUNNEL_LISTEN";
const DEFAULT_LISTEN: &str = "127.0.0.1:3128";

/// Where the document comes from, at the start and at each reload.
#[derive(Debug)]
pub(super) struct OwnSettings {
    file: Option<PathBuf>,
    /// What counts without a file.
    without: String,
    listen: Option<String>,
    ca_cert: String,
    ca_key: String,
}

impl OwnSettings {
    /// Without a file it is `proxy.yaml` of the data directory, where there is one. `unseen`: nobody reads what this process writes.
    pub(super) fn new(file: Option<PathBuf>, listen: Option<String>, unseen: bool, data: &DataDir) -> Self {
        let (cert, key) = data.authority();
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let file = file.or_else(|| Some(data.file("proxy.yaml")).filter(|file| file.exists()));
        let without = match unseen {
            false => "proxy: {}\n".to_owned(),
            // A text in JSON is one in YAML.
            true => {
                let path = json!(text(data.file("audit.jsonl")));
                format!("audit: {{ sink: file, path: {path}, rotate: {{ max_bytes: 67108864, keep: 3 }} }}\n")
            }
        };
        Self { file, without, listen, ca_cert: text(cert), ca_key: text(key) }
    }

    /// What `up` sets wins over the file, as variables do; the rest of the environment counts as it does for `keyferry proxy`.
    fn parse(&self, listen: Option<&str>) -> Result<Document, String> {
        let name = self.file.as_deref().unwrap_or(Path::new("the settings of this command"));
        let text = match &self.file {
            Some(path) => fs::read_to_string(path)
                .map_err(|error| format!("{}: cannot be read: {error}", path.display()))?,
            None => self.without.clone(),
        };
        let variable = |name: &str| match name {
            LISTEN if listen.is_some() => listen.map(str::to_owned),
            "KEYFERRY_TLS_CA_CERT" => Some(self.ca_cert.clone()),
            "KEYFERRY_TLS_CA_KEY" => Some(self.ca_key.clone()),
            other => environment::variable(other),
        };
        let loaded = parse(&name.display().to_string(), &text, &variable, Options::default());
        let Loaded { document, unsupported, .. } = loaded.map_err(|problems| problems.to_string())?;
        if unsupported.is_empty() { Ok(document) } else { Err(unsupported.to_string()) }
    }
}

impl Configuration for OwnSettings {
    fn load(&self) -> Result<Document, String> {
        let document = self.parse(self.listen.as_deref())?;
        if document.proxy.tunnel_listen.is_empty() { self.parse(Some(DEFAULT_LISTEN)) } else { Ok(document) }
    }

    fn applied(&self, _: &Document) {}
}
