//! Commands in sandboxes of this machine: each with an identity of its own, which is its socket, and with the placeholders of what its
//! principal was granted.

mod granted;
mod pass_through;
mod raw;

use std::ffi::OsString;
use std::path::PathBuf;

use keyferry_sandbox::{
    Attach, Attached, Driver, Environment, Error, Exit, Limits, LocalDriver, LocalSandbox, Request, Sandbox,
    SandboxId, Signal, Spec, Warning, Workspace,
};
use serde_json::json;

pub(crate) use self::pass_through::pass_through;
use crate::control_client::{ControlClient, path};
use crate::environment;
use crate::failure::Failure;
use crate::service::Service;
use crate::terminal;
use crate::up::sandbox_host;

/// Makes sandboxes of the principals of a keyferry.
pub(crate) struct Sandboxes<'a> {
    service: &'a Service,
    driver: LocalDriver,
    ca_bundle: String,
}

/// What runs in a sandbox, and on what.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) command: Vec<OsString>,
    pub(crate) workspace: Workspace,
    pub(crate) read_only: Vec<PathBuf>,
    /// Beside those that every sandbox has, and those with placeholders.
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) limits: Limits,
}

/// A sandbox that was made, and its identity.
pub(crate) struct Made<'a> {
    client: &'a ControlClient,
    identity: String,
    sandbox: LocalSandbox,
}

impl<'a> Sandboxes<'a> {
    pub(crate) fn of(service: &'a Service) -> Result<Self, Failure> {
        let driver = LocalDriver::new(sandbox_host(service.data_dir())?).map_err(sandbox_failure)?;
        Ok(Self { service, driver, ca_bundle: service.ca_bundle()? })
    }

    /// A sandbox of this principal that has not started.
    pub(crate) async fn make(&self, principal: &str, mut job: Job) -> Result<Made<'a>, Failure> {
        let (client, kept) = (self.service.client(), self.service.data_dir());
        for path in job.read_only.iter_mut().chain([&mut job.workspace.path]) {
            // What was judged is what is shown: no link of it is followed again. One that is not there is the driver's to refuse.
            let real = path.canonicalize().unwrap_or_else(|_| path.clone());
            if real.starts_with(kept) || kept.starts_with(&real) {
                return Err(Failure::fatal(format!(
                    "{} holds keyferry's own files, and no sandbox may see them\nhint: name another directory",
                    path.display()
                )));
            }
            *path = real;
        }
        let principal = client.principal(principal).await?;
        let granted = granted::to(client, &principal).await?;
        if granted.reaches_nothing {
            let who = principal.called();
            terminal::warning(&format!(
                "nothing was granted to the principal {who}, so the command reaches nothing\n\
                 hint: `keyferry grant {who} SECRET`, or `keyferry allow {who} HOST`"
            ));
        }
        let request = Request {
            terminal: environment::raw("TERM".as_ref()),
            language: environment::raw("LANG".as_ref()),
            secrets: granted.secrets,
            asked: job.variables,
        };
        let environment = Environment::new(&request).map_err(sandbox_failure)?;

        let body =
            json!({ "name": self.service.lease(), "principal_id": principal.id(), "transport": "unix" });
        let identity = client.post(&path(["sandboxes"]), body).await?.resource()?;
        let id = identity.id().to_owned();
        let made = async {
            let socket = identity.text("socket").ok_or_else(|| {
                Failure::fatal("the proxy has made no socket for the sandbox\nhint: `keyferry proxies list` shows what it has applied")
            })?;
            let spec = Spec {
                command: job.command,
                environment,
                workspace: job.workspace,
                read_only: job.read_only,
                proxy_socket: socket.into(),
                ca_bundle: self.ca_bundle.clone(),
                limits: job.limits,
            };
            // The identity's number comes again in other data directories of this machine; what is made of a name here must not.
            let name = format!("{id}-{}", self.service.lease());
            let name = SandboxId::parse(&name).map_err(sandbox_failure)?;
            self.driver.create(name, spec).await.map_err(sandbox_failure)
        };
        match made.await {
            Ok(sandbox) => Ok(Made { client, identity: id, sandbox }),
            Err(failure) => {
                client.delete(&path(["sandboxes", &id])).await?;
                Err(failure)
            }
        }
    }
}

impl Made<'_> {
    /// What was asked for and cannot be had in full.
    pub(crate) fn warnings(&self) -> &[Warning] {
        self.sandbox.warnings()
    }

    /// A sandbox starts once.
    pub(crate) async fn start(&mut self, attach: Attach) -> Result<Attached, Failure> {
        self.sandbox.start(attach).await.map_err(sandbox_failure)
    }

    /// To the command and its process group.
    pub(crate) async fn signal(&mut self, signal: Signal) {
        // One that has ended needs none.
        let _ = self.sandbox.signal(signal).await;
    }

    /// Until all of its processes are gone.
    pub(crate) async fn wait(&mut self) -> Result<Exit, Failure> {
        self.sandbox.wait().await.map_err(sandbox_failure)
    }

    /// Ends it and its identity, and removes what it left.
    pub(crate) async fn delete(self) -> Result<(), Failure> {
        let deleted = self.sandbox.delete().await.map_err(sandbox_failure);
        self.client.delete(&path(["sandboxes", &self.identity])).await?;
        deleted
    }
}

fn sandbox_failure(error: Error) -> Failure {
    /// What a shell says of a command that is not there.
    const NOT_FOUND: u8 = 127;
    match error {
        Error::CommandNotFound { .. } => Failure::with_code(NOT_FOUND, error),
        Error::BubblewrapMissing { .. } => {
            Failure::fatal(format!("{error} (Debian: apt install bubblewrap)"))
        }
        other => Failure::fatal(other),
    }
}
