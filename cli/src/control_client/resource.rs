//! Principals, roles and secrets by the names that operators use.

use keyferry_control::IdOf;
use keyferry_control::secret::SecretKind;
use serde_json::{Value, json};

use super::{ClientError, ControlClient, path, with_query};
use crate::failure::Failure;

/// A resource as the API shows it.
#[derive(Clone, Debug)]
pub(crate) struct Resource(Value);

impl From<Value> for Resource {
    fn from(value: Value) -> Self {
        Self(value)
    }
}

impl Resource {
    pub(crate) fn id(&self) -> &str {
        self.text("id").unwrap_or_default()
    }

    /// What operators call it, or its id.
    pub(crate) fn called(&self) -> &str {
        self.text("foreign_id").unwrap_or(self.id())
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    pub(crate) fn value(&self) -> &Value {
        &self.0
    }

    pub(crate) fn into_value(self) -> Value {
        self.0
    }

    /// The secret that a grant names.
    pub(crate) fn granted(&self) -> Option<(SecretKind, &str)> {
        SecretKind::ALL.into_iter().find_map(|kind| Some((kind, self.text(&kind.grant_key())?)))
    }
}

/// Who gets something.
#[derive(Clone, Debug)]
pub(crate) enum Grantee {
    Principal(Resource),
    Role(Resource),
}

impl Grantee {
    pub(crate) fn resource(&self) -> &Resource {
        match self {
            Self::Principal(resource) | Self::Role(resource) => resource,
        }
    }

    /// The collection in the API.
    pub(crate) const fn collection(&self) -> &'static str {
        match self {
            Self::Principal(_) => "principals",
            Self::Role(_) => "roles",
        }
    }

    const fn grant_key(&self) -> &'static str {
        match self {
            Self::Principal(_) => "principal_id",
            Self::Role(_) => "role_id",
        }
    }
}

/// A secret and its kind.
#[derive(Clone, Debug)]
pub(crate) struct SecretRef {
    pub(crate) kind: SecretKind,
    pub(crate) resource: Resource,
}

/// The collection of a kind in the API.
fn collection(kind: SecretKind) -> String {
    format!("{}_secrets", kind.name())
}

/// The kind that an id names.
pub(crate) fn kind_of_id(id: &str) -> Option<SecretKind> {
    SecretKind::ALL.into_iter().find(|kind| is_id(id, kind.id_of()))
}

fn is_id(text: &str, of: IdOf) -> bool {
    text.strip_prefix(of.prefix()).is_some_and(|rest| rest.starts_with('_'))
}

impl ControlClient {
    /// By id or foreign id.
    pub(crate) async fn find_principal(&self, name: &str) -> Result<Option<Resource>, ClientError> {
        self.find_named("principals", IdOf::Principal, name).await
    }

    pub(crate) async fn find_role(&self, name: &str) -> Result<Option<Resource>, ClientError> {
        self.find_named("roles", IdOf::Role, name).await
    }

    /// The principal, or a failure that names it.
    pub(crate) async fn principal(&self, name: &str) -> Result<Resource, Failure> {
        if let Some(found) = self.find_principal(name).await? {
            return Ok(found);
        }
        let all = self.list_named("principals", &[]).await?;
        let near = all.iter().filter_map(|one| one.text("foreign_id")).find(|known| {
            // Two letters of a name may be other ones, and no more than a third of a short one.
            strsim::damerau_levenshtein(known, name) <= (name.chars().count() / 3).min(2)
        });
        let hint = match near {
            Some(near) => format!("did you mean {near:?}? `keyferry principal list` shows all of them"),
            None => "`keyferry principal add NAME` makes one".to_owned(),
        };
        let namespace = self.namespace();
        Err(Failure::fatal(format!(
            "there is no principal {name:?} in namespace {namespace:?}\nhint: {hint}"
        )))
    }

    pub(crate) async fn role(&self, name: &str) -> Result<Resource, Failure> {
        self.find_role(name).await?.ok_or_else(|| {
            Failure::fatal(format!("there is no role {name:?} in namespace {:?}", self.namespace()))
        })
    }

    async fn find_named(
        &self,
        collection: &str,
        of: IdOf,
        name: &str,
    ) -> Result<Option<Resource>, ClientError> {
        if is_id(name, of) {
            self.find(&path([collection, name])).await
        } else {
            self.find(&path([collection, "lookup", self.namespace(), name])).await
        }
    }

    /// The one secret of that name, of whatever kind.
    pub(crate) async fn secret(&self, name: &str) -> Result<SecretRef, Failure> {
        let mut found = self.secrets_called(name).await?;
        match (found.pop(), found.is_empty()) {
            (Some(secret), true) => Ok(secret),
            (None, _) => Err(Failure::fatal(format!(
                "there is no secret {name:?} in namespace {:?}\nhint: `keyferry secret list` shows those that are there",
                self.namespace()
            ))),
            (Some(last), false) => {
                found.push(last);
                let ids: Vec<_> = found.iter().map(|secret| secret.resource.id()).collect();
                Err(Failure::fatal(format!(
                    "{name:?} names {} secrets of different kinds\nhint: say which: {}",
                    ids.len(),
                    ids.join(", ")
                )))
            }
        }
    }

    async fn secrets_called(&self, name: &str) -> Result<Vec<SecretRef>, ClientError> {
        let kinds = match kind_of_id(name) {
            Some(kind) => vec![kind],
            None => SecretKind::ALL.to_vec(),
        };
        let mut found = Vec::new();
        for kind in kinds {
            let resource = self.find_secret(kind, name).await?;
            found.extend(resource.map(|resource| SecretRef { kind, resource }));
        }
        Ok(found)
    }

    /// The secret of this kind, by id or foreign id.
    pub(crate) async fn find_secret(
        &self,
        kind: SecretKind,
        name: &str,
    ) -> Result<Option<Resource>, ClientError> {
        self.find_named(&collection(kind), kind.id_of(), name).await
    }

    /// All secrets of the namespace that have these labels.
    pub(crate) async fn secrets(&self, labels: &[(String, String)]) -> Result<Vec<SecretRef>, ClientError> {
        let mut all = Vec::new();
        for kind in SecretKind::ALL {
            let listed = self.list_named(&collection(kind), labels).await?;
            all.extend(listed.into_iter().map(|resource| SecretRef { kind, resource }));
        }
        Ok(all)
    }

    /// All of a collection of the namespace that have these labels.
    pub(crate) async fn list_named(
        &self,
        collection: &str,
        labels: &[(String, String)],
    ) -> Result<Vec<Resource>, ClientError> {
        let labels: Vec<_> = labels.iter().map(|(key, value)| (format!("labels[{key}]"), value)).collect();
        let query = labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        self.list(&with_query(path([collection]), query.chain([("namespace", self.namespace())]))).await
    }

    pub(crate) async fn create_secret(
        &self,
        kind: SecretKind,
        data: Value,
    ) -> Result<super::Answer, ClientError> {
        self.post(&path([&collection(kind)]), data).await
    }

    /// Makes or replaces the secret of that foreign id.
    pub(crate) async fn put_secret(
        &self,
        kind: SecretKind,
        foreign_id: &str,
        data: Value,
    ) -> Result<super::Answer, ClientError> {
        self.put(&path([&collection(kind), foreign_id]), data).await
    }

    pub(crate) async fn delete_secret(&self, secret: &SecretRef) -> Result<(), ClientError> {
        self.delete(&path([&collection(secret.kind), secret.resource.id()])).await
    }

    pub(crate) async fn grant(
        &self,
        grantee: &Grantee,
        secret: (SecretKind, &str),
        more: &[(&str, Value)],
    ) -> Result<super::Answer, ClientError> {
        let mut data =
            json!({ grantee.grant_key(): grantee.resource().id(), secret.0.grant_key(): secret.1 });
        for (key, value) in more {
            data[*key] = value.clone();
        }
        self.post(&path(["grants"]), data).await
    }

    pub(crate) async fn grants_of(&self, grantee: &Grantee) -> Result<Vec<Resource>, ClientError> {
        self.list(&path([grantee.collection(), grantee.resource().id(), "grants"])).await
    }

    pub(crate) async fn revoke(&self, grant: &str) -> Result<(), ClientError> {
        self.delete(&path(["grants", grant])).await
    }
}
