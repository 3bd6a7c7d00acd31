//! Subscriptions that all nodes share: whatever happens to one is judged by whichever node it comes to, on a copy, and counts if
//! nobody was faster.
//!
//! ```text
//!  asked ─────────────┐
//!  due ──taken by one─┼─► load: record and streams, at one moment ─► judged ─► commit, if the version is still that ─► answer,
//!  webhook answered ──┘      ▲                                                   │ conflict                              webhook
//!                            └───────────────────────────────────────────────────┘
//! ```
//!
//! - **Redis knows when to look** (`sedge:wakes`): what appends to a stream, makes it or ends it calls for the subscriptions that
//!   have it in the same step, and a commit that lays one to rest looks at its streams in the same step. So work never lies
//!   there unnoticed, whatever message is lost and whichever node dies; pub/sub only makes it quick.
//! - **Who takes one that is due** has [`LOOK_MS`] to look at it; then it is due again.
//! - **A webhook** is sent by the node whose commit has won, once it has. Should that die, the lease that runs since then ends, and
//!   another node wakes anew. Until it ends, what the receiver has said is told again when Redis was away.
//!
//! What is asked runs to its end on the link's runtime, though whoever has asked may have left: a webhook that is written down is
//! sent.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::Value;
use tokio::sync::Notify;

use super::Unavailable;
use super::link::pause;
use super::meta::{garbled, number, pack, text};
use super::remote::{Remote, keeps};
use super::scripts::{self, Call};
use crate::streams::holding::Holding;
use crate::streams::model::kind::Kind;
use crate::streams::model::offset::Offset;
use crate::streams::registry::guard;
use crate::subscriptions::{
    Change, Delivered, Errand, Extent, Glob, Judged, Keys, Question, Refusal, Reply, SECRET_BYTES,
    STREAMS_MAX, SUBSCRIPTIONS_MAX, Secret, Snapshot, Step,
};

/// How long whoever has taken a subscription has to look at it, in milliseconds.
const LOOK_MS: u64 = 5000;

/// One that has something to do and cannot do it is looked at again after this long, in milliseconds.
const IN_VAIN_MS: u64 = 1000;

/// Something that is due sooner is not left to those who look from time to time. In milliseconds.
const SOON_MS: u64 = 1000;

/// How often something is judged, if each time somebody else was faster.
const ATTEMPTS: u64 = 24;

/// The longest pause before it is judged again, in milliseconds, for each time that it was.
const ATTEMPT_MS: u64 = 4;

/// Keys of Redis that are looked at in one step while streams are sought.
const SCAN_KEYS: usize = 1000;

/// Streams of a pattern that are linked in one step: Redis does nothing else meanwhile.
const FILL_STREAMS: usize = 512;

/// What this node has to do for subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    bell: Notify,
    errands: Mutex<VecDeque<(Errand, Holding)>>,
    /// How many subscriptions there are, and how often one that was full has missed a stream.
    totals: [AtomicU64; 2],
    /// Which life of the store they belong to.
    keys: Mutex<Option<(u64, Arc<Keys>)>>,
}

impl Wakes {
    /// There may be something to look at.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }
}

impl Remote {
    /// Answers what is asked of a subscription with the key called `key`.
    ///
    /// # Errors
    /// If Redis cannot be asked.
    pub(crate) async fn answer_for(
        self: &Arc<Self>,
        id: String,
        question: Question,
        key: Option<Box<str>>,
    ) -> Result<Result<Reply, Refusal>, Unavailable> {
        let me = Arc::clone(self);
        self.run(async move {
            match question {
                Question::Delete => {
                    let forget = Call::of(&scripts::FORGET).text(&*id).text(key.as_deref());
                    match text(me.link.call(forget).await?.first()) {
                        "foreign" => Ok(Err(Refusal::of_another_key())),
                        _ => Ok(Ok(Reply { status: 204, body: Vec::new() })),
                    }
                }
                Question::Put { .. } => me.make(&id, question, key).await,
                question => {
                    let names = question.names(&id);
                    let judged = me.step(&id, &Step::Asked(question, key), &names).await?;
                    Ok(judged.map_or_else(|| Err(Refusal::not_found()), |judged| judged.answer))
                }
            }
        })
        .await
    }

    /// Notes what came of a webhook.
    ///
    /// # Errors
    /// If Redis cannot be asked.
    pub(crate) async fn delivered(
        self: &Arc<Self>,
        errand: Errand,
        outcome: Delivered,
    ) -> Result<(), Unavailable> {
        let me = Arc::clone(self);
        let id = Arc::clone(&errand.delivery.id);
        self.run(async move { me.step(&id, &Step::Delivered(errand, outcome), &[]).await.map(drop) }).await
    }

    /// Looks at subscriptions that are due, at so many at most. Says in how many milliseconds the next one is.
    ///
    /// # Errors
    /// If Redis cannot be asked.
    pub(crate) async fn look_at_due(self: &Arc<Self>, at_most: usize) -> Result<Option<u64>, Unavailable> {
        let me = Arc::clone(self);
        self.run(async move {
            let due = Call::of(&scripts::DUE).number(at_most as u64).number(LOOK_MS);
            let answer = me.link.call(due).await?;
            for (total, place) in me.wakes.totals.iter().zip([2, 3]) {
                total.store(number(answer.get(place))?, Ordering::Relaxed);
            }
            let Some(Value::Array(taken)) = answer.get(4) else { return Err(garbled("what is due")) };
            let looks: Vec<_> = taken
                .iter()
                .map(|id| {
                    let (me, id) = (Arc::clone(&me), text(Some(id)).to_owned());
                    // Whatever hinders it, somebody looks again.
                    me.link.runtime().clone().spawn(async move { drop(me.look_at(&id).await) })
                })
                .collect();
            for look in looks {
                let _ = look.await;
            }
            Ok(number(answer.get(1)).ok())
        })
        .await
    }

    /// Until there may be something to do for subscriptions. For one task.
    pub(crate) async fn called(&self) {
        self.wakes.bell.notified().await;
    }

    /// A webhook that this node has to send, and the memory that it takes until then.
    pub(crate) fn next_errand(&self) -> Option<(Errand, Holding)> {
        guard(&self.wakes.errands).pop_front()
    }

    /// How many subscriptions there are, as far as is known here, and how often one that was full has missed a stream.
    pub(crate) fn subscriptions(&self) -> [u64; 2] {
        self.wakes.totals.each_ref().map(|total| total.load(Ordering::Relaxed))
    }

    /// The keys that all nodes have.
    ///
    /// # Errors
    /// If they are not known here and Redis cannot be asked.
    pub(crate) async fn keys(self: &Arc<Self>) -> Result<Arc<Keys>, Unavailable> {
        if let Some(keys) = self.known_keys() {
            return Ok(keys);
        }
        let me = Arc::clone(self);
        self.run(async move { me.fetch_keys().await }).await
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.streams().map_or(0, |streams| streams.epoch.load(Ordering::Acquire))
    }

    fn known_keys(&self) -> Option<Arc<Keys>> {
        let epoch = self.epoch();
        let keys = guard(&self.wakes.keys);
        keys.as_ref().filter(|(of, _)| *of == epoch).map(|(_, keys)| Arc::clone(keys))
    }

    async fn fetch_keys(&self) -> Result<Arc<Keys>, Unavailable> {
        if let Some(keys) = self.known_keys() {
            return Ok(keys);
        }
        let epoch = self.epoch();
        let mine = Secret::random().map_err(|_| {
            Unavailable::refused("the system gives no random bytes for the key that signs webhooks")
        })?;
        let answer = self.link.call(Call::of(&scripts::SECRET).bytes(mine.as_bytes())).await?;
        let secret: Option<[u8; SECRET_BYTES]> = match answer.get(1) {
            Some(Value::BulkString(bytes)) => bytes[..].try_into().ok(),
            _ => None,
        };
        let secret =
            secret.ok_or_else(|| garbled("the key sedge:secret holds something that is not ours"))?;
        let keys = Arc::new(Keys::new(&Secret::from_bytes(secret)));
        *guard(&self.wakes.keys) = Some((epoch, Arc::clone(&keys)));
        Ok(keys)
    }

    /// Makes a subscription. That it is there is written down before its pattern's streams are sought: those that are made
    /// meanwhile are linked by whoever makes them. Should this node die in between, whoever looks at it seeks them.
    async fn make(
        self: &Arc<Self>,
        id: &str,
        question: Question,
        key: Option<Box<str>>,
    ) -> Result<Result<Reply, Refusal>, Unavailable> {
        let names = question.names(id);
        let asked = Step::Asked(question, key);
        let Some(judged) = self.step(id, &asked, &names).await? else {
            return Ok(Err(Refusal::not_found()));
        };
        let (Ok(made), Some(glob)) = (&judged.answer, judged.unfilled) else { return Ok(judged.answer) };
        let is_new = made.status == 201;
        let filled = self.fill(id, &glob).await?;
        if is_new && filled.is_err() {
            self.link.call(Call::of(&scripts::FORGET).text(id).text(asked.key())).await?;
        }
        Ok(filled.map(|shown| Reply { status: made.status, ..shown }))
    }

    /// Finds the streams of a pattern.
    async fn fill(self: &Arc<Self>, id: &str, glob: &Glob) -> Result<Result<Reply, Refusal>, Unavailable> {
        let mut found = HashSet::new();
        let mut cursor = 0;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg("sedge:s:*").arg("COUNT").arg(SCAN_KEYS);
            let Value::Array(answer) = self.link.command(&scan).await? else { return Err(garbled("a scan")) };
            let Some(Value::Array(keys)) = answer.get(1) else { return Err(garbled("a scan")) };
            for key in keys {
                if let Some(name) = text(Some(key)).strip_prefix("sedge:s:")
                    && glob.matches(name)
                {
                    found.insert(name.to_owned());
                }
            }
            cursor = number(answer.first())?;
            // One more than there may be is enough to be told.
            if cursor == 0 || found.len() > STREAMS_MAX {
                break;
            }
        }
        let found: Vec<_> = found.into_iter().collect();
        let (last, parts) = match found.chunks(FILL_STREAMS).collect::<Vec<_>>().split_last() {
            Some((last, parts)) => (last.to_vec(), parts.to_vec()),
            None => (Vec::new(), Vec::new()),
        };
        let of = |judged: Option<Judged>| judged.map_or_else(|| Err(Refusal::not_found()), |it| it.answer);
        for part in parts {
            let filled = of(self.step(id, &Step::Fill { last: false }, part).await?);
            if filled.is_err() {
                return Ok(filled);
            }
        }
        Ok(of(self.step(id, &Step::Fill { last: true }, &last).await?))
    }

    async fn look_at(self: &Arc<Self>, id: &str) -> Result<(), Unavailable> {
        if let Some(Judged { unfilled: Some(glob), .. }) = self.step(id, &Step::Look, &[]).await? {
            let _ = self.fill(id, &glob).await?;
        }
        Ok(())
    }

    /// One step of a subscription; none, if it was looked at and rests.
    async fn step(
        self: &Arc<Self>,
        id: &str,
        step: &Step,
        names: &[String],
    ) -> Result<Option<Judged>, Unavailable> {
        let keys = self.fetch_keys().await?;
        for attempt in 0..ATTEMPTS {
            if attempt > 1 {
                pause(Duration::from_millis(1 + self.number() % (ATTEMPT_MS * attempt))).await;
            }
            let Some(snapshot) = self.load(id, step, names).await? else {
                return Ok(None);
            };
            let judged = step.judge(id, snapshot, &keys, &mut guard(&self.ids));
            let mut judged = judged.map_err(|bad| {
                let why = format!("what it holds of the subscription `{id}` cannot be used: {bad}");
                self.link.tell_refusal(&why);
                Unavailable::refused(why)
            })?;
            let Some(change) = judged.change.take() else { return Ok(Some(judged)) };
            match self.commit(id, change, step.key()).await? {
                Committed::Done => return Ok(Some(judged)),
                Committed::Full => {
                    return Ok(Some(Judged { answer: Err(Refusal::full()), change: None, unfilled: None }));
                }
                Committed::Conflict => {}
            }
        }
        Err(Unavailable::refused(format!("the subscription `{id}` is changed by too many at once")))
    }

    async fn load(&self, id: &str, step: &Step, names: &[String]) -> Result<Option<Snapshot>, Unavailable> {
        let load = Call::of(&scripts::LOAD).text(id).flag(matches!(step, Step::Look)).text(step.key());
        let load = names.iter().fold(load, |load, name| load.text(&**name));
        snapshot(self.link.call(load).await?)
    }

    async fn commit(&self, id: &str, change: Change, key: Option<&str>) -> Result<Committed, Unavailable> {
        let due = change.due.map(|at| at.to_string());
        let call = Call::of(&scripts::COMMIT).text(id).text(&*change.version).bytes(&change.head);
        let call = call.flag(change.idle).text(due.as_deref()).flag(change.filled);
        let call = call.text(&*change.glob).text(&*change.wake_stream);
        let call = call.number(if change.in_vain { IN_VAIN_MS } else { 0 }).number(SUBSCRIPTIONS_MAX as u64);
        let call = match &change.event {
            Some(event) => call.text(&*event.stream).bytes(&event.bytes).bytes(&pack(&event.ends)),
            None => call.text(None).text(None).text(None),
        };
        let bounds = self.streams().map(|streams| streams.bounds()).unwrap_or_default();
        let call = keeps(call, &bounds).text(key);
        let call = change.links.iter().fold(call, |call, (path, link)| call.text(&**path).text(&**link));
        let answer = self.link.call(call).await?;
        match text(answer.first()) {
            "ok" => {
                let is_soon = number(answer.get(1)).is_ok_and(|wait| wait < SOON_MS);
                if is_soon || change.errand.is_some() {
                    let errand = change.errand.zip(self.streams()).map(|(errand, streams)| {
                        let holding = streams.hold(errand.held());
                        (errand, holding)
                    });
                    guard(&self.wakes.errands).extend(errand);
                    self.wakes.ring();
                }
                Ok(Committed::Done)
            }
            "conflict" => Ok(Committed::Conflict),
            "full" => Ok(Committed::Full),
            other => Err(garbled(other)),
        }
    }
}

enum Committed {
    Done,
    /// Somebody else was faster, or the stream of its wakes is not what it was.
    Conflict,
    /// There are too many subscriptions.
    Full,
}

/// Reads what `load.lua` answers; none of one that rests.
fn snapshot(answer: Vec<Value>) -> Result<Option<Snapshot>, Unavailable> {
    if text(answer.first()) == "rests" {
        return Ok(None);
    }
    let [_, now, version, head, filled, wake, kind, Value::Array(links), Value::Array(streams)] = &answer[..]
    else {
        return Err(garbled("a subscription is incomplete"));
    };
    let ((links, left), (streams, over)) = (links.as_chunks(), streams.as_chunks());
    if !left.is_empty() || !over.is_empty() {
        return Err(garbled("streams of a subscription are incomplete"));
    }
    let wake = match (text(Some(wake)), Kind::new(text(Some(kind)))) {
        ("", _) | (_, None) => None,
        (number, Some(kind)) => Some((number.into(), kind)),
    };
    Ok(Some(Snapshot {
        now: number(Some(now))?,
        version: text(Some(version)).into(),
        head: match head {
            Value::BulkString(head) => head.clone(),
            _ => Vec::new(),
        },
        filled: text(Some(filled)) == "1",
        wake,
        links: links.iter().map(|[path, link]| (text(Some(path)).into(), text(Some(link)).into())).collect(),
        streams: streams.iter().map(stream).collect::<Result<_, _>>()?,
    }))
}

fn stream([path, id, epoch, start, tail]: &[Value; 5]) -> Result<(Arc<str>, Option<Extent>), Unavailable> {
    let extent = match text(Some(id)) {
        "" => None,
        _ => {
            let epoch = u64::from_str_radix(text(Some(epoch)), 16).map_err(|_| garbled("an epoch"))?;
            let at = |position| Ok(Offset { epoch, position: number(Some(position))? });
            Some(Extent { life: number(Some(id))?, start: at(start)?, tail: at(tail)? })
        }
    };
    Ok((text(Some(path)).into(), extent))
}
