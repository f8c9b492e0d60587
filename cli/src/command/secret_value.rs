//! A secret's value on its way in: from a file, from stdin, or typed. Never an argument, which `ps` and the shell's history show.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Where it is.
#[derive(clap::Args)]
pub(super) struct ValueOptions {
    /// Read the value from this file; - is stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from_env", "from_file"])]
    value_file: Option<PathBuf>,
    /// Keep no value: proxies read this variable of their own
    #[arg(long, value_name = "VARIABLE", conflicts_with = "from_file")]
    from_env: Option<String>,
    /// Keep no value: proxies read this file of their own
    #[arg(long, value_name = "FILE")]
    from_file: Option<String>,
}

impl ValueOptions {
    /// Whether the command line says it.
    pub(super) fn is_given(&self) -> bool {
        self.value_file.is_some() || self.from_env.is_some() || self.from_file.is_some()
    }

    /// The source of a secret called `what`, as the API takes it. A value that nothing names is typed or piped in.
    pub(super) fn source(&self, what: &str) -> Result<Value, Failure> {
        match (&self.from_env, &self.from_file) {
            (Some(variable), _) => Ok(json!({ "source_type": "env", "config": { "var": variable } })),
            (None, Some(path)) => Ok(json!({ "source_type": "file", "config": { "path": path } })),
            (None, None) => {
                let value = read(self.value_file.as_ref(), what)?;
                Ok(json!({ "source_type": "control_plane", "secret": value.expose_secret() }))
            }
        }
    }
}

/// Where it comes from: a file, `-` for stdin; without either, what is typed or piped in.
fn read(file: Option<&PathBuf>, what: &str) -> Result<SecretString, Failure> {
    let text = match file.map(PathBuf::as_path) {
        Some(path) if path != Path::new("-") => {
            let read = fs::read_to_string(path).map(Zeroizing::new);
            read.map_err(|error| Failure::config(format!("{}: cannot be read: {error}", path.display())))?
        }
        None if io::stdin().is_terminal() => {
            let typed = rpassword::prompt_password(format!("Value of {what} (not shown): "));
            Zeroizing::new(typed.map_err(|error| Failure::fatal(format!("the terminal: {error}")))?)
        }
        Some(_) | None => {
            let mut text = Zeroizing::new(String::new());
            let read = io::stdin().lock().read_to_string(&mut text);
            read.map_err(|error| Failure::config(format!("stdin cannot be read: {error}")))?;
            text
        }
    };
    // `echo` and editors end a file with a line break that no secret has.
    let value = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if value.is_empty() {
        return Err(Failure::config(format!(
            "the value of {what} is empty\nhint: pipe it in, or name its file with --value-file"
        )));
    }
    Ok(SecretString::from(value))
}
