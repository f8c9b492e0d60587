//! `docs/errors.md` is written from the reasons themselves; a page that is stale fails here.
//!
//! `KEYFERRY_REGENERATE=1 cargo test -p keyferry-config --test errors_page` writes it anew.

use keyferry_config::policy::Reason;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");

const INTRODUCTION: &str = "\
# Refusals and errors

Every answer that keyferry gives in place of an upstream has one of the reasons below. A sandbox finds the code

- in the JSON body: `{\"error\": \"keyferry\", \"reason\": CODE, \"message\": …, \"hint\": …, \"request_id\": …}`,
- in the header `Proxy-Status` (RFC 9209): `keyferry; error=…; details=\"CODE\"`,
- in the reason phrase of an HTTP/1.1 status line: `HTTP/1.1 403 host_not_allowed`. For a refused CONNECT this is the line that clients show.

A `407` has no body: clients retry on the same connection and read none.

The operator finds the same code, and the `request_id`, in the audit record.
";

fn page() -> String {
    let mut reasons = Reason::ALL.to_vec();
    reasons.sort_by_key(|reason| reason.status());
    let mut sections = vec![INTRODUCTION.to_owned()];
    for same_status in reasons.chunk_by(|one, other| one.status() == other.status()) {
        sections.push(format!("\n## {}\n", same_status[0].status()));
        sections.extend(same_status.iter().map(section));
    }
    sections.concat()
}

fn section(reason: &Reason) -> String {
    let (code, meaning, hint, error) =
        (reason.code(), reason.meaning().trim(), reason.hint(), reason.proxy_status());
    format!("\n### {code}\n\n{meaning}\n\n- What to do: {hint}\n- `Proxy-Status`: `error={error}`\n")
}

#[test]
fn the_page_tells_every_reason() {
    let page = page();
    if std::env::var_os("KEYFERRY_REGENERATE").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        written == page,
        "docs/errors.md is stale: run this test with KEYFERRY_REGENERATE=1 and commit the page"
    );
}
