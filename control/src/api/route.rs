//! Every route, in one table: what it is, whom it admits, what it does. The router, the check of callers and the OpenAPI document
//! are made of it, so a route without a class of caller does not exist.

use std::pin::Pin;
use std::sync::LazyLock;

use http::Method;

use super::auth::Admits;
use super::call::{Answer, Call};
use super::error::ApiError;
use super::{
    access, api_keys, change_log, egress, grants, health, principals, proxies, proxy_sync, roles, sandboxes,
    secrets,
};
use crate::secret::SecretKind;

type Handled = Pin<Box<dyn Future<Output = Result<Answer, ApiError>> + Send>>;

/// A row of the table.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) admits: Admits,
    pub(crate) handler: Box<dyn Fn(Call) -> Handled + Send + Sync>,
    /// For the document: its name, what it does, and what goes in and comes out.
    pub(crate) name: String,
    pub(crate) summary: &'static str,
    pub(crate) shape: Shape,
    /// The kind, for routes of secrets.
    pub(crate) secret: Option<SecretKind>,
}

/// What goes in and comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A page of these.
    List(&'static str),
    /// All of these; there are no pages.
    All(&'static str),
    /// One of these.
    One(&'static str),
    /// This goes in, and one of these comes out, made by it.
    Create(&'static str, &'static str),
    /// This goes in, and one of these comes out, made or changed by it.
    Upsert(&'static str, &'static str),
    /// This goes in, and one of these comes out, changed by it.
    Update(&'static str, &'static str),
    /// Nothing goes in, and one of these comes out, changed by it.
    Act(&'static str),
    /// Nothing comes out.
    Delete,
    /// Something of its own.
    Own,
}

macro_rules! handler {
    ($handler:path) => {
        Box::new(|call| -> Handled { Box::pin($handler(call)) })
    };
}

macro_rules! routes {
    ($table:ident; $($admits:ident $method:ident $path:literal $name:literal $shape:expr, $handler:path, $summary:literal;)+) => {
        $($table.push(Route {
            method: Method::$method,
            path: $path.to_owned(),
            admits: Admits::$admits,
            handler: handler!($handler),
            name: $name.to_owned(),
            summary: $summary,
            shape: $shape,
            secret: None,
        });)+
    };
}

/// The table.
pub(crate) fn table() -> &'static [Route] {
    static TABLE: LazyLock<Vec<Route>> = LazyLock::new(build);
    &TABLE
}

fn build() -> Vec<Route> {
    use Shape::{Act, All, Create, Delete, List, One, Own, Update, Upsert};
    let mut table = Vec::new();
    routes! { table;
        Anyone GET "/up" "up" Own, health::up, "The process answers";
        Anyone GET "/healthz" "healthz" Own, health::up, "The process answers";
        Anyone GET "/readyz" "readyz" Own, health::ready, "The database answers too";
        Anyone GET "/openapi.json" "openapi" Own, health::openapi, "This document";

        Operator GET "/api/v1/principals" "listPrincipals" List("Principal"), principals::list, "Principals of a namespace";
        Operator POST "/api/v1/principals" "createPrincipal" Create("PrincipalWrite", "Principal"), principals::create, "Make a principal";
        Operator GET "/api/v1/principals/{id}" "getPrincipal" One("Principal"), principals::show, "A principal";
        Operator PUT "/api/v1/principals/{id}" "putPrincipal" Upsert("PrincipalWrite", "Principal"), principals::upsert, "Make or change a principal";
        Operator PATCH "/api/v1/principals/{id}" "patchPrincipal" Upsert("PrincipalWrite", "Principal"), principals::upsert, "Make or change a principal";
        Operator DELETE "/api/v1/principals/{id}" "deletePrincipal" Delete, principals::delete, "Delete a principal, its grants, rules and sandboxes";
        Operator GET "/api/v1/principals/lookup/{namespace}/{foreign_id}" "lookupPrincipal" One("Principal"), principals::lookup, "A principal by its foreign id";
        Operator GET "/api/v1/principals/lookup/{foreign_id}" "lookupDefaultPrincipal" One("Principal"), principals::lookup, "A principal of the default namespace";
        Operator GET "/api/v1/principals/{id}/effective_config" "getEffectiveConfig" One("EffectiveConfig"), access::effective_config, "The policy of a principal, live values redacted";
        Operator GET "/api/v1/principals/lookup/{namespace}/{foreign_id}/effective_config" "lookupEffectiveConfig" One("EffectiveConfig"), access::effective_config_by_name, "The same, by foreign id";
        Operator GET "/api/v1/principals/{id}/explain" "explain" One("Explanation"), access::explain, "Which secrets a principal has and why, and what happens to a request";
        Operator GET "/api/v1/principals/{id}/grants" "listPrincipalGrants" List("Grant"), grants::of_principal, "The direct grants of a principal";
        Operator GET "/api/v1/principals/{id}/roles" "listPrincipalRoles" All("Role"), roles::of_principal, "The roles of a principal";
        Operator POST "/api/v1/principals/{id}/roles" "assignRole" Create("RoleAssignment", "Role"), roles::assign, "Give a principal a role";
        Operator DELETE "/api/v1/principals/{id}/roles/{role_id}" "unassignRole" Delete, roles::unassign, "Take a role away";
        Operator GET "/api/v1/principals/{id}/egress_rules" "listPrincipalEgressRules" All("EgressRule"), egress::list, "The egress rules of a principal's own";
        Operator POST "/api/v1/principals/{id}/egress_rules" "createPrincipalEgressRule" Create("RequestRule", "EgressRule"), egress::create, "Allow or deny a principal something";
        Operator DELETE "/api/v1/principals/{id}/egress_rules/{rule_id}" "deletePrincipalEgressRule" Delete, egress::delete, "Delete a rule";

        Operator GET "/api/v1/roles" "listRoles" List("Role"), roles::list, "Roles of a namespace";
        Operator POST "/api/v1/roles" "createRole" Create("RoleWrite", "Role"), roles::create, "Make a role";
        Operator GET "/api/v1/roles/{id}" "getRole" One("Role"), roles::show, "A role";
        Operator PUT "/api/v1/roles/{id}" "putRole" Upsert("RoleWrite", "Role"), roles::upsert, "Make or change a role";
        Operator PATCH "/api/v1/roles/{id}" "patchRole" Upsert("RoleWrite", "Role"), roles::upsert, "Make or change a role";
        Operator DELETE "/api/v1/roles/{id}" "deleteRole" Delete, roles::delete, "Delete a role, its grants, rules and assignments";
        Operator GET "/api/v1/roles/lookup/{namespace}/{foreign_id}" "lookupRole" One("Role"), roles::lookup, "A role by its foreign id";
        Operator GET "/api/v1/roles/lookup/{foreign_id}" "lookupDefaultRole" One("Role"), roles::lookup, "A role of the default namespace";
        Operator GET "/api/v1/roles/{id}/grants" "listRoleGrants" List("Grant"), grants::of_role, "The grants of a role";
        Operator GET "/api/v1/roles/{id}/egress_rules" "listRoleEgressRules" All("EgressRule"), egress::list, "The egress rules of a role";
        Operator POST "/api/v1/roles/{id}/egress_rules" "createRoleEgressRule" Create("RequestRule", "EgressRule"), egress::create, "Allow or deny a role something";
        Operator DELETE "/api/v1/roles/{id}/egress_rules/{rule_id}" "deleteRoleEgressRule" Delete, egress::delete, "Delete a rule";

        Operator POST "/api/v1/grants" "createGrant" Create("GrantWrite", "Grant"), grants::create, "Grant a secret to a principal or a role";
        Operator GET "/api/v1/grants/{id}" "getGrant" One("Grant"), grants::show, "A grant";
        Operator DELETE "/api/v1/grants/{id}" "deleteGrant" Delete, grants::delete, "Revoke a grant";

        Operator GET "/api/v1/api_keys" "listApiKeys" List("ApiKey"), api_keys::list, "Your keys";
        Operator POST "/api/v1/api_keys" "createApiKey" Create("ApiKeyWrite", "ApiKey"), api_keys::create, "Make a key; its token is shown once";
        Operator GET "/api/v1/api_keys/{id}" "getApiKey" One("ApiKey"), api_keys::show, "One of your keys";
        Operator DELETE "/api/v1/api_keys/{id}" "deleteApiKey" Delete, api_keys::delete, "Revoke a key";

        Operator GET "/api/v1/proxies" "listProxies" List("Proxy"), proxies::list, "Proxies";
        Operator POST "/api/v1/proxies" "createProxy" Create("ProxyWrite", "Proxy"), proxies::create, "Register a proxy; its token is shown once";
        Operator GET "/api/v1/proxies/{id}" "getProxy" One("Proxy"), proxies::show, "A proxy";
        Operator PUT "/api/v1/proxies/{id}" "putProxy" Update("ProxyWrite", "Proxy"), proxies::update, "Change a proxy, or assign its principal";
        Operator PATCH "/api/v1/proxies/{id}" "patchProxy" Update("ProxyWrite", "Proxy"), proxies::update, "Change a proxy, or assign its principal";
        Operator DELETE "/api/v1/proxies/{id}" "deleteProxy" Delete, proxies::delete, "Deregister a proxy; its token is revoked";

        Operator GET "/api/v1/sandboxes" "listSandboxes" List("Sandbox"), sandboxes::list, "Sandboxes";
        Operator POST "/api/v1/sandboxes" "createSandbox" Create("SandboxWrite", "Sandbox"), sandboxes::create, "Make a sandbox; its token is shown once";
        Operator GET "/api/v1/sandboxes/{id}" "getSandbox" One("Sandbox"), sandboxes::show, "A sandbox";
        Operator POST "/api/v1/sandboxes/{id}/rotate" "rotateSandbox" Act("Sandbox"), sandboxes::rotate, "Give a sandbox a new token";
        Operator DELETE "/api/v1/sandboxes/{id}" "deleteSandbox" Delete, sandboxes::delete, "End a sandbox";

        Operator GET "/api/v1/changes" "listChanges" List("Change"), change_log::list, "The change log, oldest first";
        Operator GET "/api/v1/changes/verify" "verifyChanges" One("ChangeLogCheck"), change_log::verify, "Whether the change log is as it was written";

        Proxy POST "/api/v1/proxy/sync" "syncProxy" Own, proxy_sync::sync, "What a dedicated proxy must enforce";
        Proxy GET "/api/v1/proxy/stream" "streamProxy" Own, proxy_sync::stream, "What a proxy must enforce, pushed as it changes";
        Proxy POST "/api/v1/proxy/applied" "reportApplied" Own, proxy_sync::applied, "What a proxy enforces now";
    }
    SecretKind::ALL.into_iter().for_each(|kind| secret_routes(kind, &mut table));
    table
}

/// The same eight for every kind.
fn secret_routes(kind: SecretKind, table: &mut Vec<Route>) {
    let (plain, write, base) =
        (kind.schema(), kind.write_schema(), format!("/api/v1/{}_secrets", kind.name()));
    let mut add = |method: Method, path: &str, verb: &str, shape: Shape, summary, handler| {
        table.push(Route {
            method,
            path: format!("{base}{path}"),
            admits: Admits::Operator,
            handler,
            name: format!("{verb}{plain}"),
            summary,
            shape,
            secret: Some(kind),
        });
    };
    add(Method::GET, "", "list", Shape::List(plain), "Secrets of a namespace", handler!(secrets::list));
    add(Method::POST, "", "create", Shape::Create(write, plain), "Make a secret", handler!(secrets::create));
    add(
        Method::GET,
        "/{id}",
        "get",
        Shape::One(plain),
        "A secret, without its values",
        handler!(secrets::show),
    );
    let upsert = Shape::Upsert(write, plain);
    add(Method::PUT, "/{id}", "put", upsert, "Make or replace a secret", handler!(secrets::upsert));
    add(Method::PATCH, "/{id}", "patch", upsert, "Make or replace a secret", handler!(secrets::upsert));
    add(
        Method::DELETE,
        "/{id}",
        "delete",
        Shape::Delete,
        "Delete a secret and its grants",
        handler!(secrets::delete),
    );
    let one = Shape::One(plain);
    let by_name = "/lookup/{namespace}/{foreign_id}";
    add(Method::GET, by_name, "lookup", one, "A secret by its foreign id", handler!(secrets::lookup));
    let by_default = "/lookup/{foreign_id}";
    add(
        Method::GET,
        by_default,
        "lookupDefault",
        one,
        "A secret of the default namespace",
        handler!(secrets::lookup),
    );
}
