//! `[tool.centaur]` of a `pyproject.toml`: the one reader of it.

use std::fs;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::node::{File, Table};
use super::{Declaration, Field, InjectAt, Kind, Setting, SettingValue, ToolError};

/// What a manifest says.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    /// Required ones first.
    pub(crate) secrets: Vec<Declaration>,
    pub(crate) warnings: Vec<String>,
}

/// Where a bare name is looked for: headers that commonly carry credentials.
const USUAL_HEADERS: [&str; 17] = [
    "Authorization",
    "Proxy-Authorization",
    "Api-Key",
    "Anthropic-Api-Key",
    "Auth-Token",
    "Jwt",
    "Cookie",
    "Apikey",
    "AccessKey",
    "Api-Access-Key",
    "Api-Signature",
    "FX-ACCESS-KEY",
    "FX-ACCESS-SIGN",
    "FX-ACCESS-PASSPHRASE",
    "X-CB-ACCESS-PASSPHRASE",
    "X-CB-ACCESS-SIGNATURE",
    "/^x-[a-z0-9-]*(api-key|apikey|secret|token|auth|key)$/",
];

/// A grant, the fields that it needs, and those that it takes.
const GRANTS: [(&str, &[&str], &[&str]); 4] = [
    ("refresh_token", &["refresh_token", "client_id"], &["client_secret"]),
    ("client_credentials", &["client_id", "client_secret"], &[]),
    ("password", &["username", "password", "client_id"], &["client_secret"]),
    ("jwt_bearer", &["issuer", "subject", "private_key"], &["private_key_id"]),
];

const GOOGLE_HOSTS: &str = "*.googleapis.com";
const GOOGLE_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// What each type is read by.
const TYPES: [&str; 9] = [
    "http",
    "header",
    "oauth_token",
    "gcp_auth",
    "gcp_id_token",
    "pg_dsn",
    "hmac_sign",
    "brokered_token",
    "aws_auth",
];

impl Manifest {
    pub(super) fn read(path: &Path) -> Result<Self, ToolError> {
        let text =
            fs::read_to_string(path).map_err(|error| ToolError::Read { path: path.to_owned(), error })?;
        Self::parse(&File { path, text: &text })
    }

    fn parse(file: &File<'_>) -> Result<Self, ToolError> {
        let root = DeTable::parse(file.text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            file.fault(offset, error.message().lines().next().unwrap_or("it is no TOML"))
        })?;
        let root = Table::new(file, "the file", &root);
        let Some(tool) = root.table("tool")? else { return Ok(Self::default()) };
        let Some(centaur) = tool.table("centaur")? else { return Ok(Self::default()) };
        let centaur = centaur.named("[tool.centaur]".to_owned());
        if centaur.text("type")?.is_some_and(|kind| kind == "persona") {
            return Err(ToolError::Persona(file.path.parent().unwrap_or(file.path).to_owned()));
        }
        let hosts = centaur.texts("hosts")?;
        let mut manifest = Self::default();
        for list in ["secrets", "optional_secrets"] {
            for entry in centaur.list(list)? {
                let (declaration, warnings) = declaration(file, entry, &hosts)?;
                if manifest.secrets.iter().any(|known| known.name == declaration.name) {
                    let name = &declaration.name;
                    return Err(file.fault(entry.span().start, format!("secret {name:?} is declared twice")));
                }
                manifest.secrets.push(declaration);
                manifest.warnings.extend(warnings);
            }
        }
        Ok(manifest)
    }
}

fn declaration<'a>(
    file: &'a File<'a>,
    entry: &'a Spanned<DeValue<'a>>,
    tool_hosts: &[String],
) -> Result<(Declaration, Vec<String>), ToolError> {
    if let DeValue::String(name) = entry.get_ref() {
        let fault = |message: String| file.fault(entry.span().start, message);
        if name.is_empty() {
            return Err(fault("a secret has no name".to_owned()));
        }
        if tool_hosts.is_empty() {
            return Err(fault(format!("secret {name:?}: [tool.centaur] names no hosts that it may go to")));
        }
        let kind = Kind::Replace {
            value: name.clone().into_owned(),
            hosts: tool_hosts.to_vec(),
            replacer: name.clone().into_owned(),
            match_headers: USUAL_HEADERS.map(str::to_owned).to_vec(),
            match_path: false,
            match_query: false,
        };
        return Ok((Declaration { name: name.clone().into_owned(), kind }, Vec::new()));
    }
    let table = Table::of(file, "a secret", entry)?;
    let name = table.required("name")?;
    let table = table.named(format!("secret {name:?}"));
    let kind = match table.text("type")?.as_deref().unwrap_or("http") {
        "http" | "header" => http(&table, &name, tool_hosts)?,
        "oauth_token" => oauth_token(&table)?,
        "gcp_auth" => gcp_auth(&table, &name)?,
        "gcp_id_token" => gcp_id_token(&table, &name)?,
        "pg_dsn" => pg_dsn(file, &table, &name)?,
        "hmac_sign" => hmac_sign(file, &table)?,
        "brokered_token" => brokered_token(&table, &name, tool_hosts)?,
        "aws_auth" => aws_auth(&table)?,
        other => {
            let message = format!("must be one of {}, not {other:?}", TYPES.join(", "));
            return Err(table.fault_at("type", &message));
        }
    };
    // What a credential of the broker is made of stood here once; it is made elsewhere now.
    let warnings = if matches!(kind, Kind::BrokeredToken { .. }) { Vec::new() } else { table.strangers() };
    Ok((Declaration { name, kind }, warnings))
}

fn http(table: &Table<'_>, name: &str, tool_hosts: &[String]) -> Result<Kind, ToolError> {
    const REPLACE: [&str; 4] = ["replacer", "match_headers", "match_path", "match_query"];
    const INJECT: [&str; 3] = ["inject_header", "inject_query_param", "inject_formatter"];
    let mode =
        if table.has("mode") { table.word("mode", &["replace", "inject"])? } else { "replace".to_owned() };
    let others: &[&'static str] = if mode == "replace" { &INJECT } else { &REPLACE };
    if let Some(key) = others.iter().copied().find(|key| table.has(key)) {
        return Err(table.fault_at(key, &format!("is not for mode {mode:?}")));
    }
    let value = value(table, name)?;
    let hosts = hosts_or(table, tool_hosts)?;
    if mode == "inject" {
        let formatter = table.text("inject_formatter")?;
        let at = match (table.text("inject_header")?, table.text("inject_query_param")?) {
            (Some(name), None) => InjectAt::Header { name, formatter },
            (None, Some(_)) if formatter.is_some() => {
                return Err(table.fault_at("inject_formatter", "is for inject_header alone"));
            }
            (None, Some(name)) => InjectAt::Query(name),
            (None, None) | (Some(_), Some(_)) => {
                return Err(table.fault("give one of inject_header and inject_query_param"));
            }
        };
        return Ok(Kind::Inject { value, hosts, at });
    }
    let match_headers = table.texts("match_headers")?;
    let (match_path, match_query) = (table.flag("match_path")?, table.flag("match_query")?);
    if match_headers.is_empty() && !match_path && !match_query {
        return Err(table.fault("say where it is looked for: match_headers, match_path or match_query"));
    }
    let replacer = table.text("replacer")?.unwrap_or_else(|| name.to_owned());
    Ok(Kind::Replace { value, hosts, replacer, match_headers, match_path, match_query })
}

fn brokered_token(table: &Table<'_>, name: &str, tool_hosts: &[String]) -> Result<Kind, ToolError> {
    Ok(Kind::BrokeredToken {
        credential: table.text("credential")?.unwrap_or_else(|| name.to_owned()),
        hosts: hosts_or(table, tool_hosts)?,
        header: table.text("inject_header")?.unwrap_or_else(|| "Authorization".to_owned()),
        formatter: table.text("inject_formatter")?.unwrap_or_else(|| "Bearer {{.Value}}".to_owned()),
    })
}

fn oauth_token(table: &Table<'_>) -> Result<Kind, ToolError> {
    let grant = table.word("grant", &GRANTS.map(|(grant, ..)| grant))?;
    let fields = fields(table, "fields")?;
    let (_, needed, taken) = GRANTS.into_iter().find(|(known, ..)| *known == grant).unwrap_or(GRANTS[0]);
    for (field, _) in &fields {
        if !needed.contains(&field.as_str()) && !taken.contains(&field.as_str()) {
            return Err(
                table.fault_at("fields", &format!("has {field:?}, which grant {grant:?} does not take"))
            );
        }
    }
    if let Some(missing) = needed.iter().find(|needed| fields.iter().all(|(field, _)| field != *needed)) {
        return Err(table.fault_at("fields", &format!("lacks {missing:?}, which grant {grant:?} needs")));
    }
    let audience = table.text("audience")?;
    match (grant.as_str(), &audience) {
        ("jwt_bearer", None) => return Err(table.fault("grant \"jwt_bearer\" needs an audience")),
        ("jwt_bearer", Some(_)) | (_, None) => {}
        (_, Some(_)) => return Err(table.fault_at("audience", "is for grant \"jwt_bearer\" alone")),
    }
    Ok(Kind::OauthToken {
        grant,
        hosts: own_hosts(table)?,
        fields,
        scopes: table.texts("scopes")?,
        token_endpoint: table.required("token_endpoint")?,
        token_endpoint_headers: fields_or_none(table, "token_endpoint_headers")?,
        audience,
    })
}

fn gcp_auth(table: &Table<'_>, name: &str) -> Result<Kind, ToolError> {
    let or = |texts: Vec<String>, default: &str| {
        if texts.is_empty() { vec![default.to_owned()] } else { texts }
    };
    Ok(Kind::GcpAuth {
        value: value(table, name)?,
        hosts: or(table.texts("hosts")?, GOOGLE_HOSTS),
        scopes: or(table.texts("scopes")?, GOOGLE_SCOPE),
    })
}

fn gcp_id_token(table: &Table<'_>, name: &str) -> Result<Kind, ToolError> {
    let header = table.text("header")?.map(|header| header.to_ascii_lowercase());
    if header.as_deref().is_some_and(|it| it != "authorization" && it != "x-serverless-authorization") {
        return Err(table.fault_at("header", "must be authorization or x-serverless-authorization"));
    }
    Ok(Kind::GcpIdToken {
        value: value(table, name)?,
        hosts: own_hosts(table)?,
        audience: table.required("audience")?,
        header,
    })
}

fn aws_auth(table: &Table<'_>) -> Result<Kind, ToolError> {
    let needed =
        |key: &'static str| field(table, key)?.ok_or_else(|| table.fault(&format!("{key} is missing")));
    Ok(Kind::AwsAuth {
        hosts: own_hosts(table)?,
        access_key_id: needed("access_key_id")?,
        secret_access_key: needed("secret_access_key")?,
        session_token: field(table, "session_token")?,
        allowed_regions: table.texts("allowed_regions")?,
        allowed_services: table.texts("allowed_services")?,
    })
}

fn pg_dsn<'a>(file: &'a File<'a>, table: &Table<'a>, name: &str) -> Result<Kind, ToolError> {
    let settings =
        table.list("settings")?.iter().map(|entry| setting(file, entry)).collect::<Result<_, _>>()?;
    Ok(Kind::PgDsn {
        value: value(table, name)?,
        database: table.required("database")?,
        role: table.text("role")?,
        settings,
    })
}

fn setting<'a>(file: &'a File<'a>, entry: &'a Spanned<DeValue<'a>>) -> Result<Setting, ToolError> {
    let table = Table::of(file, "a setting", entry)?;
    let name = table.required("name")?;
    let table = table.named(format!("setting {name:?}"));
    // An empty value is a value here.
    let fixed = match table.value("value").map(Spanned::get_ref) {
        None => None,
        Some(DeValue::String(text)) => Some(SettingValue::Fixed(text.clone().into_owned())),
        Some(_) => return Err(table.fault_at("value", "must be a text")),
    };
    let mut from = Vec::new();
    if let Some(source) = table.table("value_from")? {
        from.extend(source.text("principal_label")?.map(SettingValue::PrincipalLabel));
        from.extend(source.text("principal_field")?.map(SettingValue::PrincipalField));
        from.extend(source.text("proxy_label")?.map(SettingValue::ProxyLabel));
        if from.len() != 1 {
            return Err(source.fault("give one of principal_label, principal_field and proxy_label"));
        }
    }
    match (fixed, from.pop()) {
        (Some(value), None) | (None, Some(value)) => Ok(Setting { name, value }),
        (None, None) | (Some(_), Some(_)) => Err(table.fault("give one of value and value_from")),
    }
}

fn hmac_sign<'a>(file: &'a File<'a>, table: &Table<'a>) -> Result<Kind, ToolError> {
    let credentials = fields(table, "credentials")?;
    if credentials.iter().all(|(name, _)| name != "secret") {
        return Err(table.fault_at("credentials", "lacks \"secret\", the key that signs"));
    }
    let mut headers = Vec::new();
    for entry in table.list("headers")? {
        let header = Table::of(file, "a header", entry)?;
        headers.push((header.required("name")?, header.required("value")?));
    }
    if headers.is_empty() {
        return Err(table.fault("headers is missing"));
    }
    Ok(Kind::HmacSign {
        hosts: own_hosts(table)?,
        credentials,
        headers,
        algorithm: table.word("algorithm", &["sha256", "sha512", "sha1"])?,
        key_encoding: table.word("key_encoding", &["raw", "base64", "hex"])?,
        output_encoding: table.word("output_encoding", &["base64", "hex"])?,
        message: table.required("message")?,
        timestamp_format: table
            .word("timestamp_format", &["unix_seconds", "unix_millis", "unix_nanos", "rfc3339"])?,
        allow_chunked_body: table.flag("allow_chunked_body")?,
    })
}

/// The name of the value, which is the secret's own unless it says otherwise.
fn value(table: &Table<'_>, name: &str) -> Result<String, ToolError> {
    Ok(table.text("secret_ref")?.unwrap_or_else(|| name.to_owned()))
}

fn own_hosts(table: &Table<'_>) -> Result<Vec<String>, ToolError> {
    hosts_or(table, &[])
}

/// A secret that may go anywhere is none.
fn hosts_or(table: &Table<'_>, tool_hosts: &[String]) -> Result<Vec<String>, ToolError> {
    let hosts = table.texts("hosts")?;
    match (hosts.is_empty(), table.has("hosts"), tool_hosts.is_empty()) {
        (false, _, _) => Ok(hosts),
        (true, true, _) => Err(table.fault_at("hosts", "must name at least one host")),
        (true, false, false) => Ok(tool_hosts.to_vec()),
        (true, false, true) => Err(table.fault("hosts is missing: where may it go?")),
    }
}

fn fields(table: &Table<'_>, key: &'static str) -> Result<Vec<(String, Field)>, ToolError> {
    let fields = fields_or_none(table, key)?;
    if fields.is_empty() { Err(table.fault(&format!("{key} is missing"))) } else { Ok(fields) }
}

fn fields_or_none(table: &Table<'_>, key: &'static str) -> Result<Vec<(String, Field)>, ToolError> {
    let Some(fields) = table.table(key)? else { return Ok(Vec::new()) };
    let read = |(name, value): (&str, &Spanned<DeValue<'_>>)| match one_field(value.get_ref()) {
        Some(field) => Ok((name.to_owned(), field)),
        None => Err(fields.fault_at(name, "must be a text or { secret_ref, json_key }")),
    };
    fields.entries().into_iter().map(read).collect()
}

fn field(table: &Table<'_>, key: &'static str) -> Result<Option<Field>, ToolError> {
    let Some(value) = table.value(key) else { return Ok(None) };
    let field = one_field(value.get_ref());
    field.map(Some).ok_or_else(|| table.fault_at(key, "must be a text or { secret_ref, json_key }"))
}

fn one_field(value: &DeValue<'_>) -> Option<Field> {
    let text = |value: &DeValue<'_>| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    match value {
        DeValue::Table(table) => {
            let known = table.keys().all(|key| matches!(key.get_ref().as_ref(), "secret_ref" | "json_key"));
            let json_key = match table.get("json_key") {
                Some(key) => Some(text(key.get_ref())?),
                None => None,
            };
            known.then_some(())?;
            Some(Field { value: text(table.get("secret_ref")?.get_ref())?, json_key })
        }
        other => text(other).map(|value| Field { value, json_key: None }),
    }
}
