//! What an authority must be, and how every file that is not one is refused.

use std::os::unix::fs::PermissionsExt;

use rcgen::{DnType, IsCa, KeyPair, KeyUsagePurpose};
use time::{Duration, OffsetDateTime};

use crate::tls::fixture::{Pair, openssl_ok, text};
use crate::tls::{Authority, GenerateError, Moment, NewAuthority};

/// The refusal of `pair`, with the folder's name taken out.
fn refusal(pair: &Pair) -> String {
    let folder = format!("{}/", text(pair.folder.path()));
    pair.load().expect_err("the pair is refused").to_string().replace(&folder, "")
}

#[test]
fn a_generated_authority_loads_and_openssl_agrees_on_what_it_is() {
    let pair = Pair::generated();

    let authority = pair.load().unwrap();

    let shown = openssl_ok(&[
        "x509",
        "-in",
        text(&pair.certificate),
        "-noout",
        "-fingerprint",
        "-sha256",
        "-ext",
        "basicConstraints,keyUsage",
    ]);
    let expected = format!(
        "sha256 Fingerprint={}\n\
         X509v3 Key Usage: critical\n    Certificate Sign, CRL Sign\n\
         X509v3 Basic Constraints: critical\n    CA:TRUE, pathlen:0\n",
        authority.fingerprint_sha256(),
    );
    assert_eq!(shown, expected);
    assert_eq!(authority.certificate().subject(), "CN=test authority");
    let now = OffsetDateTime::now_utc();
    let validity = authority.validity();
    // T88: clients whose clock is an hour behind take it already.
    assert!(
        validity.not_before <= now - Duration::minutes(59)
            && validity.not_before >= now - Duration::minutes(61)
    );
    assert!(validity.not_after >= now + Duration::days(30) - Duration::MINUTE);
    // Thirty days is what the fixture asks for, and thirty days is "soon".
    assert_eq!(authority.warnings().len(), 1);
}

#[test]
fn openssl_verifies_a_generated_authority_strictly() {
    let pair = Pair::generated();

    let said =
        openssl_ok(&["verify", "-x509_strict", "-CAfile", text(&pair.certificate), text(&pair.certificate)]);

    assert_eq!(said, format!("{}: OK\n", text(&pair.certificate)));
}

#[test]
fn two_generated_authorities_share_neither_key_nor_serial() {
    let serial =
        |pair: &Pair| openssl_ok(&["x509", "-in", text(&pair.certificate), "-noout", "-serial", "-pubkey"]);

    assert_ne!(serial(&Pair::generated()), serial(&Pair::generated()));
}

#[test]
fn keys_made_by_openssl_load_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let make = |arguments: &[&str]| {
        openssl_ok(arguments);
    };
    make(&["ecparam", "-name", "prime256v1", "-genkey", "-out", text(&file("sec1"))]); // with an EC PARAMETERS block
    make(&["genrsa", "-traditional", "-out", text(&file("pkcs1")), "2048"]);
    make(&[
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
        "-out",
        text(&file("pkcs8-rsa")),
    ]);
    make(&["ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", text(&file("sec1-384"))]);
    make(&["genpkey", "-algorithm", "ED25519", "-out", text(&file("ed25519"))]);

    for form in ["sec1", "pkcs1", "pkcs8-rsa", "sec1-384", "ed25519"] {
        let certificate = file("ca.crt");
        openssl_ok(&[
            "req",
            "-x509",
            "-new",
            "-key",
            text(&file(form)),
            "-subj",
            "/O=Example/CN=Authority",
            "-days",
            "90",
            "-out",
            text(&certificate),
            "-addext",
            "keyUsage=critical,keyCertSign",
        ]);
        std::fs::set_permissions(file(form), PermissionsExt::from_mode(0o600)).unwrap();

        let authority =
            Authority::load(&certificate, &file(form)).unwrap_or_else(|error| panic!("{form}: {error}"));

        assert_eq!(
            (authority.certificate().subject(), authority.warnings()),
            ("O=Example, CN=Authority", &[][..]),
            "{form}"
        );
    }
}

#[test]
fn a_mislabelled_key_loads_by_its_content() {
    let pair = Pair::generated();
    let key = std::fs::read_to_string(&pair.key).unwrap().replace("PRIVATE KEY", "EC PRIVATE KEY");
    let pair = Pair::write(std::fs::read(&pair.certificate).unwrap(), key);

    assert!(pair.load().is_ok());
}

#[test]
fn only_the_first_certificate_of_the_file_counts() {
    let (first, second) = (Pair::generated(), Pair::generated());
    let both =
        [std::fs::read(&first.certificate).unwrap(), std::fs::read(&second.certificate).unwrap()].concat();

    let authority = Pair::write(both, std::fs::read(&first.key).unwrap()).load().unwrap();

    assert_eq!(authority.fingerprint_sha256(), first.load().unwrap().fingerprint_sha256());
}

#[test]
fn what_is_not_an_authority_is_refused_with_the_next_step() {
    let no_ca = Pair::changed(|params| params.is_ca = IsCa::ExplicitNoCa);
    let plain = Pair::changed(|params| params.is_ca = IsCa::NoCa);
    let no_cert_sign = Pair::changed(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let no_key_usage = Pair::changed(|params| params.key_usages = Vec::new());

    let not_authority = "ca.crt: this certificate is not a certificate authority's (basicConstraints does not say CA)\n\
                         hint: make a pair with `keyferry ca init`";
    let may_not_sign = "ca.crt: this certificate may not sign others (keyUsage lacks keyCertSign)\n\
                        hint: make a pair with `keyferry ca init`";
    assert_eq!(
        [refusal(&no_ca), refusal(&plain), refusal(&no_cert_sign), refusal(&no_key_usage)],
        [not_authority, not_authority, may_not_sign, may_not_sign]
    );
}

#[test]
fn an_authority_out_of_its_time_is_refused() {
    let moment =
        |days: i64| (OffsetDateTime::now_utc() + Duration::days(days)).replace_nanosecond(0).unwrap();
    let (past, future) = (moment(-1), moment(1));
    let expired = Pair::changed(|params| {
        params.not_before = moment(-30);
        params.not_after = past;
    });
    let early = Pair::changed(|params| params.not_before = future);

    assert_eq!(
        [refusal(&expired), refusal(&early)],
        [
            format!(
                "ca.crt: the certificate authority expired at {}\n\
                 hint: make a new pair with `keyferry ca init` and give the sandboxes the new certificate",
                Moment(past)
            ),
            format!(
                "ca.crt: the certificate authority is not valid before {}\nhint: check this machine's clock",
                Moment(future)
            ),
        ]
    );
}

#[test]
fn a_key_of_another_pair_is_refused() {
    let pair = Pair::write(
        std::fs::read(Pair::generated().certificate).unwrap(),
        std::fs::read(Pair::generated().key).unwrap(),
    );

    assert_eq!(
        refusal(&pair),
        "ca.key: this key does not belong to the certificate ca.crt\n\
         hint: tls.ca_cert and tls.ca_key must be the two files of one `keyferry ca init`"
    );
}

#[test]
fn files_that_hold_something_else_are_refused() {
    let good = Pair::generated();
    let (certificate, key) = (std::fs::read(&good.certificate).unwrap(), std::fs::read(&good.key).unwrap());
    let der = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    let no_certificate = "ca.crt: there is no certificate in this file\n\
                          hint: it must hold a PEM block that begins with -----BEGIN CERTIFICATE-----";
    let no_key = "ca.key: there is no private key in this file\n\
                  hint: it must hold an unencrypted PEM key (PKCS#8, PKCS#1 or SEC1)";
    let bad_key = "ca.key: the key cannot be read\n\
                   hint: RSA (2048 bits or more), P-256, P-384, P-521 and Ed25519 keys work, as PKCS#8, PKCS#1 or SEC1";
    let block = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");

    let cases: Vec<(&str, Pair, &str)> = vec![
        ("empty certificate", Pair::write("", &key), no_certificate),
        ("text", Pair::write("hello", &key), no_certificate),
        ("files swapped", Pair::write(&key, &certificate), no_certificate),
        ("binary", Pair::write([0, 159, 146, 150], &key), no_certificate),
        ("empty key", Pair::write(&certificate, ""), no_key),
        ("certificate as key", Pair::write(&certificate, &certificate), no_key),
        ("no key inside", Pair::write(&certificate, block("PRIVATE KEY", "AAAA")), bad_key),
        ("not base64", Pair::write(&certificate, block("PRIVATE KEY", "%%%%")), bad_key),
        ("cut off", Pair::write(&certificate, &key[..60]), bad_key),
    ];
    for (case, pair, expected) in &cases {
        assert_eq!(&refusal(pair), expected, "{case}");
    }
    for (case, pem) in [
        ("not DER", der("AAAA")),
        ("not base64", der("%%%%")),
        ("cut off", String::from_utf8(certificate[..200].to_vec()).unwrap()),
    ] {
        let said = refusal(&Pair::write(pem, &key));
        assert!(said.starts_with("ca.crt: the authority's certificate cannot be read: "), "{case}: {said}");
    }
}

#[test]
fn an_encrypted_key_is_refused_with_the_command_that_decrypts_it() {
    let good = Pair::generated();
    let encrypted = good.folder.path().join("encrypted");
    let expected = "ca.key: the key is encrypted, and nobody is there to type its pass phrase\n\
                    hint: openssl pkey -in ca.key -out ca.key";
    for form in [&["pkey"][..], &["ec", "-aes256"]] {
        let mut arguments = form.to_vec();
        if form == ["pkey"] {
            arguments.push("-aes256");
        }
        arguments.extend(["-in", text(&good.key), "-out", text(&encrypted), "-passout", "pass:x"]);
        openssl_ok(&arguments);

        let pair = Pair::write(std::fs::read(&good.certificate).unwrap(), std::fs::read(&encrypted).unwrap());

        assert_eq!(refusal(&pair), expected);
    }
}

#[test]
fn a_file_that_is_not_there_says_how_to_make_one() {
    let pair = Pair::generated();
    std::fs::remove_file(&pair.key).unwrap();
    let missing_key = refusal(&pair);
    std::fs::remove_file(&pair.certificate).unwrap();

    assert_eq!(
        [missing_key, refusal(&pair)],
        ["key", "certificate"].map(|what| format!(
            "ca.{}: the authority's {what} cannot be read: No such file or directory (os error 2)\n\
             hint: make a pair with `keyferry ca init`",
            if what == "key" { "key" } else { "crt" }
        ))
    );
}

#[test]
fn a_subject_that_leafs_could_not_repeat_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("ca.crt"), folder.path().join("ca.key"));
    for subject in ["/DC=example/DC=corp/CN=Authority", "/O=Example+OU=One/CN=Authority"] {
        openssl_ok(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            text(&key),
            "-out",
            text(&certificate),
            "-subj",
            subject,
            "-multivalue-rdn",
            "-addext",
            "keyUsage=critical,keyCertSign",
        ]);

        let error = Authority::load(&certificate, &key).expect_err("the pair is refused");

        let expected =
            "ca.crt: the subject of the certificate authority repeats an attribute or joins several";
        assert!(error.to_string().contains(expected), "{subject}: {error}");
    }
}

#[test]
fn t84_a_key_that_others_can_read_works_with_a_warning() {
    let pair = Pair::changed(|params| params.distinguished_name.push(DnType::OrganizationName, "Example"));
    std::fs::set_permissions(&pair.key, PermissionsExt::from_mode(0o640)).unwrap();

    let authority = pair.load().unwrap();

    let warnings: Vec<String> = authority.warnings().iter().map(ToString::to_string).collect();
    let path = pair.key.display();
    assert_eq!(
        warnings,
        [format!(
            "{path}: the key of the certificate authority is readable by others (mode 0640)\nhint: chmod 600 {path}"
        )]
    );
}

#[test]
fn an_authority_near_its_end_works_with_a_warning() {
    let end = (OffsetDateTime::now_utc() + Duration::days(29)).replace_nanosecond(0).unwrap();
    let pair = Pair::keyed(&KeyPair::generate().unwrap(), |params| params.not_after = end);

    let authority = pair.load().unwrap();

    let warnings: Vec<String> = authority.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [format!(
            "{}: the certificate authority expires at {}\n\
             hint: make a new pair with `keyferry ca init` and give the sandboxes the new certificate",
            pair.certificate.display(),
            Moment(end)
        )]
    );
}

#[test]
fn wishes_that_make_no_certificate_are_refused() {
    let made = |name: &str, days| Authority::generate(&NewAuthority { name: name.to_owned(), days });

    for name in ["", "a\nb", &"x".repeat(65)] {
        assert!(matches!(made(name, 1), Err(GenerateError::Name)), "{name:?}");
    }
    for days in [0, 36_501, u32::MAX] {
        assert!(matches!(made("x", days), Err(GenerateError::Days)), "{days}");
    }
    assert!(made(&"x".repeat(64), 36_500).is_ok());
}
