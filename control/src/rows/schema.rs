//! The tables. Rows are numbered by one counter; moments are microseconds.

use keyferry_store::{Migration, Schema, SealedColumn, Sql};

/// The value of a `control_plane` source.
pub(crate) const SECRET_VALUE: SealedColumn =
    SealedColumn { table: "control_secret_values", column: "value", id: "id" };

/// What this service keeps.
pub const SCHEMA: Schema = Schema {
    name: "control",
    migrations: &[
        Migration { name: "everything of the first release", sql: Sql::Both(FIRST) },
        Migration { name: "where proxies make the sockets of sandboxes", sql: Sql::Both(SANDBOX_SOCKETS) },
    ],
    sealed: &[SECRET_VALUE],
};

const SANDBOX_SOCKETS: &str = "ALTER TABLE control_proxies ADD COLUMN sandbox_sockets TEXT;";

const FIRST: &str = "
CREATE TABLE control_state (
    id BIGINT PRIMARY KEY,
    epoch TEXT NOT NULL,
    number BIGINT NOT NULL,
    next_row BIGINT NOT NULL
);
CREATE TABLE control_users (
    row BIGINT PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);
CREATE TABLE control_api_keys (
    row BIGINT PRIMARY KEY,
    owner BIGINT NOT NULL REFERENCES control_users (row),
    name TEXT NOT NULL,
    token_hash TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX control_api_keys_owner ON control_api_keys (owner, created_at, row);
CREATE TABLE control_principals (
    row BIGINT PRIMARY KEY,
    namespace TEXT NOT NULL,
    foreign_id TEXT,
    name TEXT,
    labels TEXT NOT NULL,
    kind TEXT NOT NULL,
    slack_user_id TEXT,
    slack_channel_id TEXT,
    slack_team_id TEXT,
    slack_email TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (namespace, foreign_id)
);
CREATE INDEX control_principals_order ON control_principals (namespace, created_at, row);
CREATE TABLE control_roles (
    row BIGINT PRIMARY KEY,
    namespace TEXT NOT NULL,
    foreign_id TEXT,
    name TEXT,
    labels TEXT NOT NULL,
    is_default BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (namespace, foreign_id)
);
CREATE INDEX control_roles_order ON control_roles (namespace, created_at, row);
CREATE TABLE control_assignments (
    principal BIGINT NOT NULL REFERENCES control_principals (row) ON DELETE CASCADE,
    role BIGINT NOT NULL REFERENCES control_roles (row) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (principal, role)
);
CREATE INDEX control_assignments_role ON control_assignments (role);
CREATE TABLE control_secrets (
    row BIGINT PRIMARY KEY,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    foreign_id TEXT,
    name TEXT,
    description TEXT,
    labels TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    spec TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (kind, namespace, foreign_id)
);
CREATE INDEX control_secrets_order ON control_secrets (kind, namespace, created_at, row);
CREATE TABLE control_secret_values (
    id TEXT PRIMARY KEY,
    secret BIGINT NOT NULL REFERENCES control_secrets (row) ON DELETE CASCADE,
    field TEXT NOT NULL,
    value BYTEA NOT NULL
);
CREATE INDEX control_secret_values_secret ON control_secret_values (secret);
CREATE TABLE control_grants (
    row BIGINT PRIMARY KEY,
    principal BIGINT REFERENCES control_principals (row) ON DELETE CASCADE,
    role BIGINT REFERENCES control_roles (row) ON DELETE CASCADE,
    secret BIGINT NOT NULL REFERENCES control_secrets (row) ON DELETE CASCADE,
    priority BIGINT NOT NULL,
    expires_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (principal, secret),
    UNIQUE (role, secret)
);
CREATE INDEX control_grants_secret ON control_grants (secret);
CREATE TABLE control_egress_rules (
    row BIGINT PRIMARY KEY,
    principal BIGINT REFERENCES control_principals (row) ON DELETE CASCADE,
    role BIGINT REFERENCES control_roles (row) ON DELETE CASCADE,
    rule TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX control_egress_rules_principal ON control_egress_rules (principal);
CREATE INDEX control_egress_rules_role ON control_egress_rules (role);
CREATE TABLE control_proxies (
    row BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    namespaces TEXT NOT NULL,
    labels TEXT NOT NULL,
    token_hash TEXT NOT NULL UNIQUE,
    principal BIGINT REFERENCES control_principals (row) ON DELETE SET NULL,
    assigned_at BIGINT,
    address TEXT,
    capabilities TEXT NOT NULL,
    missing TEXT NOT NULL,
    applied_epoch TEXT,
    applied_number BIGINT,
    applied_hash TEXT,
    seen_at BIGINT,
    connected_until BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX control_proxies_principal ON control_proxies (principal);
CREATE TABLE control_revoked_tokens (
    token_hash TEXT PRIMARY KEY,
    revoked_at BIGINT NOT NULL
);
CREATE TABLE control_sandboxes (
    row BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    principal BIGINT NOT NULL REFERENCES control_principals (row) ON DELETE CASCADE,
    requester BIGINT REFERENCES control_principals (row) ON DELETE CASCADE,
    token_hash TEXT NOT NULL,
    expires_at BIGINT,
    source_cidrs TEXT NOT NULL,
    transport TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX control_sandboxes_principal ON control_sandboxes (principal);
CREATE INDEX control_sandboxes_requester ON control_sandboxes (requester);
CREATE TABLE control_labels (
    resource TEXT NOT NULL,
    row BIGINT NOT NULL,
    label TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (resource, row, label)
);
CREATE TABLE control_changes (
    seq BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    resource TEXT NOT NULL,
    before TEXT,
    after TEXT,
    previous_hash TEXT NOT NULL,
    hash TEXT NOT NULL
);
";
