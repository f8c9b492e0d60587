//! Why a request was refused: the one source of the code, the status, the metric label and the words.

use std::fmt;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $status:literal $code:literal $proxy_status:literal, $hint:literal;)+) => {
        /// Why a request was refused or failed. `docs/errors.md` has a section for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of their documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stable code: in bodies, audit records, metrics and the documentation.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The HTTP status that the sandbox sees.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// The error type of RFC 9209 section 2.3 that fits best.
            pub const fn proxy_status(self) -> &'static str {
                match self { $(Self::$variant => $proxy_status,)+ }
            }

            /// What whoever reads it can do next.
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint,)+ }
            }

            /// The first paragraph of the documentation, a sentence each.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)+),)+ }
            }
        }
    };
}

reasons! {
    /// No allow rule names this host.
    HostNotAllowed = 403 "host_not_allowed" "http_request_denied",
        "ask the operator to allow the host, or use one that is allowed";
    /// The host is allowed, the port or scheme is not.
    PortNotAllowed = 403 "port_not_allowed" "http_request_denied",
        "443 for https and 80 for http are allowed by default; a rule's `ports` and `schemes`, or `proxy.allowed_ports`, widen that";
    /// The host is allowed, the method is not.
    MethodNotAllowed = 403 "method_not_allowed" "http_request_denied",
        "the rules that name this host list other methods";
    /// The host is allowed, the path is not.
    PathNotAllowed = 403 "path_not_allowed" "http_request_denied",
        "the rules that name this host list other paths";
    /// The name resolves only to addresses that may not be dialled.
    AddressDenied = 403 "address_denied" "destination_ip_prohibited",
        "private, loopback and metadata addresses need an entry in `proxy.upstream_allow_cidrs`, or a `cidr` rule where the address itself is named";
    /// The request has been through this proxy before: a service that it was sent to, or a proxy in between, sent it back.
    LoopDetected = 403 "loop_detected" "proxy_loop_detected",
        "take the proxy out of the way of the service that sends the request on: it reaches itself through it";
    /// A placeholder was on its way to a destination that its secret is not bound to.
    PlaceholderMisdirected = 403 "placeholder_misdirected" "http_request_denied",
        "send this credential only to the hosts, ports and schemes that its rules name";
    /// A secret with `require: true` applies, but its placeholder is not in the request.
    PlaceholderMissing = 403 "placeholder_missing" "http_request_denied",
        "put the placeholder where the secret's entry looks for it";
    /// The request carries credentials of the client's own to a host that has a secret of ours, and a rule with
    /// `foreign_credentials: deny` matches it.
    ForeignCredential = 403 "foreign_credential" "http_request_denied",
        "send the placeholder that stands for this host's credential, or no credentials at all";
    /// The value of a secret that would go into this request cannot be had.
    SecretUnavailable = 403 "secret_unavailable" "http_request_denied",
        "the operator's log names the source and the cause";
    /// A transform applies to this request that this version has no engine for; without it the request would leave bare.
    TransformUnsupported = 403 "transform_unsupported" "http_request_denied",
        "`/v1/status` of the proxy names what it cannot run; run a version that can, or revoke the grant";
    /// A new policy no longer allows an exchange that was open, or took a secret away that it carried.
    PolicyChanged = 403 "policy_changed" "http_request_denied",
        "send the request again: it is judged by the policy that is in force now";
    /// Two readers could disagree on what the request asks for.
    AmbiguousRequest = 400 "ambiguous_request" "http_protocol_error",
        "send one plain form: no dot segments, no encoded separators, one Host";
    /// Not a request that the protocol allows.
    MalformedRequest = 400 "malformed_request" "http_protocol_error",
        "check the client: this is not valid HTTP for a proxy";
    /// The client's WebSocket frames or messages are not what the protocol allows; the connection was closed with 1002, 1007 or 1009.
    WebsocketViolation = 400 "websocket_violation" "http_protocol_error",
        "check the client: frames must follow RFC 6455, text must be UTF-8, compressed messages must follow RFC 7692";
    /// CONNECT target, TLS server name, Host or `:authority` do not name the same host and port.
    DestinationMismatch = 421 "destination_mismatch" "http_request_denied",
        "open a tunnel to the host that the request names";
    /// The proxy wants a user and a password.
    ProxyAuthRequired = 407 "proxy_auth_required" "http_request_denied",
        "put user and password into the proxy URL";
    /// The client did not finish what it began in time.
    RequestTimeout = 408 "request_timeout" "connection_read_timeout",
        "send the head within 10 s and keep the body moving";
    /// Swapping in the body would change it in more places, or make it longer, than a client has reason to.
    BodyTooLarge = 413 "body_too_large" "http_request_denied",
        "write the placeholder once, where it belongs";
    /// The request target is longer than the limit.
    TargetTooLong = 414 "target_too_long" "http_protocol_error",
        "send long parameters in the body";
    /// A secret with `match_body` applies, and the body's Content-Encoding cannot be decoded.
    CodingNotSwappable = 415 "coding_not_swappable" "http_request_denied",
        "send the body without Content-Encoding, or in gzip, deflate, br or zstd";
    /// The head is larger than the limit.
    HeadTooLarge = 431 "head_too_large" "http_protocol_error",
        "send fewer or smaller headers";
    /// The upstream's name does not resolve.
    UpstreamDns = 502 "upstream_dns" "dns_error",
        "check the name, and the resolver of the machine that the proxy runs on";
    /// No connection to the upstream.
    UpstreamConnect = 502 "upstream_connect" "connection_refused",
        "check that the upstream is up and reachable from the proxy";
    /// The upstream's certificate or TLS handshake was not acceptable.
    UpstreamTls = 502 "upstream_tls" "tls_certificate_error",
        "a private authority goes into `tls.upstream_ca`; verification cannot be switched off";
    /// The upstream closed the connection before it answered.
    UpstreamReset = 502 "upstream_reset" "connection_terminated",
        "try again if the request may be repeated";
    /// The upstream's answer is not valid for what was asked.
    UpstreamProtocol = 502 "upstream_protocol" "http_protocol_error",
        "the upstream breaks the protocol; its operator can tell why";
    /// The upstream did not answer in time.
    UpstreamTimeout = 504 "upstream_timeout" "http_response_timeout",
        "`proxy.upstream_response_header_timeout` is how long the proxy waits";
    /// No policy has been received yet.
    PolicyNotReady = 503 "policy_not_ready" "proxy_internal_response",
        "try again in a moment";
    /// The last policy is older than `max_staleness`.
    PolicyStale = 503 "policy_stale" "proxy_internal_response",
        "the control service cannot be reached";
    /// The control service has not given this proxy a principal.
    ProxyUnassigned = 503 "proxy_unassigned" "proxy_internal_response",
        "assign a principal to the proxy";
    /// The policy needs something that this version of the proxy cannot do.
    PolicyIncompatible = 503 "policy_incompatible" "proxy_internal_response",
        "the control service shows what the proxy lacks; run a newer version of it";
    /// The control service no longer knows this proxy.
    ProxyRevoked = 503 "proxy_revoked" "proxy_internal_response",
        "create a proxy in the control service, and start this one with its token";
    /// A limit on connections or requests is reached.
    Overloaded = 503 "overloaded" "connection_limit_reached",
        "try again in a moment";
    /// The audit sink cannot keep up, and nothing passes unrecorded.
    AuditFull = 503 "audit_full" "proxy_internal_error",
        "the operator should look at the audit sink: a full disk, a blocked pipe";
}

impl Reason {
    /// The reason with this code.
    pub fn of_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.code() == code)
    }

    /// Whether the upstream is at fault, or the way to it.
    pub const fn is_upstreams(self) -> bool {
        matches!(self.status(), 502 | 504)
    }

    /// Whether the policy refused (`reject` in the audit record) or something failed (`error`).
    pub const fn is_policy(self) -> bool {
        self.status() < 500
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_and_fit_a_reason_phrase() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!(codes.iter().all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }
}
