//! Where the control service is. Its answers carry live values, so they travel over TLS, over loopback, or through a Unix socket.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use keyferry_config::policy::{Destination, Host, Scheme};

/// The address of a control service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlUrl(pub(super) Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Https(Destination),
    Loopback(Destination),
    Unix(PathBuf),
}

/// An address that is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlUrlError {
    /// Values would travel in the clear.
    #[error(
        "{0} is reached in the clear over a network, and the answers of the control service carry live values\n  hint: write https://HOST, http://127.0.0.1:PORT or unix:PATH"
    )]
    InTheClear(String),
    /// No address.
    #[error(
        "{0:?} is no address of a control service\n  hint: write https://HOST[:PORT], http://127.0.0.1:PORT or unix:PATH"
    )]
    Malformed(String),
}

impl FromStr for ControlUrl {
    type Err = ControlUrlError;

    fn from_str(text: &str) -> Result<Self, ControlUrlError> {
        let malformed = || ControlUrlError::Malformed(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(malformed()) } else { Ok(Self(Kind::Unix(path.into()))) };
        }
        // A name may lead anywhere; this one means what it says.
        let local = text
            .strip_prefix("http://localhost")
            .filter(|rest| rest.is_empty() || rest.starts_with([':', '/']));
        let url = local.map_or(text.to_owned(), |rest| format!("http://127.0.0.1{rest}"));
        let (to, target) = Destination::of_url(&url).map_err(|_| malformed())?;
        if target != "/" {
            return Err(malformed());
        }
        match (to.scheme, &to.host) {
            (Scheme::Https, _) => Ok(Self(Kind::Https(to))),
            (Scheme::Http, Host::Ip(ip)) if ip.to_canonical().is_loopback() => Ok(Self(Kind::Loopback(to))),
            (Scheme::Http, _) => Err(ControlUrlError::InTheClear(text.to_owned())),
        }
    }
}

impl fmt::Display for ControlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Https(to) => write!(f, "https://{}", to.authority()),
            Kind::Loopback(to) => write!(f, "http://{}", to.authority()),
            Kind::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t75_values_travel_over_tls_loopback_or_a_socket_and_over_nothing_else() {
        for good in [
            "https://control.example",
            "https://10.0.0.1:8443/",
            "http://127.0.0.1:7443",
            "http://localhost:1",
            "http://[::1]:7443",
            "unix:/run/control.sock",
        ] {
            assert!(good.parse::<ControlUrl>().is_ok(), "{good}");
        }
        for clear in
            ["http://control.example", "http://10.0.0.1:7443", "http://[::]:7443", "http://localhost.example"]
        {
            assert_eq!(clear.parse::<ControlUrl>(), Err(ControlUrlError::InTheClear(clear.to_owned())));
        }
        for bad in [
            "",
            "unix:",
            "control:7443",
            "ftp://127.0.0.1",
            "https://user:pass@control.example",
            "https://control.example/base",
        ] {
            assert_eq!(bad.parse::<ControlUrl>(), Err(ControlUrlError::Malformed(bad.to_owned())), "{bad}");
        }
    }
}
