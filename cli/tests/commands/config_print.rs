//! `keyferry config print`.

use crate::keyferry::{Place, Run};

const CONFIG: &str = "
log: { level: \"${LEVEL}\" }
transforms:
- name: secrets
  config:
    secrets:
    - source: { type: env, var: EXAMPLE_API_KEY }
      inject: { header: Authorization, formatter: \"Bearer ${PREFIX}{{ .Value }}\" }
      rules: [{ host: api.example }]
";

#[test]
fn the_effective_configuration_has_defaults_and_variables_and_no_secrets() {
    let place = Place::new()
        .file("keyferry.yaml", CONFIG)
        .variable("LEVEL", "warn")
        .variable("PREFIX", "s3cret")
        .variable("EXAMPLE_API_KEY", "s3cret")
        .variable("KEYFERRY_METRICS_LISTEN", "127.0.0.1:9090");

    let run = place.run(&["config", "print", "--effective", "--config", "keyferry.yaml"]);

    assert_eq!((run.exit_code, run.stderr.as_str()), (0, ""));
    for line in [
        "  level: warn\n",
        "  listen: 127.0.0.1:9090\n",
        "default_action: deny\n",
        "        var: EXAMPLE_API_KEY\n",
        "        formatter: \"[redacted]\"\n",
    ] {
        assert!(run.stdout.contains(line), "{line} is not in\n{}", run.stdout);
    }
    assert!(!run.stdout.contains("s3cret"), "{}", run.stdout);
}

#[test]
fn what_is_printed_can_be_checked_and_printed_again() {
    let place = Place::new().file("keyferry.yaml", "proxy: { max_request_body_bytes: -1 }\n");
    let print = ["config", "print", "--effective", "--config"];
    let printed = place.run(&[&print[..], &["keyferry.yaml"]].concat()).stdout;
    let place = place.file("effective.yaml", &printed);

    assert_eq!(place.run(&["check", "effective.yaml"]), Run::of(0, "effective.yaml: ok\n", ""));
    assert_eq!(place.run(&[&print[..], &["effective.yaml"]].concat()), Run::of(0, &printed, ""));
}

#[test]
fn a_bad_configuration_is_not_printed() {
    let place = Place::new().file("keyferry.yaml", "log: { level: loud }\n");

    assert_eq!(
        place.run(&["config", "print", "--effective", "--config", "keyferry.yaml"]),
        Run::of(
            2,
            "",
            "keyferry.yaml:1:15: log.level: unknown log level: \"loud\"\n  hint: valid here: debug, info, warn, error\nerror: keyferry.yaml: 1 error\n"
        )
    );
    assert_eq!(place.run(&["config", "print", "--config", "keyferry.yaml"]).exit_code, 2);
}
