//! A statement and its values.

use std::borrow::Cow;
use std::fmt;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Postgres, Sqlite};

use crate::Sealed;

/// SQL whose parameters `$1`, `$2`, … are bound in order.
#[must_use]
pub fn sql(text: &'static str) -> Statement {
    Statement { text: Cow::Borrowed(text), values: Vec::new() }
}

/// A statement with its values. Its text holds literals of the program only.
#[derive(Clone)]
pub struct Statement {
    text: Cow<'static, str>,
    values: Vec<Value>,
}

/// Its text alone: values are nobody's business.
impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement").field("text", &self.text).field("values", &self.values.len()).finish()
    }
}

impl Statement {
    /// The value of the next parameter.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// More text, for statements with optional parts.
    #[must_use]
    pub fn push(mut self, text: &'static str) -> Self {
        self.text.to_mut().push_str(text);
        self
    }

    /// The next parameter at the end of the text, and its value. [`Value::Texts`] and [`Value::Integers`] go behind `= ANY(`.
    #[must_use]
    pub fn push_bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        let number = self.values.len().to_string();
        let text = self.text.to_mut();
        text.push('$');
        text.push_str(&number);
        self
    }

    /// Text with names of tables and columns that were checked.
    pub(crate) fn of_identifiers(text: String) -> Self {
        Self { text: Cow::Owned(text), values: Vec::new() }
    }

    pub(crate) fn for_postgres(self) -> Query<'static, Postgres, PgArguments> {
        let mut query = sqlx::query(AssertSqlSafe(self.text));
        for value in self.values {
            query = match value {
                Value::Text(value) => query.bind(value),
                Value::Integer(value) => query.bind(value),
                Value::Boolean(value) => query.bind(value),
                Value::Float(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
                Value::Texts(values) => query.bind(values),
                Value::Integers(values) => query.bind(values),
            };
        }
        query
    }

    pub(crate) fn for_sqlite(self) -> Query<'static, Sqlite, SqliteArguments> {
        let has_list = self.values.iter().any(|value| matches!(value, Value::Texts(_) | Value::Integers(_)));
        let text = if has_list { Cow::Owned(lists_as_json(&self.text)) } else { self.text };
        let mut query = sqlx::query(AssertSqlSafe(text));
        for value in self.values {
            query = match value {
                Value::Text(value) => query.bind(value),
                Value::Integer(value) => query.bind(value),
                Value::Boolean(value) => query.bind(value),
                Value::Float(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
                Value::Texts(values) => query.bind(serde_json::Value::from(values).to_string()),
                Value::Integers(values) => query.bind(serde_json::Value::from(values).to_string()),
            };
        }
        query
    }
}

/// SQLite has no arrays, but reads a JSON array as a table: `= ANY($2)` becomes `IN (SELECT value FROM json_each($2))`.
fn lists_as_json(text: &str) -> String {
    let mut rewritten = String::with_capacity(text.len() + 32);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("= ANY($") {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        rewritten.push_str(before);
        if digits > 0 && after[digits..].starts_with(')') {
            rewritten.push_str("IN (SELECT value FROM json_each($");
            rewritten.push_str(&after[..digits]);
            rewritten.push_str("))");
            rest = &after[digits + 1..];
        } else {
            rewritten.push_str("= ANY($");
            rest = after;
        }
    }
    rewritten.push_str(rest);
    rewritten
}

/// What a parameter can be. `None` is NULL of that type.
#[derive(Clone)]
pub enum Value {
    /// `TEXT`.
    Text(Option<String>),
    /// `BIGINT`.
    Integer(Option<i64>),
    /// `BOOLEAN`.
    Boolean(Option<bool>),
    /// `DOUBLE PRECISION`.
    Float(Option<f64>),
    /// `BYTEA`.
    Bytes(Option<Vec<u8>>),
    /// A list for `= ANY($1)`.
    Texts(Vec<String>),
    /// A list for `= ANY($1)`.
    Integers(Vec<i64>),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value")
    }
}

macro_rules! values {
    ($($variant:ident: $($from:ty => $convert:expr),+;)+) => {$($(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(Some($convert(value)))
            }
        }

        impl From<Option<$from>> for Value {
            fn from(value: Option<$from>) -> Self {
                Self::$variant(value.map($convert))
            }
        }
    )+)+};
}

values! {
    Text: String => String::from, &str => String::from, &String => String::clone;
    Integer: i64 => i64::from, i32 => i64::from, u32 => i64::from;
    Boolean: bool => bool::from;
    Float: f64 => f64::from;
    Bytes: Vec<u8> => Vec::from, &[u8] => Vec::from, Sealed => Sealed::into_bytes;
}

impl From<Vec<String>> for Value {
    fn from(values: Vec<String>) -> Self {
        Self::Texts(values)
    }
}

impl From<Vec<&str>> for Value {
    fn from(values: Vec<&str>) -> Self {
        Self::Texts(values.into_iter().map(str::to_owned).collect())
    }
}

impl From<Vec<i64>> for Value {
    fn from(values: Vec<i64>) -> Self {
        Self::Integers(values)
    }
}

#[cfg(test)]
mod tests {
    use super::{Statement, lists_as_json, sql};

    #[test]
    fn a_list_is_a_table_of_json_to_sqlite() {
        assert_eq!(
            lists_as_json("SELECT id FROM t WHERE a = ANY($1) AND b = $2 AND c = ANY($13)"),
            "SELECT id FROM t WHERE a IN (SELECT value FROM json_each($1)) AND b = $2 AND c IN (SELECT value FROM json_each($13))"
        );
        assert_eq!(lists_as_json("a = ANY($) OR b = ANY($1"), "a = ANY($) OR b = ANY($1");
    }

    #[test]
    fn optional_parts_number_their_parameters() {
        let statement: Statement =
            sql("SELECT id FROM t WHERE a = $1").bind("x").push(" AND b = ").push_bind(7_i64);
        assert_eq!(
            format!("{statement:?}"),
            r#"Statement { text: "SELECT id FROM t WHERE a = $1 AND b = $2", values: 2 }"#
        );
    }
}
