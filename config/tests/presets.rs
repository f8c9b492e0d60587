//! The presets: each is a document without a fault, says what it says once, and decides as its fixtures expect.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyferry_config::document::{
    Action, Allowlist, Document, Fixtures, Options, SecretMode, Source, SourceKind, Transform, parse,
};
use keyferry_config::policy::Policy;
use keyferry_config::preset::{self, Preset, Selection};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("presets")
}

/// What `text` says, if nothing in it is worth a word.
fn read(name: &str, text: &str) -> Document {
    let loaded =
        parse(name, text, &|_| None, Options::default()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((loaded.warnings.to_string(), loaded.unsupported.to_string()), Default::default(), "{name}");
    loaded.document
}

fn selection(preset: &'static Preset) -> Selection {
    Selection::of([preset])
}

fn names(suffix: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder()).expect("the presets");
    let names = entries.map(|entry| entry.expect("a file").file_name().into_string().expect("text"));
    names.filter_map(|name| Some(name.strip_suffix(suffix)?.to_owned())).collect()
}

#[test]
fn every_file_is_a_preset_that_says_what_it_is_for() {
    let tests = names(".test.yaml");
    let files: BTreeSet<String> =
        names(".yaml").into_iter().filter(|name| !name.ends_with(".test")).collect();
    let all: BTreeSet<String> = preset::all().iter().map(|preset| preset.name.to_owned()).collect();

    assert_eq!(files, all);
    assert_eq!(tests, all, "each has fixtures");
    for preset in preset::all() {
        let text = std::fs::read_to_string(folder().join(format!("{}.yaml", preset.name))).unwrap();
        for transform in read(preset.name, &text).transforms {
            let is_all_read = match &transform {
                Transform::Allowlist(list) => {
                    *list == Allowlist { rules: list.rules.clone(), ..Allowlist::default() }
                }
                other => matches!(other, Transform::Secrets(_)),
            };
            assert!(is_all_read, "{}: {transform:?}", preset.name);
        }
        assert!(preset.about.len() > 20 && !preset.about.ends_with('.'), "{}", preset.name);
        for include in preset.includes {
            assert!(preset::find(include).is_ok(), "{} includes {include}", preset.name);
        }
    }
}

#[test]
fn what_is_shown_means_what_is_meant() {
    for preset in preset::all() {
        let selection = selection(preset);
        let document = read(preset.name, &selection.to_yaml());

        let mut transforms = document.transforms.into_iter();
        let Some(Transform::Allowlist(list)) = transforms.next() else { panic!("an allowlist first") };
        assert_eq!(list.rules.iter().collect::<Vec<_>>(), selection.rules().collect::<Vec<_>>());
        let secrets = match transforms.next() {
            Some(Transform::Secrets(block)) => block.secrets,
            None => Vec::new(),
            other => panic!("{other:?}"),
        };
        assert_eq!(secrets, selection.secrets());
    }
}

#[test]
fn rules_name_hosts_methods_and_paths_and_leave_no_door_open() {
    for preset in preset::all() {
        for rule in selection(preset).rules() {
            let host = rule.host.as_deref().unwrap_or_default();
            assert!(!host.contains('*') && host.contains('.'), "{}: {rule:?}", preset.name);
            assert!(!rule.paths.is_empty(), "{}: {rule:?}", preset.name);
            assert!(!rule.methods.is_empty() || rule.action == Action::Deny, "{}: {rule:?}", preset.name);
        }
    }
}

#[test]
fn a_secret_goes_where_its_preset_goes_and_is_named_like_its_variable() {
    for preset in preset::all() {
        let selection = selection(preset);
        for entry in selection.secrets() {
            let name = entry.name.clone().unwrap();
            let SecretMode::Replace(replace) = &entry.mode else {
                panic!("{name} takes a placeholder's place")
            };
            assert_eq!(replace.proxy_value, name);
            let source = Source {
                kind: SourceKind::Env { var: name.clone() },
                json_key: None,
                ttl: None,
                failure_ttl: None,
            };
            assert_eq!(entry.source, source);
            for rule in &entry.rules {
                let allowed = selection.rules().any(|allow| {
                    allow.action == Action::Allow
                        && (&allow.host, &allow.methods, &allow.paths)
                            == (&rule.host, &rule.methods, &rule.paths)
                });
                assert!(allowed, "{name}: {rule:?} is no rule of {}", preset.name);
            }
        }
    }
}

#[test]
fn every_request_of_the_fixtures_is_decided_as_expected() {
    for preset in preset::all() {
        let policy = Arc::new(Policy::compile(&read(preset.name, &selection(preset).to_yaml()), 1).unwrap());
        let name = format!("{}.test.yaml", preset.name);
        let text = std::fs::read_to_string(folder().join(&name)).unwrap();
        let fixtures = Fixtures::parse(&name, &text).unwrap_or_else(|problems| panic!("{problems}"));
        for case in &fixtures.cases {
            assert_eq!(policy.test(case).differences, [], "{name}: {}", case.name);
        }
        assert!(fixtures.cases.len() >= 4, "{name} shows what the preset is for");
    }
}

#[test]
fn what_belongs_to_two_is_said_once() {
    let find = |name| preset::find(name).unwrap();
    let together = Selection::of([find("github"), find("github-read"), find("coding-agent"), find("npm")]);
    let alone = Selection::of([find("coding-agent")]);

    let sorted = |selection: &Selection| {
        let mut rules: Vec<_> = selection.rules().map(|rule| format!("{rule:?}")).collect();
        rules.sort_unstable();
        rules
    };
    assert_eq!(sorted(&together), sorted(&alone));
    let secrets: Vec<_> = together.secrets().iter().filter_map(|entry| entry.name.as_deref()).collect();
    assert_eq!(secrets, ["GITHUB_TOKEN", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"]);
}

#[test]
fn a_slip_finds_its_preset() {
    let hint = |name: &str| preset::find(name).unwrap_err().to_string();

    assert_eq!(hint("antropic"), "there is no preset \"antropic\"\nhint: did you mean \"anthropic\"?");
    assert!(
        hint("cobol").contains("hint: valid here: anthropic, openai, google-gemini"),
        "{}",
        hint("cobol")
    );
}

/// The example is the preset, with what a proxy of its own needs before it.
#[test]
fn the_example_for_a_coding_agent_is_the_preset() {
    let path = folder().join("../examples/coding-agent.yaml");
    let shown = selection(preset::find("coding-agent").unwrap()).to_yaml();
    let read = || std::fs::read_to_string(&path).unwrap();
    let written = read();
    let (head, _) = written.split_once("transforms:\n").expect("transforms stand last");
    if std::env::var_os("KEYFERRY_REGENERATE").is_some() {
        std::fs::write(&path, format!("{head}{shown}")).unwrap();
    }
    assert!(
        read() == format!("{head}{shown}"),
        "config/examples/coding-agent.yaml is stale: run this test with KEYFERRY_REGENERATE=1 and commit it"
    );
}
