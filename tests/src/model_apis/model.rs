//! What a model does, whoever's it is: it runs one command with a tool that it is offered, then says what the tool told it.

use serde_json::{Map, Value, json};

/// The model behind an API.
#[derive(Clone, Debug)]
pub struct Model {
    /// What it runs.
    pub command: String,
    /// What its answer begins with.
    pub says: String,
    /// What each of its answers is said to have cost.
    pub usage: Usage,
}

/// Counted in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Of the question.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
}

/// What it says next.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// It wants this tool to be called.
    Call {
        /// The tool's name.
        tool: String,
        /// In the shape of the tool's schema; a string is a script.
        arguments: Value,
    },
    /// It answers.
    Text(String),
}

/// A tool that it is offered.
pub(super) struct Tool<'a> {
    pub(super) name: &'a str,
    pub(super) takes: Takes<'a>,
}

pub(super) enum Takes<'a> {
    /// Arguments of this JSON Schema.
    Json(&'a Value),
    /// JavaScript that calls other tools, as Codex offers it.
    Script,
}

impl Model {
    /// `result` is what the tool told, where it was called already.
    pub(super) fn step(&self, tools: &[Tool<'_>], result: Option<&str>) -> Step {
        if let Some(result) = result {
            return Step::Text(format!("{} {}", self.says, result.trim()));
        }
        let call = tools.iter().find_map(|tool| {
            let arguments = match tool.takes {
                Takes::Json(schema) => self.arguments(schema)?,
                Takes::Script => json!(self.script()),
            };
            Some(Step::Call { tool: tool.name.to_owned(), arguments })
        });
        // Clients also ask for titles and the like, and offer no tools then.
        call.unwrap_or_else(|| Step::Text(self.says.clone()))
    }

    fn script(&self) -> String {
        // The most that it may wait before it tells of a command that still runs.
        let arguments = json!({ "cmd": self.command, "yield_time_ms": 30_000 });
        format!("const ran = await tools.exec_command({arguments});\ntext(ran.output);\n")
    }

    /// As the schema wants them; none where the tool runs no commands.
    fn arguments(&self, schema: &Value) -> Option<Value> {
        let name = ["command", "cmd"].into_iter().find(|name| schema["properties"].get(name).is_some())?;
        let mut arguments = fitting(schema);
        arguments[name] = match schema["properties"][name]["type"].as_str() {
            Some("array" | "ARRAY") => json!(["sh", "-c", self.command]),
            _ => json!(self.command),
        };
        Some(arguments)
    }
}

/// The smallest value that a schema admits, as far as clients of models use schemas.
pub(super) fn fitting(schema: &Value) -> Value {
    if let Some(choice) = schema["enum"].as_array().and_then(|choices| choices.first()) {
        return choice.clone();
    }
    match schema["type"].as_str().unwrap_or_default().to_ascii_lowercase().as_str() {
        "object" => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let properties = required.map(|name| (name.to_owned(), fitting(&schema["properties"][name])));
            Value::Object(properties.collect::<Map<_, _>>())
        }
        "array" => json!([]),
        "boolean" => json!(false),
        "integer" | "number" => json!(1),
        _ => json!("as asked"),
    }
}

/// A text in pieces, as a model streams it.
pub(super) fn pieces(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    letters.chunks(12).map(|piece| piece.iter().collect()).collect()
}
