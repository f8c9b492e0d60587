//! `keyferry run`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use keyferry_sandbox::{Limits, Workspace};

use super::control_options::{data_dir, namespace};
use super::shown;
use crate::environment;
use crate::failure::Failure;
use crate::sandboxed::{Job, Sandboxes, pass_through};
use crate::service::Service;
use crate::terminal;

/// Run a command in a sandbox whose only way out is keyferry
///
/// The command sees the current directory, the programs of this system, and nothing else of it; its environment is made anew, with the
/// placeholder of each secret that the principal was granted. It reaches what the principal may reach, and nothing else.
///
/// The keyferry that runs on the data directory is used; where none does, one is started for as long as it is needed, and logs to the
/// file `log` there.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry run -- claude
  keyferry run --principal alice --env EDITOR=vi -- bash
  keyferry run --workspace ~/project --time 30m --memory 2G -- make test

Exit codes: that of the command, 128 and the number of the signal that ended it, 124 its time was over, 125 there is no sandbox, 126 the
command cannot be run, 127 it was not found.")]
pub(crate) struct Run {
    /// The data directory [default: ~/.local/share/keyferry] [env: KEYFERRY_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Whose grants and rules count
    #[arg(long, value_name = "PRINCIPAL", default_value = "default")]
    principal: String,
    /// The namespace of the principal [default: default] [env: KEYFERRY_CONTROL_NAMESPACE or IRON_CONTROL_NAMESPACE]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// The directory that the command works in and can change [default: the current one]
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// A variable for the command: with a value, or with the one that it has here. It wins over every other
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    variables: Vec<OsString>,
    /// A file or directory that the command may read
    #[arg(long = "ro", value_name = "PATH")]
    read_only: Vec<PathBuf>,
    /// Let the workspace hold Unix sockets: the command can reach whoever listens there
    #[arg(long)]
    allow_sockets: bool,
    /// Memory of all processes together, such as 512M or 4G
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "4G")]
    memory: u64,
    /// Processes and threads at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 1024)]
    pids: u32,
    /// Processors, such as 0.5 or 2; no limit, if absent
    #[arg(long, value_name = "NUMBER", value_parser = processors)]
    cpus: Option<u32>,
    /// After which time everything ends, such as 30m; never, if absent
    #[arg(long, value_name = "DURATION", value_parser = shown::duration)]
    time: Option<Duration>,
    /// Run nothing where a limit cannot be enforced
    #[arg(long)]
    require_limits: bool,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What is said of a sandbox that there is not, as `docker run` and `env` have it.
const NO_SANDBOX: u8 = 125;

impl Run {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
                Failure::with_code(NO_SANDBOX, format!("the runtime cannot be started: {error}"))
            })?;
        let ran = runtime.block_on(self.in_sandbox());
        // Output that nobody takes must not keep the end waiting.
        runtime.shutdown_background();
        ran.map_err(|failure| failure.or_code(NO_SANDBOX))
    }

    async fn in_sandbox(self) -> Result<ExitCode, Failure> {
        if keyferry_sandbox::is_inside() {
            return Err(Failure::fatal(
                "this is a sandbox of keyferry already, and there are none in it\nhint: run the command itself",
            ));
        }
        let (principal, data_dir) = (self.principal.clone(), data_dir(self.data_dir.clone())?);
        let namespace = namespace(self.namespace.clone());
        let job = self.job()?;
        let service = Service::of(&data_dir, &namespace, "run").await?;
        let sandboxes = Sandboxes::of(&service)?;
        let ended = match sandboxes.make(&principal, job).await {
            Ok(made) => {
                made.warnings().iter().for_each(|warning| terminal::warning(&warning.to_string()));
                pass_through(made, &service).await
            }
            Err(failure) => Err(failure),
        };
        drop(sandboxes);
        match ended {
            Ok(ended) => {
                if !ended.nothing_is_left {
                    service.abandon();
                }
                Ok(ExitCode::from(ended.exit.code()))
            }
            Err(failure) => {
                service.abandon();
                Err(failure)
            }
        }
    }

    fn job(self) -> Result<Job, Failure> {
        let here = || {
            std::env::current_dir().map_err(|error| Failure::fatal(format!("the current directory: {error}")))
        };
        let path = self.workspace.map_or_else(here, Ok)?;
        Ok(Job {
            command: self.command,
            workspace: Workspace { path, allow_sockets: self.allow_sockets },
            read_only: self.read_only,
            variables: self.variables.into_iter().map(variable).collect::<Result<_, _>>()?,
            limits: Limits {
                memory: Some(self.memory),
                processes: Some(self.pids),
                cpu: self.cpus,
                wall_clock: self.time,
                required: self.require_limits,
                ..Limits::default()
            },
        })
    }
}

/// A variable with its value, or with the one that it has here.
pub(super) fn variable(given: OsString) -> Result<(OsString, OsString), Failure> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    match given.as_bytes().iter().position(|byte| *byte == b'=') {
        Some(at) => {
            let (name, value) = given.as_bytes().split_at(at);
            Ok((OsString::from_vec(name.to_vec()), OsString::from_vec(value[1..].to_vec())))
        }
        None => match environment::raw(&given) {
            Some(value) => Ok((given, value)),
            None => {
                let name = given.display();
                Err(Failure::config(format!("--env {name}: it is not set here\nhint: write {name}=VALUE")))
            }
        },
    }
}

/// Bytes, with a suffix K, M, G or T for powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor: u64 = match text[number.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err("write a size such as 512M or 4G".to_owned()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.ok_or_else(|| "write a size such as 512M or 4G".to_owned())
}

/// Thousandths of a processor.
fn processors(text: &str) -> Result<u32, String> {
    let number = text.parse::<f64>().ok().filter(|number| *number > 0.0 && *number <= 1024.0);
    let thousandths = number.map(|number| (number * 1000.0).round());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 0 and 1024000"
    )]
    let thousandths = thousandths.map(|number| number as u32);
    thousandths.ok_or_else(|| "write a number of processors, such as 0.5 or 2".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_processors_are_read_as_people_write_them() {
        assert_eq!(
            ["1", "512M", "4g", "2GiB", "1k"].map(size),
            [1, 512 << 20, 4 << 30, 2 << 30, 1024].map(Ok)
        );
        for bad in ["", "M", "-1", "1.5G", "4X", "99999999999T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(["0.5", "2", "1.25"].map(processors), [500, 2000, 1250].map(Ok));
        for bad in ["", "0", "-1", "x", "inf", "NaN", "5000"] {
            assert!(processors(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_variable_has_the_value_that_is_given_or_none() {
        let read = |text: &str| variable(text.into()).ok();
        assert_eq!(read("A=b=c"), Some(("A".into(), "b=c".into())));
        assert_eq!(read("A="), Some(("A".into(), "".into())));
        assert_eq!(read("KEYFERRY_NOT_SET_ANYWHERE"), None);
    }
}
