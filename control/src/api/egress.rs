//! Egress rules of a principal's or role's own.

use keyferry_store::{Reader, Row, Statement, StoreError, sql};
use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::error::ApiError;
use super::{principals, roles};
use crate::details::Details;
use crate::id::IdOf;
use crate::rows::write::Write;
use crate::rows::{damaged, json as column_json, moment};
use crate::secret::{Rule, judge_rules};

/// Whose rules.
#[derive(Clone, Copy)]
enum Owner {
    Principal(i64),
    Role(i64),
}

impl Owner {
    /// The route says which; the path, whose.
    async fn of(call: &Call, on: &mut impl Reader) -> Result<Self, ApiError> {
        if call.route.path.starts_with("/api/v1/principals") {
            let row = call.row("id", IdOf::Principal)?;
            principals::by_row(on, row).await?.ok_or(ApiError::NotFound)?;
            Ok(Self::Principal(row))
        } else {
            let row = call.row("id", IdOf::Role)?;
            roles::by_row(on, row).await?.ok_or(ApiError::NotFound)?;
            Ok(Self::Role(row))
        }
    }

    fn id(self) -> String {
        match self {
            Self::Principal(row) => IdOf::Principal.id(row),
            Self::Role(row) => IdOf::Role.id(row),
        }
    }

    fn condition(self, statement: Statement) -> Statement {
        match self {
            Self::Principal(row) => statement.push(" WHERE principal = ").push_bind(row),
            Self::Role(row) => statement.push(" WHERE role = ").push_bind(row),
        }
    }

    async fn affects(self, write: &mut Write) -> Result<(), StoreError> {
        match self {
            Self::Principal(row) => {
                write.affected.principals.insert(row);
                Ok(())
            }
            Self::Role(row) => write.affects_members_of(row).await,
        }
    }
}

/// More would be a policy of its own; roles hold what many share.
const MOST: i64 = 1000;

pub(crate) async fn list(call: Call) -> Result<Answer, ApiError> {
    let owner = Owner::of(&call, &mut &call.app.store).await?;
    Ok(Answer::all(rules_of(&mut &call.app.store, owner).await?))
}

pub(crate) async fn create(call: Call) -> Result<Answer, ApiError> {
    let rule = call.data()?.rest();
    let mut details = Details::default();
    let rule = serde_path_to_error::deserialize::<_, Rule>(Value::Object(rule)).map_err(|error| {
        let path = error.path().to_string();
        Details::one(if path == "." { "base" } else { &path }, "cannot be read")
    })?;
    if rule.host.iter().chain(&rule.cidr).chain(rule.paths.iter().flatten()).any(|text| text.contains('\0')) {
        details.add("base", "cannot hold a NUL character");
    }
    let warnings = judge_rules(std::slice::from_ref(&rule), &mut details);
    let mut plain = Details::default();
    for (field, messages) in details.iter() {
        let field = match field.strip_prefix("rules[0]") {
            Some("") => "base",
            Some(rest) => rest.trim_start_matches('.'),
            None => field,
        };
        messages.iter().for_each(|message| plain.add(field, message));
    }
    plain.unless(|| ())?;
    let mut write = call.write().await?;
    let owner = Owner::of(&call, &mut write.on).await?;
    let count = owner.condition(sql("SELECT COUNT(*) AS total FROM control_egress_rules"));
    if write.on.fetch_one(count).await?.get::<i64>("total")? >= MOST {
        return Err(Details::one("base", format!("at most {MOST} rules")).into());
    }
    let row = write.new_row().await?;
    let (principal, role) = match owner {
        Owner::Principal(row) => (Some(row), None),
        Owner::Role(row) => (None, Some(row)),
    };
    let insert = sql(
        "INSERT INTO control_egress_rules (row, principal, role, rule, created_at) VALUES ($1, $2, $3, $4, $5)",
    );
    let statement = insert.bind(row).bind(principal).bind(role).bind(json!(rule).to_string()).bind(write.now);
    write.on.execute(statement).await?;
    owner.affects(&mut write).await?;
    let created = by_row(&mut write.on, owner, row).await?.ok_or(ApiError::NotFound)?;
    let data = shown(&created)?;
    write.record("egress_rule.create", &owner.id(), None, Some(&data)).await?;
    call.commit(write).await?;
    Ok(Answer::created(data).warning(warnings))
}

pub(crate) async fn delete(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("rule_id", IdOf::EgressRule)?;
    let mut write = call.write().await?;
    let owner = Owner::of(&call, &mut write.on).await?;
    let found = by_row(&mut write.on, owner, row).await?.ok_or(ApiError::NotFound)?;
    owner.affects(&mut write).await?;
    write.on.execute(sql("DELETE FROM control_egress_rules WHERE row = $1").bind(row)).await?;
    write.record("egress_rule.delete", &owner.id(), Some(&shown(&found)?), None).await?;
    call.commit(write).await?;
    Ok(Answer::Nothing)
}

async fn rules_of(on: &mut impl Reader, owner: Owner) -> Result<Vec<Value>, StoreError> {
    let select = owner.condition(sql("SELECT * FROM control_egress_rules")).push(" ORDER BY row");
    on.fetch_all(select).await?.iter().map(shown).collect()
}

async fn by_row(on: &mut impl Reader, owner: Owner, row: i64) -> Result<Option<Row>, StoreError> {
    let select =
        owner.condition(sql("SELECT * FROM control_egress_rules")).push(" AND row = ").push_bind(row);
    on.fetch_optional(select).await
}

fn shown(row: &Row) -> Result<Value, StoreError> {
    let rule: Rule = column_json(row, "rule")?;
    let Value::Object(mut shown) = serde_json::to_value(rule).map_err(|error| damaged(&error))? else {
        return Err(damaged(&"a rule is no object"));
    };
    shown.insert("id".into(), json!(IdOf::EgressRule.id(row.get("row")?)));
    shown.entry("action").or_insert(json!("allow"));
    shown.insert("created_at".into(), json!(moment(row.get("created_at")?)?));
    Ok(Value::Object(shown))
}
