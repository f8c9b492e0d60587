//! What one connected proxy has been told, and what it must be told next.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use keyferry_contract::sync::{
    Capability, Generation, Message, Policy, PolicyOf, Reach, SandboxIdentity, Serves, Status, Transport,
};
use keyferry_store::{Row, Statement, StoreError, sql};
use tokio::sync::watch;
use tokio::time::Instant;

use super::hub::{News, Rendered, Subject};
use crate::api::App;
use crate::effective::assigned_hash;
use crate::id::IdOf;
use crate::rows::write::Affected;
use crate::rows::{json, micros, moment};

/// The events of one connection, a state at a time.
pub(crate) struct Feed {
    app: Arc<App>,
    proxy: i64,
    capabilities: BTreeSet<Capability>,
    /// The newest state; changes when there is a newer one.
    head: watch::Receiver<u64>,
    /// What the proxy holds, as far as it is known.
    told: Told,
    over: bool,
    /// A connection that goes on from the newest state is told at once that it is the newest.
    greeted: bool,
    beat_at: Instant,
}

#[derive(Default)]
struct Told {
    /// The state that was told last; none before the first.
    generation: Option<Generation>,
    /// By their ids.
    policies: HashMap<String, ToldPolicy>,
    sandboxes: HashMap<i64, SandboxIdentity>,
}

struct ToldPolicy {
    subject: Subject,
    hash: String,
    /// When it will be another one by itself.
    ends: Option<Timestamp>,
}

impl Told {
    /// When something that was told ends.
    fn next_end(&self) -> Option<Timestamp> {
        let policies = self.policies.values().filter_map(|told| told.ends);
        policies.chain(self.sandboxes.values().filter_map(|told| told.not_after)).min()
    }
}

/// Often enough for everything between that drops silent connections.
const BEAT: Duration = Duration::from_secs(10);
const BEAT_EVENT: &[u8] = b": \n\n";
/// A proxy counts as connected for so long after its last beat.
const CONNECTED_FOR: i64 = 30_000_000;
const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// How many policies are read at once.
const CHUNK: usize = 500;

impl Feed {
    /// Begins with everything, or with what changed since `held`.
    pub(crate) fn open(
        app: Arc<App>,
        proxy: i64,
        capabilities: BTreeSet<Capability>,
        held: Option<Generation>,
    ) -> Self {
        let head = app.hub.head();
        let told = Told { generation: held, ..Told::default() };
        Self { app, proxy, capabilities, head, told, over: false, greeted: false, beat_at: Instant::now() }
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if self.over {
                return None;
            }
            // Marked before reading: what comes meanwhile is read in the next round, and what is told is never older than its number.
            let number = *self.head.borrow_and_update();
            match self.state(number).await {
                Ok(Some(events)) => {
                    self.greeted = true;
                    return Some(events);
                }
                Ok(None) if !std::mem::replace(&mut self.greeted, true) => return Some(BEAT_EVENT.to_vec()),
                Ok(None) => {}
                Err(error) => {
                    // A proxy that hears nothing keeps what it has, for as long as it may. What was about to be told was not,
                    // so it is told everything again.
                    self.told = Told::default();
                    tracing::warn!(%error, proxy = IdOf::Proxy.id(self.proxy), "a stream waits for the database");
                    tokio::time::sleep(AFTER_FAILURE).await;
                    continue;
                }
            }
            if let Some(beat) = self.wait().await {
                return Some(beat);
            }
        }
    }

    /// Until there is something new, something ends, or the connection should show life.
    async fn wait(&mut self) -> Option<Vec<u8>> {
        let until_end = self.told.next_end().map(|end| {
            let left = end.duration_since((self.app.clock)());
            Duration::try_from(left).unwrap_or(Duration::ZERO).max(Duration::from_millis(10))
        });
        let ends = tokio::time::sleep(until_end.unwrap_or(BEAT).min(BEAT));
        tokio::select! {
            changed = self.head.changed() => {
                self.over = changed.is_err();
                None
            }
            () = ends => (self.beat_at <= Instant::now()).then(|| BEAT_EVENT.to_vec()),
        }
    }

    /// The events up to the newest state; `None` where the proxy has it.
    async fn state(&mut self, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let now = (self.app.clock)();
        let select = sql("SELECT * FROM control_proxies WHERE row = $1").bind(self.proxy);
        let Some(proxy) = self.app.store.fetch_optional(select).await? else {
            self.over = true;
            return Ok(Some(event(Message::Revoked, None)));
        };
        if self.beat_at <= Instant::now() {
            self.beat_at = Instant::now() + BEAT;
            let update = sql("UPDATE control_proxies SET connected_until = $2 WHERE row = $1");
            let until = micros(now) + CONNECTED_FOR;
            self.app.store.execute(update.bind(self.proxy).bind(until)).await?;
        }
        let generation = self.app.hub.generation(number);
        let first = self.told.policies.is_empty() && self.told.sandboxes.is_empty();
        let news = match &self.told.generation {
            Some(held) if held.epoch == generation.epoch && held.number <= generation.number => {
                self.app.hub.since(held.number)
            }
            Some(_) | None => News::Everything,
        };
        let ended = self.told.next_end().is_some_and(|end| end <= now);
        if self.told.generation.as_ref() == Some(&generation)
            && !ended
            && !(first && news == News::Everything)
        {
            return Ok(None);
        }
        let shared = proxy.get::<String>("kind")? == "shared";
        let mut messages = Vec::new();
        if shared {
            self.shared(&proxy, news, now, &mut messages).await?;
        } else {
            self.dedicated(&proxy, &mut messages).await?;
        }
        self.told.generation = Some(generation.clone());
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend(event(message, None));
        }
        bytes.extend(event(Message::Commit { generation: generation.clone() }, Some(&generation)));
        Ok(Some(bytes))
    }

    /// One policy, which is all there is.
    async fn dedicated(&mut self, proxy: &Row, messages: &mut Vec<Message>) -> Result<(), StoreError> {
        let labels: String = proxy.get("labels")?;
        let assigned_at = proxy.get::<Option<i64>>("assigned_at")?.map(moment).transpose()?;
        let (id, subject, rendered) = match proxy.get::<Option<i64>>("principal")? {
            Some(principal) => {
                let proxy_labels = (labels != "{}").then_some(labels);
                let subject = Subject { principal, requester: None, proxy_labels };
                let rendered = self.app.hub.policy(&subject).await?;
                (rendered.is_some().then(|| IdOf::Principal.id(principal)), Some(subject), rendered)
            }
            None => (None, None, None),
        };
        let of = self.policy_of(id.clone().unwrap_or_default(), id, None, rendered.as_deref(), assigned_at);
        let known = self.told.policies.get(&of.id).is_some_and(|told| told.hash == of.config_hash);
        let subject = subject.unwrap_or(Subject { principal: -1, requester: None, proxy_labels: None });
        let ends = rendered.and_then(|rendered| rendered.valid_until);
        let told = ToldPolicy { subject, hash: of.config_hash.clone(), ends };
        self.told.policies = HashMap::from([(of.id.clone(), told)]);
        if known {
            return Ok(());
        }
        messages.push(Message::Begin { reach: Reach::Everything, serves: Serves::Dedicated });
        messages.push(Message::Policy(of));
        Ok(())
    }

    /// The sandboxes of some namespaces, and the policies that they have.
    async fn shared(
        &mut self,
        proxy: &Row,
        news: News,
        now: Timestamp,
        messages: &mut Vec<Message>,
    ) -> Result<(), StoreError> {
        let namespaces: Vec<String> = json(proxy, "namespaces")?;
        let own = |affected: &Affected| affected.proxies.contains(&self.proxy);
        let everything = match &news {
            News::Everything => true,
            // Which namespaces it serves may be others now.
            News::Some(affected) => own(affected),
        };
        // A connection that goes on from a state elsewhere knows what it holds; what is told here is added to that.
        let reach = if everything { Reach::Everything } else { Reach::Changes };
        messages.push(Message::Begin { reach, serves: Serves::Shared });
        if everything {
            self.told.policies.clear();
            self.told.sandboxes.clear();
        }
        let affected = match news {
            News::Some(affected) if !everything => Some(affected),
            News::Some(_) | News::Everything => None,
        };
        let rows = sandboxes(&self.app.store, &namespaces, affected.as_ref(), now).await?;
        let mut gone: BTreeSet<i64> = match &affected {
            Some(affected) => affected.sandboxes.clone(),
            None => BTreeSet::new(),
        };
        // Those that ended, whoever noticed.
        let ended =
            self.told.sandboxes.iter().filter(|(_, told)| told.not_after.is_some_and(|end| end <= now));
        gone.extend(ended.map(|(row, _)| *row));
        let mut subjects: HashMap<String, Subject> = HashMap::new();
        for row in rows {
            let number: i64 = row.get("row")?;
            let (subject, identity) = identity(&row)?;
            gone.remove(&number);
            // What a proxy cannot serve is not told to it.
            let sockets = self.capabilities.contains(&Capability::SandboxSockets);
            if identity.transport == Transport::Unix && !sockets {
                continue;
            }
            subjects.insert(identity.policy.clone(), subject);
            if self.told.sandboxes.get(&number) != Some(&identity) {
                self.told.sandboxes.insert(number, identity.clone());
                messages.push(Message::Sandbox(identity));
            }
        }
        if let Some(affected) = &affected {
            let concerned = |row: i64| affected.principals.contains(&row);
            let again = self.told.policies.iter().filter(|(_, told)| {
                concerned(told.subject.principal)
                    || told.subject.requester.is_some_and(concerned)
                    || told.ends.is_some_and(|end| end <= now)
            });
            subjects.extend(again.map(|(id, told)| (id.clone(), told.subject.clone())));
        } else {
            gone.clear();
        }
        for row in gone {
            self.told.sandboxes.remove(&row);
            messages.push(Message::SandboxGone { id: IdOf::Sandbox.id(row) });
        }
        self.policies(subjects, messages).await?;
        self.drop_unused(messages);
        Ok(())
    }

    async fn policies(
        &mut self,
        subjects: HashMap<String, Subject>,
        messages: &mut Vec<Message>,
    ) -> Result<(), StoreError> {
        let mut subjects: Vec<_> = subjects.into_iter().collect();
        subjects.sort_by(|a, b| a.0.cmp(&b.0));
        for chunk in subjects.chunks(CHUNK) {
            let wanted: Vec<_> = chunk.iter().map(|(_, subject)| subject.clone()).collect();
            let rendered = self.app.hub.policies(&wanted).await?;
            for ((id, subject), rendered) in chunk.iter().zip(rendered) {
                let Some(rendered) = rendered else {
                    self.told.policies.remove(id);
                    messages.push(Message::PolicyGone { id: id.clone() });
                    continue;
                };
                let principal = Some(IdOf::Principal.id(subject.principal));
                let requester = subject.requester.map(|row| IdOf::Principal.id(row));
                let of = self.policy_of(id.clone(), principal, requester, Some(&rendered), None);
                let told = ToldPolicy {
                    subject: subject.clone(),
                    hash: of.config_hash.clone(),
                    ends: rendered.valid_until,
                };
                let before = self.told.policies.insert(id.clone(), told);
                if before.is_none_or(|before| before.hash != of.config_hash) {
                    messages.push(Message::Policy(of));
                }
            }
        }
        Ok(())
    }

    fn drop_unused(&mut self, messages: &mut Vec<Message>) {
        let used: BTreeSet<&str> = self.told.sandboxes.values().map(|told| told.policy.as_str()).collect();
        let unused: Vec<String> =
            self.told.policies.keys().filter(|id| !used.contains(id.as_str())).cloned().collect();
        for id in unused {
            self.told.policies.remove(&id);
            messages.push(Message::PolicyGone { id });
        }
    }

    /// What is told of a policy: nothing of it where the proxy cannot enforce it.
    fn policy_of(
        &self,
        id: String,
        principal_id: Option<String>,
        requester_principal_id: Option<String>,
        rendered: Option<&Rendered>,
        assigned_at: Option<Timestamp>,
    ) -> PolicyOf {
        let (status, policy) = match rendered {
            None => (Status::Unassigned, Policy::default()),
            Some(rendered) if rendered.needs.is_subset(&self.capabilities) => {
                (Status::Assigned, rendered.policy.clone())
            }
            Some(_) => (Status::Incompatible, Policy::default()),
        };
        let content = rendered.filter(|_| status == Status::Assigned).map(|rendered| rendered.hash.as_str());
        let config_hash = assigned_hash(content, status, principal_id.as_deref(), assigned_at);
        PolicyOf { id, config_hash, status, principal_id, requester_principal_id, policy }
    }
}

/// The live sandboxes of some namespaces; of those only the ones that are concerned, where it says who is.
async fn sandboxes(
    store: &keyferry_store::Store,
    namespaces: &[String],
    affected: Option<&Affected>,
    now: Timestamp,
) -> Result<Vec<Row>, StoreError> {
    let mut select: Statement = sql(
        "SELECT s.* FROM control_sandboxes s JOIN control_principals p ON p.row = s.principal WHERE p.namespace = ANY(",
    );
    select = select.push_bind(namespaces.to_vec()).push(") AND (s.expires_at IS NULL OR s.expires_at > ");
    select = select.push_bind(micros(now)).push(")");
    if let Some(affected) = affected {
        // Whose principal changed too: a connection that goes on from an earlier one does not know which policies it holds.
        let rows: Vec<i64> = affected.sandboxes.iter().copied().collect();
        let principals: Vec<i64> = affected.principals.iter().copied().collect();
        if rows.is_empty() && principals.is_empty() {
            return Ok(Vec::new());
        }
        select = select.push(" AND (s.row = ANY(").push_bind(rows).push(") OR s.principal = ANY(");
        select = select.push_bind(principals.clone()).push(") OR s.requester = ANY(");
        select = select.push_bind(principals).push("))");
    }
    store.fetch_all(select.push(" ORDER BY s.row")).await
}

fn identity(row: &Row) -> Result<(Subject, SandboxIdentity), StoreError> {
    let (principal, requester): (i64, Option<i64>) = (row.get("principal")?, row.get("requester")?);
    let mut policy = IdOf::Principal.id(principal);
    if let Some(requester) = requester {
        policy = format!("{policy}+{}", IdOf::Principal.id(requester));
    }
    let transport = match row.get::<String>("transport")?.as_str() {
        "unix" => Transport::Unix,
        _ => Transport::Token,
    };
    let identity = SandboxIdentity {
        id: IdOf::Sandbox.id(row.get("row")?),
        policy,
        token_sha256: row.get("token_hash")?,
        not_after: row.get::<Option<i64>>("expires_at")?.map(moment).transpose()?,
        source_cidrs: json(row, "source_cidrs")?,
        transport,
    };
    Ok((Subject { principal, requester, proxy_labels: None }, identity))
}

/// One event of the wire.
fn event(message: Message, id: Option<&Generation>) -> Vec<u8> {
    let name = message.name();
    let tree = message.into_tree();
    let data = tree.reveal();
    let id = id.map(|generation| format!("id: {generation}\n")).unwrap_or_default();
    // JSON as we write it has no line breaks.
    let mut bytes = Vec::with_capacity(data.len() + 64);
    for part in ["event: ", name, "\n", &id, "data: ", &data, "\n\n"] {
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}
