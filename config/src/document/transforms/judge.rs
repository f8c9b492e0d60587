//! The `config` of a `judge`: a language model that allows or denies.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::document::duration::{self, Nanoseconds};
use crate::document::field::{Block, Field, text};
use crate::document::place::At;
use crate::document::rule::{self, Rule};
use crate::document::url::{ServiceUrl, Use};

/// The `config` of a `judge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judge {
    /// What records call it.
    pub name: String,
    /// What the model is told.
    pub prompt: String,
    /// The requests that it judges.
    pub rules: Vec<Rule>,
    /// The model.
    pub provider: JudgeProvider,
    /// What happens where it gives no answer.
    pub fallback: JudgeFallback,
    /// How long it may take.
    #[serde(serialize_with = "duration::write")]
    pub timeout: Duration,
    /// How many requests it judges at once; the others wait.
    pub max_concurrent: u32,
    /// When it is no longer asked.
    pub circuit_breaker: CircuitBreaker,
}

/// The model that judges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JudgeProvider {
    /// Whose API it has.
    #[serde(rename = "type")]
    pub kind: ProviderKind,
    /// Which model.
    pub model: String,
    /// The environment variable with the key. Only its name is here.
    pub api_key_env: String,
    /// Where the API is; the vendor's own place, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<ServiceUrl>,
    /// How long an answer may be.
    pub max_tokens: u32,
}

/// An API that a model is asked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename = "provider", rename_all = "lowercase")]
pub enum ProviderKind {
    /// Anthropic's.
    Anthropic,
    /// OpenAI's.
    Openai,
}

/// What happens to a request that was not judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename = "fallback", rename_all = "lowercase")]
pub enum JudgeFallback {
    /// It is refused.
    #[default]
    Deny,
    /// It goes on.
    Skip,
}

/// When a model that fails is no longer asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CircuitBreaker {
    /// After so many failures in a row.
    pub consecutive_failures: u32,
    /// For so long.
    #[serde(serialize_with = "duration::write")]
    pub cooldown: Duration,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { consecutive_failures: 5, cooldown: Duration::from_secs(10) }
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "judge", deny_unknown_fields)]
pub(super) struct Keys {
    /// What records call it.
    name: Field<String>,
    /// What the model is told.
    prompt: Field<String>,
    /// The requests that it judges; at least one rule.
    #[serde(rename = "rules")]
    #[schemars(with = "Option<Vec<rule::Keys>>")]
    _rules: Block,
    /// The model.
    #[serde(rename = "provider")]
    #[schemars(with = "Option<ProviderKeys>")]
    _provider: Block,
    /// What happens to a request that was not judged.
    #[schemars(extend("default" = "deny"))]
    fallback: Field<JudgeFallback>,
    /// How long an answer may take.
    #[serde(deserialize_with = "text")]
    #[schemars(extend("default" = "8s"))]
    timeout: Field<Nanoseconds>,
    /// How many requests are judged at once.
    #[schemars(extend("default" = 100))]
    max_concurrent: Field<u32>,
    /// When the model is no longer asked.
    #[serde(rename = "circuit_breaker")]
    #[schemars(with = "Option<BreakerKeys>")]
    _circuit_breaker: Block,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "judge_provider", deny_unknown_fields)]
struct ProviderKeys {
    /// Whose API it has.
    #[serde(rename = "type")]
    kind: Field<ProviderKind>,
    /// Which model.
    model: Field<String>,
    /// The environment variable with the key.
    api_key_env: Field<String>,
    /// Where the API is.
    base_url: Field<String>,
    /// How long an answer may be.
    #[schemars(extend("default" = 256))]
    max_tokens: Field<u32>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "judge_circuit_breaker", deny_unknown_fields)]
struct BreakerKeys {
    /// After so many failures in a row.
    #[schemars(extend("default" = 5))]
    consecutive_failures: Field<u32>,
    /// For so long.
    #[serde(deserialize_with = "text")]
    #[schemars(extend("default" = "10s"))]
    cooldown: Field<Nanoseconds>,
}

impl Judge {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let keys: Keys = at.decode()?;
        let name = at.required_text(keys.name, "name", "what records call it");
        let prompt = at.required_text(keys.prompt, "prompt", "what the model is told");
        let rules = Rule::read_some(&at.key("rules"));
        let provider = JudgeProvider::read(&at.key("provider"));
        let timeout = duration::at_least(keys.timeout.map(|time| time.0), &at.key("timeout"), 0);
        let circuit_breaker = CircuitBreaker::read(&at.key("circuit_breaker"));
        Some(Self {
            name: name?,
            prompt: prompt?,
            rules,
            provider: provider?,
            fallback: keys.fallback.get().unwrap_or_default(),
            timeout: timeout.filter(|time| !time.is_zero()).unwrap_or(Duration::from_secs(8)),
            max_concurrent: keys.max_concurrent.get().filter(|count| *count != 0).unwrap_or(100),
            circuit_breaker,
        })
    }
}

impl JudgeProvider {
    fn read(at: &At<'_>) -> Option<Self> {
        let keys: ProviderKeys = at.decode()?;
        if keys.kind.is_absent() {
            at.key("type").error("required", "valid here: anthropic, openai");
        }
        let model = at.required_text(keys.model, "model", "the vendor's name for the model");
        let api_key_env =
            at.required_text(keys.api_key_env, "api_key_env", "the environment variable with the key");
        if let Some(name) = &api_key_env {
            at.key("api_key_env").check_variable_name(name);
        }
        let base_url = ServiceUrl::read(keys.base_url, &at.key("base_url"), Use::Service);
        Some(Self {
            kind: keys.kind.get()?,
            model: model?,
            api_key_env: api_key_env?,
            base_url: base_url.get(),
            max_tokens: keys.max_tokens.get().filter(|count| *count != 0).unwrap_or(256),
        })
    }
}

impl CircuitBreaker {
    fn read(at: &At<'_>) -> Self {
        let keys: BreakerKeys = at.decode().unwrap_or_default();
        let otherwise = Self::default();
        let cooldown = duration::at_least(keys.cooldown.map(|time| time.0), &at.key("cooldown"), 0);
        let failures = keys.consecutive_failures.get().filter(|count| *count != 0);
        Self {
            consecutive_failures: failures.unwrap_or(otherwise.consecutive_failures),
            cooldown: cooldown.filter(|time| !time.is_zero()).unwrap_or(otherwise.cooldown),
        }
    }
}
