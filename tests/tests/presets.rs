//! Presets at `keyferry up`: what one command makes is enforced, request by request, at the provider's own name.

use std::path::Path;

use keyferry_tests::origin::Origin;
use keyferry_tests::sandbox::{Fetched, Sandbox};
use keyferry_tests::up::Up;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const REAL: &str = "sk-ant-real-0123456789abcdef";

async fn at(name: &str) -> Origin {
    Origin::builder(name).default_port().start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_a_usable_key_in_one_command() {
    let (models, packages) = (at("api.anthropic.com").await, at("registry.npmjs.org").await);
    let up = Up::start(KEYFERRY, &[&models, &packages]).await;
    std::fs::write(up.file("key.txt"), REAL).expect("write the key");

    let added = up.says(&["preset", "add", "anthropic", "--value-file", "key.txt"]).await;
    up.says(&["preset", "add", "npm"]).await;

    let placeholder = added.trim_end().rsplit_once("placeholder: ").expect("a placeholder").1;
    // A sandbox is there once the proxy has applied all that came before.
    let url = up.says(&["sandbox", "create", "job", "--principal", "default"]).await;
    let sandbox =
        Sandbox::without_proxy().trusting(Path::new(up.told("ca_bundle"))).env("https_proxy", url.trim());
    let ask = async |method: &str, url: &str, key: &str| -> Fetched {
        sandbox.fetch(["-X", method, "-H", &format!("x-api-key: {key}"), url]).await
    };

    let turn = ask("POST", "https://api.anthropic.com/v1/messages?beta=true", placeholder).await;
    assert_eq!(turn.status, 200, "{turn:?}");
    assert!(turn.body.contains(placeholder) && !turn.body.contains(REAL), "{turn:?}");
    assert_eq!(models.only_request().header("x-api-key"), Some(REAL));

    for (method, url, key, reason) in [
        ("POST", "https://api.anthropic.com/v1/files", placeholder, "path_not_allowed"),
        ("POST", "https://api.anthropic.com/api/event_logging/batch", placeholder, "path_not_allowed"),
        ("GET", "https://api.anthropic.com/v1/organizations/api_keys", placeholder, "path_not_allowed"),
        ("DELETE", "https://api.anthropic.com/v1/messages", placeholder, "method_not_allowed"),
        ("POST", "https://api.anthropic.com/v1/messages", "sk-ant-of-an-attacker", "foreign_credential"),
        ("GET", "https://registry.npmjs.org/left-pad", placeholder, "placeholder_misdirected"),
        ("PUT", "https://registry.npmjs.org/left-pad", "", "method_not_allowed"),
    ] {
        let refused = ask(method, url, key).await;
        assert_eq!((refused.status, refused.reason().as_str()), (403, reason), "{method} {url}");
    }
    assert_eq!((models.received().len(), packages.received().len()), (1, 0), "nothing more arrived");
    let package = sandbox.fetch(["https://registry.npmjs.org/@babel%2fcore"]).await;
    assert_eq!((package.status, packages.received().len()), (200, 1), "{package:?}");
}
