//! What a tool asks for: secrets of nine kinds.

/// One entry of `secrets` or `optional_secrets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declaration {
    /// The name that the tool's code uses.
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// A kind, and what it needs. A bare name is a [`Kind::Replace`] that is looked for in the usual headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `http`: put in the place of a text that the tool sends.
    Replace {
        value: String,
        hosts: Vec<String>,
        replacer: String,
        match_headers: Vec<String>,
        match_path: bool,
        match_query: bool,
    },
    /// `http` with `mode = "inject"`: set in each request.
    Inject { value: String, hosts: Vec<String>, at: InjectAt },
    /// `brokered_token`: the current token of a broker's credential, set in each request.
    BrokeredToken { credential: String, hosts: Vec<String>, header: String, formatter: String },
    /// `oauth_token`
    OauthToken {
        grant: String,
        hosts: Vec<String>,
        fields: Vec<(String, Field)>,
        scopes: Vec<String>,
        token_endpoint: String,
        token_endpoint_headers: Vec<(String, Field)>,
        audience: Option<String>,
    },
    /// `gcp_auth`
    GcpAuth { value: String, hosts: Vec<String>, scopes: Vec<String> },
    /// `gcp_id_token`
    GcpIdToken { value: String, hosts: Vec<String>, audience: String, header: Option<String> },
    /// `aws_auth`
    AwsAuth {
        hosts: Vec<String>,
        access_key_id: Field,
        secret_access_key: Field,
        session_token: Option<Field>,
        allowed_regions: Vec<String>,
        allowed_services: Vec<String>,
    },
    /// `pg_dsn`
    PgDsn { value: String, database: String, role: Option<String>, settings: Vec<Setting> },
    /// `hmac_sign`
    HmacSign {
        hosts: Vec<String>,
        credentials: Vec<(String, Field)>,
        headers: Vec<(String, String)>,
        algorithm: String,
        key_encoding: String,
        output_encoding: String,
        message: String,
        timestamp_format: String,
        allow_chunked_body: bool,
    },
}

/// Where a value is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InjectAt {
    Header { name: String, formatter: Option<String> },
    Query(String),
}

/// A value by its name in the source that the policy says, or one key of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) value: String,
    pub(crate) json_key: Option<String>,
}

/// A setting of every session of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: SettingValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SettingValue {
    Fixed(String),
    PrincipalLabel(String),
    PrincipalField(String),
    ProxyLabel(String),
}
