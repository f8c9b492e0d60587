//! Help, and words that nobody reads through a pipe.

use crate::keyferry::Place;

#[test]
fn every_command_has_help_with_examples() {
    let place = Place::new();
    let commands: &[&[&str]] = &[
        &[],
        &["proxy"],
        &["check"],
        &["explain"],
        &["policy", "test"],
        &["policy", "replay"],
        &["ca", "init"],
        &["ca", "bundle"],
        &["ca", "show"],
        &["demo"],
        &["config", "print"],
        &["schema"],
        &["completions"],
        &["man"],
        &["up"],
        &["perms"],
        &["secret"],
        &["secret", "add"],
        &["secret", "list"],
        &["secret", "rm"],
        &["grant"],
        &["revoke"],
        &["allow"],
        &["deny"],
        &["preset"],
        &["preset", "list"],
        &["preset", "show"],
        &["preset", "add"],
        &["principal"],
        &["principal", "add"],
        &["principal", "list"],
        &["principal", "show"],
        &["principal", "rm"],
        &["proxies"],
        &["proxies", "add"],
        &["proxies", "list"],
        &["proxies", "assign"],
        &["proxies", "rm"],
        &["sandbox"],
        &["sandbox", "create"],
        &["sandbox", "list"],
        &["sandbox", "rotate"],
        &["sandbox", "rm"],
        &["status"],
    ];
    for command in commands {
        let run = place.run(&[*command, &["--help"]].concat());

        assert_eq!((run.exit_code, run.stderr.as_str()), (0, ""), "{command:?}");
        assert!(run.stdout.contains("\nExamples:\n  keyferry "), "{command:?}: {}", run.stdout);
        assert!(run.stdout.lines().all(|line| line.chars().count() <= 100), "{command:?}: {}", run.stdout);
    }
}

#[test]
fn the_version_is_said() {
    let run = Place::new().run(&["--version"]);

    assert_eq!((run.exit_code, run.stdout), (0, format!("keyferry {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let place = Place::new();

    assert_eq!(
        [&["fly"][..], &["proxy"], &["check"], &["ca"], &[]].map(|arguments| place.run(arguments).exit_code),
        [2; 5]
    );
}

#[test]
fn nothing_is_coloured_where_nobody_looks() {
    let place = Place::new();

    for arguments in [&["ca", "show"][..], &["check", "nowhere"], &["fly"], &["--help"]] {
        let run = place.run(arguments);
        assert!(!format!("{}{}", run.stdout, run.stderr).contains('\u{1b}'), "{arguments:?}");
    }
}
