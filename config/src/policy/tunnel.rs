//! What a policy says about a tunnel, and the refusals that tunnels and requests share.

use super::Reason;
use super::compile::Policy;
use super::host::Host;
use super::rule::{CompiledRule, ExtraPorts, RuleName};
use super::verdict::{Refusal, TunnelVerdict};
use crate::document::Action;

impl Policy {
    /// Judges `CONNECT host:port`: granted when an allow rule matches host and port, whatever its methods and paths, and no deny
    /// rule forbids all that the tunnel could carry. What flows inside is judged request by request.
    pub fn decide_tunnel(&self, host: &Host, port: u16) -> TunnelVerdict {
        if let Some(refusal) = &self.closed {
            return TunnelVerdict::Refuse(refusal.clone());
        }
        let mut granted = None;
        for list in &self.lists {
            let hits = list.index.lookup(host);
            let mut named = false;
            let mut opened = None;
            for rule in hits.iter().map(|&hit| &list.rules[hit as usize]) {
                match rule.action {
                    Action::Deny if rule.closes_tunnel(port) => {
                        return TunnelVerdict::Refuse(denied(rule, host));
                    }
                    Action::Deny => {}
                    Action::Allow => {
                        named = true;
                        if opened.is_none() && rule.opens_tunnel(port, &self.extra_ports) {
                            opened = Some(&rule.name);
                        }
                    }
                }
            }
            match opened {
                Some(rule) => granted = granted.or(Some(rule)),
                None if list.warn => {}
                None => {
                    if let Some(refusal) = self.by_default(host, port, named) {
                        return TunnelVerdict::Refuse(refusal);
                    }
                }
            }
        }
        if self.lists.is_empty()
            && let Some(refusal) = self.by_default(host, port, false)
        {
            return TunnelVerdict::Refuse(refusal);
        }
        TunnelVerdict::Open(granted.cloned())
    }

    /// What `default_action` says of a tunnel that no rule opens.
    fn by_default(&self, host: &Host, port: u16, named: bool) -> Option<Refusal> {
        let usual = matches!(port, 443 | 80) || self.port_is_extra(port);
        match self.default_action {
            Action::Allow if usual => None,
            Action::Allow => Some(port_refused(host, port)),
            Action::Deny if named => Some(port_refused(host, port)),
            Action::Deny => Some(host_refused(host)),
        }
    }

    pub(super) fn port_is_extra(&self, port: u16) -> bool {
        match &self.extra_ports {
            ExtraPorts::Any => true,
            ExtraPorts::List(ports) => ports.contains(&port),
        }
    }
}

pub(super) fn host_refused(host: &Host) -> Refusal {
    Refusal::new(Reason::HostNotAllowed, format!("{host} is not allowed by any rule"))
}

pub(super) fn port_refused(host: &Host, port: u16) -> Refusal {
    Refusal::new(Reason::PortNotAllowed, format!("port {port} of {host} is not allowed by any rule"))
}

/// A deny rule matched: the reason is the narrowest thing that it names.
pub(super) fn denied(rule: &CompiledRule, host: &Host) -> Refusal {
    let reason = if rule.names_paths() {
        Reason::PathNotAllowed
    } else if rule.names_methods() {
        Reason::MethodNotAllowed
    } else if rule.names_ports() {
        Reason::PortNotAllowed
    } else {
        Reason::HostNotAllowed
    };
    let RuleName(name) = &rule.name;
    Refusal {
        reason,
        message: format!("{name} denies this request to {host}"),
        rule: Some(rule.name.clone()),
    }
}
