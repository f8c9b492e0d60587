//! What the policy costs: deciding a tunnel and a request, narrowing a policy to a destination, and looking for placeholders.
//!
//! The allocations that divan counts are the other half of the budget: none on the way of an allowed request without a placeholder.

use std::fmt::Write as _;
use std::sync::Arc;

use divan::counter::BytesCount;
use divan::{AllocProfiler, Bencher, black_box};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method};
use keyferry_config::document::{self, Options};
use keyferry_config::policy::{
    Destination, Host, Policy, RequestHead, Scheme, Scope, TunnelVerdict, Verdict,
};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// How many rules, and how many secrets, each bound to a host of its own.
#[derive(Clone, Copy)]
struct Size {
    rules: usize,
    secrets: usize,
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rules, {} secrets", self.rules, self.secrets)
    }
}

const SIZES: [Size; 3] = [
    Size { rules: 10, secrets: 10 },
    Size { rules: 10_000, secrets: 10 },
    Size { rules: 10_000, secrets: 1_000 },
];
/// One in the middle: neither the first nor the last that is looked at.
const NUMBER: usize = 5;

fn placeholder(number: usize) -> String {
    // Spread over the alphabet as generated ones are.
    let hex = (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    format!("kf_{hex:032x}")
}

fn policy(size: Size) -> Arc<Policy> {
    policy_of(size, placeholder)
}

fn policy_of(size: Size, placeholder: impl Fn(usize) -> String) -> Arc<Policy> {
    let mut yaml = String::from("transforms:\n  - name: allowlist\n    config:\n      rules:\n");
    for number in 0..size.rules {
        let rule =
            format!(r#"{{ host: h{number}.example, methods: [GET, POST], paths: ["/v1/*", "/health"] }}"#);
        writeln!(yaml, "        - {rule}").expect("a String takes it");
    }
    yaml += "        - { host: \"*.deny.example\", action: deny }\n";
    yaml += "  - name: secrets\n    config:\n      secrets:\n";
    for number in 0..size.secrets {
        let replace = format!("proxy_value: {}, match_headers: [Authorization]", placeholder(number));
        writeln!(
            yaml,
            "        - {{ source: {{ type: env, var: KEY }}, replace: {{ {replace} }}, rules: [{{ host: h{number}.example }}] }}"
        )
        .expect("a String takes it");
    }
    let loaded = document::parse("bench.yaml", &yaml, &|_| None, Options::default())
        .unwrap_or_else(|problems| panic!("{problems}"));
    Arc::new(Policy::compile(&loaded.document, 1).expect("what was parsed compiles"))
}

fn host(number: usize) -> Host {
    Host::parse_authority(&format!("h{number}.example")).expect("a name").0
}

fn destination() -> Destination {
    Destination { scheme: Scheme::Https, host: host(NUMBER), port: 443 }
}

/// The head of a call to a model's API.
fn headers(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers
        .insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).expect("visible characters"));
    headers.insert(USER_AGENT, HeaderValue::from_static("OpenAI/Python 1.99.1"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate, br, zstd"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for name in ["x-stainless-lang", "x-stainless-package-version", "x-stainless-os", "x-stainless-runtime"] {
        headers.insert(name, HeaderValue::from_static("a value of the usual length"));
    }
    headers
}

fn decide(bencher: Bencher<'_, '_>, size: Size, token: &str) {
    let scope = Scope::new(policy(size), destination());
    let headers = headers(token);
    let head =
        RequestHead { method: &Method::POST, target: "/v1/chat/completions?stream=true", headers: &headers };
    bencher.bench_local(|| match scope.decide(black_box(&head)) {
        Verdict::Forward(plan) => plan,
        Verdict::Refuse(refusal) => panic!("{refusal}"),
    });
}

#[divan::bench(args = SIZES)]
fn request_without_placeholder(bencher: Bencher<'_, '_>, size: Size) {
    decide(bencher, size, "sk-something-else-that-is-about-as-long");
}

#[divan::bench(args = SIZES)]
fn request_with_placeholder(bencher: Bencher<'_, '_>, size: Size) {
    decide(bencher, size, &placeholder(NUMBER));
}

#[divan::bench(args = SIZES)]
fn tunnel(bencher: Bencher<'_, '_>, size: Size) {
    let policy = policy(size);
    let host = host(NUMBER);
    bencher.bench_local(|| match policy.decide_tunnel(black_box(&host), 443) {
        TunnelVerdict::Open(rule) => rule,
        TunnelVerdict::Refuse(refusal) => panic!("{refusal}"),
    });
}

#[divan::bench(args = SIZES)]
fn narrow_to_a_destination(bencher: Bencher<'_, '_>, size: Size) {
    let policy = policy(size);
    bencher.with_inputs(destination).bench_local_values(|to| Scope::new(Arc::clone(&policy), black_box(to)));
}

#[divan::bench(args = [1, 10, 100, 1_000])]
fn search_a_body_for_generated_placeholders(bencher: Bencher<'_, '_>, placeholders: usize) {
    search(bencher, &policy(Size { rules: 1, secrets: placeholders }));
}

/// As people name them: they begin with many different letters.
#[divan::bench(args = [1, 10, 100, 1_000])]
fn search_a_body_for_named_placeholders(bencher: Bencher<'_, '_>, placeholders: usize) {
    let named = |number: usize| {
        let letter = |place: usize| char::from(b'A' + u8::try_from(place % 26).unwrap_or(0));
        format!("{}{}{number}_API_KEY", letter(number), letter(number / 26 + 7))
    };
    search(bencher, &policy_of(Size { rules: 1, secrets: placeholders }, named));
}

/// A body of 64 KiB in which there is nothing to find.
fn search(bencher: Bencher<'_, '_>, policy: &Policy) {
    let line = r#"{"role":"tool","tool_call_id":"call_A7","content":"Set API_BASE and look PRIMARY_KEY up. Why? So it is USUAL."},"#;
    let body: String = line.chars().cycle().take(64 << 10).collect();
    bencher
        .counter(BytesCount::new(body.len()))
        .bench_local(|| policy.placeholders().find_in(black_box(body.as_bytes())).count());
}
