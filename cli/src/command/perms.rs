//! `keyferry perms`: what tools need, given to principals and roles. The commands, flags and lines of centaur-perms.

mod principals;
mod report;
mod roles;
mod secrets;
mod tool;

use std::path::PathBuf;

use super::control_options::ControlOptions;
use super::secret::label;
use crate::control_client::Resource;
use crate::environment;
use crate::failure::Failure;
use crate::perms::SourcePolicy;

/// Give principals and roles what tools need, by the tools' own manifests
///
/// A tool's secrets are registered from its pyproject.toml under stable names, granted to the tool's role, and the role is assigned.
/// Doing it again changes nothing. No value passes through here: proxies read them where --source-policy says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry perms --tools-dir tools principals grant slack:T123:C456 --tool github
  keyferry perms principals show slack-channel-t123-c456
  keyferry perms principals revoke slack:T123:C456 --tool github
  keyferry perms roles grant team-a --tool github --tools-dir tools --secret-name GITHUB_TOKEN
  keyferry perms secrets list --managed")]
pub(crate) struct Perms {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(clap::Args)]
struct Options {
    #[command(flatten)]
    control: ControlOptions,
    /// A directory of tools, as often as needed; later ones shadow earlier ones, and those of TOOL_DIRS come last
    #[arg(long = "tools-dir", value_name = "DIR", global = true)]
    tools_dirs: Vec<PathBuf>,
    /// Where proxies find the values that tools name
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = Policy::Env, global = true)]
    source_policy: Policy,
    /// The 1Password vault
    #[arg(long, value_name = "VAULT", global = true)]
    op_vault: Option<String>,
    /// How long a proxy keeps what it read from 1Password
    #[arg(long, value_name = "DURATION", default_value = "10m", global = true)]
    op_ttl: String,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Policy {
    Env,
    Onepassword,
    OnepasswordConnect,
}

#[derive(clap::Subcommand)]
enum Noun {
    /// Who has what
    #[command(subcommand)]
    Principals(principals::Principals),
    /// Roles and the secrets that they hold
    #[command(subcommand)]
    Roles(roles::Roles),
    /// Secrets of every kind
    #[command(subcommand)]
    Secrets(secrets::Secrets),
    /// Credentials of the token broker, which this version does not have
    Broker(Broker),
}

#[derive(clap::Args)]
struct Broker {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// What a list leaves out.
#[derive(clap::Args)]
struct Filter {
    /// Only those with this label
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Only those whose name holds this, in large letters or small
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Only those that were registered, with the label managed-by=centaur
    #[arg(long)]
    managed: bool,
}

impl Perms {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let options = &self.options;
        options.control.ask(async |client| match &self.noun {
            Noun::Principals(command) => command.run(client, options).await,
            Noun::Roles(command) => command.run(client, options).await,
            Noun::Secrets(command) => command.run(client, options).await,
            Noun::Broker(_) => Err(Failure::config(
                "this version has no token broker, so there are no broker credentials to manage\n\
                 hint: a secret of kind oauth_token refreshes its own token at the proxy",
            )),
        })
    }
}

impl Options {
    /// Those of the flags first, then those of the environment.
    fn roots(&self) -> Vec<PathBuf> {
        let set = environment::variable("TOOL_DIRS").unwrap_or_default();
        let set = set.split(':').map(str::trim).filter(|path| !path.is_empty()).map(PathBuf::from);
        self.tools_dirs.iter().cloned().chain(set).collect()
    }

    fn policy(&self) -> Result<SourcePolicy, Failure> {
        let vault = || {
            let missing = || {
                Failure::config("--source-policy onepassword needs the vault\nhint: give --op-vault VAULT")
            };
            self.op_vault.clone().ok_or_else(missing)
        };
        let ttl = self.op_ttl.clone();
        Ok(match self.source_policy {
            Policy::Env => SourcePolicy::Env,
            Policy::Onepassword => SourcePolicy::OnePassword { vault: vault()?, ttl },
            Policy::OnepasswordConnect => SourcePolicy::OnePasswordConnect { vault: vault()?, ttl },
        })
    }
}

impl Filter {
    fn labels(&self) -> Vec<(String, String)> {
        let managed = self.managed.then(|| ("managed-by".to_owned(), "centaur".to_owned()));
        self.labels.iter().cloned().chain(managed).collect()
    }

    fn keeps(&self, resource: &Resource) -> bool {
        let Some(text) = self.filter.as_deref().map(str::to_lowercase) else { return true };
        let names = [resource.text("foreign_id"), resource.text("name")];
        names.into_iter().flatten().any(|name| name.to_lowercase().contains(&text))
    }
}
