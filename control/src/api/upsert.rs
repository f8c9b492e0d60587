//! What is common to resources that operators name: an upsert by id or foreign id, and where a name leads.

use keyferry_store::Row;

use super::call::Call;
use super::error::ApiError;
use crate::details::Details;
use crate::id::IdOf;
use crate::name::{ForeignId, Namespace};

/// What the path of an upsert names.
pub(crate) enum Named {
    /// A resource by its id; `None` for an id that names nothing.
    Row(Option<i64>),
    /// A resource that may not be there yet.
    ForeignId(ForeignId),
}

/// Whatever begins as an id is an id, and never creates anything.
pub(crate) fn named(call: &Call, of: IdOf) -> Result<Named, ApiError> {
    let text = call.part("id");
    if of.is_claimed_by(text) {
        return Ok(Named::Row(of.row(text)));
    }
    match ForeignId::parse(text, of) {
        Ok(foreign_id) => Ok(Named::ForeignId(foreign_id)),
        Err(message) => Err(Details::one("foreign_id", message).into()),
    }
}

/// The namespace of a lookup; the short form leaves it out.
pub(crate) fn namespace_of(call: &Call) -> &str {
    match call.part("namespace") {
        "" => "default",
        namespace => namespace,
    }
}

/// A name that somebody else has.
pub(crate) fn taken() -> ApiError {
    Details::one("foreign_id", "has already been taken").into()
}

/// The namespace of a write.
pub(crate) fn or_default(given: &Option<Namespace>) -> &str {
    given.as_ref().map_or("default", Namespace::as_str)
}

/// A name is for ever; saying it again is no fault.
pub(crate) fn same_name(
    namespace: Option<&Namespace>,
    foreign_id: Option<&ForeignId>,
    (known_namespace, known_foreign_id): (&str, Option<&str>),
) -> Result<(), Details> {
    let mut details = Details::default();
    if namespace.is_some_and(|given| given.as_str() != known_namespace) {
        details.add("namespace", "is immutable");
    }
    if foreign_id.is_some_and(|given| Some(given.as_str()) != known_foreign_id) {
        details.add("foreign_id", "is immutable");
    }
    details.unless(|| ())
}

/// The same, of a row.
pub(crate) fn same_name_as(
    namespace: Option<&Namespace>,
    foreign_id: Option<&ForeignId>,
    found: &Row,
) -> Result<(), ApiError> {
    let (known, known_foreign_id): (String, Option<String>) =
        (found.get("namespace")?, found.get("foreign_id")?);
    Ok(same_name(namespace, foreign_id, (&known, known_foreign_id.as_deref()))?)
}

/// What is made by its name has that name.
pub(crate) fn named_so(given: Option<&ForeignId>, path: Option<&ForeignId>) -> Result<(), Details> {
    match given {
        Some(given) if path != Some(given) => {
            Err(Details::one("foreign_id", "is another one than in the path"))
        }
        Some(_) | None => Ok(()),
    }
}
