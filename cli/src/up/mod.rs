//! `keyferry up`: control and a shared proxy in one process, over one folder.

mod attendance;
mod data_dir;
mod identities;
mod leases;
mod settings;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use keyferry_control::{Control, Listen, SCHEMA, Server};
use keyferry_proxy::{Configuration, ManagedOptions, Proxy, Settings};
use keyferry_sandbox::Host;
use keyferry_store::{DatabaseUrl, Store};
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::attendance::Attendance;
use self::data_dir::DataDir;
pub(crate) use self::data_dir::{IN_USE, READY};
use self::identities::Identities;
pub(crate) use self::leases::{Lease, Leases};
use self::settings::OwnSettings;
use crate::control_client::{ControlClient, Endpoint};
use crate::environment;
use crate::failure::Failure;
use crate::opentelemetry;

/// What an operator says.
pub(crate) struct Wanted {
    pub(crate) data_dir: PathBuf,
    /// Nowhere but at the owner's door, if absent.
    pub(crate) control: Option<SocketAddr>,
    pub(crate) proxy: Option<String>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) namespaces: Vec<String>,
    pub(crate) api_key: Option<SecretString>,
    /// It ends by itself when nobody holds a lease.
    pub(crate) while_used: bool,
}

/// What runs, and how to use it.
pub(crate) struct Up {
    pub(crate) control_url: Option<String>,
    pub(crate) proxy_url: SecretString,
    pub(crate) api_key: SecretString,
    pub(crate) data_dir: PathBuf,
    pub(crate) ca_file: PathBuf,
    pub(crate) ca_bundle: PathBuf,
    proxy: Proxy,
    servers: Servers,
    store: Store,
    attendance: Attendance,
    while_used: bool,
    /// Nobody else's until the end.
    _data: DataDir,
}

/// The doors of control.
struct Servers {
    end: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Up {
    /// Starts everything, and completes once a request through the proxy is judged.
    pub(crate) async fn start(wanted: Wanted) -> Result<Self, Failure> {
        let data = DataDir::take(&wanted.data_dir, wanted.while_used).await?;
        // What must not be listened on changes nothing either.
        let open = match wanted.control {
            Some(address) => Some(Server::open(&Listen::Tcp(address), None).await),
            None => None,
        };
        let open = open.transpose().map_err(crate::command::serve_failure)?;
        let keys = data.keys()?;
        let ca_bundle = data.make_authority()?;
        let own = OwnSettings::new(wanted.config, wanted.proxy, wanted.while_used, &data);
        let document = own.load().map_err(Failure::config)?;

        let url = DatabaseUrl::sqlite(data.file("keyferry.db"));
        let store = Store::open(&url, keys, &[SCHEMA]).await.map_err(Failure::fatal)?;
        let settings = keyferry_control::Settings::default();
        let control = Control::start(store.clone(), Arc::new(Timestamp::now), settings).await;
        let control = control.map_err(Failure::fatal)?;
        let socket = data.file("control.sock");
        let owners = Server::open_for_owner(&socket).map_err(crate::command::serve_failure)?;
        let control_url = open.as_ref().map(|open| format!("http://{}", open.address));
        let mut servers = Servers::none();
        if let Some(open) = open {
            servers.serve(open, control.router());
        }
        servers.serve(owners, control.owners_router());

        let namespace = wanted.namespaces.first().cloned().unwrap_or_else(|| "default".to_owned());
        let owner = ControlClient::new(Endpoint::socket(socket.clone()), None, namespace);
        let owner = owner.map_err(Failure::fatal)?;
        let mut identities = Identities::read(&data)?;
        let api_key = identities.api_key(&data, &control, &owner, wanted.api_key).await?;
        let token = identities.proxy(&data, &owner, &wanted.namespaces).await?;

        let managed = ManagedOptions {
            control: format!("unix:{}", socket.display()).parse().map_err(Failure::config)?,
            token,
            // Control ends with this process: nobody would ever start from what is kept, and a start would believe it first.
            kept: None,
            address: None,
            sandbox_sockets: Some(data.file("sandboxes")),
        };
        let proxy = Proxy::start(Settings {
            document,
            configuration: Arc::new(own),
            environment: environment::secrets(),
            managed: Some(managed),
            otlp: opentelemetry::settings(&environment::variable).map_err(Failure::config)?,
        });
        let proxy = proxy.await.map_err(crate::command::start_failure)?;
        proxy.has_policy().await;
        let address = reached_at(&proxy).await?;
        let proxy_url = identities.proxy_url(&data, &owner, address).await?;
        let ca_file = data.authority().0;
        let data_dir = data.path().to_owned();
        let attendance =
            Attendance { leases: Leases::of(&data_dir)?, owner, host: sandbox_host(&data_dir)?, socket };
        data.write_private(READY, b"")?;
        Ok(Self {
            control_url,
            proxy_url,
            api_key,
            data_dir,
            ca_file,
            ca_bundle,
            proxy,
            servers,
            store,
            attendance,
            while_used: wanted.while_used,
            _data: data,
        })
    }

    /// Serves until `ended`, then drains the proxy while control still answers it, and then control.
    pub(crate) async fn run_until(self, ended: impl Future<Output = ()>) {
        let Self { proxy, servers, store, attendance, while_used, .. } = self;
        let unused = async {
            match while_used {
                true => attendance.until_unused().await,
                false => attendance.attend().await,
            }
        };
        let ended = async {
            tokio::select! {
                () = ended => {}
                () = unused => {}
            }
        };
        proxy.run_until(ended).await;
        servers.finish().await;
        store.close().await;
    }
}

/// What the driver of sandboxes must know, where this data directory is its own.
pub(crate) fn sandbox_host(data_dir: &Path) -> Result<Host, Failure> {
    let keyferry = std::env::current_exe();
    Ok(Host {
        state: data_dir.join("local-sandboxes"),
        keyferry: keyferry.map_err(|error| Failure::fatal(format!("where keyferry is: {error}")))?,
        search_path: environment::variable("PATH").unwrap_or_else(|| keyferry_sandbox::PATH.to_owned()),
        home: environment::variable("HOME").map(PathBuf::from),
    })
}

/// Where this machine reaches it.
async fn reached_at(proxy: &Proxy) -> Result<SocketAddr, Failure> {
    let addresses = proxy.tunnel_addresses().await;
    let mut address = *addresses.first().ok_or_else(|| Failure::config("the proxy listens nowhere"))?;
    if address.ip().is_unspecified() {
        let loopback =
            if address.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    Ok(address)
}

impl Servers {
    fn none() -> Self {
        Self { end: watch::Sender::new(false), tasks: Vec::new() }
    }

    fn serve(&mut self, server: Server, router: axum::Router) {
        let mut end = self.end.subscribe();
        let ended = async move {
            let _ = end.wait_for(|ended| *ended).await;
        };
        self.tasks.push(tokio::spawn(server.run(router, ended)));
    }

    async fn finish(self) {
        self.end.send_replace(true);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}
