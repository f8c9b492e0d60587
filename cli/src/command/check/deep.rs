//! What `check --deep` finds when it opens what a configuration names.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use keyferry_config::document::{
    Document, Inject, InjectTarget, KeyWarning, SecretEntry, SecretMode, TOO_SHORT, TOO_SHORT_HINT, Transform,
};
use keyferry_config::policy::{SHORTEST_REDACTED, fits_a_header};
use keyferry_proxy::tls::{Authority, UpstreamTls};
use keyferry_source::Sources;

use crate::environment;
use crate::failure::Failure;
use crate::terminal;

/// Everything that would keep a proxy with this configuration from starting or from doing its work, and what to look at besides.
pub(super) fn findings(document: &Document) -> Result<(Vec<String>, Vec<KeyWarning>), Failure> {
    let (mut findings, mut warnings) = (Vec::new(), Vec::new());
    certificates(document, &mut findings);
    listeners(document, &mut findings);
    audit(document, &mut findings);
    secrets(document, &mut findings, &mut warnings)?;
    Ok((findings, warnings))
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

fn secrets(
    document: &Document,
    findings: &mut Vec<String>,
    warnings: &mut Vec<KeyWarning>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::fatal(format!("the runtime cannot be started: {error}")))?;
    let sources = Sources::new(environment::secrets());
    runtime.block_on(async {
        if let Some(auth) = &document.proxy.auth
            && let Err(error) = sources.get(&auth.password).value().await
        {
            findings.push(format!("proxy.auth.password: {error}"));
        }
        for (key, entry) in entries(document) {
            match sources.get(&entry.source).value().await {
                Ok(value) => judge(&key, entry, value.expose(), findings, warnings),
                Err(error) => findings.push(format!("{key}.source: {error}")),
            }
        }
    });
    Ok(())
}

fn judge(
    key: &str,
    entry: &SecretEntry,
    value: &str,
    findings: &mut Vec<String>,
    warnings: &mut Vec<KeyWarning>,
) {
    let path = format!("{key}.source");
    if entry.redact_responses && value.len() < SHORTEST_REDACTED {
        warnings.push(KeyWarning { path: path.clone(), message: TOO_SHORT.to_owned(), hint: TOO_SHORT_HINT });
    }
    let unfit = "the value holds a byte that no header may hold";
    match &entry.mode {
        SecretMode::Inject(Inject { target: InjectTarget::Header(_), formatter, .. }) => {
            let text = formatter.as_ref().map(|formatter| formatter.render(value));
            if !fits_a_header(text.as_ref().map_or(value, |text| text.as_str())) {
                findings.push(format!("{path}: {unfit}\nhint: {LINE_BREAK}"));
            }
        }
        SecretMode::Inject(Inject { target: InjectTarget::QueryParam(_), .. }) => {}
        // As a password of Basic it may, and elsewhere than in headers.
        SecretMode::Replace(_) if !fits_a_header(value) => {
            let message = format!("{unfit}, but as a password of Basic; such requests are refused");
            warnings.push(KeyWarning { path, message, hint: LINE_BREAK });
        }
        SecretMode::Replace(_) => {}
    }
}

const LINE_BREAK: &str = "if it ends in a line break, write the file without one: printf %s VALUE > FILE";

fn entries(document: &Document) -> impl Iterator<Item = (String, &SecretEntry)> {
    document.transforms.iter().enumerate().flat_map(|(at, transform)| {
        let secrets = match transform {
            Transform::Secrets(secrets) => secrets.secrets.as_slice(),
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
            | Transform::Judge(_) => &[],
        };
        let path = move |entry| format!("transforms[{at}].config.secrets[{entry}]");
        secrets.iter().enumerate().map(move |(entry, secret)| (path(entry), secret))
    })
}
