//! An npm registry with one package, behind TLS and a token.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::AUTHORIZATION;
use hyper::{Response, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::origin::{Body, Handler, Origin, OriginBuilder, full};
use crate::parts;

/// The package that it offers; its module is the text [`GREETING`].
pub const PACKAGE: &str = "keyferry-sample";
/// What the package says.
pub const GREETING: &str = "hello from the package";

/// A running registry, which answers 401 to whoever does not show `token`.
///
/// # Panics
/// When tar cannot pack the package.
pub async fn start(name: &str, token: &str) -> Origin {
    serve(Origin::builder(name), PACKAGE, token).await
}

/// The same with a package of another name, perhaps in a scope.
///
/// # Panics
/// When tar cannot pack the package.
pub async fn serve(origin: OriginBuilder, name: &'static str, token: &str) -> Origin {
    let package = pack(name).await;
    let tarball = format!("/{name}/-/{}-1.0.0.tgz", name.rsplit('/').next().unwrap_or_default());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, &package);
    let integrity = format!("sha512-{}", STANDARD.encode(digest));
    let expected = format!("Bearer {token}");
    let handler: Handler = Arc::new(move |request| {
        let shown = request.headers().get(AUTHORIZATION);
        // npm encodes the slash after a scope.
        let path = request.uri().path().replace("%2f", "/");
        let answer = if shown.is_none_or(|shown| shown.as_bytes() != expected.as_bytes()) {
            respond(StatusCode::UNAUTHORIZED, "{}")
        } else if path == tarball {
            respond(StatusCode::OK, package.clone())
        } else if path.strip_prefix('/') == Some(name) {
            // Over HTTP/1.1 the authority stands in Host alone.
            let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
            respond(StatusCode::OK, description(name, &format!("https://{host}{tarball}"), &integrity))
        } else {
            respond(StatusCode::NOT_FOUND, "{}")
        };
        Box::pin(std::future::ready(answer))
    });
    origin.alpn(&["http/1.1"]).handler(handler).start().await
}

fn description(name: &str, tarball: &str, integrity: &str) -> String {
    let version = json!({
        "name": name, "version": "1.0.0", "dist": { "tarball": tarball, "integrity": integrity },
    });
    json!({ "name": name, "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": version } }).to_string()
}

fn respond(status: StatusCode, content: impl Into<Bytes>) -> Response<Body> {
    let answer = Response::builder().status(status).header("content-type", "application/json");
    answer.body(full(content)).expect("a constant answer")
}

async fn pack(name: &str) -> Bytes {
    let folder = TempDir::new().expect("a temporary folder");
    let package = folder.path().join("package");
    std::fs::create_dir(&package).expect("a folder to pack");
    let manifest = json!({ "name": name, "version": "1.0.0", "main": "index.js" });
    std::fs::write(package.join("package.json"), manifest.to_string()).expect("write the manifest");
    std::fs::write(package.join("index.js"), format!("module.exports = {GREETING:?};\n"))
        .expect("write the module");
    let packed = Command::new(parts::command("tar"))
        .args(["-czf", "-", "package"])
        .current_dir(folder.path())
        .output()
        .await
        .expect("run tar");
    assert!(packed.status.success(), "tar: {}", String::from_utf8_lossy(&packed.stderr));
    packed.stdout.into()
}
