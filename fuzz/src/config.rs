//! Any bytes are a document or a list of problems with their places; what loads, compiles and prints itself.

use keyferry_config::document::{Options, Severity, effective, parse};
use keyferry_config::policy::Policy;

/// Reads `data` as a configuration.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let environment = |name: &str| (name == "SET").then(|| "a.example".to_owned());
    for lenient in [false, true] {
        let (document, problems) = match parse("f.yaml", &text, &environment, Options { lenient }) {
            Ok(loaded) => (Some(loaded.document), loaded.warnings),
            Err(problems) => (None, problems),
        };
        let lines = 1 + text.replace("\r\n", "\n").bytes().filter(|b| matches!(b, b'\n' | b'\r')).count();
        for problem in &problems {
            let place = problem.location.expect("no variable is at fault");
            assert!(place.line >= 1 && place.line as usize <= lines && place.column >= 1, "{place:?}");
            assert!(
                !problem.message.is_empty() && (document.is_none() || problem.severity == Severity::Warning)
            );
        }
        let printed = problems.to_string();
        assert!(
            !printed.chars().any(|c| c.is_control() && c != '\n'),
            "a file writes into the terminal: {printed:?}"
        );

        let Some(document) = document else { continue };
        Policy::compile(&document, 1).expect("what loads, compiles");
        let printed =
            effective("f.yaml", &text, &environment, Options { lenient }).expect("it has loaded before");
        if !printed.contains("redacted") {
            let again =
                parse("f.yaml", &printed, &environment, Options::default()).expect("what is printed, loads");
            assert_eq!(again.document, document, "{printed}");
        }
    }
}
