//! Policies that are rendered already, and the news that some are no longer what they were.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use keyferry_contract::sync::{Capability, Generation, Policy};
use keyferry_store::{Heard, Store, StoreError};
use tokio::sync::watch;

use crate::Clock;
use crate::attributes::Labels;
use crate::effective::{Effective, Question, content_hash, effective};
use crate::rows::access;
use crate::rows::write::{Affected, Announcement, CHANNEL};

/// Whose policy is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Subject {
    /// The principal.
    pub(crate) principal: i64,
    /// The user who asks in its channel.
    pub(crate) requester: Option<i64>,
    /// The labels of the proxy, where it has any: settings of databases may name them.
    pub(crate) proxy_labels: Option<String>,
}

/// A policy as it is delivered.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) policy: Policy,
    /// Of the policy alone.
    pub(crate) hash: String,
    pub(crate) needs: BTreeSet<Capability>,
    pub(crate) valid_until: Option<Timestamp>,
    pub(crate) generation: Generation,
}

/// What happened after some state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It is not known any more: everything may be another one.
    Everything,
    /// This.
    Some(Affected),
}

/// Shared by every request and stream of this replica.
pub(crate) struct Hub {
    store: Store,
    clock: Clock,
    inner: Mutex<Inner>,
    epoch: String,
    /// The number of the newest state of which everything is known.
    head: watch::Sender<u64>,
    /// Whoever reads policies has one; which one, the first of their principals says.
    turns: [tokio::sync::Mutex<()>; READERS],
}

#[derive(Default)]
struct Inner {
    rendered: HashMap<Subject, Arc<Rendered>>,
    /// The newest changes, oldest first, without a gap.
    journal: VecDeque<Announcement>,
    /// Changes that were heard of before the one ahead of them: a replica knows its own first.
    early: BTreeMap<u64, Announcement>,
    /// The last one without a gap.
    last: u64,
    /// States up to this one are not in the journal.
    forgotten: u64,
    /// Whose access changed last when; who is not named did not, since `forgotten`.
    touched: HashMap<i64, u64>,
    /// Everybody's did.
    all_touched: u64,
}

const LONGEST_JOURNAL: usize = 4096;
const MOST_RENDERED: usize = 50_000;
const READERS: usize = 16;

impl Hub {
    /// Listens first and reads then, so that nothing falls between.
    pub(crate) async fn start(store: Store, clock: Clock) -> Result<Arc<Self>, StoreError> {
        let mut changes = store.changes(&[CHANNEL]).await?;
        let Generation { epoch, number } = access::generation(&mut &store).await?;
        let inner = Mutex::new(Inner { forgotten: number, last: number, ..Inner::default() });
        let turns = std::array::from_fn(|_| tokio::sync::Mutex::default());
        let hub = Arc::new(Self { store, clock, inner, epoch, head: watch::channel(number).0, turns });
        let listening = Arc::downgrade(&hub);
        tokio::spawn(async move {
            loop {
                let heard = changes.next().await;
                let Some(hub) = listening.upgrade() else { return };
                match heard {
                    Heard::Change(change) => match serde_json::from_str::<Announcement>(&change.payload) {
                        Ok(announcement) => hub.hear(announcement),
                        Err(_) => hub.missed().await,
                    },
                    Heard::Missed => hub.missed().await,
                }
            }
        });
        Ok(hub)
    }

    /// Follows the newest state.
    pub(crate) fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Which state has this number.
    pub(crate) fn generation(&self, number: u64) -> Generation {
        Generation { epoch: self.epoch.clone(), number }
    }

    /// A write of this replica is known here before its caller is answered.
    pub(crate) fn committed(&self, generation: &Generation, affected: &Affected) {
        self.hear(Announcement { number: generation.number, affected: affected.clone() });
    }

    fn hear(&self, announcement: Announcement) {
        let number = announcement.number;
        let mut inner = self.lock();
        // Heard twice where this replica made it.
        if number <= inner.last || inner.early.contains_key(&number) {
            return;
        }
        inner.forget_rendered(&announcement);
        inner.early.insert(number, announcement);
        while let Some(next) = inner.last.checked_add(1).and_then(|next| inner.early.remove(&next)) {
            inner.last = next.number;
            inner.journal.push_back(next);
        }
        while inner.journal.len() > LONGEST_JOURNAL {
            inner.forgotten = inner.journal.pop_front().map_or(inner.forgotten, |oldest| oldest.number);
        }
        let last = inner.last;
        drop(inner);
        self.head.send_if_modified(|head| std::mem::replace(head, last.max(*head)) < last);
    }

    /// Something was not heard: whatever is known may be wrong.
    async fn missed(&self) {
        let number = loop {
            match access::generation(&mut &self.store).await {
                Ok(generation) => break generation.number,
                Err(error) => {
                    tracing::warn!(%error, "the state of the database cannot be read");
                    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
                }
            }
        };
        {
            let mut inner = self.lock();
            inner.rendered.clear();
            inner.journal.clear();
            inner.early.retain(|early, _| *early > number);
            (inner.forgotten, inner.last, inner.all_touched) = (number, number, number);
        }
        self.head.send_modify(|head| *head = number.max(*head));
    }

    /// What happened after `number`.
    pub(crate) fn since(&self, number: u64) -> News {
        let inner = self.lock();
        if number < inner.forgotten {
            return News::Everything;
        }
        let mut news = Affected::default();
        for known in inner.journal.iter().filter(|known| known.number > number) {
            if known.affected.all {
                return News::Everything;
            }
            news.principals.extend(&known.affected.principals);
            news.sandboxes.extend(&known.affected.sandboxes);
            news.proxies.extend(&known.affected.proxies);
        }
        News::Some(news)
    }

    /// The policy of one subject; `None` where there is no such principal.
    pub(crate) async fn policy(&self, subject: &Subject) -> Result<Option<Arc<Rendered>>, StoreError> {
        let all = self.policies(std::slice::from_ref(subject)).await?;
        Ok(all.into_iter().next().flatten())
    }

    /// The policies of many, in their order; what is not ready is read at once for all.
    pub(crate) async fn policies(
        &self,
        subjects: &[Subject],
    ) -> Result<Vec<Option<Arc<Rendered>>>, StoreError> {
        let (known, wanted) = self.ready(subjects, (self.clock)());
        let Some(first) = wanted.first() else { return Ok(known) };
        // Every stream hears of a change at once: one reads what it concerns, and the others find it ready.
        let turn = first.unsigned_abs() % (READERS as u64);
        let _turn = self.turns[usize::try_from(turn).unwrap_or_default()].lock().await;
        let now = (self.clock)();
        let (known, wanted) = self.ready(subjects, now);
        if wanted.is_empty() {
            return Ok(known);
        }
        let access = access::load(&self.store, &wanted).await?;
        let mut policies = Vec::with_capacity(subjects.len());
        for (subject, known) in subjects.iter().zip(known) {
            policies.push(known.or_else(|| {
                let rendered = Arc::new(render(&access, subject, now)?);
                self.keep(subject, &rendered);
                Some(rendered)
            }));
        }
        Ok(policies)
    }

    /// What is known already, and of whom it is not.
    fn ready(&self, subjects: &[Subject], now: Timestamp) -> (Vec<Option<Arc<Rendered>>>, BTreeSet<i64>) {
        let counts = |rendered: &&Arc<Rendered>| rendered.valid_until.is_none_or(|end| end > now);
        let inner = self.lock();
        let known: Vec<_> =
            subjects.iter().map(|subject| inner.rendered.get(subject).filter(counts).cloned()).collect();
        let missing = subjects.iter().zip(&known).filter(|(_, known)| known.is_none());
        let rows = missing.flat_map(|(subject, _)| [Some(subject.principal), subject.requester]);
        let wanted = rows.flatten().collect();
        (known, wanted)
    }

    /// The whole answer, with its reasons.
    pub(crate) async fn effective(&self, subject: &Subject) -> Result<Option<Effective>, StoreError> {
        let wanted = [Some(subject.principal), subject.requester].into_iter().flatten().collect();
        let access = access::load(&self.store, &wanted).await?;
        Ok(answer(&access, subject, (self.clock)()))
    }

    fn keep(&self, subject: &Subject, rendered: &Arc<Rendered>) {
        let mut inner = self.lock();
        let touched = |row: i64| inner.touched.get(&row).copied().unwrap_or_default();
        let changed = touched(subject.principal)
            .max(subject.requester.map(touched).unwrap_or_default())
            .max(inner.all_touched);
        // It was read before a change that has been heard of since.
        if changed > rendered.generation.number {
            return;
        }
        if inner.rendered.len() >= MOST_RENDERED {
            inner.rendered.clear();
        }
        inner.rendered.insert(subject.clone(), Arc::clone(rendered));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Drops every policy that a change concerns, and remembers that what was read before it is old.
    fn forget_rendered(&mut self, announcement: &Announcement) {
        let (affected, number) = (&announcement.affected, announcement.number);
        if affected.all {
            self.rendered.clear();
            self.all_touched = self.all_touched.max(number);
        }
        if affected.principals.is_empty() {
            return;
        }
        for principal in &affected.principals {
            let touched = self.touched.entry(*principal).or_default();
            *touched = (*touched).max(number);
        }
        let concerned = |row: i64| affected.principals.contains(&row);
        self.rendered
            .retain(|subject, _| !concerned(subject.principal) && !subject.requester.is_some_and(concerned));
    }
}

fn answer(access: &access::Access, subject: &Subject, now: Timestamp) -> Option<Effective> {
    let holder = access.holders.get(&subject.principal)?;
    let requester = subject.requester.and_then(|requester| access.holders.get(&requester));
    let proxy_labels: Labels = subject
        .proxy_labels
        .as_deref()
        .and_then(|labels| serde_json::from_str(labels).ok())
        .unwrap_or_default();
    let secrets = &access.secrets;
    Some(effective(&Question { holder, requester, secrets, proxy_labels: &proxy_labels, now }))
}

fn render(access: &access::Access, subject: &Subject, now: Timestamp) -> Option<Rendered> {
    let answer = answer(access, subject, now)?;
    Some(Rendered {
        hash: content_hash(&answer.policy),
        policy: answer.policy,
        needs: answer.needs,
        valid_until: answer.valid_until,
        generation: access.generation.clone(),
    })
}
