//! What is common to resources that operators name: an upsert by id or foreign id, and where a name leads.

use keyferry_store::Row;

use super::call::Call;
use super::error::ApiError;
use crate::details::Details;
use crate::id::IdOf;
use crate::name::ForeignId;

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

/// A name is for ever; saying it again is no fault.
pub(crate) fn same_foreign_id(given: Option<&ForeignId>, found: &Row) -> Result<(), ApiError> {
    let known: Option<String> = found.get("foreign_id")?;
    match given {
        Some(given) if known.as_deref() != Some(given.as_str()) => {
            Err(Details::one("foreign_id", "is immutable").into())
        }
        Some(_) | None => Ok(()),
    }
}
