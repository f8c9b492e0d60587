//! Keys that look like a service's own and open nothing.

/// A value in the shape that clients of the service behind `variable` check for. It says what it is where there is room for words,
/// and is the same every time: nothing about it is secret.
pub(super) fn shaped_like(variable: &str) -> String {
    let shape = SHAPES.iter().find(|shape| variable.starts_with(shape.variable)).unwrap_or(&ANY);
    let filler = if shape.prefix == "AKIA" { "KEYFERRYINJECTS" } else { "keyferryinjects" };
    let body: String = filler.chars().cycle().take(shape.length).collect();
    format!("{}{body}", shape.prefix)
}

struct Shape {
    /// What the variable's name begins with. A longer beginning stands before a shorter one.
    variable: &'static str,
    prefix: &'static str,
    /// Letters after the prefix.
    length: usize,
}

const ANY: Shape = Shape { variable: "", prefix: "", length: 40 };

const SHAPES: &[Shape] = &[
    Shape { variable: "ANTHROPIC_AUTH_TOKEN", prefix: "sk-ant-oat01-", length: 95 },
    Shape { variable: "CLAUDE_CODE_OAUTH_TOKEN", prefix: "sk-ant-oat01-", length: 95 },
    Shape { variable: "ANTHROPIC_", prefix: "sk-ant-api03-", length: 95 },
    Shape { variable: "OPENROUTER_", prefix: "sk-or-v1-", length: 64 },
    Shape { variable: "OPENAI_", prefix: "sk-proj-", length: 48 },
    Shape { variable: "CODEX_", prefix: "sk-proj-", length: 48 },
    Shape { variable: "GEMINI_", prefix: "AIzaSy", length: 33 },
    Shape { variable: "GOOGLE_API_KEY", prefix: "AIzaSy", length: 33 },
    Shape { variable: "GH_", prefix: "ghp_", length: 36 },
    Shape { variable: "GITHUB_", prefix: "ghp_", length: 36 },
    Shape { variable: "GITLAB_", prefix: "glpat-", length: 20 },
    Shape { variable: "SLACK_APP_TOKEN", prefix: "xapp-1-A000000000-0000000000000-", length: 64 },
    Shape { variable: "SLACK_USER_TOKEN", prefix: "xoxp-000000000000-000000000000-", length: 24 },
    Shape { variable: "SLACK_", prefix: "xoxb-000000000000-000000000000-", length: 24 },
    Shape { variable: "AWS_ACCESS_KEY_ID", prefix: "AKIA", length: 16 },
    Shape { variable: "AWS_SECRET_ACCESS_KEY", prefix: "", length: 40 },
    Shape { variable: "NPM_", prefix: "npm_", length: 36 },
    Shape { variable: "NODE_AUTH_TOKEN", prefix: "npm_", length: 36 },
    Shape { variable: "HF_TOKEN", prefix: "hf_", length: 34 },
    Shape { variable: "STRIPE_", prefix: "sk_test_", length: 24 },
];
