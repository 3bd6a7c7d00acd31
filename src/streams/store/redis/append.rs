//! Appending, in Redis: judged and taken by a script, and then taken up here, so that a node need not fetch what it has sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::meta::{garbled, number, pack, text};
use super::remote::{Remote, keeps};
use super::scripts::{self, Call};
use crate::streams::append::{Append, Appended, Refused};
use crate::streams::log::Record;
use crate::streams::stream::{Presence, Stream};

/// An append that is kept for as long as it takes.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) bytes: Bytes,
    pub(crate) ends: Box<[u32]>,
    pub(crate) content_type: Option<Box<str>>,
    pub(crate) event: Option<Box<str>>,
    pub(crate) claim: Option<(Box<str>, u64, u64)>,
    pub(crate) seq: Option<Box<str>>,
    pub(crate) close: bool,
    /// It is sedge's own word.
    pub(crate) own: bool,
}

impl Kept {
    fn of(append: &Append<'_>) -> Kept {
        Kept {
            bytes: append.bytes.clone(),
            ends: append.ends.clone(),
            content_type: append.content_type.map(Into::into),
            event: append.event.map(Into::into),
            claim: append.claim.map(|claim| (claim.id.into(), claim.epoch, claim.seq)),
            seq: append.seq.map(Into::into),
            close: append.close,
            own: append.own,
        }
    }
}

impl Remote {
    /// Appends, if nothing stands against it.
    pub(crate) async fn append(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        append: &Append<'_>,
    ) -> Result<Appended, Refused> {
        let (me, stream, append) = (Arc::clone(self), Arc::clone(stream), Kept::of(append));
        let answer = self.run(async move { Ok(me.put(&stream, &append).await) }).await;
        answer.unwrap_or_else(|unavailable| Err(Refused::Unavailable(unavailable)))
    }

    /// The same, on the link's runtime.
    pub(crate) async fn put(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        append: &Kept,
    ) -> Result<Appended, Refused> {
        let bounds = stream.common.bounds.load_full();
        let fits = append.content_type.as_deref().is_some_and(|kind| stream.kind.is(kind));
        let call = Call::of(&scripts::APPEND).text(&*stream.name).number(stream.id);
        let call =
            call.bytes(&append.bytes).bytes(&pack(&append.ends)).text(append.event.as_deref()).flag(fits);
        let call = match &append.claim {
            Some((id, epoch, seq)) => call.text(&**id).number(*epoch).number(*seq),
            None => call.text(None).text(None).text(None),
        };
        let call = call.text(append.seq.as_deref()).flag(append.close).number(bounds.producers as u64);
        let answer = self.link.call(keeps(call, &bounds).flag(append.own));
        let answer = answer.await.map_err(Refused::Unavailable)?;
        let at = |place: usize| number(answer.get(place)).map_err(Refused::Unavailable);
        match text(answer.first()) {
            "ok" => {
                let appended = Appended { tail: at(2)?, closed: at(5)? == 1, duplicate: None };
                stream.mirror_append(append, at(1)?, &appended, at(3)?, at(4)?, (at(6)?, at(7)?));
                Ok(appended)
            }
            "duplicate" => Ok(Appended { duplicate: Some(at(1)?), tail: at(2)?, closed: at(3)? == 1 }),
            "gone" => Err(Refused::Gone),
            "closed" => Err(Refused::Closed(at(1)?)),
            "generated" => Err(Refused::Generated),
            "kind" => Err(Refused::ContentType),
            "fenced" => Err(Refused::Fenced(at(1)?)),
            "gap" => Err(Refused::Gap(at(1)?)),
            "start" => Err(Refused::BadStart),
            "many" => Err(Refused::TooManyProducers(bounds.producers)),
            "sequence" => Err(Refused::NotInSequence),
            other => Err(Refused::Unavailable(garbled(other))),
        }
    }
}

impl Stream {
    /// Takes up what this node has appended itself, if that is what comes next here: nobody has to fetch it.
    fn mirror_append(
        self: &Arc<Self>,
        append: &Kept,
        start: u64,
        appended: &Appended,
        order: u64,
        at: u64,
        (kept_from, lost): (u64, u64),
    ) {
        {
            let mut state = self.lock();
            if state.presence != Presence::Present || state.log.tail != start {
                return;
            }
            let held = state.log.held();
            if !append.bytes.is_empty() {
                state.log.push(Record {
                    start,
                    end: appended.tail,
                    order,
                    at,
                    event: append.event.as_deref().map(Into::into),
                    ends: append.ends.clone(),
                    bytes: Some(append.bytes.clone()),
                    stored: None,
                });
            }
            if kept_from > state.log.start {
                state.log.skip_to(kept_from, lost);
            }
            state.visible = state.log.tail;
            (state.closed, state.closed_visible) = (appended.closed, appended.closed);
            state.stopped |= self.generated && append.close && !append.own;
            state.mirrored = state.mirrored.max(order);
            state.used = state.used.max(crate::runtime::clock::unix_millis());
            state.account(held, &self.common);
        }
        self.common.order.fetch_max(order + 1, Ordering::AcqRel);
        self.publish();
    }
}
