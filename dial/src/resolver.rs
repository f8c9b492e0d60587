//! A name's addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use keyferry_config::policy::DnsName;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, timeout_at};

use crate::error::DnsFailure;
use crate::system_files::WatchedFile;

/// How long one name may take, over all name servers, retransmissions and the change to TCP: 5 seconds, what resolv.conf(5)
/// gives a single query.
pub const DEFAULT_RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the IPv6 answer is waited for when the IPv4 answer is there (RFC 8305 section 3): 50 milliseconds.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Where names are looked up.
#[derive(Clone, Debug)]
pub struct ResolverOptions {
    /// Ask exactly this server, by UDP and where an answer does not fit by TCP, instead of those of `resolv_conf`.
    pub upstream: Option<SocketAddr>,
    /// Default `/etc/hosts`; asked first, also with `upstream`.
    pub hosts_file: PathBuf,
    /// Default `/etc/resolv.conf`. Without a name server in it, 127.0.0.1 is asked, as resolv.conf(5) says.
    pub resolv_conf: PathBuf,
    /// Default [`DEFAULT_RESOLVE_TIMEOUT`].
    pub timeout: Duration,
}

impl Default for ResolverOptions {
    fn default() -> Self {
        Self {
            upstream: None,
            hosts_file: "/etc/hosts".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            timeout: DEFAULT_RESOLVE_TIMEOUT,
        }
    }
}

/// Resolves names to addresses: `localhost` by itself, then the hosts file, then DNS, whose answers are kept for their TTL.
/// Clones share everything.
///
/// Names are absolute: no search domain is ever appended, as that would ask for a name that no policy has seen.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    options: ResolverOptions,
    state: Mutex<State>,
}

struct State {
    hosts_file: WatchedFile,
    hosts: Arc<Hosts>,
    resolv_conf: WatchedFile,
    dns: Option<TokioResolver>,
}

impl Resolver {
    /// A resolver that has asked nobody yet. Files are read at the first lookup, and again when they change.
    pub fn new(options: ResolverOptions) -> Self {
        let state = State {
            hosts_file: WatchedFile::new(options.hosts_file.clone()),
            hosts: Arc::default(),
            resolv_conf: WatchedFile::new(options.resolv_conf.clone()),
            dns: None,
        };
        Self(Arc::new(Shared { options, state: Mutex::new(state) }))
    }

    /// The addresses of `name`, IPv6 first, each once, at least one.
    ///
    /// Sends the name to whoever runs its zone (T15), so the policy has allowed the destination before.
    pub async fn resolve(&self, name: &DnsName) -> Result<Vec<IpAddr>, DnsFailure> {
        // RFC 6761 section 6.3: never asked in DNS, where somebody else could answer. Before the hosts file for the same reason.
        if name.as_str() == "localhost" || name.as_str().ends_with(".localhost") {
            return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
        }
        let mut query = Name::from_ascii(name.as_str()).map_err(|_| DnsFailure::NotFound)?;
        query.set_fqdn(true);
        let (hosts, dns) = self.0.current()?;

        // A name in the hosts file is not asked in DNS, for the other family neither (as with nsswitch's `files dns`).
        let mut addresses = in_hosts(&hosts, &query);
        if addresses.is_empty() {
            addresses = in_dns(dns, query, self.0.options.timeout).await?;
        }
        let mut seen = Vec::with_capacity(addresses.len());
        addresses.retain(|ip| {
            !seen.contains(ip) && {
                seen.push(*ip);
                true
            }
        });
        if addresses.is_empty() { Err(DnsFailure::NotFound) } else { Ok(addresses) }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resolver").field(&self.0.options).finish()
    }
}

impl Shared {
    fn current(&self) -> Result<(Arc<Hosts>, TokioResolver), DnsFailure> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A file that cannot be read just now leaves what was there.
        if let Some(Ok(text)) = state.hosts_file.news() {
            let mut hosts = Hosts::default();
            if hosts.read_hosts_conf(text.as_slice()).is_ok() {
                state.hosts = Arc::new(hosts);
            }
        }
        if self.options.upstream.is_none()
            && let Some(Ok(text)) = state.resolv_conf.news()
        {
            state.dns = None;
            state.dns = Some(self.dns(system_servers(&text))?);
        }
        let dns = match &state.dns {
            Some(dns) => dns.clone(),
            None => {
                let servers = self.options.upstream.map_or_else(|| system_servers(&[]), exactly);
                state.dns.insert(self.dns(servers)?).clone()
            }
        };
        Ok((state.hosts.clone(), dns))
    }

    fn dns(
        &self,
        (servers, mut options): (Vec<NameServerConfig>, ResolverOpts),
    ) -> Result<TokioResolver, DnsFailure> {
        options.use_hosts_file = ResolveHosts::Never;
        // Where a firewall answers for the server, or drops UDP only.
        options.try_tcp_on_error = true;
        let config = ResolverConfig::from_name_servers(servers);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.with_options(options).build().map_err(|_| DnsFailure::Failure)
    }
}

fn exactly(server: SocketAddr) -> (Vec<NameServerConfig>, ResolverOpts) {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    (vec![NameServerConfig::new(server.ip(), true, connections.into())], ResolverOpts::default())
}

fn system_servers(resolv_conf: &[u8]) -> (Vec<NameServerConfig>, ResolverOpts) {
    match parse_resolv_conf(resolv_conf) {
        // The search list is left behind with the rest of the configuration: names are absolute.
        Ok((config, options)) => (config.into_parts().2, options),
        Err(_) => (vec![NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into())], ResolverOpts::default()),
    }
}

fn in_hosts(hosts: &Hosts, name: &Name) -> Vec<IpAddr> {
    [RecordType::AAAA, RecordType::A]
        .into_iter()
        .filter_map(|family| hosts.lookup_static_host(&Query::query(name.clone(), family)))
        .flat_map(|lookup| {
            lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>()
        })
        .collect()
}

type Looked = Result<Vec<IpAddr>, DnsFailure>;

/// Both families at once. hickory's own lookup of both waits for the slower one: with a server that drops AAAA queries, as
/// some do, every connection would wait for the timeout.
async fn in_dns(dns: TokioResolver, name: Name, limit: Duration) -> Looked {
    let deadline = Instant::now() + limit;
    let v6 = spawn_lookup(&dns, &name, RecordType::AAAA);
    let v4 = spawn_lookup(&dns, &name, RecordType::A);
    let first = timeout_at(deadline, select(v6, v4)).await.map_err(|_| DnsFailure::Timeout)?;
    let (v6, v4) = match first {
        // IPv6 alone may lead nowhere from here, so IPv4 is waited for.
        Either::Left((v6, v4)) => (joined(v6), by(deadline, v4).await),
        Either::Right((v4, v6)) => {
            let v4 = joined(v4);
            let patience =
                if v4.is_ok() { deadline.min(Instant::now() + RESOLUTION_DELAY) } else { deadline };
            (by(patience, v6).await, v4)
        }
    };
    match (v6, v4) {
        (Ok(mut addresses), Ok(more)) => {
            addresses.extend(more);
            Ok(addresses)
        }
        (Ok(addresses), Err(_)) | (Err(_), Ok(addresses)) => Ok(addresses),
        (Err(DnsFailure::NotFound), Err(failure)) | (Err(failure), Err(_)) => Err(failure),
    }
}

/// In a task of its own, so that an answer that nobody waits for any more still reaches the cache.
fn spawn_lookup(dns: &TokioResolver, name: &Name, family: RecordType) -> JoinHandle<Looked> {
    let (dns, name) = (dns.clone(), name.clone());
    tokio::spawn(async move {
        let lookup = dns.lookup(name, family).await.map_err(|error| failure(&error))?;
        let addresses: Vec<IpAddr> =
            lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
        if addresses.is_empty() { Err(DnsFailure::NotFound) } else { Ok(addresses) }
    })
}

async fn by(deadline: Instant, lookup: JoinHandle<Looked>) -> Looked {
    timeout_at(deadline, lookup).await.map_or(Err(DnsFailure::Timeout), joined)
}

fn joined(lookup: Result<Looked, JoinError>) -> Looked {
    lookup.unwrap_or(Err(DnsFailure::Failure))
}

fn failure(error: &NetError) -> DnsFailure {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(_)) => DnsFailure::NotFound,
        NetError::Timeout => DnsFailure::Timeout,
        _ => DnsFailure::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(resolv_conf: &str) -> Vec<(IpAddr, Vec<u16>)> {
        let (servers, _) = system_servers(resolv_conf.as_bytes());
        servers
            .iter()
            .map(|server| (server.ip, server.connections.iter().map(|c| c.port).collect()))
            .collect()
    }

    #[test]
    fn the_systems_name_servers_are_asked() {
        let v4 = IpAddr::from([192, 0, 2, 53]);
        assert_eq!(servers("nameserver 192.0.2.53\nsearch a.test b.test\n"), [(v4, vec![53, 53])]);
        let (_, options) = system_servers(b"nameserver 192.0.2.53\noptions timeout:2 attempts:1\n");
        assert_eq!((options.timeout, options.attempts), (Duration::from_secs(2), 1));
    }

    #[test]
    fn without_a_name_server_this_machine_is_asked() {
        let here = [(IpAddr::from([127, 0, 0, 1]), vec![53, 53])];
        for resolv_conf in ["", "search a.test\n", "# nothing\n"] {
            assert_eq!(servers(resolv_conf), here, "{resolv_conf:?}");
        }
    }

    #[tokio::test]
    async fn a_new_resolv_conf_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let resolv_conf = folder.path().join("resolv.conf");
        std::fs::write(&resolv_conf, "nameserver 192.0.2.53\noptions timeout:2\n").unwrap();
        let options = ResolverOptions { resolv_conf: resolv_conf.clone(), ..ResolverOptions::default() };
        let resolver = Resolver::new(options);
        let timeout = |resolver: &Resolver| resolver.0.current().unwrap().1.options().timeout;
        assert_eq!(timeout(&resolver), Duration::from_secs(2));

        tokio::time::pause();
        std::fs::write(&resolv_conf, "nameserver 192.0.2.54\noptions timeout:11\n").unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(timeout(&resolver), Duration::from_secs(11));
    }
}
