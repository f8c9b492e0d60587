//! Coding agents, run as their recipes in `docs/recipes/` say.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::document::{Block, Document};
use crate::model_apis::ModelApi;
use crate::origin::Origin;
use crate::parts;
use crate::proxy::Proxy;
use crate::sandbox::{Ran, Running, Sandbox};
use crate::up::Up;

/// A recipe.
pub struct Recipe {
    document: Document,
}

impl Recipe {
    /// `docs/recipes/NAME.md`
    #[must_use]
    pub fn read(name: &str) -> Self {
        Self { document: Document::read(&parts::workspace().join(format!("docs/recipes/{name}.md"))) }
    }

    /// What is typed beside `keyferry up`.
    #[must_use]
    pub fn outside(&self) -> String {
        self.commands(|block| block.text.contains("keyferry run")).replace("keyferry up &\n", "")
    }

    /// What is run inside, where the policy is in a file.
    #[must_use]
    pub fn inside(&self) -> &str {
        self.commands(|block| !block.text.contains("keyferry run"))
    }

    fn commands(&self, are_these: impl Fn(&Block) -> bool) -> &str {
        let mut blocks = self.document.blocks.iter();
        let found = blocks.find(|block| block.run_by() == Some("tests/tests/agents.rs") && are_these(block));
        &found.expect("the commands of a recipe").text
    }

    /// The meaning of the policy file; where its proxy listens and what it trusts is the test's affair.
    ///
    /// # Panics
    /// When it shows none.
    #[must_use]
    pub fn policy(&self) -> &str {
        let file = self.document.blocks.iter().find(|block| block.is_configuration()).expect("a policy file");
        let start = file.text.find("transforms:").expect("what it allows and swaps");
        &file.text[start..]
    }
}

/// An agent whose way out is a proxy with a policy file, in an environment of its own but in no sandbox.
pub struct Agent {
    /// The proxy.
    pub proxy: Proxy,
    sandbox: Sandbox,
}

impl Agent {
    /// A proxy with that policy, which has `key` for every provider and finds `api` and the others on loopback.
    pub async fn start(keyferry: &str, policy: &str, key: &str, api: &ModelApi, others: &[&Origin]) -> Self {
        let mut proxy = Proxy::builder(keyferry).policy(policy).route(&api.origin);
        for variable in ["ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY"] {
            proxy = proxy.env(variable, key);
        }
        for other in others {
            proxy = proxy.route(other);
        }
        let proxy = proxy.start().await;
        let sandbox = Self::sandbox(&proxy);
        Self { proxy, sandbox }
    }

    /// One more, with a home of its own.
    #[must_use]
    pub fn sandbox(proxy: &Proxy) -> Sandbox {
        let certificate = proxy.ca_certificate();
        // Claude Code refuses to work unasked for root, unless it is told that nothing can be lost.
        let sandbox = Sandbox::of(proxy).env("PATH", parts::agents_path()).env("IS_SANDBOX", "1");
        sandbox.env("NODE_EXTRA_CA_CERTS", &certificate).env("CODEX_CA_CERTIFICATE", &certificate)
    }

    /// Runs these commands.
    pub async fn run(&self, commands: &str) -> Ran {
        self.sandbox.run("sh", ["-euc", commands]).await
    }

    /// Runs these commands, to be listened to meanwhile.
    #[must_use]
    pub fn talk(&self, commands: &str) -> Running {
        self.sandbox.start("sh", ["-euc", commands])
    }

    /// What is in a file of its workspace.
    ///
    /// # Panics
    /// When there is no such file.
    #[must_use]
    pub fn read(&self, name: &str) -> String {
        let path = self.sandbox.home().join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// A user of `keyferry up`, who has the key in a file of their home and works in a directory there.
pub struct User {
    /// What runs beside them.
    pub up: Up,
    home: Sandbox,
}

impl User {
    /// With `key` for every provider, all of whom are `api`.
    ///
    /// # Panics
    /// When `keyferry up` is not ready.
    pub async fn start(keyferry: &str, key: &str, api: &ModelApi) -> Self {
        let up = Up::start(keyferry, &[&api.origin]).await;
        let mut home = Sandbox::without_proxy();
        for provider in ["anthropic", "gemini", "openai"] {
            home.write(&format!("{provider}.key"), key);
        }
        let bin = home.home().join("bin");
        std::fs::create_dir(&bin).expect("make a folder for programs");
        std::os::unix::fs::symlink(keyferry, bin.join("keyferry")).expect("link the binary");
        std::fs::create_dir(home.home().join("work")).expect("make a folder to work in");
        let agents = parts::agents_path();
        let path = std::env::join_paths([bin].into_iter().chain(std::env::split_paths(&agents)));
        home = home.env("PATH", path.expect("no colon in a path")).env("KEYFERRY_DATA_DIR", up.file("data"));
        Self { up, home }
    }

    /// Types these commands where they work, and nothing else: agents read all of their standard input first.
    #[must_use]
    pub fn types(&self, commands: &str) -> Running {
        self.home.start("sh", ["-euc", &format!("cd work\nexec < /dev/null\n{commands}")])
    }

    /// A file where they work.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.home().join("work").join(name)
    }
}

/// Looks for texts wherever a program in the sandboxes below a process could find them: memory, environment, arguments, files. The answer has
/// `found`, the places of each text, and `looked_at`.
///
/// # Panics
/// When something could not be looked at.
pub async fn search_sandboxes(pid: u32, texts: &[String], workspace: &Path) -> Value {
    let place = Sandbox::without_proxy();
    let mut arguments = vec![parts::script("search_sandbox.py").into_os_string(), pid.to_string().into()];
    arguments.extend(["/", "/home/agent", "/tmp", "/dev/shm"].map(Into::into));
    arguments.push(workspace.into());
    let mut seeker = place.start(parts::python(), arguments);
    seeker.write(&texts.join("\n")).await;
    let said = seeker.finish().await.success();
    serde_json::from_str(&said).expect("JSON")
}
