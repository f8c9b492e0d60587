//! `mcp`: which tools of MCP servers may be called, and with which arguments.

use std::collections::HashSet;
use std::fmt;

use regex::Regex;
use schemars::JsonSchema;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::field::{Block, Field, List};
use super::place::At;
use super::rule::{self, Rule};

/// The `mcp` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mcp {
    /// What a refused message is answered with.
    pub error: McpError,
    /// The servers, in order; the first whose rules match decides.
    pub servers: Vec<McpServer>,
}

/// A JSON-RPC error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct McpError {
    /// Its code.
    pub code: i64,
    /// Its message.
    pub message: String,
}

impl Default for McpError {
    fn default() -> Self {
        Self { code: -32_001, message: "blocked by iron-proxy policy".to_owned() }
    }
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct McpServer {
    /// What records call it.
    pub name: String,
    /// The requests that go to it.
    pub rules: Vec<Rule>,
    /// The tools that may be called; none, if empty.
    pub tools: Vec<McpTool>,
}

/// One tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct McpTool {
    /// Its name.
    pub name: String,
    /// What its arguments must be, all of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Clause>,
}

/// What an argument must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Clause {
    /// Which argument: `labels.0`, from `params.arguments`.
    pub path: String,
    /// The condition.
    #[serde(flatten)]
    pub test: Test,
}

/// A condition on an argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Test {
    /// It is this value.
    Equals(Scalar),
    /// It is one of these.
    In(Vec<Scalar>),
    /// It is a text in which this regular expression occurs.
    Matches(String),
}

/// A value that an argument is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number or a boolean")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
        Number::from_f64(value).map(Scalar::Number).ok_or_else(|| E::custom("not a number that JSON has"))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Scalar, A::Error> {
        Err(de::Error::custom("not a text, a number or a boolean"))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Scalar, A::Error> {
        Err(de::Error::custom("not a text, a number or a boolean"))
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "mcp", deny_unknown_fields)]
pub(super) struct Keys {
    /// What a refused message is answered with.
    #[serde(rename = "error")]
    #[schemars(with = "Option<ErrorKeys>")]
    _error: Block,
    /// The servers; the first whose rules match decides.
    #[serde(rename = "servers")]
    #[schemars(with = "Option<Vec<ServerKeys>>")]
    _servers: Block,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "mcp_error", deny_unknown_fields)]
struct ErrorKeys {
    /// The JSON-RPC error's code.
    #[schemars(extend("default" = -32_001))]
    code: Field<i64>,
    /// The JSON-RPC error's message.
    message: Field<String>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "mcp_server", deny_unknown_fields)]
struct ServerKeys {
    /// What records call it; no two servers share a name.
    name: Field<String>,
    /// The requests that go to it; at least one rule.
    #[serde(rename = "rules")]
    #[schemars(with = "Option<Vec<rule::Keys>>")]
    _rules: Block,
    /// The tools that may be called; none, if empty.
    #[serde(rename = "tools")]
    #[schemars(with = "Option<Vec<ToolKeys>>")]
    _tools: Block,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "mcp_tool", deny_unknown_fields)]
struct ToolKeys {
    /// The tool's name.
    name: Field<String>,
    /// What its arguments must be, all of it.
    #[serde(rename = "when")]
    #[schemars(with = "Option<Vec<ClauseKeys>>")]
    _when: Block,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "mcp_clause", deny_unknown_fields)]
struct ClauseKeys {
    /// Which argument, such as labels.0.
    path: Field<String>,
    /// The argument is this value. One of equals, in and matches.
    equals: Field<Scalar>,
    /// The argument is one of these values.
    r#in: Field<List<Scalar>>,
    /// The argument is a text in which this regular expression occurs.
    matches: Field<String>,
}

impl Mcp {
    /// `None` where the block is absent or empty, which asks for nothing.
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        at.block::<Keys>()?;
        let error: ErrorKeys = at.key("error").decode().unwrap_or_default();
        let otherwise = McpError::default();
        let mut names = HashSet::new();
        let servers = at.key("servers").each();
        Some(Self {
            error: McpError {
                code: error.code.get().unwrap_or(otherwise.code),
                message: error.message.not_empty().get().unwrap_or(otherwise.message),
            },
            servers: servers.iter().filter_map(|at| McpServer::read(at, &mut names)).collect(),
        })
    }
}

impl McpServer {
    fn read(at: &At<'_>, names: &mut HashSet<String>) -> Option<Self> {
        let keys: ServerKeys = at.decode()?;
        let name = at.required_text(keys.name, "name", "what records call the server");
        if let Some(name) = &name {
            at.key("name").check_new(name, names, "server");
        }
        let rules = Rule::read_some(&at.key("rules"));
        let mut tools = HashSet::new();
        let tools = at.key("tools").each().iter().filter_map(|at| McpTool::read(at, &mut tools)).collect();
        Some(Self { name: name?, rules, tools })
    }
}

impl McpTool {
    fn read(at: &At<'_>, names: &mut HashSet<String>) -> Option<Self> {
        let keys: ToolKeys = at.decode()?;
        let name = at.required_text(keys.name, "name", "the tool's name");
        if let Some(name) = &name {
            at.key("name").check_new(name, names, "tool");
        }
        let when = at.key("when").each().iter().filter_map(Clause::read).collect();
        Some(Self { name: name?, when })
    }
}

impl Clause {
    fn read(at: &At<'_>) -> Option<Self> {
        let keys: ClauseKeys = at.decode()?;
        let path = at.required_text(keys.path, "path", "the argument, such as project or labels.0");
        let test = match (keys.equals, keys.r#in, keys.matches) {
            (Field::Is(value), Field::Absent, Field::Absent) => Some(Test::Equals(value)),
            (Field::Absent, Field::Is(values), Field::Absent) => Some(Test::In(values.all())),
            (Field::Absent, Field::Absent, Field::Is(pattern)) => {
                let at = at.key("matches");
                if Regex::new(&pattern).is_err() {
                    at.error(
                        format!("not a regular expression: {}", at.shown()),
                        "backreferences and lookaround are not supported",
                    );
                }
                Some(Test::Matches(pattern))
            }
            (Field::Invalid, ..) | (_, Field::Invalid, _) | (.., Field::Invalid) => None,
            _ => {
                at.error("exactly one of equals, in and matches is required", "make a clause of each");
                None
            }
        };
        Some(Self { path: path?, test: test? })
    }
}
