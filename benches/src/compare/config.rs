//! The configurations of keyferry and of its peers.

use std::fmt::Write as _;
use std::path::Path;

/// What the upstream asks for.
pub(super) const CREDENTIAL: &str = "sk-bench-4f1d0a7c9e2b46538d7a1c0e5f9b3d24";
/// What stands for it in the sandbox, in the form that keyferry makes.
pub(super) const PLACEHOLDER: &str = "kf_5b0c7e1fa93d4c2688e0d1b47f6a2c39";
/// The variable that keyferry reads the credential from.
pub(super) const VARIABLE: &str = "BENCH_API_KEY";
/// What stands for it in bodies: of another secret, which is bound to another host.
pub(super) const BODY_PLACEHOLDER: &str = "kf_c41e88d2b7f0459aa36e95d01b7f2e6c";

/// The size of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PolicySize {
    pub(super) rules: usize,
    pub(super) secrets: usize,
}

impl PolicySize {
    /// A sandbox with a few grants.
    pub(super) const SMALL: Self = Self { rules: 10, secrets: 10 };
}

/// Where keyferry listens and whom it may dial.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) listen: u16,
    pub(super) upstream: [u16; 2],
}

/// keyferry's configuration, beside `ca.crt` and `ca.key`; the upstream's authority is in `upstream_ca`.
pub(super) fn keyferry(ports: Ports, size: PolicySize, audit: &Path, upstream_ca: &Path) -> String {
    let Ports { listen, upstream: [h1, h2] } = ports;
    let mut yaml = format!(
        r#"proxy:
  tunnel_listen: "127.0.0.1:{listen}"
  allowed_ports: [{h1}, {h2}]
  upstream_allow_cidrs: ["127.0.0.0/8"]
tls: {{ ca_cert: ca.crt, ca_key: ca.key, upstream_ca: {upstream_ca:?} }}
audit: {{ sink: file, path: {audit:?} }}
log: {{ level: warn }}
transforms:
  - name: allowlist
    config:
      rules:
        - {{ host: api.bench.localhost, methods: [GET, POST], paths: ["/v1/*", "/bytes/*"] }}
        - {{ host: api.bench.localhost, paths: ["/v1/admin/*"], action: deny }}
        - {{ host: "*.bench.localhost" }}
"#
    );
    for number in 3..size.rules {
        let rule = format!(r#"{{ host: h{number}.example, methods: [GET, POST], paths: ["/v1/*"] }}"#);
        writeln!(yaml, "        - {rule}").expect("a String takes it");
    }
    yaml += "  - name: secrets\n    config:\n      secrets:\n";
    let mut secret = |replace: &str, host: &str| {
        writeln!(
            yaml,
            "        - {{ source: {{ type: env, var: {VARIABLE} }}, replace: {{ {replace} }}, rules: [{{ host: {host} }}] }}"
        )
        .expect("a String takes it");
    };
    secret(&format!("proxy_value: {PLACEHOLDER}, match_headers: [Authorization]"), "api.bench.localhost");
    secret(
        &format!("proxy_value: {BODY_PLACEHOLDER}, match_headers: [Authorization], match_body: true"),
        "swap.bench.localhost",
    );
    for number in 2..size.secrets {
        // Spread over the alphabet as generated ones are.
        let hex = (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        secret(
            &format!("proxy_value: kf_{hex:032x}, match_headers: [Authorization]"),
            &format!("h{number}.example"),
        );
    }
    yaml
}

/// A JSON document of 64 KiB that ends with a credential, as a tool that logs in sends it.
pub(super) fn body(credential: &str) -> String {
    let mut text = String::from(r#"{"messages":["#);
    let mut number = 0;
    while text.len() < (64 << 10) - 160 {
        write!(text, r#"{{"role":"user","content":"line {number} of a longer conversation"}},"#)
            .expect("a String takes it");
        number += 1;
    }
    text.pop();
    write!(text, r#"],"credential":"{credential}"}}"#).expect("a String takes it");
    text
}

/// Squid that intercepts everything, keeps nothing, and writes its usual log.
pub(super) fn squid(port: u16, folder: &Path, certgen: &Path, upstream_ca: &Path) -> String {
    let folder = folder.display();
    format!(
        "http_port 127.0.0.1:{port} ssl-bump tls-cert={folder}/peer.crt tls-key={folder}/peer.key \
generate-host-certificates=on dynamic_cert_mem_cache_size=64MB
sslcrtd_program {certgen} -s {folder}/squid-certificates -M 64MB
sslcrtd_children 4
ssl_bump bump all
tls_outgoing_options cafile={upstream_ca}
hosts_file {folder}/hosts
http_access allow all
cache deny all
cache_mem 8 MB
access_log stdio:{folder}/squid-access.log
cache_log {folder}/squid-cache.log
pid_filename {folder}/squid.pid
coredump_dir {folder}
shutdown_lifetime 0 seconds
visible_hostname squid.bench.localhost
",
        certgen = certgen.display(),
        upstream_ca = upstream_ca.display()
    )
}

/// mitmproxy asks the system for addresses, which knows nothing below `localhost` on many machines.
pub(super) const MITMPROXY_ADDON: &str = r#""""Every name of the bench is on loopback."""


def server_connect(data):
    data.server.address = ("127.0.0.1", data.server.address[1])
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use keyferry_config::document::{self, Options};
    use keyferry_config::policy::Policy;

    #[test]
    fn keyferry_reads_its_configuration_whatever_its_size() {
        let ports = Ports { listen: 3128, upstream: [8443, 9443] };
        for size in [PolicySize::SMALL, PolicySize { rules: 1000, secrets: 500 }] {
            let yaml = keyferry(ports, size, Path::new("audit.jsonl"), Path::new("upstream.crt"));
            let loaded = document::parse("bench.yaml", &yaml, &|_| None, Options::default())
                .unwrap_or_else(|problems| panic!("{problems}"));
            let policy = Policy::compile(&loaded.document, 1).unwrap();
            assert_eq!(policy.secrets().len(), size.secrets);
            assert_eq!(policy.placeholders().texts().count(), size.secrets);
        }
    }

    #[test]
    fn the_body_is_json_of_64_kib_with_the_credential_in_it() {
        let text = body(CREDENTIAL);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["credential"], CREDENTIAL);
        assert!((60 << 10..=64 << 10).contains(&text.len()), "{}", text.len());
    }
}
