//! Pages of rows, in the order in which they were made.

use keyferry_store::{Reader, Row, Statement, StoreError};
use serde_json::{Value, json};

/// Which page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) page: i64,
    pub(crate) limit: i64,
}

/// A page, with how many there are.
pub(crate) struct Listed {
    pub(crate) rows: Vec<Row>,
    pub(crate) meta: Value,
}

/// Reads one page: `columns`, then `from` with its conditions.
pub(crate) async fn list(
    on: &mut impl Reader,
    columns: Statement,
    count: Statement,
    order: &'static str,
    page: Page,
) -> Result<Listed, StoreError> {
    let total: i64 = on.fetch_one(count).await?.get("total")?;
    let offset = (page.page - 1).saturating_mul(page.limit);
    let statement = columns.push(order).push(" LIMIT ").push_bind(page.limit);
    let rows = on.fetch_all(statement.push(" OFFSET ").push_bind(offset)).await?;
    let pages = total.div_euclid(page.limit) + i64::from(total % page.limit != 0);
    let meta = json!({ "page": page.page, "limit": page.limit, "total": total, "total_pages": pages });
    Ok(Listed { rows, meta })
}

/// Adds `AND` conditions for labels: every pair must be there.
pub(crate) fn with_labels(
    mut statement: Statement,
    resource: &'static str,
    row: &'static str,
    labels: &[(String, String)],
) -> Statement {
    for (label, value) in labels {
        statement = statement
            .push(" AND EXISTS (SELECT 1 FROM control_labels l WHERE l.row = ")
            .push(row)
            .push(" AND l.resource = ")
            .push_bind(resource)
            .push(" AND l.label = ")
            .push_bind(label)
            .push(" AND l.value = ")
            .push_bind(value)
            .push(")");
    }
    statement
}
