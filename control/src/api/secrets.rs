//! Secrets of every kind; the route says which.

use keyferry_store::{Reader, Row, StoreError, sql};
use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::error::ApiError;
use super::upsert::{self, Named};
use crate::attributes::{Attributes, Given, Labels};
use crate::details::Details;
use crate::name::{ForeignId, Namespace};
use crate::rows::access::kind;
use crate::rows::list::{list as page_of, with_labels};
use crate::rows::write::Write;
use crate::rows::{SECRET_VALUE, json as column_json, moment, text_or_null};
use crate::secret::{SecretKind, Spec, Warning};

/// What a write says.
struct SecretWrite {
    namespace: Option<Namespace>,
    foreign_id: Option<ForeignId>,
    name: Option<String>,
    description: Option<String>,
    labels: Labels,
    enabled: bool,
    spec: Spec,
    warnings: Vec<Warning>,
}

impl SecretWrite {
    /// The body is the whole secret: what it leaves out is reset.
    fn read(kind: SecretKind, mut attributes: Attributes) -> Result<Self, Details> {
        let namespace = attributes.namespace();
        let foreign_id = attributes.foreign_id(kind.id_of());
        let name = attributes.name().value();
        let description = attributes.text("description", 4096).value();
        let labels = attributes.labels().value().unwrap_or_default();
        let enabled = match attributes.flag("enabled") {
            Given::Is(enabled) => enabled,
            Given::Not | Given::Null => true,
        };
        let rest = attributes.rest();
        match (Spec::read(kind, rest), attributes.details) {
            (Ok((spec, warnings)), details) => details.unless(|| Self {
                namespace,
                foreign_id,
                name,
                description,
                labels,
                enabled,
                spec,
                warnings,
            }),
            (Err(mut details), common) => {
                for (field, messages) in common.iter() {
                    messages.iter().for_each(|message| details.add(field, message));
                }
                Err(details)
            }
        }
    }
}

fn kind_of(call: &Call) -> SecretKind {
    call.route.secret.expect("the routes of secrets name their kind")
}

pub(crate) async fn list(call: Call) -> Result<Answer, ApiError> {
    let namespace = call.required("namespace", "namespace is required")?;
    let (labels, kind) = (call.labels()?, kind_of(&call).name());
    let filtered = |start: &'static str| {
        let statement = sql(start).push(" FROM control_secrets s WHERE s.kind = ").push_bind(kind);
        with_labels(statement.push(" AND s.namespace = ").push_bind(namespace), "secret", "s.row", &labels)
    };
    let (columns, count) = (filtered("SELECT s.*"), filtered("SELECT COUNT(*) AS total"));
    let listed =
        page_of(&mut &call.app.store, columns, count, " ORDER BY s.created_at, s.row", call.page()?).await?;
    Ok(Answer::list(&listed, shown)?)
}

pub(crate) async fn show(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", kind_of(&call).id_of())?;
    answer(&by_row(&mut &call.app.store, kind_of(&call), row).await?.ok_or(ApiError::NotFound)?)
}

pub(crate) async fn lookup(call: Call) -> Result<Answer, ApiError> {
    let (namespace, foreign_id) = (upsert::namespace_of(&call), call.part("foreign_id"));
    answer(
        &by_name(&mut &call.app.store, kind_of(&call), namespace, foreign_id)
            .await?
            .ok_or(ApiError::NotFound)?,
    )
}

pub(crate) async fn create(call: Call) -> Result<Answer, ApiError> {
    let kind = kind_of(&call);
    let secret = SecretWrite::read(kind, call.data()?)?;
    let foreign_id = secret.foreign_id.clone();
    let mut write = call.write().await?;
    if let Some(foreign_id) = &foreign_id
        && by_name(&mut write.on, kind, upsert::or_default(&secret.namespace), foreign_id.as_str())
            .await?
            .is_some()
    {
        return Err(upsert::taken());
    }
    insert(call, write, kind, secret, foreign_id).await
}

pub(crate) async fn upsert(call: Call) -> Result<Answer, ApiError> {
    let kind = kind_of(&call);
    let named = upsert::named(&call, kind.id_of())?;
    let secret = SecretWrite::read(kind, call.data()?);
    let mut write = call.write().await?;
    let (found, foreign_id) = match named {
        Named::Row(row) => {
            let row = row.ok_or(ApiError::NotFound)?;
            (Some(by_row(&mut write.on, kind, row).await?.ok_or(ApiError::NotFound)?), None)
        }
        Named::ForeignId(foreign_id) => {
            let namespace = match &secret {
                Ok(secret) => secret.namespace.clone(),
                Err(details) => return Err(details.clone().into()),
            };
            (
                by_name(&mut write.on, kind, upsert::or_default(&namespace), foreign_id.as_str()).await?,
                Some(foreign_id),
            )
        }
    };
    let secret = secret?;
    match found {
        Some(found) => {
            upsert::same_name_as(secret.namespace.as_ref(), secret.foreign_id.as_ref(), &found)?;
            update(call, write, kind, secret, &found).await
        }
        None => {
            call.if_match_absent()?;
            upsert::named_so(secret.foreign_id.as_ref(), foreign_id.as_ref())?;
            insert(call, write, kind, secret, foreign_id).await
        }
    }
}

pub(crate) async fn delete(call: Call) -> Result<Answer, ApiError> {
    let (kind, mut write) = (kind_of(&call), call.write().await?);
    let row = call.row("id", kind.id_of())?;
    let found = by_row(&mut write.on, kind, row).await?.ok_or(ApiError::NotFound)?;
    call.if_match(found.get("updated_at")?)?;
    write.affects_holders_of(row).await?;
    write.unlabel("secret", row).await?;
    write.on.execute(sql("DELETE FROM control_secrets WHERE row = $1").bind(row)).await?;
    write.record("secret.delete", &kind.id_of().id(row), Some(&shown(&found)?), None).await?;
    call.commit(write).await?;
    Ok(Answer::Nothing)
}

async fn insert(
    call: Call,
    mut write: Write,
    kind: SecretKind,
    mut secret: SecretWrite,
    foreign_id: Option<ForeignId>,
) -> Result<Answer, ApiError> {
    if kind == SecretKind::PgDsn && foreign_id.is_none() {
        return Err(Details::one("foreign_id", "can't be blank").into());
    }
    let row = write.new_row().await?;
    let values = secret.spec.take_values();
    let insert = sql(
        "INSERT INTO control_secrets (row, kind, namespace, foreign_id, name, description, labels, enabled, spec, \
         created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)",
    );
    let statement = insert
        .bind(row)
        .bind(kind.name())
        .bind(upsert::or_default(&secret.namespace))
        .bind(foreign_id.as_ref().map(ForeignId::as_str))
        .bind(secret.name)
        .bind(secret.description)
        .bind(json!(secret.labels).to_string())
        .bind(secret.enabled)
        .bind(Value::Object(secret.spec.shown()).to_string())
        .bind(write.now);
    write.on.execute(statement).await?;
    write.label("secret", row, &secret.labels).await?;
    keep_values(&call, &mut write, row, values).await?;
    let created = by_row(&mut write.on, kind, row).await?.ok_or(ApiError::NotFound)?;
    let data = shown(&created)?;
    write.record("secret.create", &kind.id_of().id(row), None, Some(&data)).await?;
    call.commit(write).await?;
    Ok(Answer::created(data).at(created.get("updated_at")?).warning(secret.warnings))
}

async fn update(
    call: Call,
    mut write: Write,
    kind: SecretKind,
    mut secret: SecretWrite,
    found: &Row,
) -> Result<Answer, ApiError> {
    let (row, before): (i64, i64) = (found.get("row")?, found.get("updated_at")?);
    call.if_match(before)?;
    unchanged_source_types(kind, found, &mut secret.spec)?;
    let values = secret.spec.take_values();
    let update = sql(
        "UPDATE control_secrets SET name = $2, description = $3, labels = $4, enabled = $5, spec = $6, updated_at = $7 \
         WHERE row = $1",
    );
    let statement = update
        .bind(row)
        .bind(secret.name)
        .bind(secret.description)
        .bind(json!(secret.labels).to_string())
        .bind(secret.enabled)
        .bind(Value::Object(secret.spec.shown()).to_string())
        .bind(write.after(before));
    write.on.execute(statement).await?;
    write.label("secret", row, &secret.labels).await?;
    write.on.execute(sql("DELETE FROM control_secret_values WHERE secret = $1").bind(row)).await?;
    keep_values(&call, &mut write, row, values).await?;
    write.affects_holders_of(row).await?;
    let updated = by_row(&mut write.on, kind, row).await?.ok_or(ApiError::NotFound)?;
    let data = shown(&updated)?;
    write.record("secret.update", &kind.id_of().id(row), Some(&shown(found)?), Some(&data)).await?;
    call.commit(write).await?;
    Ok(Answer::data(data).at(updated.get("updated_at")?).warning(secret.warnings))
}

/// A source stays of its type: whoever changes where a credential lives makes a new secret.
fn unchanged_source_types(kind: SecretKind, found: &Row, new: &mut Spec) -> Result<(), ApiError> {
    let mut old =
        Spec::stored(kind, &found.get::<String>("spec")?).map_err(|error| crate::rows::damaged(&error))?;
    let old: std::collections::HashMap<_, _> = old.source_types().into_iter().collect();
    let mut details = Details::default();
    for (field, source_type) in new.source_types() {
        if old.get(&field).is_some_and(|old| *old != source_type) {
            details.add(format!("{field}.source_type"), "is immutable");
        }
    }
    Ok(details.unless(|| ())?)
}

async fn keep_values(
    call: &Call,
    write: &mut Write,
    secret: i64,
    values: Vec<(String, secrecy::SecretString)>,
) -> Result<(), StoreError> {
    for (field, value) in values {
        let id = format!("{secret}/{field}");
        let sealed = call.app.store.seal(&SECRET_VALUE, &id, &value)?;
        let insert =
            sql("INSERT INTO control_secret_values (id, secret, field, value) VALUES ($1, $2, $3, $4)");
        write.on.execute(insert.bind(id).bind(secret).bind(field).bind(sealed)).await?;
    }
    Ok(())
}

pub(super) async fn by_row(
    on: &mut impl Reader,
    kind: SecretKind,
    row: i64,
) -> Result<Option<Row>, StoreError> {
    // The numbers of two kinds of ids may be the same; the rows never are.
    let select = sql("SELECT * FROM control_secrets WHERE row = $1 AND kind = $2");
    on.fetch_optional(select.bind(row).bind(kind.name())).await
}

async fn by_name(
    on: &mut impl Reader,
    kind: SecretKind,
    namespace: &str,
    foreign_id: &str,
) -> Result<Option<Row>, StoreError> {
    let select = sql("SELECT * FROM control_secrets WHERE kind = $1 AND namespace = $2 AND foreign_id = $3");
    on.fetch_optional(select.bind(kind.name()).bind(namespace).bind(foreign_id)).await
}

fn answer(row: &Row) -> Result<Answer, ApiError> {
    Ok(Answer::data(shown(row)?).at(row.get("updated_at")?))
}

/// A secret as answers show it: never a value.
fn shown(row: &Row) -> Result<Value, StoreError> {
    let kind = kind(row)?;
    let spec =
        Spec::stored(kind, &row.get::<String>("spec")?).map_err(|error| crate::rows::damaged(&error))?;
    let mut shown = spec.shown();
    for (key, value) in [
        ("id", json!(kind.id_of().id(row.get("row")?))),
        ("namespace", text_or_null(row, "namespace")?),
        ("foreign_id", text_or_null(row, "foreign_id")?),
        ("name", text_or_null(row, "name")?),
        ("description", text_or_null(row, "description")?),
        ("labels", column_json(row, "labels")?),
        ("enabled", json!(row.get::<bool>("enabled")?)),
        ("created_at", json!(moment(row.get("created_at")?)?)),
        ("updated_at", json!(moment(row.get("updated_at")?)?)),
    ] {
        shown.insert(key.to_owned(), value);
    }
    Ok(Value::Object(shown))
}
