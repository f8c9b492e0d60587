//! `keyferry preset add`: a preset's rules, and its secret, at a control service.

use keyferry_config::document::{ForeignCredentials, Replace, Rule, SecretEntry, SecretMode};
use keyferry_config::preset::{self, Preset, Selection};
use keyferry_control::secret::SecretKind;
use serde_json::{Value, json};

use super::selection;
use crate::command::control_options::ControlOptions;
use crate::command::egress::OwnRules;
use crate::command::log::printable;
use crate::command::secret::placeholder_of;
use crate::command::secret_value::ValueOptions;
use crate::command::shown;
use crate::control_client::{ControlClient, Grantee, Resource};
use crate::failure::Failure;
use crate::terminal;

/// Let a principal do what presets are for
///
/// Adds their rules, and with a value the secret too: bound to the requests that the preset names, and granted. The value is read from
/// a file, or with --ask typed or piped in. Doing it again adds nothing twice; a new value takes the place of the old one.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry preset add npm pypi github-read
  keyferry preset add anthropic --value-file key.txt
  keyferry preset add github --role team-a --ask < token.txt")]
pub(crate) struct Add {
    #[command(flatten)]
    control: ControlOptions,
    /// The presets
    #[arg(value_name = "PRESET", required = true)]
    presets: Vec<String>,
    /// For whom, by name or id
    #[arg(long, value_name = "PRINCIPAL", default_value = "default", conflicts_with = "role")]
    principal: String,
    /// For a role instead
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// Take the value as it is typed or piped in
    #[arg(long, conflicts_with_all = ["value_file", "from_env", "from_file"])]
    ask: bool,
    #[command(flatten)]
    value: ValueOptions,
    /// Take the rules back instead; the key stays granted
    #[arg(long, conflicts_with_all = ["ask", "value_file", "from_env", "from_file"])]
    remove: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// The label of a secret that a preset made; its value is the preset.
const LABEL: &str = "preset";

impl Add {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let selection = selection(&self.presets)?;
        let entry =
            if self.ask || self.value.is_given() { Some(self.only_secret(&selection)?) } else { None };
        self.control.ask(async |client| {
            let grantee = match &self.role {
                Some(role) => Grantee::Role(client.role(role).await?),
                None => Grantee::Principal(client.principal(&self.principal).await?),
            };
            // Nothing is written before all is known to be there.
            let secret = match entry {
                Some(entry) => Some(Secret::prepare(client, entry, self).await?),
                None => None,
            };
            let own = OwnRules::of(client, &grantee).await?;
            let mut rules = Vec::new();
            for rule in selection.rules() {
                let rule = api_rule(rule);
                let (line, value) = if self.remove { own.remove(rule).await? } else { own.add(rule).await? };
                self.say(&line)?;
                rules.push(value);
            }
            let granted = match secret {
                Some(secret) => self.grant(client, &grantee, secret).await?,
                None => json!({}),
            };
            if entry.is_none() {
                for entry in selection.secrets() {
                    self.tell_next_step(client, entry).await?;
                }
            }
            if self.json {
                return shown::json(
                    &json!({ "rules": rules, "secret": granted["secret"], "grant": granted["grant"] }),
                );
            }
            Ok(())
        })
    }

    /// The one secret that a value can be meant for.
    fn only_secret<'a>(&self, selection: &'a Selection) -> Result<&'a SecretEntry, Failure> {
        let named = self.presets.join(", ");
        match selection.secrets() {
            [only] => Ok(only),
            [] => {
                Err(Failure::config(format!("{named}: no key is needed\nhint: leave out where its value is")))
            }
            several => {
                let presets: Vec<_> = several.iter().map(|entry| self.preset_of(entry)).collect();
                Err(Failure::config(format!(
                    "{named}: {} keys are needed, and one value is given\nhint: give each with its own preset: {}",
                    several.len(),
                    presets.join(", ")
                )))
            }
        }
    }

    async fn grant(
        &self,
        client: &ControlClient,
        grantee: &Grantee,
        secret: Secret,
    ) -> Result<Value, Failure> {
        let answer = client.put_secret(SecretKind::Static, &secret.name, secret.data).await?;
        shown::warnings(&answer);
        let done = if answer.is_new() { "added" } else { "replaced" };
        let made = answer.resource()?;
        self.say(&format!("secret {} ({}): {done}", secret.name, made.id()))?;
        let answer = client.grant(grantee, (SecretKind::Static, made.id()), &[]).await?;
        let grant = answer.resource()?;
        let who = grantee.resource().called();
        self.say(&format!("{who}: {} granted ({})", secret.name, grant.id()))?;
        if let Some(placeholder) = secret.placeholder {
            self.say(&format!("placeholder: {placeholder}"))?;
        }
        Ok(json!({ "secret": made.into_value(), "grant": grant.into_value() }))
    }

    /// How the key gets to the rules that were added without it, or goes as they did.
    async fn tell_next_step(&self, client: &ControlClient, entry: &SecretEntry) -> Result<(), Failure> {
        let name = entry.display_name();
        let (for_whom, whom) = match &self.role {
            Some(role) => (format!("--role {role}"), format!("--role {role}")),
            None => (format!("--principal {}", self.principal), self.principal.clone()),
        };
        let add = format!("`keyferry preset add {} {for_whom} --value-file FILE`", self.preset_of(entry));
        let is_there = client.find_secret(SecretKind::Static, &name).await?.is_some();
        let hint = match (self.remove, is_there) {
            (false, false) => format!("hint: {add} adds its key, {name}"),
            (false, true) => format!(
                "hint: `keyferry grant {whom} {name}` grants {name} as it is; {add} binds a value to all of this"
            ),
            (true, false) => return Ok(()),
            (true, true) => format!(
                "hint: `keyferry revoke {whom} {name}` takes the key back, and with it what it may reach"
            ),
        };
        terminal::talk(terminal::with_hints(&printable::text(&hint)));
        Ok(())
    }

    /// The preset that needs this key and no other: of those that were named, or of all the widest.
    fn preset_of(&self, entry: &SecretEntry) -> &'static str {
        let named = self.presets.iter().filter_map(|name| preset::find(name).ok());
        let needs_it = |preset: &&'static Preset| matches!(Selection::of([*preset]).secrets(), [only] if only.name == entry.name);
        named.chain(preset::all().iter().rev()).find(needs_it).map_or("PRESET", |preset| preset.name)
    }

    fn say(&self, line: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { shown::line(line) }
    }
}

/// A secret that is about to be written.
struct Secret {
    name: String,
    placeholder: Option<String>,
    data: Value,
}

impl Secret {
    async fn prepare(client: &ControlClient, entry: &SecretEntry, add: &Add) -> Result<Self, Failure> {
        let name = entry.display_name();
        let before = client.find_secret(SecretKind::Static, &name).await?;
        if before.as_ref().is_some_and(|before| !is_of_a_preset(before)) {
            return Err(Failure::fatal(format!(
                "there is a secret {name} already, which no preset made\n\
                 hint: `keyferry grant` gives it to the principal; `keyferry secret rm {name}` makes room for the preset's"
            )));
        }
        let (mut data, placeholder) = match &entry.mode {
            SecretMode::Replace(replace) => {
                let placeholder = placeholder_of(before.as_ref())?;
                let replace = Replace { proxy_value: placeholder.clone(), ..replace.clone() };
                (json!({ "replace_config": replace }), Some(placeholder))
            }
            SecretMode::Inject(inject) => (json!({ "inject_config": inject }), None),
        };
        data["namespace"] = json!(client.namespace());
        data["name"] = json!(name);
        data["labels"] = json!({ LABEL: add.presets.join(",") });
        data["rules"] = entry.rules.iter().map(api_rule).collect();
        data["source"] = add.value.source(&name)?;
        Ok(Self { name, placeholder, data })
    }
}

fn is_of_a_preset(secret: &Resource) -> bool {
    secret.value()["labels"].get(LABEL).is_some()
}

/// A rule in the API's words.
fn api_rule(rule: &Rule) -> Value {
    let mut value = json!(rule);
    if let Some(rule) = value.as_object_mut()
        && let Some(methods) = rule.remove("methods")
    {
        rule.insert("http_methods".to_owned(), methods);
    }
    if rule.foreign_credentials == ForeignCredentials::Allow {
        value["foreign_credentials"] = Value::Null;
    }
    value
}
