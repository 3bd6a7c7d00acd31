//! A subscription that many nodes share: taken from where it is kept, judged here, and put back if nobody has changed it
//! meanwhile.
//!
//! ```text
//!  snapshot: the record, and its streams as they are, at one moment ──► the machine, one step ──► answer, change
//!      ▲                                                                                              │
//!      └──────────────────── somebody else was faster: all of it again ──────────────────────── put back ──► what it asks for is
//!                                                                                                            done, and it is told
//! ```
//!
//! Nothing of it stays here: not even what a webhook has shown, which travels with the [`Errand`]. The event of a wake is
//! appended by the store in the same step as it is written down that it is there, so it is never missing and never doubled.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::action::{Action, Delivered, Delivery};
use super::glob::Glob;
use super::keys::Keys;
use super::links::{Cursor, Link, Tails};
use super::phase::Phase;
use super::question::Question;
use super::record::{BadRecord, Record};
use super::refusal::Refusal;
use super::settings::{Kind, Settings};
use super::source::{Extent, Source};
use super::subscription::{Subscription, Turn, too_many};
use super::{Reply, SHOWN_BYTES, UnixMillis, view};
use crate::streams::model::kind;
use crate::telemetry::Nonces;

/// A subscription as it is kept, and streams as they were at the same moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) now: UnixMillis,
    /// Which version of it this is; none if there is no such subscription.
    pub(crate) version: Box<str>,
    pub(crate) head: Vec<u8>,
    /// The streams that its pattern matches have been found.
    pub(crate) filled: bool,
    /// The stream that the event of a wake would go to, by its number, and what it holds.
    pub(crate) wake: Option<(Box<str>, kind::Kind)>,
    /// Its streams by path, and how each is its own.
    pub(crate) links: Vec<(Arc<str>, Box<str>)>,
    /// Those of them that may not be as their links say, and streams that may become its own.
    pub(crate) streams: Vec<(Arc<str>, Option<Extent>)>,
}

/// What happens to it.
#[derive(Debug)]
pub(crate) enum Step {
    /// Something is asked of it, with the key of that name.
    Asked(Question, Option<Box<str>>),
    /// It was due.
    Look,
    /// Streams that its pattern may match are in the snapshot.
    Fill {
        /// With these it has all of them.
        last: bool,
    },
    /// A webhook was sent.
    Delivered(Errand, Delivered),
}

/// A webhook to be sent, and what is done when its receiver says so.
#[derive(Clone, Debug)]
pub(crate) struct Errand {
    /// The webhook.
    pub(crate) delivery: Delivery,
    shown: Tails,
}

impl Errand {
    /// Bytes of memory that it takes.
    pub(crate) fn held(&self) -> u64 {
        self.delivery.body.len() as u64 + self.shown.len() as u64 * SHOWN_BYTES
    }
}

/// What is said of a step, once the change is put back.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) answer: Result<Reply, Refusal>,
    pub(crate) change: Option<Change>,
    /// The pattern whose streams are still to be found.
    pub(crate) unfilled: Option<Glob>,
}

/// What has become of it.
#[derive(Debug)]
pub(crate) struct Change {
    /// The version that was judged.
    pub(crate) version: Box<str>,
    pub(crate) head: Vec<u8>,
    pub(crate) idle: bool,
    pub(crate) due: Option<UnixMillis>,
    pub(crate) filled: bool,
    pub(crate) glob: String,
    pub(crate) wake_stream: String,
    /// The links that have changed; empty is none any more.
    pub(crate) links: Vec<(Arc<str>, String)>,
    /// It was looked at, and there was nothing to change.
    pub(crate) in_vain: bool,
    pub(crate) event: Option<Event>,
    pub(crate) errand: Option<Errand>,
}

/// The event of a wake, as its stream takes it.
#[derive(Debug)]
pub(crate) struct Event {
    /// The number of that stream.
    pub(crate) stream: Box<str>,
    pub(crate) bytes: Bytes,
    pub(crate) ends: Box<[u32]>,
}

/// The streams at that moment.
#[derive(Debug)]
struct Known(HashMap<Arc<str>, Option<Extent>>);

impl Known {
    /// Of what nothing has happened to since it was worked off, only that was told.
    fn suppose(&mut self, subscription: &Subscription) {
        for (path, link) in subscription.links.iter() {
            if let Some(Cursor { life, acked }) = link.cursor {
                let extent = Extent { life, start: acked, tail: acked };
                self.0.entry(Arc::clone(path)).or_insert(Some(extent));
            }
        }
    }
}

impl Source for Known {
    /// They were chosen for the subscription's key when they were loaded.
    fn extent(&self, path: &str, _: Option<&str>) -> Option<Extent> {
        self.0.get(path).copied().flatten()
    }

    fn matching(
        &self,
        wants: &dyn Fn(&str) -> bool,
        _: Option<&str>,
        visit: &mut dyn FnMut(&str, Extent) -> ControlFlow<()>,
    ) {
        for (path, extent) in self.0.iter().filter(|(path, _)| wants(path)) {
            if let Some(extent) = extent
                && visit(path, *extent).is_break()
            {
                return;
            }
        }
    }
}

impl Step {
    /// The name of the key that it is asked with.
    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Step::Asked(_, key) => key.as_deref(),
            _ => None,
        }
    }

    /// Judges it.
    ///
    /// # Errors
    /// If what is kept is not what this version keeps.
    pub(crate) fn judge(
        &self,
        id: &str,
        snapshot: Snapshot,
        keys: &Keys,
        ids: &mut Nonces,
    ) -> Result<Judged, BadRecord> {
        let known = subscription(&snapshot)?;
        let Snapshot { now, version, filled, wake, streams, .. } = snapshot;
        let mut source = Known(streams.into_iter().collect());
        known.iter().for_each(|known| source.suppose(known));
        let mut turn = Turn {
            now,
            source: &source,
            key: self.key(),
            tokens: &keys.tokens,
            ids,
            // It is not kept here.
            room: u64::MAX,
            actions: Vec::new(),
            watched: Vec::new(),
        };
        if let (Step::Asked(question, key), Some(known)) = (self, &known)
            && !known.answers(question, key.as_deref())
        {
            return Ok(Judged::only(Err(Refusal::of_another_key())));
        }
        let (is_new, mut it) = match (self, known) {
            (Step::Asked(Question::Put { body, origin, local }, _), known) => {
                let settings = match Settings::of(id, body, *local) {
                    Ok(settings) => settings,
                    Err(refusal) => return Ok(Judged::only(Err(refusal))),
                };
                if let Some(known) = known {
                    let answer = known.confirm(&settings, keys.signer.kid());
                    let unfilled = known.glob.filter(|_| !filled && answer.is_ok());
                    return Ok(Judged { answer, change: None, unfilled });
                }
                match Subscription::create(&id.into(), settings, origin, &mut turn) {
                    Ok(made) => (true, made),
                    Err(refusal) => return Ok(Judged::only(Err(refusal))),
                }
            }
            (_, Some(known)) => (false, known),
            (_, None) => return Ok(Judged::only(Err(Refusal::not_found()))),
        };
        if !is_new {
            let paths: Vec<_> = it.links.iter().map(|(path, _)| Arc::clone(path)).collect();
            paths.iter().for_each(|path| it.refresh(path, &mut turn));
            it.advance(&mut turn);
        }
        let answer = self.take(&mut it, keys, is_new, &mut turn);
        let filled = match self {
            Step::Fill { last } => *last || filled,
            _ if is_new => it.glob.is_none(),
            _ => filled,
        };
        let unfilled = it.glob.clone().filter(|_| !filled);
        let (event, errand) = carry(&mut it, wake, &mut turn);
        let is_changed = it.changed || it.links.has_changed() || event.is_some();
        let change = (is_changed || matches!(self, Step::Look | Step::Fill { .. })).then(|| Change {
            version,
            head: it.head(),
            idle: it.phase == Phase::Idle,
            due: it.phase.due(),
            filled,
            glob: it.settings.pattern.clone().unwrap_or_default(),
            wake_stream: it.settings.wake_stream.clone().unwrap_or_default(),
            links: it
                .links
                .take_changed()
                .into_iter()
                .map(|(path, link)| (path, link.as_ref().map_or_else(String::new, write)))
                .collect(),
            in_vain: !is_changed,
            event,
            errand,
        });
        Ok(Judged { answer, change, unfilled })
    }

    fn take(
        &self,
        it: &mut Subscription,
        keys: &Keys,
        is_new: bool,
        turn: &mut Turn<'_>,
    ) -> Result<Reply, Refusal> {
        let kid = keys.signer.kid();
        let shown = |status, it: &Subscription| Reply { status, body: view::subscription(it, kid) };
        match self {
            Step::Asked(question, _) => match question {
                Question::Put { .. } | Question::Show => Ok(shown(if is_new { 201 } else { 200 }, it)),
                Question::Add(body) => it.add_streams(body, turn),
                Question::Remove(path) => Ok(it.remove_stream(path, turn)),
                Question::Claim(body) => it.claim(body, turn),
                Question::Ack { token, body } => it.progress(Kind::PullWake, token.as_deref(), body, turn),
                Question::Callback { token, body } => {
                    it.progress(Kind::Webhook, token.as_deref(), body, turn)
                }
                Question::Release { token, body } => it.release(token.as_deref(), body, turn),
                // It needs no judgement.
                Question::Delete => Ok(Reply::empty()),
            },
            Step::Look => {
                it.settle(turn);
                Ok(Reply::empty())
            }
            Step::Fill { last } => {
                let linked = it.link_matching(turn, |extent| extent.tail);
                it.settle(turn);
                let shown = || if *last { shown(200, it) } else { Reply::empty() };
                linked.map(|()| shown()).map_err(too_many)
            }
            Step::Delivered(errand, outcome) => {
                let wake_id = &*errand.delivery.wake_id;
                if let Phase::Delivering { wake, tails, .. } = &mut it.phase
                    && wake.id == wake_id
                {
                    tails.clone_from(&errand.shown);
                }
                it.delivered(wake_id, *outcome, turn);
                Ok(Reply::empty())
            }
        }
    }
}

impl Judged {
    fn only(answer: Result<Reply, Refusal>) -> Judged {
        Judged { answer, change: None, unfilled: None }
    }
}

/// It, as it is kept, before its streams are looked at.
fn subscription(snapshot: &Snapshot) -> Result<Option<Subscription>, BadRecord> {
    if snapshot.version.is_empty() {
        return Ok(None);
    }
    let mut it = Record::read(&snapshot.head)?.apply(None, snapshot.head.len())?;
    for (path, link) in &snapshot.links {
        it.links.restore(path, read(link));
    }
    Ok(Some(it))
}

/// What it asks for, of what is still so at the end of the step: an event for its stream, a webhook.
fn carry(
    it: &mut Subscription,
    wake: Option<(Box<str>, kind::Kind)>,
    turn: &mut Turn<'_>,
) -> (Option<Event>, Option<Errand>) {
    let (mut event, mut errand) = (None, None);
    for action in std::mem::take(&mut turn.actions) {
        match action {
            Action::Deliver(delivery) => match &it.phase {
                Phase::Delivering { wake, tails, .. } if wake.id == delivery.wake_id => {
                    errand = Some(Errand { delivery, shown: tails.clone() });
                }
                // It is over already.
                _ => {}
            },
            Action::Announce(announcement) => {
                event = wake.as_ref().and_then(|(stream, kind)| {
                    let (bytes, ends) = announcement.messages(kind)?;
                    Some(Event { stream: stream.clone(), bytes, ends })
                });
                it.announced(&announcement.wake_id, event.is_some(), turn);
            }
            Action::Store { .. } | Action::Forget { .. } => {}
        }
    }
    (event, errand)
}

/// `e` if a client has named the stream, `g` if the pattern has found it; which stream it was, and how far that was processed.
fn write(link: &Link) -> String {
    let mut text = String::new();
    text.push_str(if link.explicit { "e" } else { "" });
    text.push_str(if link.glob { "g" } else { "" });
    if let Some(Cursor { life, acked }) = link.cursor {
        text.push_str(&format!(" {life} {acked}"));
    }
    text
}

/// None, if it is not one.
fn read(text: &str) -> Option<Link> {
    let mut words = text.split(' ');
    let flags = words.next()?;
    let (explicit, glob) = (flags.contains('e'), flags.contains('g'));
    let cursor = match (words.next(), words.next()) {
        (Some(life), Some(acked)) => Some(Cursor { life: life.parse().ok()?, acked: acked.parse().ok()? }),
        _ => None,
    };
    (explicit || glob).then_some(Link { explicit, glob, cursor, tail: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::model::offset::Offset;

    #[test]
    fn a_link_is_read_as_it_was_written() {
        let cursor = Cursor { life: 7, acked: Offset { epoch: 0xab, position: 42 } };
        for (explicit, glob) in [(true, false), (false, true), (true, true)] {
            for cursor in [None, Some(cursor)] {
                let link = Link { explicit, glob, cursor, tail: None };
                assert_eq!(read(&write(&link)), Some(link));
            }
        }
        assert_eq!(
            write(&Link { explicit: true, cursor: Some(cursor), ..Link::default() }),
            "e 7 00000000000000ab-00000000000000000042"
        );
        for text in ["", "x", "e x y", "e 7 y"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
