//! `keyferry schema`.

use keyferry_config::document;

use crate::failure::Failure;
use crate::terminal;

/// Print the JSON Schema of the configuration, for editors and pipelines
///
/// The dialect is 2020-12. An editor with a YAML language server takes it from the file's first line:
/// # yaml-language-server: $schema=keyferry.schema.json
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry schema > keyferry.schema.json")]
pub(crate) struct Schema {}

impl Schema {
    pub(crate) fn run(self) -> Result<(), Failure> {
        terminal::data(serde_json::to_string_pretty(&document::json_schema()).map_err(Failure::fatal)?)
    }
}
