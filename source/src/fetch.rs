//! One fetch from one source.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use keyferry_config::document::{Source, SourceKind};
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::environment::Environment;
use crate::error::SourceError;

/// The largest secret file: 1 MiB, which is what a Kubernetes Secret may hold.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Where a handle gets its value from.
pub(crate) trait Fetch: Send + Sync {
    fn fetch(&self) -> Fetching<'_>;

    /// Whether a later fetch may find another value.
    fn may_change(&self) -> bool {
        true
    }
}

pub(crate) type Fetching<'a> = Pin<Box<dyn Future<Output = Result<SecretString, SourceError>> + Send + 'a>>;

/// A source of the configuration.
pub(crate) struct FromSource {
    pub(crate) source: Source,
    pub(crate) environment: Environment,
}

impl Fetch for FromSource {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(async {
            let whole = match &self.source.kind {
                SourceKind::Env { var } => self.variable(var)?,
                SourceKind::File { path } => file(path.clone()).await?,
                kind @ (SourceKind::AwsSecretsManager { .. }
                | SourceKind::AwsParameterStore { .. }
                | SourceKind::OnePassword { .. }
                | SourceKind::OnePasswordConnect { .. }
                | SourceKind::VaultKv { .. }
                | SourceKind::ControlPlane { .. }) => {
                    return Err(SourceError::NotRead { kind: kind.type_name() });
                }
            };
            match &self.source.json_key {
                None => Ok(whole),
                Some(key) => json_string(&whole, key, &self.source.display_name()),
            }
        })
    }

    /// The environment of a process is what it was at its start.
    fn may_change(&self) -> bool {
        !matches!(self.source.kind, SourceKind::Env { .. })
    }
}

/// A value that somebody brings.
pub(crate) struct Brought {
    pub(crate) name: String,
    pub(crate) json_key: Option<String>,
    pub(crate) value: Mutex<SecretString>,
}

impl Brought {
    pub(crate) fn text(&self) -> Result<SecretString, SourceError> {
        let whole = self.value.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match &self.json_key {
            None => Ok(whole),
            Some(key) => json_string(&whole, key, &self.name),
        }
    }
}

impl Fetch for Arc<Brought> {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(async { self.text() })
    }
}

impl FromSource {
    fn variable(&self, var: &str) -> Result<SecretString, SourceError> {
        let value = self.environment.get(var).filter(|value| !value.expose_secret().is_empty());
        value.ok_or_else(|| SourceError::NotSet { var: var.to_owned() })
    }
}

async fn file(path: PathBuf) -> Result<SecretString, SourceError> {
    let name = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || read(&path));
    read.await.unwrap_or(Err(SourceError::Interrupted { name }))
}

/// Exact bytes, as a newline may belong to the secret.
fn read(path: &Path) -> Result<SecretString, SourceError> {
    let file = || path.display().to_string();
    let unreadable = |error: io::Error| SourceError::Unreadable { file: file(), kind: error.kind() };
    // Before opening: that would wait for the other end of a pipe.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err(SourceError::NotAFile { file: file() });
    }
    let mut opened = File::open(path).map_err(unreadable)?;

    // By hand, as `read_to_end` leaves unwiped copies behind when its buffer grows.
    let mut buffer = Zeroizing::new(vec![0; 4096]);
    let mut filled = 0;
    loop {
        match opened.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
        if filled > MAX_FILE_BYTES {
            return Err(SourceError::TooLarge { file: file(), limit: MAX_FILE_BYTES });
        }
        if filled == buffer.len() {
            let mut larger = Zeroizing::new(vec![0; buffer.len() * 2]);
            larger[..filled].copy_from_slice(&buffer);
            buffer = larger;
        }
    }
    if filled == 0 {
        return Err(SourceError::EmptyFile { file: file() });
    }
    let text = std::str::from_utf8(&buffer[..filled]).map_err(|_| SourceError::NotText { file: file() })?;
    Ok(SecretString::from(text))
}

/// The string under `key` at the top level of a JSON object. Of equal keys the last one counts, as in Go's reader.
fn json_string(whole: &SecretString, key: &str, source: &str) -> Result<SecretString, SourceError> {
    let (name, key_name) = (|| source.to_owned(), || key.to_owned());
    // Raw values borrow from the text, so what the other keys hold is not copied.
    let object: HashMap<String, &RawValue> = serde_json::from_str(whole.expose_secret())
        .map_err(|_| SourceError::NotAnObject { name: name(), key: key_name() })?;
    let raw = object.get(key).ok_or_else(|| SourceError::NoSuchKey { name: name(), key: key_name() })?;
    let text = serde_json::from_str(raw.get()).map(Zeroizing::<String>::new);
    match text {
        // Copied into its exact size: turning the `String` itself into a secret would shrink it and leave its old place unwiped.
        Ok(text) if !text.is_empty() => Ok(SecretString::from(text.as_str())),
        _ => Err(SourceError::NotAString { name: name(), key: key_name() }),
    }
}

#[cfg(test)]
mod tests;
