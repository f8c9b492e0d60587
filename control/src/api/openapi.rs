//! The OpenAPI 3.1 document, made from the table of routes and the types that it names. `docs/openapi.json` is a copy of it.

use std::sync::LazyLock;

use http::Method;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::auth::Admits;
use super::route::{Route, Shape, table};
use crate::effective;
use crate::secret::{
    AwsAuthSecret, GcpAuthSecret, GcpIdTokenSecret, HmacSecret, OauthTokenSecret, PgDsnSecret, Rule,
    SecretKind, StaticSecret,
};

/// The document, as text.
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let mut text = serde_json::to_string_pretty(&build()).expect("it is JSON");
        text.push('\n');
        text
    });
    &DOCUMENT
}

fn build() -> Value {
    let mut paths = Map::new();
    for route in table() {
        let path = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "keyferry control",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Principals, roles, secrets, grants and proxies; what each proxy must enforce.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "operator": { "type": "http", "scheme": "bearer", "description": "An API key: iak_ and 64 hexadecimal digits." },
                "proxy": { "type": "http", "scheme": "bearer", "description": "A proxy's token: iprx_ and 64 hexadecimal digits." },
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.summary,
        "parameters": parameters(route),
        "responses": responses(route),
        "security": match route.admits {
            Admits::Operator => json!([{ "operator": [] }]),
            Admits::Proxy => json!([{ "proxy": [] }]),
            Admits::Anyone => json!([]),
        },
    });
    let body = match (route.shape, route.name.as_str()) {
        (Shape::Create(write, _) | Shape::Upsert(write, _) | Shape::Update(write, _), _) => {
            Some(object(&["data"], json!({ "data": reference(write) })))
        }
        (_, "syncProxy") => Some(reference("SyncRequest")),
        (_, "reportApplied") => Some(reference("Applied")),
        _ => None,
    };
    if let Some(schema) = body {
        operation["requestBody"] = json!({ "required": route.name != "syncProxy", "content": { "application/json": { "schema": schema } } });
    }
    operation
}

fn parameters(route: &Route) -> Vec<Value> {
    let mut parameters: Vec<_> = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    let mut query = |name: &str, required: bool, schema: Value| {
        parameters.push(json!({ "name": name, "in": "query", "required": required, "schema": schema }));
    };
    if matches!(route.shape, Shape::List(_)) {
        // What is out of range is taken for the nearest that is not.
        query("page", false, json!({ "type": "integer", "default": 1, "description": "From 1" }));
        query("limit", false, json!({ "type": "integer", "default": 50, "description": "From 1 to 200" }));
    }
    let text = || json!({ "type": "string" });
    match route.name.as_str() {
        "listPrincipals" => {
            query("namespace", true, json!({ "type": "string", "minLength": 1 }));
            for name in ["kind", "slack_user_id", "slack_channel_id", "slack_team_id", "slack_email"] {
                query(name, false, text());
            }
        }
        "listRoles" => query("namespace", true, json!({ "type": "string", "minLength": 1 })),
        "listProxies" => query("principal_id", false, text()),
        "listSandboxes" => {
            query("principal_id", false, text());
            query("namespace", false, text());
        }
        "listChanges" => {
            ["resource", "actor", "action"].into_iter().for_each(|name| query(name, false, text()));
        }
        "verifyChanges" => query("noted", false, text()),
        "explain" => ["method", "url", "requester_principal_id"]
            .into_iter()
            .for_each(|name| query(name, false, text())),
        "getEffectiveConfig" | "lookupEffectiveConfig" => query("requester_principal_id", false, text()),
        "streamProxy" => query("capabilities", false, text()),
        _ if route.secret.is_some()
            && route.method == Method::GET
            && matches!(route.shape, Shape::List(_)) =>
        {
            query("namespace", true, json!({ "type": "string", "minLength": 1 }));
        }
        _ => {}
    }
    let labelled = route.secret.is_some()
        || matches!(route.name.as_str(), "listPrincipals" | "listRoles" | "listProxies");
    if labelled && matches!(route.shape, Shape::List(_)) {
        parameters.push(json!({
            "name": "labels", "in": "query", "required": false, "style": "deepObject", "explode": true,
            // In a query whatever stands there is a text.
            "schema": { "type": "object", "additionalProperties": true },
        }));
    }
    let changes = matches!(route.shape, Shape::Upsert(..) | Shape::Update(..) | Shape::Delete);
    if changes {
        parameters.push(json!({ "name": "If-Match", "in": "header", "required": false, "schema": text() }));
    }
    parameters
}

fn responses(route: &Route) -> Value {
    let mut responses = Map::new();
    let mut ok = |status: &str, description: &str, schema: Option<Value>| {
        let content = schema.map_or_else(|| json!({ "description": description }), |schema| {
            json!({ "description": description, "content": { "application/json": { "schema": schema } } })
        });
        responses.insert(status.to_owned(), content);
    };
    match route.shape {
        Shape::List(of) | Shape::All(of) => ok("200", "A page", Some(page(of))),
        Shape::One(of) | Shape::Update(_, of) => ok("200", "It", Some(wrapped(reference(of)))),
        Shape::Act(of) => ok("200", "It, changed", Some(wrapped(reference(of)))),
        Shape::Create(_, of) => {
            ok("201", "Made", Some(wrapped(reference(of))));
            if matches!(route.name.as_str(), "createGrant" | "assignRole") {
                ok("200", "There already", Some(wrapped(reference(of))));
            }
        }
        Shape::Upsert(_, of) => {
            ok("200", "Changed", Some(wrapped(reference(of))));
            ok("201", "Made", Some(wrapped(reference(of))));
        }
        Shape::Delete => ok("204", "Gone", None),
        Shape::Own => match route.name.as_str() {
            "syncProxy" => ok("200", "The policy, or its hash alone", Some(reference("SyncResponse"))),
            "reportApplied" => ok("204", "Noted", None),
            _ => ok("200", "It", None),
        },
    }
    if matches!(route.name.as_str(), "getEffectiveConfig" | "lookupEffectiveConfig") {
        ok("304", "As it was", None);
    }
    if route.name == "readyz" {
        ok("503", "It cannot serve", None);
    }
    let mut no = |status: &str, description: &str| {
        responses.insert(status.to_owned(), json!({
            "description": description, "content": { "application/json": { "schema": reference("Error") } },
        }));
    };
    if route.admits != Admits::Anyone {
        no("400", "It cannot be read");
        no("401", "The token is missing or not good");
        no("503", "The database does not answer");
        if matches!(route.method, Method::POST | Method::PUT | Method::PATCH) {
            no("408", "The body did not come in time");
            no("413", "The body is too long");
        }
        no("422", "What it says cannot be");
    }
    if route.admits == Admits::Operator {
        no("404", "There is no such thing");
        if matches!(route.shape, Shape::Upsert(..) | Shape::Update(..) | Shape::Delete) {
            no("412", "It was changed since");
        }
    }
    Value::Object(responses)
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn wrapped(schema: Value) -> Value {
    closed(object(
        &["data"],
        json!({ "data": schema, "warnings": { "type": "array", "items": { "type": "string" } } }),
    ))
}

fn page(of: &str) -> Value {
    let properties =
        json!({ "data": { "type": "array", "items": reference(of) }, "meta": reference("Meta") });
    closed(object(&["data", "meta"], properties))
}

fn schemas() -> Map<String, Value> {
    let mut schemas = Map::new();
    add::<Rule>(&mut schemas);
    add::<effective::Held>(&mut schemas);
    add::<effective::Origin>(&mut schemas);
    add::<crate::rows::changes::Checked>(&mut schemas);
    let specs = [
        of::<StaticSecret>(&mut schemas),
        of::<GcpAuthSecret>(&mut schemas),
        of::<GcpIdTokenSecret>(&mut schemas),
        of::<AwsAuthSecret>(&mut schemas),
        of::<OauthTokenSecret>(&mut schemas),
        of::<PgDsnSecret>(&mut schemas),
        of::<HmacSecret>(&mut schemas),
    ];
    for (kind, spec) in SecretKind::ALL.into_iter().zip(specs) {
        let own = spec.get("properties").cloned().unwrap_or_default();
        schemas.insert(
            kind.schema().to_owned(),
            with(&own, &[("id", text()), ("created_at", time()), ("updated_at", time())], true),
        );
        schemas.insert(kind.write_schema().to_owned(), with(&own, &[], false));
    }
    for (name, schema) in plain_schemas() {
        schemas.insert(name.to_owned(), schema);
    }
    schemas
}

/// A secret: what all kinds have, and its own.
fn with(own: &Value, extra: &[(&str, Value)], shown: bool) -> Value {
    let mut properties = Map::new();
    let common = [
        ("namespace", json!({ "type": "string", "default": "default" })),
        ("foreign_id", nullable()),
        ("name", nullable()),
        ("description", nullable()),
        ("labels", labels()),
        ("enabled", json!({ "type": "boolean", "default": true })),
    ];
    for (key, schema) in common.into_iter().chain(extra.iter().cloned()) {
        properties.insert(key.to_owned(), schema);
    }
    if let Value::Object(own) = own {
        properties.extend(own.clone());
    }
    if shown {
        answer(&["id", "namespace", "labels", "enabled", "created_at", "updated_at"], properties.into())
    } else {
        write(&[], properties.into())
    }
}

/// A type's own schema, whatever it refers to added to the rest.
fn of<T: ToSchema>(schemas: &mut Map<String, Value>) -> Value {
    let mut referred = Vec::<(String, RefOr<Schema>)>::new();
    T::schemas(&mut referred);
    for (name, schema) in referred {
        schemas.insert(name, json!(schema));
    }
    json!(T::schema())
}

fn add<T: ToSchema>(schemas: &mut Map<String, Value>) {
    let schema = of::<T>(schemas);
    schemas.insert(T::name().into_owned(), schema);
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn nullable() -> Value {
    json!({ "type": ["string", "null"] })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn nullable_time() -> Value {
    json!({ "type": ["string", "null"], "format": "date-time" })
}

fn labels() -> Value {
    json!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } })
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

/// There is nothing else in it: of an answer a promise, which every test holds it to; of a write a rule.
fn closed(mut schema: Value) -> Value {
    schema["additionalProperties"] = json!(false);
    schema
}

/// A write: what it does not name is refused, and `null` is as good as leaving out what may be left out.
fn write(required: &[&str], properties: Value) -> Value {
    let Value::Object(properties) = properties else { return properties };
    let or_null = |(key, schema): (String, Value)| {
        let schema = if required.contains(&key.as_str()) {
            schema
        } else {
            json!({ "anyOf": [schema, { "type": "null" }] })
        };
        (key, schema)
    };
    closed(object(required, properties.into_iter().map(or_null).collect()))
}

/// An answer.
fn answer(required: &[&str], properties: Value) -> Value {
    closed(object(required, properties))
}

fn plain_schemas() -> Vec<(&'static str, Value)> {
    let kinds = json!({ "type": "string", "enum": crate::principal::PrincipalKind::ALL.map(crate::principal::PrincipalKind::name) });
    let grant_keys = || SecretKind::ALL.map(|kind| (kind.grant_key(), nullable()));
    let identity = || {
        [
            ("slack_user_id", nullable()),
            ("slack_channel_id", nullable()),
            ("slack_team_id", nullable()),
            ("slack_email", nullable()),
        ]
    };
    let extended = |mut base: Value, more: &[(String, Value)]| {
        for (key, schema) in more {
            base["properties"][key] = schema.clone();
        }
        base
    };
    let identity: Vec<(String, Value)> =
        identity().into_iter().map(|(key, schema)| (key.to_owned(), schema)).collect();
    let any = || json!({ "type": "array", "items": { "type": "object" } });
    vec![
        (
            "Error",
            answer(
                &["error"],
                json!({ "error": answer(&["message"], json!({
            "code": text(), "message": text(),
            "details": { "type": "object", "additionalProperties": { "type": "array", "items": text() } },
        })) }),
            ),
        ),
        (
            "Meta",
            answer(
                &["page", "limit", "total", "total_pages"],
                json!({
                    "page": { "type": "integer" }, "limit": { "type": "integer" }, "total": { "type": "integer" },
                    "total_pages": { "type": "integer" },
                }),
            ),
        ),
        (
            "Principal",
            extended(
                answer(
                    &["id", "namespace", "labels", "kind", "created_at", "updated_at"],
                    json!({
                        "id": text(), "namespace": text(), "foreign_id": nullable(), "name": nullable(), "labels": labels(),
                        "kind": kinds, "created_at": time(), "updated_at": time(),
                    }),
                ),
                &identity,
            ),
        ),
        (
            "PrincipalWrite",
            extended(
                write(
                    &[],
                    json!({
                        "namespace": text(), "foreign_id": text(), "name": text(), "labels": labels(), "kind": kinds,
                    }),
                ),
                &identity,
            ),
        ),
        (
            "Role",
            answer(
                &["id", "namespace", "labels", "default", "created_at", "updated_at"],
                json!({
                    "id": text(), "namespace": text(), "foreign_id": nullable(), "name": nullable(), "labels": labels(),
                    "default": { "type": "boolean" }, "created_at": time(), "updated_at": time(),
                }),
            ),
        ),
        (
            "RoleWrite",
            write(
                &[],
                json!({
                    "namespace": text(), "foreign_id": text(), "name": text(), "labels": labels(),
                    "default": { "type": "boolean", "description": "New principals of the namespace get it." },
                }),
            ),
        ),
        ("RoleAssignment", write(&["role_id"], json!({ "role_id": text() }))),
        (
            "Grant",
            extended(
                answer(
                    &["id", "priority", "expires_at", "created_at", "updated_at"],
                    json!({
                        "id": text(), "principal_id": text(), "role_id": text(), "priority": { "type": "integer" },
                        "expires_at": nullable_time(), "created_at": time(), "updated_at": time(),
                    }),
                ),
                &grant_keys(),
            ),
        ),
        (
            "GrantWrite",
            extended(
                write(
                    &[],
                    json!({
                        "principal_id": text(), "role_id": text(), "expires_at": time(),
                        "priority": { "type": "integer", "minimum": -1_000_000_000, "maximum": 1_000_000_000 },
                    }),
                ),
                &grant_keys(),
            ),
        ),
        (
            "ApiKey",
            answer(
                &["id", "name", "created_at", "updated_at"],
                json!({
                    "id": text(), "name": text(), "token": text(), "created_at": time(), "updated_at": time(),
                }),
            ),
        ),
        (
            "ApiKeyWrite",
            write(&["name"], json!({ "name": { "type": "string", "minLength": 1, "maxLength": 255 } })),
        ),
        (
            "Proxy",
            answer(
                &["id", "name", "kind", "namespaces", "labels", "status", "created_at", "updated_at"],
                json!({
                    "id": text(), "name": text(), "token": text(), "kind": { "type": "string", "enum": ["dedicated", "shared"] },
                    "namespaces": { "type": "array", "items": text() }, "labels": labels(), "address": nullable(),
                    "principal_id": nullable(), "status": { "type": "string", "enum": ["assigned", "unassigned", "incompatible"] },
                    "missing_capabilities": { "type": "array", "items": text() }, "principal_assigned_at": nullable_time(),
                    "applied_generation": { "type": ["object", "null"] }, "applied_config_hash": nullable(), "seen_at": nullable_time(),
                    "created_at": time(), "updated_at": time(),
                }),
            ),
        ),
        (
            "ProxyWrite",
            write(
                &[],
                json!({
                    "name": text(), "kind": { "type": "string", "enum": ["dedicated", "shared"] },
                    "namespaces": { "type": "array", "items": text() },
                    "labels": { "type": "object", "additionalProperties": text() },
                    "principal_id": text(), "address": text(),
                }),
            ),
        ),
        (
            "Sandbox",
            answer(
                &[
                    "id",
                    "name",
                    "namespace",
                    "principal_id",
                    "status",
                    "transport",
                    "created_at",
                    "updated_at",
                ],
                json!({
                    "id": text(), "name": text(), "namespace": text(), "principal_id": text(), "requester_principal_id": nullable(),
                    "status": { "type": "string", "enum": ["live", "expired"] }, "expires_at": nullable_time(),
                    "source_cidrs": { "type": "array", "items": text() }, "transport": { "type": "string", "enum": ["token", "unix"] },
                    "token": text(), "proxy_url": nullable(), "socket": nullable(), "pending": { "type": "boolean" }, "created_at": time(), "updated_at": time(),
                }),
            ),
        ),
        (
            "SandboxWrite",
            write(
                &["name", "principal_id"],
                json!({
                    "name": { "type": "string", "minLength": 1, "maxLength": 255 }, "principal_id": text(),
                    "requester_principal_id": text(), "expires_at": time(),
                    "source_cidrs": { "type": "array", "items": text() },
                    "transport": { "type": "string", "enum": ["token", "unix"] },
                }),
            ),
        ),
        (
            "EgressRule",
            answer(
                &["id", "action", "created_at"],
                json!({
                    "id": text(), "host": nullable(), "cidr": nullable(), "http_methods": { "type": "array", "items": text() },
                    "paths": { "type": "array", "items": text() }, "ports": { "type": "array", "items": { "type": "integer" } },
                    "schemes": { "type": "array", "items": text() }, "action": text(), "foreign_credentials": text(),
                    "created_at": time(),
                }),
            ),
        ),
        (
            "Change",
            answer(
                &["id", "seq", "at", "actor", "action", "resource", "previous_hash", "hash"],
                json!({
                    "id": text(), "seq": { "type": "integer" }, "at": time(), "actor": text(), "action": text(), "resource": text(),
                    "before": { "type": ["object", "null"] }, "after": { "type": ["object", "null"] },
                    "previous_hash": text(), "hash": text(),
                }),
            ),
        ),
        (
            "EffectiveConfig",
            answer(
                &["id", "rules", "secrets", "transforms", "postgres"],
                json!({
                    "id": text(), "rules": any(), "secrets": any(), "transforms": any(), "postgres": any(),
                }),
            ),
        ),
        (
            "Explanation",
            answer(
                &["id", "secrets", "rules", "needs"],
                json!({
                    "id": text(), "secrets": { "type": "array", "items": reference("HeldSecret") },
                    "rules": { "type": "array", "items": answer(&["rule", "from"], json!({
                        "rule": { "type": "object" }, "from": reference("Origin"),
                    })) },
                    "needs": { "type": "array", "items": text() }, "valid_until": nullable_time(), "request": { "type": "object" },
                }),
            ),
        ),
        (
            "SyncRequest",
            object(
                &[],
                json!({
                    "config_hash": nullable(), "capabilities": { "type": "array", "items": text() },
                }),
            ),
        ),
        (
            "SyncResponse",
            answer(
                &["config_hash"],
                json!({
                    "config_hash": text(), "status": text(), "principal_id": nullable(), "generation": { "type": "object" },
                    "missing_capabilities": { "type": "array", "items": text() }, "rules": any(), "secrets": any(),
                    "transforms": any(), "postgres": any(),
                }),
            ),
        ),
        (
            "Applied",
            object(
                &["generation"],
                json!({
                    "generation": object(&["epoch", "number"], json!({
                        "epoch": text(), "number": { "type": "integer", "minimum": 0, "maximum": i64::MAX },
                    })),
                    "config_hash": nullable(), "address": nullable(),
                }),
            ),
        ),
    ]
}
