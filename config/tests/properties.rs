//! What holds for every text, good or bad.

use std::sync::LazyLock;

use jsonschema::Validator;
use keyferry_config::document::{Document, Options, Severity, Transform, effective, json_schema, parse};
use keyferry_config::policy::{Destination, Host, Policy, Scheme};
use proptest::prelude::*;
use serde_json::Value;

const REFERENCE: &str = include_str!("../examples/reference.yaml");
const IRON_PROXY: &str = include_str!("../examples/iron-proxy.yaml");
const EVERYTHING: &str = include_str!("../examples/iron-proxy-everything.yaml");

/// Lines as YAML counts them.
fn lines(text: &str) -> u32 {
    let breaks = text.replace("\r\n", "\n");
    u32::try_from(1 + breaks.bytes().filter(|byte| matches!(byte, b'\n' | b'\r')).count())
        .expect("a short text")
}

/// Reads a text and holds every promise that is made for any text.
fn read(text: &str) -> Option<Document> {
    let environment = |name: &str| (name == "SET").then(|| "a.example".to_owned());
    let (document, problems) = match parse("f.yaml", text, &environment, Options::default()) {
        Ok(loaded) => (Some(loaded.document), loaded.warnings),
        Err(problems) => (None, problems),
    };
    for problem in &problems {
        let place = problem.location.expect("nothing came from a variable");
        assert!(place.line >= 1 && place.line <= lines(text) && place.column >= 1, "{place:?} in {text:?}");
        assert!(!problem.message.is_empty());
        assert!(document.is_none() || problem.severity == Severity::Warning);
    }
    let printed = problems.to_string();
    assert!(!printed.chars().any(|c| c.is_control() && c != '\n'), "{printed:?}");
    assert_eq!(
        printed.lines().count(),
        problems.iter().map(|problem| 1 + usize::from(problem.hint.is_some())).sum::<usize>(),
        "{printed}"
    );
    if let Some(document) = &document {
        assert_valid(text);
        assert_prints_itself(text, document, &environment);
        assert!(
            Policy::compile(document, 1).is_ok(),
            "{:?} from {text:?}",
            Policy::compile(document, 1).err()
        );
    }
    document
}

/// The schema never refuses what the reader takes.
fn assert_valid(text: &str) {
    static VALIDATOR: LazyLock<Validator> =
        LazyLock::new(|| jsonschema::validator_for(&json_schema()).expect("a schema"));
    // A plain reader of YAML has limits and rules of its own.
    let Ok(value) = serde_saphyr::from_str::<Value>(text) else { return };
    let errors: Vec<_> =
        VALIDATOR.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert_eq!(errors, Vec::<String>::new(), "{text:?}");
}

/// What is printed as the effective document is the document, where nothing came from a variable.
fn assert_prints_itself(text: &str, document: &Document, environment: &dyn Fn(&str) -> Option<String>) {
    let printed = effective("f.yaml", text, environment, Options::default()).expect("it has loaded before");
    if printed.contains("redacted") {
        return;
    }
    match parse("f.yaml", &printed, environment, Options::default()) {
        Ok(loaded) => assert_eq!(&loaded.document, document, "{printed}"),
        Err(problems) => panic!("{problems}\nin\n{printed}"),
    }
}

/// Words and signs of the language, in any order.
fn soup() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "proxy",
        "tls",
        "transforms",
        "name",
        "config",
        "allowlist",
        "secrets",
        "rules",
        "host",
        "cidr",
        "source",
        "type",
        "env",
        "var",
        "replace",
        "proxy_value",
        "inject",
        "header",
        "tunnel_listen",
        "auth",
        ": ",
        ":\n",
        "\n",
        "- ",
        "\n  ",
        "\n    - ",
        "{ ",
        " }",
        "[",
        "]",
        ", ",
        "\"",
        "'",
        "&a ",
        "*a",
        "<<",
        "${SET}",
        "${NO:-1}",
        "${",
        "|",
        ">",
        "#",
        "---",
        "...",
        "\t",
        "true",
        "5",
        "1.5",
        "~",
        "!!int",
        "\u{feff}",
        "é",
        "\r",
        "\r\n",
        "\0",
        "?",
    ]);
    prop::collection::vec(words, 0..60).prop_map(|words| words.concat())
}

fn mutated(original: &'static str) -> impl Strategy<Value = String> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, "[ -~\n]{0,6}"), 1..4);
    edits.prop_map(move |edits| {
        edits.into_iter().fold(original.to_owned(), |text, (index, removed, inserted)| {
            let characters: Vec<char> = text.chars().collect();
            let start = index.index(characters.len() + 1);
            let end = (start + removed).min(characters.len());
            characters[..start]
                .iter()
                .copied()
                .chain(inserted.chars())
                .chain(characters[end..].iter().copied())
                .collect()
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused_with_its_place(text in any::<String>()) {
        read(&text);
    }

    #[test]
    fn any_bytes_are_read_or_refused_with_their_place(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_words_of_the_language_are_read_or_refused(text in soup()) {
        read(&text);
    }

    #[test]
    fn a_damaged_file_is_read_or_refused(text in mutated(REFERENCE)) {
        read(&text);
    }

    #[test]
    fn a_damaged_file_of_iron_proxy_is_read_or_refused(text in mutated(IRON_PROXY)) {
        read(&text);
    }

    #[test]
    fn a_damaged_file_with_everything_is_read_or_refused(text in mutated(EVERYTHING)) {
        read(&text);
    }

    /// The document's checks are as strict as the policy's compiler: what loads, compiles.
    #[test]
    fn patterns_that_load_compile(
        host in r"[a-cA-C0-9.*?\[\]!^\\ü:/_-]{1,10}",
        path in r"/[a-c/*?\[\]!^\\&~.;%ü-]{0,10}",
        method in "[A-Za-z*]{1,4}",
        header in r"/?[a-c()\[\]*+?|^$.\\-]{1,8}/?",
    ) {
        let quoted = |text: &str| serde_json::to_string(text).expect("a string");
        let rule = format!("{{ host: {}, paths: [{}], methods: [{}] }}", quoted(&host), quoted(&path), quoted(&method));
        let text = format!(
            "transforms:\n- {{ name: allowlist, config: {{ domains: [{host}], rules: [{rule}] }} }}\n\
             - {{ name: secrets, config: {{ secrets: [{{ source: {{ type: env, var: A }}, rules: [{rule}], replace: {{ proxy_value: x, match_headers: [{header}] }} }}] }} }}\n",
            host = quoted(&host),
            header = quoted(&header),
        );
        read(&text);
    }

    /// T07: a name has one form, which is a name, and every spelling of it is the same destination.
    #[test]
    fn every_spelling_of_a_host_is_one_destination(
        text in r"([a-zA-Z0-9_-]{1,8}\.){0,3}[a-zA-Z0-9-]{1,8}\.?|[0-9a-fx.:\[\]]{1,20}|[a-z.äß。０-９%]{1,10}",
        port in 1..=u16::MAX,
    ) {
        let Ok(host) = text.parse::<Host>() else { return Ok(()) };
        let shown = host.to_string();
        prop_assert_eq!(shown.parse::<Host>(), Ok(host.clone()), "{}", text);
        prop_assert_eq!(Host::parse_authority(&format!("{shown}:{port}")), Ok((host.clone(), Some(port))));
        for scheme in [Scheme::Https, Scheme::Http] {
            let destination = Destination { scheme, host: host.clone(), port };
            let authority = destination.authority();
            for spelling in [authority.to_uppercase(), authority.clone()] {
                prop_assert_eq!(destination.is_named_by(&spelling), Ok(true), "{}", spelling);
            }
            let other = Destination { port: port % u16::MAX + 1, ..destination.clone() };
            prop_assert_eq!(destination.is_named_by(&format!("{shown}:{}", other.port)), Ok(false));
            prop_assert_ne!(other, destination);
        }
    }

    /// A host that is plainly one is never refused.
    #[test]
    fn plain_names_load(labels in prop::collection::vec("[a-z]([a-z0-9-]{0,10}[a-z0-9])?", 1..4), wild in any::<bool>()) {
        let name = format!("{}{}", if wild { "*." } else { "" }, labels.join("."));
        prop_assume!(!name.contains("xn--"));
        let text = format!("transforms:\n- {{ name: allowlist, config: {{ domains: [\"{name}\"] }} }}\n");
        let document = read(&text).expect("a document");
        let Transform::Allowlist(allowlist) = &document.transforms[0] else { panic!("{document:?}") };
        prop_assert_eq!(&allowlist.domains, &vec![name]);
    }
}
