//! `keyferry ca`.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::keyferry::{Place, Run};

fn openssl(place: &Place, arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).current_dir(place.folder()).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    // Versions of openssl differ in the blanks.
    String::from_utf8(output.stdout).unwrap().replace(" = ", "=")
}

fn mode(place: &Place, name: &str) -> u32 {
    std::fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777
}

/// What follows `label` on the line of `text` that begins with it.
fn after<'a>(text: &'a str, label: &str) -> &'a str {
    text.lines().find_map(|line| line.trim_start().strip_prefix(label)).unwrap().trim()
}

#[test]
fn init_makes_a_pair_that_only_its_owner_can_use_and_says_what_it_made() {
    let place = Place::new();

    let run = place.run(&["ca", "init"]);

    let until = after(&run.stderr, "valid until");
    let fingerprint = after(&run.stderr, "SHA-256");
    let expected = format!(
        "Made the certificate authority CN=keyferry\n  \
           certificate  ca.crt  (for the sandboxes)\n  \
           key          ca.key  (for keyferry alone, mode 0600)\n  \
           valid until  {until}\n  \
           SHA-256      {fingerprint}\n\
         hint: tls: {{ ca_cert: ca.crt, ca_key: ca.key }}\n"
    );
    assert_eq!(run, Run::of(0, "", &expected));
    assert_eq!((mode(&place, "ca.key"), mode(&place, "ca.crt")), (0o600, 0o644));
    assert_eq!(
        openssl(&place, &["x509", "-in", "ca.crt", "-noout", "-fingerprint", "-sha256", "-subject"]),
        format!("sha256 Fingerprint={fingerprint}\nsubject=CN=keyferry\n")
    );
    let of_key = openssl(&place, &["pkey", "-in", "ca.key", "-pubout"]);
    assert_eq!(of_key, openssl(&place, &["x509", "-in", "ca.crt", "-noout", "-pubkey"]));
}

#[test]
fn init_takes_a_name_a_lifetime_and_other_files() {
    let place = Place::new();

    let run = place.run(&[
        "ca",
        "init",
        "--cert",
        "a.pem",
        "--key",
        "b.pem",
        "--name",
        "Example egress",
        "--days",
        "7",
    ]);

    assert_eq!(run.exit_code, 0, "{}", run.stderr);
    assert_eq!(
        openssl(&place, &["x509", "-in", "a.pem", "-noout", "-subject"]),
        "subject=CN=Example egress\n"
    );
    let ends_within = |days: u32| {
        let seconds = (days * 24 * 3600).to_string();
        let checked = Command::new("openssl")
            .args(["x509", "-in", "a.pem", "-noout", "-checkend", &seconds])
            .current_dir(place.folder())
            .output();
        !checked.unwrap().status.success()
    };
    assert_eq!((ends_within(6), ends_within(8)), (false, true));
}

#[test]
fn init_never_overwrites_either_file_and_leaves_no_half_of_a_pair() {
    for taken in ["ca.key", "ca.crt"] {
        let place = Place::new().file(taken, "precious");

        let run = place.run(&["ca", "init"]);

        let expected = format!(
            "error: {taken}: exists, and is not overwritten\nhint: choose other files with --cert and --key\n"
        );
        assert_eq!(run, Run::of(1, "", &expected));
        assert_eq!((place.names(), place.read(taken)), (vec![taken.to_owned()], "precious".to_owned()));
    }
}

#[test]
fn init_does_not_follow_a_link_that_somebody_put_there() {
    let place = Place::new();
    std::os::unix::fs::symlink(place.path("elsewhere"), place.path("ca.key")).unwrap();

    let run = place.run(&["ca", "init"]);

    assert_eq!(run.exit_code, 1);
    assert_eq!(place.names(), ["ca.key"]);
}

#[test]
fn init_refuses_what_makes_no_certificate() {
    let place = Place::new();

    assert_eq!(
        [place.run(&["ca", "init", "--days", "0"]), place.run(&["ca", "init", "--name", ""])],
        [
            Run::of(2, "", "error: the lifetime of a certificate authority is 1 to 36500 days\n"),
            Run::of(
                2,
                "",
                "error: the name of a certificate authority has 1 to 64 characters, none of them a control character\n"
            ),
        ]
    );
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn show_prints_what_openssl_prints() {
    let place = Place::new();
    place.run(&["ca", "init", "--name", "Example egress"]);
    let shown = openssl(
        &place,
        &["x509", "-in", "ca.crt", "-noout", "-fingerprint", "-sha256", "-dates", "-dateopt", "iso_8601"],
    );
    let moment = |label: &str| after(&shown, label).replace('Z', " UTC");

    let run = place.run(&["ca", "show"]);

    let expected = format!(
        "subject      CN=Example egress\nvalid from   {}\nvalid until  {}\nSHA-256      {}\n",
        moment("notBefore="),
        moment("notAfter="),
        after(&shown, "sha256 Fingerprint=")
    );
    assert_eq!(run, Run::of(0, &expected, ""));
}

#[test]
fn show_says_when_a_certificate_is_no_authority() {
    let place = Place::new();
    openssl(
        &place,
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "k",
            "-out",
            "ca.crt",
            "-subj",
            "/CN=leaf",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ],
    );

    let run = place.run(&["ca", "show"]);

    assert_eq!((run.exit_code, after(&run.stdout, "subject")), (0, "CN=leaf"));
    assert_eq!(
        run.stderr,
        "warning: ca.crt: this certificate is not a certificate authority's (basicConstraints does not say CA)\n\
         hint: make a pair with `keyferry ca init`\n"
    );
}

#[test]
fn bundle_holds_the_systems_roots_and_ours_once() {
    let place = Place::new().variable("SSL_CERT_FILE", "roots.pem");
    place.run(&["ca", "init", "--cert", "root.crt", "--key", "root.key", "--name", "a root"]);
    place.run(&["ca", "init"]);
    let (root, ours) = (place.read("root.crt"), place.read("ca.crt"));
    // As if the system's roots were an older bundle.
    std::fs::write(place.path("roots.pem"), format!("{ours}{root}")).unwrap();

    let printed = place.run(&["ca", "bundle"]);
    let written = place.run(&["ca", "bundle", "--out", "bundle.pem"]);
    let again = place.run(&["ca", "bundle", "--out", "bundle.pem"]);

    let both = format!("{root}{ours}");
    assert_eq!([printed, written, again], [Run::of(0, &both, ""), Run::of(0, "", ""), Run::of(0, "", "")]);
    assert_eq!((place.read("bundle.pem"), mode(&place, "bundle.pem")), (both, 0o644));
}

#[test]
fn openssl_takes_the_bundle_for_a_certificate_under_each_root() {
    let place = Place::new();
    place.run(&["ca", "init"]);

    place.run(&["ca", "bundle", "--out", "bundle.pem"]);

    assert_eq!(openssl(&place, &["verify", "-CAfile", "bundle.pem", "ca.crt"]), "ca.crt: OK\n");
}

#[test]
fn without_a_certificate_there_is_neither_a_bundle_nor_anything_to_show() {
    let place = Place::new();
    let expected = "error: ca.crt: the authority's certificate cannot be read: No such file or directory (os error 2)\n\
                    hint: make a pair with `keyferry ca init`\n";

    assert_eq!(
        [place.run(&["ca", "bundle"]), place.run(&["ca", "show"])],
        [Run::of(1, "", expected), Run::of(1, "", expected)]
    );
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let place = Place::new();
    place.run(&["ca", "init"]);
    let mut child = place
        .command(&["ca", "bundle"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());

    let output = child.wait_with_output().unwrap();

    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
}
