//! What is measured.

use super::Options;
use crate::load::Shape;
use crate::tls::Protocol;

/// One kind of load, the same for every proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) counts: Counts,
    pub(super) who: Who,
    pub(super) shape: Shape,
    pub(super) protocol: Protocol,
    /// What the upstream offers: HTTP/1.1 alone, or HTTP/2 as well.
    pub(super) upstream: Protocol,
    pub(super) connections: usize,
    pub(super) streams: usize,
    pub(super) host: &'static str,
    pub(super) path: &'static str,
    pub(super) sends: Sends,
    /// It is measured with `--quick`, too.
    pub(super) quick: bool,
}

/// What the figures are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counts {
    Requests,
    Bytes,
    Memory,
}

/// Between whom it compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// keyferry, the yardstick, the peers, and no proxy.
    Proxies,
    /// keyferry with policies of several sizes.
    Policies,
}

/// What a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sends {
    Nothing,
    /// A credential in a header; its placeholder, through keyferry.
    Header,
    /// A credential in a body of 64 KiB; its placeholder, through keyferry.
    Body,
    Bytes(u64),
}

const SIZE: u64 = 100 << 20;

const KEEP_ALIVE: Scenario = Scenario {
    name: "",
    title: "",
    counts: Counts::Requests,
    who: Who::Proxies,
    shape: Shape::KeepAlive,
    protocol: Protocol::H1,
    upstream: Protocol::H1,
    connections: 16,
    streams: 1,
    host: "api.bench.localhost",
    path: "/v1/models",
    sends: Sends::Header,
    quick: true,
};
const DOWNLOAD: Scenario = Scenario {
    counts: Counts::Bytes,
    connections: 1,
    host: "plain.bench.localhost",
    path: "/bytes/104857600",
    sends: Sends::Nothing,
    ..KEEP_ALIVE
};

const ALL: &[Scenario] = &[
    // First, as memory that others have left behind would be used again.
    Scenario {
        name: "idle",
        title: "1,000 idle tunnels after one request each, h1",
        counts: Counts::Memory,
        shape: Shape::Idle,
        connections: 1000,
        quick: false,
        ..KEEP_ALIVE
    },
    Scenario { name: "h1-1", title: "keep-alive, 1 connection, h1", connections: 1, ..KEEP_ALIVE },
    Scenario { name: "h1-16", title: "keep-alive, 16 connections, h1", ..KEEP_ALIVE },
    Scenario { name: "h1-64", title: "keep-alive, 64 connections, h1", connections: 64, ..KEEP_ALIVE },
    Scenario {
        name: "h2-1",
        title: "keep-alive, 1 connection, h2",
        protocol: Protocol::H2,
        upstream: Protocol::H2,
        connections: 1,
        ..KEEP_ALIVE
    },
    Scenario {
        name: "h2-16",
        title: "keep-alive, 16 connections, h2",
        protocol: Protocol::H2,
        upstream: Protocol::H2,
        ..KEEP_ALIVE
    },
    Scenario {
        name: "h2-64",
        title: "keep-alive, 64 connections, h2",
        protocol: Protocol::H2,
        upstream: Protocol::H2,
        connections: 64,
        quick: false,
        ..KEEP_ALIVE
    },
    Scenario {
        name: "h2-streams",
        title: "keep-alive, 4 connections of 16 streams, h2",
        protocol: Protocol::H2,
        upstream: Protocol::H2,
        connections: 4,
        streams: 16,
        quick: false,
        ..KEEP_ALIVE
    },
    Scenario {
        name: "mixed-16",
        title: "keep-alive, 16 connections, h1, upstream h2",
        upstream: Protocol::H2,
        ..KEEP_ALIVE
    },
    Scenario {
        name: "tunnel",
        title: "new tunnel, TLS and request, 8 clients, h1",
        shape: Shape::Tunnel,
        connections: 8,
        ..KEEP_ALIVE
    },
    Scenario {
        name: "body-swap",
        title: "64 KiB JSON body with a credential in it, 4 connections, h1",
        connections: 4,
        host: "swap.bench.localhost",
        path: "/swap",
        sends: Sends::Body,
        ..KEEP_ALIVE
    },
    Scenario { name: "download", title: "download, 100 MiB each, h1", ..DOWNLOAD },
    Scenario {
        name: "download-secret",
        title: "the same from a host with a bound secret, h1",
        host: "api.bench.localhost",
        sends: Sends::Header,
        quick: false,
        ..DOWNLOAD
    },
    Scenario {
        name: "upload",
        title: "upload, 100 MiB each, h1",
        path: "/sink",
        sends: Sends::Bytes(SIZE),
        ..DOWNLOAD
    },
    // After the others: what it leaves behind would be in their memory.
    Scenario {
        name: "cold",
        title: "the same, each to a new name: leaf, upstream cold",
        shape: Shape::Cold,
        connections: 8,
        host: "*.bench.localhost",
        path: "/open",
        sends: Sends::Nothing,
        ..KEEP_ALIVE
    },
    Scenario { name: "policy", title: "keep-alive, 16 connections, h1", who: Who::Policies, ..KEEP_ALIVE },
    Scenario {
        name: "policy-tunnel",
        title: "new tunnel, TLS and request, 8 clients, h1",
        who: Who::Policies,
        shape: Shape::Tunnel,
        connections: 8,
        quick: false,
        ..KEEP_ALIVE
    },
];

/// The scenarios that the options ask for.
pub(super) fn chosen(options: &Options) -> Vec<Scenario> {
    let named =
        |scenario: &Scenario| options.only.iter().any(|name| scenario.name.starts_with(name.as_str()));
    let wanted = |scenario: &&Scenario| match options.only.is_empty() {
        true => scenario.quick || !options.quick,
        false => named(scenario),
    };
    ALL.iter().filter(wanted).copied().collect()
}

/// All names.
pub(super) fn names() -> Vec<&'static str> {
    ALL.iter().map(|scenario| scenario.name).collect()
}
