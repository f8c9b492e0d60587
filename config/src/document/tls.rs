//! `tls`: the authority that signs for hosts, and whom we trust upstream.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::field::Field;
use super::place::At;

/// The `tls` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tls {
    /// What is done with TLS.
    pub mode: TlsMode,
    /// PEM file with the certificate of our authority; there with `ca_key` or not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_cert: Option<PathBuf>,
    /// PEM file with its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_key: Option<PathBuf>,
    /// PEM file with authorities that upstreams may use beside the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ca: Option<PathBuf>,
    /// How many leaf certificates are kept; `usize::MAX` is no limit (negative in the file).
    #[serde(serialize_with = "write_cache_size")]
    pub cert_cache_size: usize,
    /// How long a leaf certificate is good for.
    pub leaf_cert_expiry_hours: u32,
}

/// What is done with TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename = "tls mode", rename_all = "kebab-case")]
pub enum TlsMode {
    /// Connections are ended here and opened anew, so that requests can be judged and changed.
    #[default]
    Mitm,
    /// Connections are judged by the name that their ClientHello says, and passed on unopened.
    SniOnly,
}

fn write_cache_size<S: Serializer>(size: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    match i64::try_from(*size) {
        Ok(size) => serializer.serialize_i64(size),
        Err(_) => serializer.serialize_i64(-1),
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            mode: TlsMode::Mitm,
            ca_cert: None,
            ca_key: None,
            upstream_ca: None,
            cert_cache_size: 1000,
            leaf_cert_expiry_hours: 72,
        }
    }
}

/// Ten years; a certificate that outlives its authority helps nobody, and dates have an end.
const MAX_LEAF_HOURS: u32 = 87_600;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "tls", deny_unknown_fields)]
pub(super) struct Keys {
    /// mitm, or sni-only: passed on unopened, judged by name alone.
    #[schemars(extend("default" = "mitm", "examples" = ["mitm", "sni-only"]))]
    mode: Field<String>,
    /// PEM file with the certificate of the authority that signs for hosts.
    ca_cert: Field<String>,
    /// PEM file with its key.
    ca_key: Field<String>,
    /// PEM file with authorities that upstreams may use, beside the system's.
    upstream_ca: Field<String>,
    /// Leaf certificates that are kept; 0 is the default, negative is no limit.
    #[schemars(extend("default" = 1000))]
    cert_cache_size: Field<i64>,
    /// Life of a leaf certificate, at most 87600; 0 is the default.
    #[schemars(extend("default" = 72))]
    leaf_cert_expiry_hours: Field<u32>,
}

impl Tls {
    /// `listener` is the key of a listener that needs the authority, if there is one.
    pub(super) fn read(at: &At<'_>, listener: Option<&str>) -> Self {
        let otherwise = Self::default();
        let Some(keys) = at.decode::<Keys>() else { return otherwise };
        let mode = match keys.mode.not_empty().get().as_deref() {
            None | Some("mitm") => TlsMode::Mitm,
            Some("sni-only") => TlsMode::SniOnly,
            Some(_) => {
                let at = at.key("mode");
                at.error(
                    format!("tls.mode must be \"mitm\" or \"sni-only\"; got {}", at.shown()),
                    "leave out tls.mode",
                );
                TlsMode::Mitm
            }
        };
        let listener = listener.filter(|_| mode == TlsMode::Mitm);
        let (ca_cert, ca_key) = (keys.ca_cert.not_empty(), keys.ca_key.not_empty());
        for (key, this, other) in [("ca_cert", &ca_cert, &ca_key), ("ca_key", &ca_key, &ca_cert)] {
            if this.is_absent() && (listener.is_some() || !other.is_absent()) {
                let why = match listener {
                    Some(listener) => format!("where {listener} is set"),
                    None => "with the other of ca_cert and ca_key".to_owned(),
                };
                at.key(key).error(format!("required {why}"), "`keyferry ca init` makes both files");
            }
        }
        let leaf_cert_expiry_hours = match keys.leaf_cert_expiry_hours.get() {
            None | Some(0) => otherwise.leaf_cert_expiry_hours,
            Some(hours) => hours,
        };
        if leaf_cert_expiry_hours > MAX_LEAF_HOURS {
            at.key("leaf_cert_expiry_hours").error(format!("at most {MAX_LEAF_HOURS} hours (ten years)"), ());
        }
        let path = |field: Field<String>| field.get().map(PathBuf::from);
        Self {
            mode,
            ca_cert: path(ca_cert),
            ca_key: path(ca_key),
            upstream_ca: path(keys.upstream_ca.not_empty()),
            cert_cache_size: match keys.cert_cache_size.get() {
                None | Some(0) => otherwise.cert_cache_size,
                Some(size) => usize::try_from(size).unwrap_or(usize::MAX),
            },
            leaf_cert_expiry_hours,
        }
    }
}
