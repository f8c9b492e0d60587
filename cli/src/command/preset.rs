//! `keyferry preset`: what work with well-known services needs, ready to use.

mod add;

use keyferry_config::document::Rule;
use keyferry_config::preset::{self, Selection};
use serde_json::json;

use super::shown;
use crate::failure::Failure;
use crate::terminal;

/// Use policies that come with keyferry: model providers, package registries, git hosting
#[derive(clap::Subcommand)]
#[command(after_help = "\
Examples:
  keyferry preset list
  keyferry preset show npm pypi
  keyferry preset add anthropic --value-file key.txt")]
pub(crate) enum Preset {
    List(List),
    Show(Show),
    Add(Box<add::Add>),
}

/// List presets, and the keys that they know how to use
#[derive(clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  keyferry preset list --json")]
pub(crate) struct List {
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// Print presets as a part of a configuration
///
/// What several of them say stands in one allowlist: a request must pass every allowlist of a file.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  keyferry preset show anthropic github-read npm > policy.yaml")]
pub(crate) struct Show {
    /// The presets
    #[arg(value_name = "PRESET", required = true)]
    presets: Vec<String>,
}

impl Preset {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(),
            Self::Show(show) => terminal::data(selection(&show.presets)?.to_yaml().trim_end()),
            Self::Add(add) => add.run(),
        }
    }
}

fn selection(names: &[String]) -> Result<Selection, Failure> {
    let presets = names.iter().map(|name| preset::find(name)).collect::<Result<Vec<_>, _>>();
    presets.map(Selection::of).map_err(Failure::config)
}

impl List {
    fn run(&self) -> Result<(), Failure> {
        let presets = preset::all().iter().map(|preset| (preset, Selection::of([preset])));
        if self.json {
            let list = presets.map(|(preset, selection)| {
                json!({
                    "name": preset.name,
                    "about": preset.about,
                    "includes": preset.includes,
                    "keys": keys(&selection),
                    "hosts": hosts(selection.rules()),
                })
            });
            return shown::json(&list.collect());
        }
        let rows: Vec<_> = presets
            .map(|(preset, selection)| {
                [
                    preset.name.to_owned(),
                    shown::cell(Some(&keys(&selection).join(","))),
                    preset.about.to_owned(),
                ]
            })
            .collect();
        shown::table(["NAME", "KEY", "WHAT"], &rows, "there are no presets")
    }
}

fn keys(selection: &Selection) -> Vec<String> {
    selection.secrets().iter().map(|entry| entry.display_name()).collect()
}

/// Each once, in their order.
fn hosts<'a>(rules: impl Iterator<Item = &'a Rule>) -> Vec<&'a str> {
    let mut hosts = Vec::new();
    for host in rules.filter_map(|rule| rule.host.as_deref()) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}
