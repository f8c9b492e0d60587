//! What the proxy's process holds.

use crate::proxy::Proxy;

/// As the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// In RAM, in bytes.
    pub memory: u64,
    /// Open files and sockets.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Resources {
    pub(super) fn raise_to(&mut self, other: &Self) {
        self.memory = self.memory.max(other.memory);
        self.descriptors = self.descriptors.max(other.descriptors);
        self.threads = self.threads.max(other.threads);
    }
}

impl Proxy {
    /// What it holds at the moment.
    ///
    /// # Panics
    /// When it is gone.
    pub(super) async fn resources(&self) -> Resources {
        let folder = format!("/proc/{}", self.pid());
        let status = tokio::fs::read_to_string(format!("{folder}/status")).await.expect("the proxy's state");
        let field = |name: &str| -> u64 {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
            value.and_then(|value| value.parse().ok()).expect("a number")
        };
        let descriptors = std::fs::read_dir(format!("{folder}/fd")).expect("the proxy's descriptors").count();
        Resources {
            memory: field("VmRSS:") * 1024,
            descriptors: descriptors as u64,
            threads: field("Threads:"),
        }
    }
}
