//! `keyferry demo`: it is a test of its own, so here only that it passes and says so.

use crate::keyferry::Place;

#[test]
fn the_demonstration_goes_as_it_should() {
    let run = Place::new().run(&["demo"]);

    assert_eq!(run.exit_code, 0, "{}{}", run.stdout, run.stderr);
    assert!(!run.stderr.contains('✗'), "{}", run.stderr);
    assert!(
        run.stdout.ends_with(
            "steps went as they should: the service saw the real values, the sandbox never did, and nothing else got out.\n"
        ),
        "{}",
        run.stdout
    );
}
