//! Coding agents, run as their recipes in `docs/recipes/` say.

use crate::document::Document;
use crate::model_apis::ModelApi;
use crate::origin::Origin;
use crate::parts;
use crate::proxy::Proxy;
use crate::sandbox::{Ran, Running, Sandbox};

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

    /// What is run inside, where the policy is in a file.
    ///
    /// # Panics
    /// When it shows nothing of the kind.
    #[must_use]
    pub fn inside(&self) -> &str {
        let mut blocks =
            self.document.blocks.iter().filter(|block| block.run_by() == Some("tests/tests/agents.rs"));
        &blocks.find(|block| !block.text.contains("keyferry run")).expect("commands for the sandbox").text
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
