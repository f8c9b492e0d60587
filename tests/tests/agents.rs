//! Coding agents from npm at whole turns: each asks a stand-in for its model's API, which demands the real key, runs the tool that the
//! model calls for, and answers with what the model makes of it. The commands and policies are those of `docs/recipes/`.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::join_all;
use keyferry_tests::agents::{Agent, Recipe, User, search_sandboxes};
use keyferry_tests::document::Document;
use keyferry_tests::model_apis::{Arrived, Model, ModelApi, Provider, Setup, Usage};
use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::Proxy;
use keyferry_tests::sandbox::{Running, Sandbox};
use keyferry_tests::{audit, parts, within};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const KEY: &str = "sk-real-5d41402abc4b2a76b9719d911017c592";
const USAGE: Usage = Usage { input: 4021, output: 57 };

/// What the model's command writes into the workspace, and what it tells of its way out: a sandbox of the agent's own would have let it
/// do neither.
const WRITTEN: &str = "written by the agent";
const WAY_OUT: &str = "way out: 403";

fn setup(provider: Provider) -> Setup {
    let command = format!(
        "printf '{WRITTEN}' > note.txt; printf 'way out: '; \
         curl -s -o /dev/null -w '%{{http_connect}}' https://unlisted.example/; true"
    );
    let model = Model { command, says: "All done:".to_owned(), usage: USAGE };
    Setup { provider, key: KEY, model, web_sockets: false, held_from: usize::MAX }
}

/// The policy of a recipe with a host more.
fn also_allowing(host: &str, recipe: &Recipe) -> String {
    recipe.policy().replacen("rules: [", &format!("rules: [{{ host: {host} }}, "), 1)
}

/// The commands of a recipe without a switch of theirs, by which an agent asks for less.
fn without(switch: &str, recipe: &Recipe) -> String {
    assert!(recipe.inside().contains(switch), "the recipe has {switch}");
    recipe.inside().replace(switch, "")
}

fn paths(requests: &[Arrived]) -> Vec<&str> {
    requests.iter().map(Arrived::path).collect()
}

/// Host, path and reason of every refused request.
fn refused(records: &[Value]) -> Vec<[&str; 3]> {
    let refused = records.iter().map(|record| &record["audit"]).filter(|audit| audit["action"] == "reject");
    refused
        .map(|audit| ["host", "path", "reason"].map(|key| audit[key].as_str().unwrap_or_default()))
        .collect()
}

/// A whole turn in keyferry's own sandbox. While the model's command runs, after the key was used and before it is used again, nothing
/// that a program could look at there holds it.
async fn turn_in_a_sandbox(commands: &str, provider: Provider, shown: &str) {
    let mut setup = Setup { web_sockets: true, ..setup(provider) };
    setup.model.command += "; while [ ! -e go ]; do sleep 0.1; done";
    let api = ModelApi::start(setup).await;
    let user = User::start(KEYFERRY, KEY, &api).await;

    let mut typed = user.types(commands);
    until_written(&user.file("note.txt"), &mut typed).await;
    let forms = audit::forms(KEY);
    let texts = [forms.as_slice(), &[shown.to_owned()]].concat();
    let seen = search_sandboxes(typed.pid(), &texts, &user.file("")).await;
    std::fs::write(user.file("go"), "").expect("let the command end");
    let ran = typed.finish().await;

    assert!(
        ran.status.success() && ran.stdout.contains("All done:") && ran.stdout.contains(WAY_OUT),
        "{ran:#?}"
    );
    for form in &forms {
        assert_eq!(seen["found"][form], json!([]), "{form} is inside");
        assert!(!ran.stdout.contains(form) && !ran.stderr.contains(form), "{ran:#?}");
    }
    for name in ["log", "data/keyferry.db", "data/keyferry.db-wal"] {
        let bytes = std::fs::read(user.up.file(name)).expect("what `keyferry up` writes");
        assert!(!bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes()), "{name} holds the key");
    }
    // What is there is found.
    for kind in ["environ of ", "memory of "] {
        let places = seen["found"][shown].as_array().into_iter().flatten().filter_map(Value::as_str);
        assert!(places.clone().any(|place| place.starts_with(kind)), "{:?}", places.collect::<Vec<_>>());
    }
    let looked_at = seen["looked_at"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for place in ["/home/agent/", "/note.txt"] {
        assert!(
            looked_at.clone().any(|path| path.contains(place)),
            "{place}: {:?}",
            looked_at.collect::<Vec<_>>()
        );
    }
}

/// Waits for the model's command, and listens meanwhile: whoever ends before fails the test with its words.
async fn until_written(note: &Path, typed: &mut Running) {
    let written = async {
        while !std::fs::read_to_string(note).is_ok_and(|note| note == WRITTEN) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut written = pin!(within("the model's command", written));
    loop {
        tokio::select! {
            () = &mut written => return,
            line = typed.line() => println!("{line}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_in_the_sandbox() {
    turn_in_a_sandbox(&Recipe::read("codex").outside(), Provider::OpenAi, "CODEX_API_KEY").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code_in_the_sandbox() {
    turn_in_a_sandbox(&Recipe::read("claude-code").outside(), Provider::Anthropic, "ANTHROPIC_API_KEY").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pi_in_the_sandbox() {
    turn_in_a_sandbox(&Recipe::read("pi").outside(), Provider::Anthropic, "ANTHROPIC_API_KEY").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini_cli_in_the_sandbox() {
    turn_in_a_sandbox(&Recipe::read("gemini-cli").outside(), Provider::Google, "GEMINI_API_KEY").await;
}

/// Why the recipe switches Codex's own sandbox off: there is none in ours, and without it Codex runs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn codex_cannot_make_a_sandbox_of_its_own_in_ours() {
    const OFF: &str = "--dangerously-bypass-approvals-and-sandbox";
    let api = ModelApi::start(setup(Provider::OpenAi)).await;
    let user = User::start(KEYFERRY, KEY, &api).await;
    let commands = Recipe::read("codex").outside();
    assert!(commands.contains(OFF));

    let said = user.types(&commands.replace(OFF, "--sandbox workspace-write")).finish().await.success();

    assert!(said.contains("create new namespace") && !said.contains("way out"), "{said}");
    assert!(!user.file("note.txt").exists());
}

/// What the first page shows: the key is set by the proxy, and a dummy that looks like one stands in the sandbox.
#[tokio::test(flavor = "multi_thread")]
async fn claude_code_in_the_sandbox_by_the_first_page() {
    let page = Document::read(&parts::workspace().join("README.md"));
    let block = page.blocks.iter().find(|block| block.text.contains("keyferry run -- claude\n"));
    let commands = block.expect("a command with an agent").text.replace("token.txt", "~/anthropic.key");
    let commands =
        commands.replace("-- claude", "-- claude --dangerously-skip-permissions -p 'Write a note'");
    turn_in_a_sandbox(&commands, Provider::Anthropic, "sk-ant-api03-keyferryinjects").await;
}

/// A whole turn by a recipe's policy file.
async fn turn(recipe: &str, provider: Provider) {
    let recipe = Recipe::read(recipe);
    let api = ModelApi::start(setup(provider)).await;
    let agent = Agent::start(KEYFERRY, recipe.policy(), KEY, &api, &[]).await;

    let said = agent.run(recipe.inside()).await.success();

    assert!(said.contains("All done:") && said.contains(WAY_OUT), "{said}");
    assert_eq!(agent.read("note.txt"), WRITTEN);
    let names = agent.proxy.dns().queries();
    assert!(names.iter().all(|name| name == provider.host()), "no name but the provider's: {names:?}");
    agent.proxy.stop().await.assert_never_wrote(KEY);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stand_in_answers_who_lacks_the_key() {
    for (provider, path, key, status, said) in [
        (Provider::OpenAi, "/v1/responses", "Authorization: Bearer", 401, "invalid_api_key"),
        (Provider::Anthropic, "/v1/messages", "X-Api-Key:", 401, "authentication_error"),
        (
            Provider::Google,
            "/v1beta/models/gemini:generateContent",
            "X-Goog-Api-Key:",
            400,
            "API_KEY_INVALID",
        ),
    ] {
        let api = ModelApi::start(setup(provider)).await;
        let proxy = Proxy::builder(KEYFERRY).allow(&[provider.host()]).route(&api.origin).start().await;
        let url = format!("https://{}{path}", provider.host());
        for (shown, expected) in [(KEY, 200), ("guessed", status)] {
            let header = format!("{key} {shown}");
            let answer = Sandbox::of(&proxy).fetch(["-H", &header, "-d", "{}", &url]).await;
            assert_eq!(answer.status, expected, "{answer:?}");
            assert_eq!(answer.body.contains(said), expected == status, "{answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_by_its_policy_file() {
    turn("codex", Provider::OpenAi).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code_by_its_policy_file() {
    turn("claude-code", Provider::Anthropic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pi_by_its_policy_file() {
    turn("pi", Provider::Anthropic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini_cli_by_its_policy_file() {
    turn("gemini-cli", Provider::Google).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_codex_asks_for_a_websocket_with_the_key_and_falls_back_at_once_where_it_is_refused() {
    let recipe = Recipe::read("codex");
    let api = ModelApi::start(setup(Provider::OpenAi)).await;
    let agent = Agent::start(KEYFERRY, recipe.policy(), KEY, &api, &[]).await;

    let said = agent.run(recipe.inside()).await.success();

    assert!(said.contains(WAY_OUT), "{said}");
    let arrived = api.arrived();
    let asked: Vec<_> =
        arrived.iter().map(|one| (one.head.method.as_str(), one.head.header("authorization"))).collect();
    let bearer = format!("Bearer {KEY}");
    let key = Some(bearer.as_str());
    assert_eq!(
        asked,
        [("GET", key), ("POST", key), ("POST", key)],
        "one try, then the turn: {:?}",
        paths(&arrived)
    );
    assert_eq!(arrived[0].head.header("upgrade"), Some("websocket"));
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_codex_has_its_whole_turn_over_a_websocket_where_it_is_offered() {
    let recipe = Recipe::read("codex");
    let api = ModelApi::start(Setup { web_sockets: true, ..setup(Provider::OpenAi) }).await;
    let agent = Agent::start(KEYFERRY, recipe.policy(), KEY, &api, &[]).await;

    let said = agent.run(recipe.inside()).await.success();

    assert!(said.contains(WAY_OUT), "{said}");
    assert_eq!(agent.read("note.txt"), WRITTEN);
    let arrived = api.arrived();
    assert!(arrived.iter().all(|one| one.head.method == "GET"), "{:?}", paths(&arrived));
    assert!(arrived.iter().filter(|one| one.message).count() >= 2, "a question and a result: {arrived:#?}");
    agent.proxy.stop().await.assert_never_wrote(KEY);
}

#[tokio::test(flavor = "multi_thread")]
async fn e2_what_codex_sends_to_chatgpt_com_with_its_key_is_stopped_and_not_swapped() {
    let recipe = Recipe::read("codex");
    let api = ModelApi::start(setup(Provider::OpenAi)).await;
    let elsewhere = Origin::builder("chatgpt.com").default_port().start().await;
    let policy = also_allowing("chatgpt.com", &recipe);
    let agent = Agent::start(KEYFERRY, &policy, KEY, &api, &[&elsewhere]).await;

    agent.run(&without("--disable api_key_model_discovery", &recipe)).await.success();

    let records = agent.proxy.stop().await.records();
    let stopped = refused(&records).into_iter().filter(|[host, ..]| *host == "chatgpt.com");
    let stopped: Vec<_> = stopped.map(|[_, _, reason]| reason).collect();
    assert!(stopped.contains(&"placeholder_misdirected"), "{stopped:?}");
    for request in elsewhere.received() {
        let text = format!("{request:?}");
        assert!(!text.contains(KEY) && !text.contains("Bearer"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e2_claude_code_gets_the_key_for_messages_alone_whatever_else_it_asks_of_the_same_host() {
    let recipe = Recipe::read("claude-code");
    let api = ModelApi::start(setup(Provider::Anthropic)).await;
    let policy = also_allowing("api.anthropic.com", &recipe);
    let agent = Agent::start(KEYFERRY, &policy, KEY, &api, &[]).await;

    agent.run(&without("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", &recipe)).await.success();

    let shown: BTreeSet<_> = api
        .arrived()
        .iter()
        .map(|one| {
            (one.path() == "/v1/messages", one.head.header("x-api-key").unwrap_or_default().to_owned())
        })
        .collect();
    let expected = [(true, KEY), (false, "ANTHROPIC_API_KEY"), (false, "")];
    assert!(
        shown.contains(&(true, KEY.to_owned())) && shown.contains(&(false, "ANTHROPIC_API_KEY".to_owned()))
    );
    assert!(shown.iter().all(|(messages, key)| expected.contains(&(*messages, key.as_str()))), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_a_large_question_and_a_long_answer_flow_piece_by_piece_beside_other_agents() {
    const LARGE: usize = 600_000;
    let (claude, pi) = (Recipe::read("claude-code"), Recipe::read("pi"));
    let mut setup = Setup { held_from: LARGE, ..setup(Provider::Anthropic) };
    setup.model.says = "a long answer, ".repeat(5_000);
    let api = ModelApi::start(setup).await;
    let agent = Agent::start(KEYFERRY, claude.policy(), KEY, &api, &[]).await;
    let commands = claude.inside().replace(
        "claude ",
        &format!(
            "yes 'a line of a large file' | head -c {LARGE} | \
             claude --tools '' --output-format stream-json --include-partial-messages --verbose "
        ),
    );

    let mut held = agent.talk(&commands);
    api.wait_for("the large question", |one| one.length > LARGE).await;
    // The message's beginning, the block's, a ping, and the first piece of text.
    api.open_gate(4);
    while !held.line().await.contains(r#""text":"a long answe""#) {}
    let others = [(); 3].map(|()| Agent::sandbox(&agent.proxy));
    let others = others.iter().map(|other| other.run("sh", ["-euc", pi.inside()]));
    for other in join_all(others).await {
        assert!(other.success().contains(WAY_OUT), "others have their turns meanwhile");
    }
    api.open_gate(Semaphore::MAX_PERMITS / 2);

    let said = held.finish().await.success();
    let mut events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let end = events.find(|event| event["type"] == "result").expect("the end of the turn");
    assert_eq!(end["result"].as_str().map(str::trim), Some("a long answer, ".repeat(5_000).trim()));
}

#[tokio::test(flavor = "multi_thread")]
async fn e4_what_is_not_allowed_is_refused_at_once_and_its_name_is_never_resolved() {
    let recipe = Recipe::read("codex");
    let api = ModelApi::start(setup(Provider::OpenAi)).await;
    let agent = Agent::start(KEYFERRY, recipe.policy(), KEY, &api, &[]).await;

    agent.run(&without("--disable api_key_model_discovery", &recipe)).await.success();

    let names = agent.proxy.dns().queries();
    let records = agent.proxy.stop().await.records();
    let refused = refused(&records);
    for host in ["chatgpt.com", "github.com", "api.github.com"] {
        assert!(
            refused.contains(&[host, "", "host_not_allowed"]),
            "it asks for {host} when it starts: {refused:?}"
        );
    }
    assert!(names.iter().all(|name| name == "api.openai.com"), "{names:?}");
    let slowest = records.iter().map(|record| &record["audit"]).filter(|audit| audit["action"] == "reject");
    let slowest = slowest.filter_map(|audit| audit["duration_ms"].as_f64()).fold(0.0, f64::max);
    assert!(Duration::from_secs_f64(slowest / 1e3) < Duration::from_secs(1), "{slowest} ms");
}

/// The last line of JSON that an agent prints, or all that it prints.
fn last_json(said: &str) -> Value {
    let last = said.lines().rfind(|line| line.starts_with('{') && line.ends_with('}')).unwrap_or(said);
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn e5_what_the_answers_say_of_their_cost_reaches_the_agents_unaltered() {
    for (name, provider, from, to, cost) in [
        ("codex", Provider::OpenAi, "codex exec", "codex exec --json", codex_cost as fn(Value) -> [Value; 2]),
        ("claude-code", Provider::Anthropic, "claude ", "claude --output-format json ", claude_code_cost),
        ("pi", Provider::Anthropic, "pi ", "pi --mode json ", pi_cost),
        ("gemini-cli", Provider::Google, "gemini ", "gemini --output-format json ", gemini_cli_cost),
    ] {
        let recipe = Recipe::read(name);
        let api = ModelApi::start(setup(provider)).await;
        let agent = Agent::start(KEYFERRY, recipe.policy(), KEY, &api, &[]).await;

        let said = agent.run(&recipe.inside().replace(from, to)).await.success();

        let turn = [2 * USAGE.input, 2 * USAGE.output].map(Value::from);
        assert_eq!(cost(last_json(&said)), turn, "{name}: a question and a result");
    }
}

fn codex_cost(said: Value) -> [Value; 2] {
    ["input_tokens", "output_tokens"].map(|key| said["usage"][key].clone())
}

fn claude_code_cost(said: Value) -> [Value; 2] {
    codex_cost(said)
}

/// It tells of each message by itself.
fn pi_cost(said: Value) -> [Value; 2] {
    let messages = said["messages"].as_array().into_iter().flatten();
    let each = messages.filter_map(|message| message.get("usage"));
    let sum = |key: &str| each.clone().filter_map(|usage| usage[key].as_u64()).sum::<u64>();
    ["input", "output"].map(|key| Value::from(sum(key)))
}

/// Another model of its chooses which one answers.
fn gemini_cli_cost(said: Value) -> [Value; 2] {
    let models = said["stats"]["models"].as_object().into_iter().flatten();
    let main = models.map(|(_, model)| &model["roles"]["main"]).find(|main| main.is_object());
    let tokens = main.map(|main| &main["tokens"]).unwrap_or(&Value::Null);
    ["prompt", "candidates"].map(|key| tokens[key].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn e6_claude_code_asks_for_little_but_messages_where_it_is_told_to() {
    const TELEMETRY: &str = "/api/event_logging/v2/batch";
    let recipe = Recipe::read("claude-code");
    let talkative = without("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", &recipe);
    let mut asked = Vec::new();
    for commands in [recipe.inside(), &talkative] {
        let api = ModelApi::start(setup(Provider::Anthropic)).await;
        let agent = Agent::start(KEYFERRY, recipe.policy(), KEY, &api, &[]).await;
        agent.run(commands).await.success();
        assert!(
            paths(&api.arrived()).iter().all(|path| *path == "/v1/messages"),
            "nothing else gets through"
        );
        let records = agent.proxy.stop().await.records();
        let of_its_own = refused(&records).into_iter().filter(|[host, ..]| *host != "unlisted.example");
        asked.push(of_its_own.map(|[host, path, _]| format!("{host}{path}")).collect::<BTreeSet<_>>());
    }

    let settings =
        ["policy_limits", "settings"].map(|name| format!("api.anthropic.com/api/claude_code/{name}"));
    assert!(asked[0].is_subset(&settings.into()), "{:?}", asked[0]);
    assert!(asked[1].contains(&format!("api.anthropic.com{TELEMETRY}")), "{:?}", asked[1]);
}
