//! Credentials that the machine has by itself, in either cloud.

use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::document::field::Field;
use crate::document::place::At;

/// Where a machine's own credentials come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "credentials provider", rename_all = "snake_case")]
pub enum ProviderType {
    /// The cloud's default chain: metadata service, federation, files.
    WorkloadIdentity,
}

impl ProviderType {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::WorkloadIdentity => "workload_identity",
        }
    }
}

impl Serialize for ProviderType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut block = serializer.serialize_map(Some(1))?;
        block.serialize_entry("type", self.name())?;
        block.end()
    }
}

pub(super) fn provider(kind: Field<ProviderType>, at: &At<'_>) -> Option<ProviderType> {
    if kind.is_absent() {
        at.key("type").error("required", "valid here: workload_identity");
    }
    kind.get()
}
