//! The change log: who did what. Nothing changes it and nothing leaves it.

use keyferry_store::sql;
use serde_json::json;

use super::call::{Answer, Call};
use super::error::ApiError;
use crate::rows::changes::{self, shown};
use crate::rows::list::list as page_of;

pub(crate) async fn list(call: Call) -> Result<Answer, ApiError> {
    let filtered = |start: &'static str| {
        let mut statement = sql(start).push(" FROM control_changes WHERE seq > 0");
        for (parameter, condition) in
            [("resource", " AND resource = "), ("actor", " AND actor = "), ("action", " AND action = ")]
        {
            if let Some(value) = call.parameter(parameter) {
                statement = statement.push(condition).push_bind(value);
            }
        }
        statement
    };
    let (columns, count) = (filtered("SELECT *"), filtered("SELECT COUNT(*) AS total"));
    let listed = page_of(&mut &call.app.store, columns, count, " ORDER BY seq", call.page()?).await?;
    Ok(Answer::list(&listed, shown)?)
}

/// Whether the log is as it was written (T87).
pub(crate) async fn verify(call: Call) -> Result<Answer, ApiError> {
    Ok(Answer::data(json!(changes::verify(&call.app.store, call.parameter("noted")).await?)))
}
