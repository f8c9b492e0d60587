use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn env(var: &str, json_key: Option<&str>) -> Source {
    let kind = SourceKind::Env { var: var.into() };
    Source { kind, json_key: json_key.map(Into::into), ttl: None, failure_ttl: None }
}

fn at(path: &Path, json_key: Option<&str>) -> Source {
    let kind = SourceKind::File { path: path.into() };
    Source { kind, json_key: json_key.map(Into::into), ttl: None, failure_ttl: None }
}

async fn fetch(source: Source, environment: Environment) -> Result<String, SourceError> {
    let fetched = FromSource { source, environment }.fetch().await;
    fetched.map(|secret| secret.expose_secret().to_owned())
}

/// What a file with these bytes gives, and its path.
async fn fetched_from(bytes: &[u8], json_key: Option<&str>) -> (Result<String, SourceError>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, bytes).unwrap();
    (fetch(at(&path, json_key), nothing()).await, path.display().to_string())
}

fn nothing() -> Environment {
    Environment::of::<&str, &str>([])
}

#[tokio::test]
async fn a_variable_gives_its_value_and_an_empty_one_counts_as_missing() {
    let environment = || Environment::of([("TOKEN", " sk-1 \n"), ("EMPTY", "")]);
    assert_eq!(fetch(env("TOKEN", None), environment()).await, Ok(" sk-1 \n".into()));
    for var in ["EMPTY", "MISSING", "token"] {
        assert_eq!(fetch(env(var, None), environment()).await, Err(SourceError::NotSet { var: var.into() }));
    }
}

#[tokio::test]
async fn a_variable_is_looked_up_when_it_is_fetched_and_not_before() {
    let lookups = Arc::new(AtomicUsize::new(0));
    let counted = lookups.clone();
    let environment = Environment::new(move |name| {
        counted.fetch_add(1, Ordering::Relaxed);
        Some(SecretString::from(format!("value of {name}")))
    });
    assert_eq!(lookups.load(Ordering::Relaxed), 0);
    assert_eq!(fetch(env("TOKEN", None), environment).await, Ok("value of TOKEN".into()));
    assert_eq!(lookups.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_file_gives_its_exact_bytes() {
    for content in ["sk-1", "sk-1\n", "  sk-1\r\n\r\n", "\u{feff}schlüssel", "\n"] {
        assert_eq!(fetched_from(content.as_bytes(), None).await.0, Ok(content.into()));
    }
    for length in [4095, 4096, 4097, 100_000, MAX_FILE_BYTES] {
        let content: String = ('a'..='z').cycle().take(length).collect();
        assert_eq!(fetched_from(content.as_bytes(), None).await.0, Ok(content));
    }
}

#[tokio::test]
async fn a_file_that_holds_no_secret_is_an_error_that_names_it() {
    let (fetched, file) = fetched_from(b"", None).await;
    assert_eq!(fetched, Err(SourceError::EmptyFile { file }));
    let (fetched, file) = fetched_from(b"sk-\xff\xfe", None).await;
    assert_eq!(fetched, Err(SourceError::NotText { file }));
    let (fetched, file) = fetched_from(&vec![b'a'; MAX_FILE_BYTES + 1], None).await;
    assert_eq!(fetched, Err(SourceError::TooLarge { file, limit: MAX_FILE_BYTES }));
}

#[tokio::test]
async fn a_path_that_leads_to_no_file_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let unreadable =
        SourceError::Unreadable { file: missing.display().to_string(), kind: io::ErrorKind::NotFound };
    assert_eq!(fetch(at(&missing, None), nothing()).await, Err(unreadable));
    for path in [folder.path(), Path::new("/dev/null")] {
        let expected = SourceError::NotAFile { file: path.display().to_string() };
        assert_eq!(fetch(at(path, None), nothing()).await, Err(expected));
    }
}

#[tokio::test]
async fn a_json_key_reads_one_string_at_the_top_level() {
    let object = r#"{"other": {"key": "inner"}, "key": "sk-1", "escaped": "a\n\u00e9\"b", "twice": "1", "twice": "2"}"#;
    let environment = || Environment::of([("OBJECT", object)]);
    for (key, expected) in [("key", "sk-1"), ("escaped", "a\né\"b"), ("twice", "2")] {
        assert_eq!(fetch(env("OBJECT", Some(key)), environment()).await, Ok(expected.into()), "{key}");
        assert_eq!(fetched_from(object.as_bytes(), Some(key)).await.0, Ok(expected.into()), "{key}");
    }
}

#[tokio::test]
async fn t46_what_json_key_cannot_read_is_an_error_without_the_value() {
    type Expected = fn(String, String) -> SourceError;
    let cases: [(&str, Expected); 13] = [
        ("canary", |name, key| SourceError::NotAnObject { name, key }),
        ("\"canary\"", |name, key| SourceError::NotAnObject { name, key }),
        ("[\"canary\"]", |name, key| SourceError::NotAnObject { name, key }),
        ("{\"key\": \"canary", |name, key| SourceError::NotAnObject { name, key }),
        ("{\"key\": \"canary\"} canary", |name, key| SourceError::NotAnObject { name, key }),
        ("{\"Key\": \"canary\"}", |name, key| SourceError::NoSuchKey { name, key }),
        ("{\"canary\": {\"key\": \"canary\"}}", |name, key| SourceError::NoSuchKey { name, key }),
        ("{\"key\": {\"key\": \"canary\"}}", |name, key| SourceError::NotAString { name, key }),
        ("{\"key\": [\"canary\"]}", |name, key| SourceError::NotAString { name, key }),
        ("{\"key\": 20251122}", |name, key| SourceError::NotAString { name, key }),
        ("{\"key\": null, \"canary\": 1}", |name, key| SourceError::NotAString { name, key }),
        ("{\"key\": true}", |name, key| SourceError::NotAString { name, key }),
        ("{\"key\": \"\"}", |name, key| SourceError::NotAString { name, key }),
    ];
    for (content, expected) in cases {
        let error =
            fetch(env("OBJECT", Some("key")), Environment::of([("OBJECT", content)])).await.unwrap_err();
        assert_eq!(error, expected("OBJECT".into(), "key".into()), "{content}");
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(!text.contains("canary") && !text.contains("20251122"), "{text}");
            assert!(text.contains("OBJECT"), "{text}");
        }
    }
}

#[test]
fn an_error_says_what_happened_to_what_and_what_to_do() {
    let not_set = SourceError::NotSet { var: "OPENAI_API_KEY".into() };
    assert_eq!(
        not_set.to_string(),
        "the environment variable OPENAI_API_KEY is not set or is empty\nhint: set OPENAI_API_KEY where keyferry is \
         started, then restart it"
    );
    let unreadable =
        SourceError::Unreadable { file: "/run/token".into(), kind: io::ErrorKind::PermissionDenied };
    assert_eq!(
        unreadable.to_string(),
        "the secret file /run/token cannot be read: permission denied\nhint: let the user that keyferry runs as read it"
    );
}
