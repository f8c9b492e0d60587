//! The recipes for services: their policies and commands, as the documents show them, with the real programs against servers that stand
//! at the services' own names and demand the real credential.

use std::ffi::OsString;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Method, Request, Response, StatusCode};
use keyferry_tests::document::Document;
use keyferry_tests::git_server::GitServer;
use keyferry_tests::npm_registry;
use keyferry_tests::origin::{Body, Handler, Origin, OriginBuilder, full};
use keyferry_tests::package_index::PackageIndex;
use keyferry_tests::parts;
use keyferry_tests::proxy::{Proxy, ProxyBuilder};
use keyferry_tests::sandbox::Sandbox;
use serde_json::{Value, json};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const REAL: &str = "real-0123456789abcdef";

/// What a recipe shows.
struct Recipe {
    policy: String,
    /// The commands that work.
    script: String,
    /// Commands that are refused, each with the reason.
    refused: Vec<(String, String)>,
}

impl Recipe {
    fn read(name: &str) -> Self {
        let document = Document::read(&parts::workspace().join(format!("docs/recipes/{name}.md")));
        let file = document.blocks.iter().find(|block| block.is_configuration()).expect("a policy");
        // Where the proxy listens and whom it trusts is the test's affair.
        let (_, policy) = file.text.split_once("\ntransforms:").expect("what it allows and swaps");
        let mut commands = document.blocks.iter().filter(|block| block.run_by() == Some(file!()));
        let commands = &commands.next().expect("commands for the sandbox").text;
        let mut recipe =
            Self { policy: format!("transforms:{policy}"), script: String::new(), refused: Vec::new() };
        for line in commands.lines() {
            match line.split_once(" # 403 ") {
                Some((command, reason)) => recipe.refused.push((command.to_owned(), reason.to_owned())),
                None => recipe.script.extend([line, "\n"]),
            }
        }
        assert!(!recipe.refused.is_empty(), "{name} shows what is refused");
        recipe
    }

    /// Runs what works, then each of the others; what the former said.
    async fn run(&self, proxy: ProxyBuilder, origins: &[&Origin], sandbox: fn(Sandbox) -> Sandbox) -> String {
        let proxy = origins.iter().fold(proxy.policy(&self.policy), |proxy, origin| proxy.route(origin));
        let proxy = proxy.start().await;
        std::fs::write(proxy.file("google-token"), REAL).expect("write the proxy's file");
        let sandbox = sandbox(Sandbox::of(&proxy));

        let said = sandbox.run("sh", ["-euc", &self.script]).await.success();
        let exports: String =
            self.script.lines().filter(|line| line.starts_with("export ")).collect::<Vec<_>>().join("\n");
        for (command, _) in &self.refused {
            sandbox.run("sh", ["-euc", &format!("{exports}\n{command}")]).await.failure();
        }

        assert!(!said.contains(REAL), "{said}");
        let ended = proxy.stop().await;
        ended.assert_never_wrote(REAL);
        let mut reasons: Vec<_> = ended
            .records()
            .iter()
            .filter_map(|record| Some(record["audit"]["reason"].as_str()?.to_owned()))
            .collect();
        reasons.dedup();
        let mut expected: Vec<_> = self.refused.iter().map(|(_, reason)| reason.clone()).collect();
        expected.dedup();
        assert_eq!(reasons, expected, "what is refused, and nothing else: {:#?}", ended.records());
        said
    }
}

fn at(name: &str) -> OriginBuilder {
    Origin::builder(name).default_port()
}

fn proxy(variable: &str) -> ProxyBuilder {
    Proxy::builder(KEYFERRY).env(variable, REAL)
}

/// A JSON API that answers those who show this value of `Authorization`.
async fn api(name: &str, credential: String, answer: fn(&Method, &str, &str) -> Option<Value>) -> Origin {
    let handler: Handler = Arc::new(move |request| {
        let credential = credential.clone();
        Box::pin(async move { respond(request, &credential, answer).await })
    });
    at(name).handler(handler).start().await
}

async fn respond(
    request: Request<Incoming>,
    credential: &str,
    answer: fn(&Method, &str, &str) -> Option<Value>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let shown = head.headers.get(AUTHORIZATION).is_some_and(|shown| shown == credential);
    let (status, value) =
        match (shown, answer(&head.method, head.uri.path(), &String::from_utf8_lossy(&body))) {
            (false, _) => (StatusCode::UNAUTHORIZED, json!({ "message": "Bad credentials" })),
            (true, Some(value)) => (StatusCode::OK, value),
            (true, None) => (StatusCode::NOT_FOUND, json!({ "message": "Not Found" })),
        };
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(full(value.to_string())).expect("a constant answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn github() {
    let git = GitServer::serve(at("github.com"), "acme/site.git", "x-access-token", REAL).await;
    let api = api("api.github.com", format!("token {REAL}"), |method, path, body| match (method, path) {
        (&Method::GET, "/user") => Some(json!({ "login": "octo-agent" })),
        (&Method::POST, "/repos/acme/site/issues/1/comments") => {
            let comment: Value = serde_json::from_str(body).ok()?;
            Some(json!({ "id": 1, "body": comment["body"] }))
        }
        _ => None,
    })
    .await;

    let named = |sandbox: Sandbox| {
        sandbox
            .env("GIT_AUTHOR_NAME", "Agent")
            .env("GIT_AUTHOR_EMAIL", "agent@example")
            .env("GIT_COMMITTER_NAME", "Agent")
            .env("GIT_COMMITTER_EMAIL", "agent@example")
    };
    let said = Recipe::read("github").run(proxy("GITHUB_TOKEN"), &[&git.origin, &api], named).await;

    assert_eq!(git.show("README").await, "hello\na change\n");
    assert!(said.ends_with("octo-agent\n{\"body\":\"Pushed.\",\"id\":1}"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn npm() {
    let registry = npm_registry::serve(at("registry.npmjs.org"), "@acme/site", REAL).await;

    let with_npm = |sandbox: Sandbox| {
        let ca = sandbox.ca().to_owned();
        let bin = [parts::node_module(".bin"), parts::node().parent().expect("a folder").to_owned()];
        sandbox.env("PATH", path(&bin)).env("npm_config_cafile", ca)
    };
    let said = Recipe::read("npm").run(proxy("NPM_TOKEN"), &[&registry], with_npm).await;

    assert!(said.ends_with(&format!("{}\n", npm_registry::GREETING)), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pip() {
    let index = PackageIndex::serve(at("packages.acme.example"), "reader", REAL).await;

    let said = Recipe::read("pip").run(proxy("PYPI_TOKEN"), &[&index.origin], with_python).await;

    assert!(said.ends_with("hello from the wheel\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn google_cloud() {
    let api = api("storage.googleapis.com", format!("Bearer {REAL}"), |method, path, _| match (method, path) {
        (&Method::GET, "/storage/v1/b/acme-reports/o") => {
            Some(json!({ "kind": "storage#objects", "items": [{ "name": "june.csv" }, { "name": "july.csv" }] }))
        }
        _ => None,
    })
    .await;

    let said = Recipe::read("google-cloud").run(Proxy::builder(KEYFERRY), &[&api], with_python).await;

    assert_eq!(said, "june.csv\njuly.csv\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn slack() {
    let api = api("slack.com", format!("Bearer {REAL}"), |method, path, body| match (method, path) {
        (&Method::POST, "/api/chat.postMessage") => {
            let message: Value = serde_json::from_str(body).ok()?;
            Some(json!({ "ok": true, "channel": message["channel"], "ts": "1795370000.000100", "message": message }))
        }
        _ => None,
    })
    .await;

    let said = Recipe::read("slack").run(proxy("SLACK_BOT_TOKEN"), &[&api], with_python).await;

    assert_eq!(said, "1795370000.000100\n");
}

/// The Python of the tests under the names that users have.
fn with_python(sandbox: Sandbox) -> Sandbox {
    let bin = parts::python().parent().expect("a folder").to_owned();
    sandbox.env("PATH", path(&[bin]))
}

fn path(first: &[std::path::PathBuf]) -> OsString {
    let rest = parts::search_path();
    std::env::join_paths(first.iter().cloned().chain(std::env::split_paths(&rest))).expect("a search path")
}
