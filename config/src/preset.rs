//! Presets: what work with a well-known service needs, as documents in the language itself. They lie in `presets/`.

mod render;

use std::sync::LazyLock;

use crate::document::nearest;
use crate::document::{Options, Rule, SecretEntry, Transform, parse};

/// What one kind of work needs.
#[derive(Debug)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// What it is for, in a line: the first of its file.
    pub about: &'static str,
    /// Presets that belong to it.
    pub includes: &'static [&'static str],
    rules: Vec<Rule>,
    secrets: Vec<SecretEntry>,
}

/// A file's name and text, and the presets that it includes.
type File = (&'static str, &'static str, &'static [&'static str]);

const FILES: [File; 11] = [
    ("anthropic", include_str!("../presets/anthropic.yaml"), &[]),
    ("openai", include_str!("../presets/openai.yaml"), &[]),
    ("google-gemini", include_str!("../presets/google-gemini.yaml"), &[]),
    ("npm", include_str!("../presets/npm.yaml"), &[]),
    ("pypi", include_str!("../presets/pypi.yaml"), &[]),
    ("crates.io", include_str!("../presets/crates.io.yaml"), &[]),
    ("golang", include_str!("../presets/golang.yaml"), &[]),
    ("debian", include_str!("../presets/debian.yaml"), &[]),
    ("github-read", include_str!("../presets/github-read.yaml"), &[]),
    ("github", include_str!("../presets/github.yaml"), &["github-read"]),
    (
        "coding-agent",
        include_str!("../presets/coding-agent.yaml"),
        &["anthropic", "openai", "google-gemini", "npm", "pypi", "crates.io", "golang", "debian", "github"],
    ),
];

static PRESETS: LazyLock<Vec<Preset>> = LazyLock::new(|| FILES.into_iter().map(Preset::read).collect());

/// All of them: those for models, for packages, for code, and those that are made of others.
pub fn all() -> &'static [Preset] {
    &PRESETS
}

/// The one of that name.
pub fn find(name: &str) -> Result<&'static Preset, UnknownPreset> {
    all().iter().find(|preset| preset.name == name).ok_or_else(|| {
        let names: Vec<_> = all().iter().map(|preset| preset.name).collect();
        UnknownPreset { name: name.to_owned(), hint: nearest::hint(name, &names).unwrap_or_default() }
    })
}

/// A name that no preset has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no preset {name:?}\nhint: {hint}")]
pub struct UnknownPreset {
    name: String,
    hint: String,
}

impl Preset {
    fn read((name, text, includes): File) -> Self {
        let about = text.lines().next().and_then(|line| line.strip_prefix("# "));
        let document = parse(name, text, &|_| None, Options::default())
            .unwrap_or_else(|problems| unreachable!("a test reads every preset: {problems}"))
            .document;
        let mut preset =
            Self { name, about: about.unwrap_or_default(), includes, rules: Vec::new(), secrets: Vec::new() };
        for transform in document.transforms {
            match transform {
                Transform::Allowlist(list) => preset.rules.extend(list.rules),
                Transform::Secrets(block) => preset.secrets.extend(block.secrets),
                other => unreachable!("a test reads every preset: {other:?}"),
            }
        }
        preset
    }
}

/// What presets say together: each part once, and one entry for each secret.
#[derive(Debug)]
pub struct Selection {
    parts: Vec<&'static Preset>,
    secrets: Vec<SecretEntry>,
}

impl Selection {
    /// These, with all that they include.
    pub fn of(presets: impl IntoIterator<Item = &'static Preset>) -> Self {
        let mut parts = Vec::new();
        for preset in presets {
            add(&mut parts, preset);
        }
        let mut secrets: Vec<SecretEntry> = Vec::new();
        for entry in parts.iter().flat_map(|part| &part.secrets) {
            match secrets.iter_mut().find(|known| known.name == entry.name) {
                Some(known) => known.rules.extend(entry.rules.iter().cloned()),
                None => secrets.push(entry.clone()),
            }
        }
        Self { parts, secrets }
    }

    /// What may be reached, and what may not.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.parts.iter().flat_map(|part| &part.rules)
    }

    /// The credentials, each with all requests that may carry it.
    pub fn secrets(&self) -> &[SecretEntry] {
        &self.secrets
    }

    /// A document that says it all.
    pub fn to_yaml(&self) -> String {
        render::document(self)
    }
}

/// What a preset includes stands before it.
fn add(parts: &mut Vec<&'static Preset>, preset: &'static Preset) {
    for include in preset.includes {
        let include = all().iter().find(|other| other.name == *include);
        add(parts, include.expect("a preset includes presets, which a test holds"));
    }
    if !parts.iter().any(|part| part.name == preset.name) {
        parts.push(preset);
    }
}
