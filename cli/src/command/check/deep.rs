//! What `check --deep` finds when it opens what a configuration names.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use keyferry_config::document::{Document, Source, Transform};
use keyferry_proxy::tls::{Authority, UpstreamTls};
use keyferry_source::Sources;

use crate::environment;
use crate::failure::Failure;
use crate::terminal;

/// Everything that would keep a proxy with this configuration from starting or from doing its work.
pub(super) fn findings(document: &Document) -> Result<Vec<String>, Failure> {
    let mut findings = Vec::new();
    certificates(document, &mut findings);
    listeners(document, &mut findings);
    audit(document, &mut findings);
    secrets(document, &mut findings)?;
    Ok(findings)
}

fn certificates(document: &Document, findings: &mut Vec<String>) {
    let tls = &document.tls;
    let (Some(certificate), Some(key)) = (&tls.ca_cert, &tls.ca_key) else { return };
    match Authority::load(certificate, key) {
        Err(error) => findings.push(error.to_string()),
        Ok(authority) => {
            for warning in authority.warnings() {
                terminal::warning(&warning.to_string());
            }
            let upstream = UpstreamTls::new(tls.upstream_ca.as_deref(), authority.certificate_der());
            findings.extend(upstream.err().map(|error| error.to_string()));
        }
    }
}

fn listeners(document: &Document, findings: &mut Vec<String>) {
    let tunnels = document.proxy.tunnel_listen.iter().map(|listen| ("proxy.tunnel_listen", listen));
    let metrics = document.metrics.listen.iter().map(|listen| ("metrics.listen", listen));
    for (key, listen) in tunnels.chain(metrics) {
        findings.extend(
            listen_fault(listen.socket_addr())
                .map(|fault| format!("{key}: {listen} cannot be opened: {fault}")),
        );
    }
}

fn listen_fault(address: SocketAddr) -> Option<String> {
    let error = TcpListener::bind(address).err()?;
    Some(match error.kind() {
        ErrorKind::AddrInUse => {
            format!("{error}\nhint: something listens there already, perhaps this proxy itself")
        }
        _ => error.to_string(),
    })
}

/// Without creating the file: a check leaves nothing behind.
fn audit(document: &Document, findings: &mut Vec<String>) {
    let Some(path) = &document.audit.path else { return };
    let fault = if path.exists() {
        OpenOptions::new().append(true).open(path).err().map(|error| error.to_string())
    } else {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        tempfile::tempfile_in(folder).err().map(|error| error.to_string())
    };
    findings.extend(fault.map(|fault| format!("audit.path: {} cannot be written: {fault}", path.display())));
}

fn secrets(document: &Document, findings: &mut Vec<String>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::fatal(format!("the runtime cannot be started: {error}")))?;
    let sources = Sources::new(environment::secrets());
    runtime.block_on(async {
        for (key, source) in named_sources(document) {
            if let Err(error) = sources.get(source).value().await {
                findings.push(format!("{key}: {error}"));
            }
        }
    });
    Ok(())
}

fn named_sources(document: &Document) -> Vec<(String, &Source)> {
    let mut named: Vec<(String, &Source)> = Vec::new();
    named.extend(document.proxy.auth.as_ref().map(|auth| ("proxy.auth.password".to_owned(), &auth.password)));
    for (at, transform) in document.transforms.iter().enumerate() {
        match transform {
            // Those of the others are read by engines of their own.
            Transform::Allowlist(_)
            | Transform::GcpAuth(_)
            | Transform::GcpIdToken(_)
            | Transform::OauthToken(_)
            | Transform::AwsAuth(_)
            | Transform::HmacSign(_)
            | Transform::Annotate(_)
            | Transform::HeaderAllowlist(_)
            | Transform::BodyCapture(_)
            | Transform::Grpc(_)
            | Transform::Judge(_) => {}
            Transform::Secrets(secrets) => {
                let entries = secrets.secrets.iter().enumerate();
                named.extend(entries.map(|(entry, secret)| {
                    (format!("transforms[{at}].config.secrets[{entry}].source"), &secret.source)
                }));
            }
        }
    }
    named
}
