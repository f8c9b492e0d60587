//! `tls`: the authority that signs for hosts, and whom we trust upstream.

use std::path::PathBuf;

use serde::Deserialize;

use super::field::Field;
use super::place::At;
use super::problem::ValueError;

/// The `tls` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with the certificate of our authority; there with `ca_key` or not at all.
    pub ca_cert: Option<PathBuf>,
    /// PEM file with its key.
    pub ca_key: Option<PathBuf>,
    /// PEM file with authorities that upstreams may use beside the system's.
    pub upstream_ca: Option<PathBuf>,
    /// How many leaf certificates are kept; `usize::MAX` is no limit (negative in the file).
    pub cert_cache_size: usize,
    /// How long a leaf certificate is good for.
    pub leaf_cert_expiry_hours: u32,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
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

#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    mode: Field<String>,
    ca_cert: Field<String>,
    ca_key: Field<String>,
    upstream_ca: Field<String>,
    cert_cache_size: Field<i64>,
    leaf_cert_expiry_hours: Field<u32>,
}

impl Tls {
    /// `listening` says whether a listener needs the authority.
    pub(super) fn read(at: &At<'_>, listening: bool) -> Self {
        let otherwise = Self::default();
        let Some(keys) = at.decode::<Keys>() else { return otherwise };
        if let Some(mode) = keys.mode.not_empty().get()
            && let Err(ValueError { message, hint }) = check_mode(&mode)
        {
            at.key("mode").error(format!("{message}; got {}", at.key("mode").shown()), hint);
        }
        let (ca_cert, ca_key) = (keys.ca_cert.not_empty(), keys.ca_key.not_empty());
        for (key, this, other) in [("ca_cert", &ca_cert, &ca_key), ("ca_key", &ca_key, &ca_cert)] {
            if this.is_absent() && (listening || !other.is_absent()) {
                let why = if listening {
                    "where proxy.tunnel_listen is set"
                } else {
                    "with the other of ca_cert and ca_key"
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

fn check_mode(mode: &str) -> Result<(), ValueError> {
    match mode {
        "mitm" => Ok(()),
        "sni-only" => Err(ValueError {
            message: "this version does not run iron-proxy's sni-only mode",
            hint: "leave out tls.mode",
        }),
        _ => Err(ValueError {
            message: "tls.mode must be \"mitm\" or \"sni-only\"",
            hint: "leave out tls.mode",
        }),
    }
}
