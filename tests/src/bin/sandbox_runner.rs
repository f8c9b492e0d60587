//! Runs sandboxes until it is told what became of them, or is killed: `sandbox-runner KEYFERRY DIRECTORY COUNT SCRIPT [LIMIT=NUMBER]…`.
//! In DIRECTORY are `proxy.sock`, `ca.pem` and `workspace`; `state` is made. The output is what the driver warns of, what the command
//! says, then how each ended.

#![expect(clippy::print_stdout, reason = "the test reads it")]
#![expect(clippy::expect_used, clippy::panic, reason = "it has nothing to do but to run")]

use std::path::Path;

use keyferry_sandbox::{
    Attach, Attached, Driver, Environment, Limits, Request, Sandbox, SandboxId, Spec, Workspace,
};
use keyferry_tests::local_sandbox;
use tokio::io::AsyncReadExt;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, keyferry, directory, count, script, limits @ ..] = &arguments[..] else {
        panic!("sandbox-runner KEYFERRY DIRECTORY COUNT SCRIPT [LIMIT=NUMBER]...")
    };
    let limits = read(limits);
    let directory = Path::new(directory);
    let driver = local_sandbox::driver(Path::new(keyferry), &directory.join("state"));
    let mut runs = Vec::new();
    for number in 0..count.parse().expect("a count") {
        let spec = Spec {
            command: ["sh", "-c", script].map(Into::into).into(),
            environment: Environment::new(&Request::default()).expect("an environment"),
            workspace: Workspace { path: directory.join("workspace"), allow_sockets: false },
            read_only: Vec::new(),
            proxy_socket: directory.join("proxy.sock"),
            ca_bundle: std::fs::read_to_string(directory.join("ca.pem")).expect("certificates"),
            limits: limits.clone(),
        };
        let id = SandboxId::parse(&format!("runner-{}-{number}", std::process::id())).expect("an id");
        let driver = driver.clone();
        runs.push(tokio::spawn(async move { run(&driver, id, spec).await }));
    }
    for run in runs {
        run.await.expect("a run");
    }
}

fn read(words: &[String]) -> Limits {
    let mut limits = Limits::default();
    for word in words {
        let (name, number) = word.split_once('=').expect("LIMIT=NUMBER");
        let number: u64 = number.parse().expect("a number");
        match name {
            "memory" => limits.memory = Some(number),
            "processes" => limits.processes = Some(number.try_into().expect("a small number")),
            "cpu" => limits.cpu = Some(number.try_into().expect("a small number")),
            "required" => limits.required = number == 1,
            other => panic!("there is no limit {other}"),
        }
    }
    limits
}

async fn run(driver: &impl Driver, id: SandboxId, spec: Spec) {
    let mut sandbox = driver.create(id, spec).await.unwrap_or_else(|error| panic!("{error}"));
    for warning in sandbox.warnings() {
        println!("warning: {warning}");
    }
    let mut pipes = match sandbox.start(Attach::Pipes).await {
        Ok(Attached::Pipes(pipes)) => pipes,
        Ok(Attached::Terminal(_)) => panic!("pipes were asked for"),
        Err(error) => {
            sandbox.delete().await.unwrap_or_else(|error| panic!("{error}"));
            panic!("{error}")
        }
    };
    let mut piece = [0; 4096];
    loop {
        match pipes.stdout.read(&mut piece).await.expect("its output") {
            0 => break,
            read => print!("{}", String::from_utf8_lossy(&piece[..read])),
        }
    }
    let mut complaints = String::new();
    pipes.stderr.read_to_string(&mut complaints).await.expect("its complaints");
    println!("{complaints}{:?}", sandbox.wait().await.expect("an end"));
    sandbox.delete().await.unwrap_or_else(|error| panic!("{error}"));
}
