use super::{Derived, slug};

#[test]
fn a_slug_is_small_letters_digits_and_single_dashes() {
    for (text, expected) in [
        ("XAI_API_KEY", "xai-api-key"),
        ("https://api.github.com/oauth", "https-api-github-com-oauth"),
        ("--Edge  Proxy--", "edge-proxy"),
        ("***", "x"),
        ("Größe", "gr-e"),
    ] {
        assert_eq!(slug(text), expected, "{text}");
    }
}

#[test]
fn a_conversation_is_always_the_same_principal() {
    for (key, user, expected) in [
        ("slack:D0420:1780000000.0001", Some("U07ABC"), "slack-user-u07abc"),
        ("slack:T123:D9:1780000000.0001", Some("U07ABC"), "slack-user-t123-u07abc"),
        ("slack:D0420:1780000000.0001", None, "slack-channel-d0420"),
        ("slack:T123:C456:1780000000.0001", Some("U1"), "slack-channel-t123-c456"),
        ("chat:C123:1780000000.000000", Some("U1"), "slack-channel-c123"),
        ("slack:G99:ts", None, "slack-channel-g99"),
        ("discord:11:22:33", None, "discord-channel-11-22"),
        ("linear:ABC-123", None, "linear-issue-abc-123"),
        ("teams:user:29:Xy", None, "teams-user-29"),
        ("teams:19abc@thread.v2", None, "teams-conversation-19abc-thread-v2"),
        ("telegram:42", None, "telegram-user-42"),
        ("telegram:-10042", None, "telegram-chat-10042"),
        ("workflow:Nightly Report", None, "workflow-nightly-report"),
        ("github:octo/repo#7", None, "thread-github-octo-repo-7"),
        ("alice", None, "alice"),
        ("prn_abc", None, "prn_abc"),
    ] {
        assert_eq!(Derived::of(key, user).foreign_id, expected, "{key}");
    }
}

#[test]
fn a_derived_principal_says_what_it_is() {
    assert_eq!(
        Derived::of("slack:T123:D9:ts", Some("U07ABC")).data("default"),
        serde_json::json!({
            "namespace": "default",
            "name": "Slack User U07ABC (team T123)",
            "kind": "slack_dm",
            "labels": { "managed-by": "centaur", "slack_team_id": "T123", "slack_user_id": "U07ABC" },
        })
    );
}
