//! What the binary says about itself, for editors, shells and `man`.

use std::path::Path;

use crate::keyferry::Place;

#[test]
fn schema_prints_the_checked_in_schema() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/schema.json");
    let checked_in: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();

    let run = Place::new().run(&["schema"]);

    assert_eq!((run.exit_code, run.stderr.as_str()), (0, ""));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&run.stdout).unwrap(), checked_in);
}

#[test]
fn completions_know_the_commands_and_flags_in_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let run = Place::new().run(&["completions", shell]);

        assert_eq!((run.exit_code, run.stderr.as_str()), (0, ""), "{shell}");
        for word in ["explain", "completions", "allow-unsupported"] {
            assert!(run.stdout.contains(word), "{shell} does not know {word}");
        }
    }
    assert_eq!(Place::new().run(&["completions", "tcsh"]).exit_code, 2);
}

#[test]
fn man_prints_one_page_or_writes_one_for_every_command() {
    let place = Place::new();

    let page = place.run(&["man"]);
    let written = place.run(&["man", "--out", "man1"]);

    assert_eq!((page.exit_code, page.stderr.as_str()), (0, ""));
    assert!(
        page.stdout.contains(".TH keyferry 1") && page.stdout.contains("keyferry\\-check"),
        "{}",
        page.stdout
    );
    assert_eq!((written.exit_code, written.stdout.as_str(), written.stderr.as_str()), (0, "", ""));
    let mut names: Vec<_> = std::fs::read_dir(place.path("man1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in ["keyferry.1", "keyferry-check.1", "keyferry-ca-init.1", "keyferry-config-print.1"] {
        assert!(names.iter().any(|known| known == name), "{name} is not in {names:?}");
    }
    assert!(place.read("man1/keyferry-check.1").contains("allow\\-unsupported"));
}

#[test]
fn man_says_where_it_cannot_write() {
    let place = Place::new().file("taken", "");

    let run = place.run(&["man", "--out", "taken"]);

    assert_eq!(
        (run.exit_code, run.stderr.as_str()),
        (1, "error: taken cannot be written: File exists (os error 17)\n")
    );
}
