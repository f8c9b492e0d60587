//! The demonstration: a world of its own on loopback, and a sandbox's day in it.

mod many;
mod proxy;
mod records;
mod report;
mod repository;
mod sandbox;
mod service;
mod world;

use std::path::Path;

use self::proxy::RunningProxy;
use self::records::Record;
use self::report::Report;
use self::repository::Repository;
use self::sandbox::Sandbox;
use self::service::{Seen, Service};
use self::world::World;
use crate::failure::Failure;
use crate::terminal;

/// Runs the demonstration; `keep` leaves its folder behind.
pub(crate) fn run(keep: bool) -> Result<(), Failure> {
    let folder = tempfile::Builder::new()
        .prefix("keyferry-demo-")
        .tempdir()
        .map_err(|error| Failure::fatal(format!("no temporary folder: {error}")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::fatal(format!("the runtime cannot be started: {error}")))?;
    let outcome = runtime.block_on(play(folder.path()));
    if keep {
        terminal::talk(format!("\nKept in {}", folder.keep().display()));
    }
    outcome
}

async fn play(folder: &Path) -> Result<(), Failure> {
    let mut report = Report::begin("keyferry demo");
    let repository = Repository::create(folder).await?;
    let world = World::create(folder)?;
    let service = Service::start(&world, repository.bare()).await?;
    report.step(
        true,
        &format!(
            "a TLS service answers for *.localhost:{}, with a certificate authority of its own",
            service.port()
        ),
    );
    let proxy = RunningProxy::start(&world, service.port()).await?;
    report.step(
        true,
        &format!(
            "the proxy listens on {}: three hosts allowed, two secrets bound to one host each",
            proxy.address()
        ),
    );
    let sandbox = Sandbox::create(&world, proxy.address(), service.port())?;
    report.section(
        "As a sandbox would: nothing in the environment but HTTPS_PROXY, our certificate and placeholders",
    );

    let mut said = String::new();
    said += &curl(&mut report, &sandbox, &service, &world).await?;
    said += &python(&mut report, &sandbox, &service, &world).await?;
    said += &git(&mut report, &sandbox, &service, &world, &repository).await?;
    said += &misdirected(&mut report, &sandbox, &service).await?;
    said += &unlisted(&mut report, &sandbox, &service).await?;

    report.section("And behind it");
    let clean = proxy.stop().await;
    report.step(
        clean.is_ok(),
        clean.as_ref().map_or_else(String::as_str, |()| "on SIGTERM the proxy ended with exit code 0"),
    );
    let text = std::fs::read_to_string(world.audit()).unwrap_or_default();
    let leaked =
        [&said, &text].iter().any(|text| world.real_values().iter().any(|value| text.contains(*value)));
    report.step(!leaked, "no real value is in the sandbox's output or in the audit records");
    let records = Record::parse(&text);
    let fault = records
        .as_ref()
        .map_or_else(|error| Some(error.clone()), |records| records::fault(records, &service.seen()));
    report.step(fault.is_none(), fault.as_deref().unwrap_or("every request left exactly one audit record"));
    if let Ok(records) = &records {
        report.section("The audit records");
        terminal::data(records::table(records))?;
    }
    let said = many::play(&mut report, &world, &service, &sandbox).await?;
    let leaked = world.real_values().iter().any(|value| said.contains(*value));
    report.step(!leaked, "no real value is in these sandboxes' output either");
    if report.has_failures() {
        terminal::talk(format!("\nThe proxy's log:\n{}", world.log_tail()));
    }
    report.verdict()
}

async fn curl(
    report: &mut Report,
    sandbox: &Sandbox,
    service: &Service,
    world: &World,
) -> Result<String, Failure> {
    let said = sandbox
        .run(report, r#"curl -sS --fail -H "Authorization: Bearer $API_KEY" "$API_URL/v1/models""#)
        .await?;
    let seen = service.seen_last("api.localhost");
    let real = format!("Bearer {}", world.api_key.real);
    let good =
        said.succeeded && seen.as_ref().and_then(|seen| seen.authorization.as_deref()) == Some(real.as_str());
    report.step(good, &verdict_on("curl", good, &world.api_key.shown_real(), said.failure().as_deref()));
    Ok(said.everything())
}

async fn python(
    report: &mut Report,
    sandbox: &Sandbox,
    service: &Service,
    world: &World,
) -> Result<String, Failure> {
    let said = sandbox.run(report, "python3 call.py").await?;
    let expected = Seen {
        host: "api.localhost".to_owned(),
        method: "POST".to_owned(),
        path: "/v1/messages".to_owned(),
        authorization: None,
        api_key: Some(world.api_key.real.clone()),
        body: sandbox::PYTHON_BODY.to_owned(),
        status: 200,
    };
    let good = said.succeeded && service.seen_last("api.localhost") == Some(expected);
    report.step(good, &verdict_on("Python", good, &world.api_key.shown_real(), said.failure().as_deref()));
    Ok(said.everything())
}

async fn git(
    report: &mut Report,
    sandbox: &Sandbox,
    service: &Service,
    world: &World,
    repository: &Repository,
) -> Result<String, Failure> {
    let said = sandbox.run(report, r#"git clone -q "https://agent:$GIT_TOKEN@$GIT_HOST/demo.git""#).await?;
    // The service answers 401 to everything but the real password, so a file that arrived proves what it saw.
    let cloned = std::fs::read_to_string(sandbox.home().join("demo/README.md")).ok();
    let seen = service.seen_last("git.localhost").is_some_and(|seen| seen.status == 200);
    let good = said.succeeded && seen && cloned.as_deref() == Some(repository.readme());
    report.step(
        good,
        &verdict_on("git clone", good, &world.git_password.shown_real(), said.failure().as_deref()),
    );
    Ok(said.everything())
}

async fn misdirected(report: &mut Report, sandbox: &Sandbox, service: &Service) -> Result<String, Failure> {
    let control = sandbox.run(report, r#"curl -sS --fail "$OTHER_URL/""#).await?;
    report.step(control.succeeded, "other.localhost is allowed, and answers");
    let before = service.seen().len();
    let said = sandbox.run(report, r#"curl -sS -H "Authorization: Bearer $API_KEY" "$OTHER_URL/""#).await?;
    let good = said.reason() == Some("placeholder_misdirected".to_owned()) && service.seen().len() == before;
    let text = if good {
        "403 placeholder_misdirected: the secret is not bound to this host, and nothing was sent to it"
            .to_owned()
    } else {
        format!("the placeholder was not stopped on its way to another host: {}", said.everything().trim())
    };
    report.step(good, &text);
    Ok(control.everything() + &said.everything())
}

async fn unlisted(report: &mut Report, sandbox: &Sandbox, service: &Service) -> Result<String, Failure> {
    let before = service.seen().len();
    let command = r#"curl -sS -o /dev/null -w '%{http_connect}' "$BLOCKED_URL/""#;
    let said = sandbox.run(report, command).await?;
    let good = !said.succeeded && said.stdout == "403" && service.seen().len() == before;
    let text = if good {
        "403 at CONNECT: the host is not in the allowlist".to_owned()
    } else {
        format!("an unlisted host was not refused at CONNECT: {}", said.everything().trim())
    };
    report.step(good, &text);
    Ok(said.everything())
}

fn verdict_on(client: &str, good: bool, real: &str, failure: Option<&str>) -> String {
    match (good, failure) {
        (true, _) => format!("{client} is done, and the service saw the real value {real}"),
        (false, Some(failure)) => format!("{client} failed: {failure}"),
        (false, None) => format!("{client} is done, but the service did not see the real value {real}"),
    }
}
