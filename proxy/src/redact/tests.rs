use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use keyferry_config::document::{Source, SourceKind};
use keyferry_source::{Environment, Sources};
use proptest::prelude::*;

use super::*;

const VALUE: &str = "sk-live/1+2=\"é\\\n<z>";

fn redactor(values: &[(&str, &str)]) -> Arc<Redactor> {
    Arc::new(Redactor::of(values.iter().map(|(label, value)| ((*label).to_owned(), *value))))
}

fn scan(redactor: &Arc<Redactor>, body: &[u8], size: usize) -> Vec<u8> {
    let mut stream = redactor.stream();
    let mut out = Pieces::new();
    for piece in body.chunks(size) {
        stream.push(Bytes::copy_from_slice(piece), &mut out);
    }
    stream.finish(&mut out);
    out.into_iter().flatten().collect()
}

fn scan_text(redactor: &Arc<Redactor>, body: &str) -> String {
    String::from_utf8(scan(redactor, body.as_bytes(), 7)).expect("labels are text")
}

#[tokio::test]
async fn values_come_from_their_sources() {
    let sources = Sources::new(Environment::of([("API_KEY", "sk-live-123")]));
    let kind = SourceKind::Env { var: "API_KEY".to_owned() };
    let source = sources.get(&Source { kind, json_key: None, ttl: None, failure_ttl: None });
    let value = source.value().await.expect("the variable is set");
    let redactor = Arc::new(Redactor::new([("kf_1".to_owned(), &*value)]));
    assert_eq!(scan_text(&redactor, "the key is sk-live-123."), "the key is kf_1.");
}

/// T45: a table of encoders as servers have them, each written out by hand.
#[test]
fn t45_every_listed_encoding_is_found() {
    let redactor = redactor(&[("KEY", VALUE)]);
    for (encoding, text) in [
        ("raw", VALUE),
        ("encodeURIComponent", "sk-live%2F1%2B2%3D%22%C3%A9%5C%0A%3Cz%3E"),
        ("the same in lower case", "sk-live%2f1%2b2%3d%22%c3%a9%5c%0a%3cz%3e"),
        ("Python's quote", "sk-live/1%2B2%3D%22%C3%A9%5C%0A%3Cz%3E"),
        ("every byte", "%73%6B%2D%6C%69%76%65%2F%31%2B%32%3D%22%C3%A9%5C%0A%3C%7A%3E"),
        ("every byte in lower case", "%73%6b%2d%6c%69%76%65%2f%31%2b%32%3d%22%c3%a9%5c%0a%3c%7a%3e"),
        ("hexadecimal", "736b2d6c6976652f312b323d22c3a95c0a3c7a3e"),
        ("hexadecimal in upper case", "736B2D6C6976652F312B323D22C3A95C0A3C7A3E"),
        ("JSON.stringify", r#"sk-live/1+2=\"é\\\n<z>"#),
        ("json.dumps", r#"sk-live/1+2=\"\u00e9\\\n<z>"#),
        ("PHP's json_encode", r#"sk-live\/1+2=\"\u00e9\\\n<z>"#),
        ("Go's encoding/json", r#"sk-live/1+2=\"é\\\n\u003cz\u003e"#),
        ("Gson", r#"sk-live/1+2\u003d\"é\\\n\u003cz\u003e"#),
        (".NET", r"sk-live/1\u002B2=\u0022\u00E9\\\n\u003Cz\u003E"),
        ("JSON without short escapes", r#"sk-live/1+2=\"é\\\u000a<z>"#),
    ] {
        assert_eq!(scan_text(&redactor, &format!("a {text} b")), "a KEY b", "{encoding}");
    }
}

#[test]
fn a_form_body_has_plus_for_space() {
    let redactor = redactor(&[("KEY", "correct horse ~battery*")]);
    for text in ["correct+horse+%7Ebattery*", "correct%20horse%20~battery%2A", "correct%20horse%20~battery*"]
    {
        assert_eq!(scan_text(&redactor, text), "KEY", "{text}");
    }
}

/// A character beyond the basic plane is two units.
#[test]
fn json_escapes_surrogate_pairs() {
    let redactor = redactor(&[("KEY", "pass-😀-word")]);
    assert_eq!(scan_text(&redactor, r"pass-\ud83d\ude00-word pass-\uD83D\uDE00-word"), "KEY KEY");
}

/// T45: `user:VALUE` of Basic, and a value anywhere in a longer text.
#[test]
fn t45_base64_is_found_at_each_alignment_and_leaves_at_most_a_character_of_it() {
    let value = "ghp_0123456789abcdef?>?";
    let redactor = redactor(&[("KEY", value)]);
    for before in 0..6 {
        for after in 0..6 {
            let text = format!("{}{value}{}", "u".repeat(before), "v".repeat(after));
            for encoded in [STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                let scanned = scan_text(&redactor, &encoded);
                let (head, tail) =
                    scanned.split_once("KEY").unwrap_or_else(|| panic!("{encoded}: {scanned}"));
                assert!(encoded.starts_with(head) && encoded.ends_with(tail), "{encoded}: {scanned}");
                // What stays decodes to the neighbours and less than one byte of the value.
                assert_eq!(head.len(), (before * 8).div_ceil(6));
                let padding = encoded.len() - encoded.trim_end_matches('=').len();
                let all = (text.len() * 8).div_ceil(6) + padding;
                assert_eq!(tail.len(), all - (before + value.len()) * 8 / 6);
            }
        }
    }
}

#[test]
fn values_under_eight_bytes_are_left() {
    let redactor = redactor(&[("KEY", "1234567"), ("LONG", "12345678")]);
    assert_eq!(scan_text(&redactor, "1234567 12345678"), "1234567 LONG");
    assert!(self::redactor(&[("KEY", "1234567")]).is_empty());
}

#[test]
fn an_old_value_lives_beside_the_new_one_and_swapped_and_injected_are_told_apart() {
    let injected = label("DB_PASSWORD");
    let redactor = redactor(&[
        ("kf_placeholder", "old-value-1"),
        ("kf_placeholder", "new-value-2"),
        (&injected, "hunter2-hunter2"),
    ]);
    assert_eq!(
        scan_text(&redactor, "old-value-1,new-value-2,hunter2-hunter2"),
        "kf_placeholder,kf_placeholder,[redacted:DB_PASSWORD]"
    );
}

#[test]
fn of_two_values_that_begin_alike_the_longer_one_counts() {
    let redactor = redactor(&[("SHORT", "token-12"), ("LONG", "token-1234")]);
    assert_eq!(scan_text(&redactor, "token-123 token-1234"), "SHORT3 LONG");
}

/// A file that ends in a line break is echoed without it.
#[test]
fn white_space_around_a_value_does_not_hide_it() {
    let redactor = redactor(&[("KEY", "token-from-file\n")]);
    assert_eq!(scan_text(&redactor, "token-from-file token-from-file\n"), "KEY KEY\n");
    assert_eq!(scan_text(&redactor, &STANDARD.encode("u:token-from-file")), "dTpKEYU=");
}

/// T43: `Location` and `Set-Cookie`.
#[test]
fn t43_headers_are_scanned() {
    let redactor = redactor(&[("kf_1", "sk-live/123")]);
    let header = |text| HeaderValue::from_bytes(text).expect("a header value");
    assert_eq!(redactor.scan_header(&header(b"nothing here")), None);
    assert_eq!(
        redactor.scan_header(&header(b"/next?a=sk-live%2F123&b=sk-live/123\xff")),
        Some(header(b"/next?a=kf_1&b=kf_1\xff"))
    );
}

#[test]
fn a_header_stays_sensitive_and_a_label_that_no_header_may_hold_takes_all_of_it() {
    let redactor = redactor(&[("a\nb", "sk-live-123")]);
    let mut value = HeaderValue::from_static("Bearer sk-live-123");
    value.set_sensitive(true);
    let scanned = redactor.scan_header(&value).expect("it holds the value");
    assert_eq!((scanned.as_bytes(), scanned.is_sensitive()), (&b"[redacted]"[..], true));
}

/// T44: an event goes on at once, and the beginning of a value does not, however long it takes.
#[test]
fn t44_events_are_not_delayed_and_a_split_value_is_not_missed() {
    let redactor = redactor(&[("KEY", "sk-live-123")]);
    let mut stream = redactor.stream();
    let mut push = |piece: &'static str| {
        let mut out = Pieces::new();
        stream.push(Bytes::from(piece), &mut out);
        String::from_utf8(out.into_iter().flatten().collect()).expect("text")
    };
    assert_eq!(push("data: {\"n\": 1}\n\n"), "data: {\"n\": 1}\n\n");
    assert_eq!(push("data: sk-li"), "data: ");
    assert_eq!(push("ve-123\n\n"), "KEY\n\n");
    assert_eq!(stream.redacted(), 1);
}

#[test]
fn debug_output_holds_no_value() {
    let redactor = redactor(&[("KEY", "sk-live-123")]);
    let mut stream = redactor.stream();
    stream.push(Bytes::from("sk-liv"), &mut Pieces::new());
    let shown = format!("{redactor:?} {stream:?}");
    assert!(!shown.contains("sk-liv") && shown.contains("KEY"), "{shown}");
}

proptest! {
    /// In no form is a value found in what goes on, wherever the pieces are cut.
    #[test]
    fn no_form_of_a_value_goes_on(
        value in "[ -~é\n]{8,40}",
        noise in "[ -~]{0,20}",
        chosen in any::<prop::sample::Index>(),
        size in 1..50usize,
    ) {
        let forms = forms::forms(&value);
        let form = &forms[chosen.index(forms.len())];
        let body = [noise.as_bytes(), &form[..], noise.as_bytes()].concat();
        let scanned = scan(&redactor(&[("", &value)]), &body, size);
        let found = |text: &[u8]| text.windows(form.len()).filter(|window| *window == form.as_slice()).count();
        // Removing one may join its neighbours into another, so that only what was there counts.
        prop_assert!(found(&body) >= 1);
        prop_assert!(scanned.len() + form.len() <= body.len() + SHORTEST, "{:?}", String::from_utf8_lossy(&scanned));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// What was swapped on its way out is the placeholder again when a service sends it back.
    #[test]
    fn swapping_and_redacting_are_a_round_trip(
        texts in prop::collection::vec(prop::option::of(0..3usize), 0..30),
        fillers in prop::collection::vec("[ -~]{0,12}", 30),
        cuts in 1..50usize,
    ) {
        let secrets = [("kf_one_placeholder", "sk-First/Value="), ("PLACE_HOLDER", "zweiter-Wert-é"), ("kf_3", "third third third")];
        let body: String = texts
            .iter()
            .zip(&fillers)
            .flat_map(|(secret, filler)| [secret.map_or("", |number| secrets[number].0), filler.as_str()])
            .collect();
        let patterns = Patterns::new(secrets.iter().map(|(text, _)| Zeroizing::new(text.as_bytes().to_vec())));
        let mut replacer = Replacer::new(Arc::new(patterns), Caps::SWAP);
        let mut swapped = Pieces::new();
        let decide = |number: u32| Decision::Replace(secrets[number as usize].1.as_bytes());
        for piece in body.as_bytes().chunks(cuts) {
            replacer.push(Bytes::copy_from_slice(piece), decide, &mut swapped).expect("within the caps");
        }
        replacer.finish(decide, &mut swapped).expect("within the caps");
        let sent: Vec<u8> = swapped.into_iter().flatten().collect();
        prop_assert!(!sent.windows(12).any(|window| window == b"PLACE_HOLDER"));
        prop_assert_eq!(scan(&redactor(&secrets), &sent, cuts), body.as_bytes());
    }
}
