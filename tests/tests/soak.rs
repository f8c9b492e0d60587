//! A short soak in every run; `./scripts/soak` for longer, with figures.

use std::time::Duration;

use keyferry_tests::soak::{Plan, run};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

#[tokio::test(flavor = "multi_thread")]
async fn under_mixed_load_nothing_is_left_behind_and_each_request_has_one_record() {
    let plan = Plan {
        keyferry: KEYFERRY.into(),
        warm_up: Duration::from_secs(5),
        duration: Duration::from_secs(10),
        tunnels: 1000,
    };
    let report = run(&plan).await;
    assert_eq!(report.faults(), Vec::<String>::new(), "{}", report.table());
    assert!(report.tunnels >= 1000 && report.reloads >= 10 && report.programs >= 5, "{report:#?}");
}
