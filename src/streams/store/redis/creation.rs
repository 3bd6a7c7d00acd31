//! A stream begins, in Redis: judged as it is in this process, made by a script.

use std::sync::Arc;

use super::meta::{garbled, pack, text};
use super::remote::Remote;
use super::scripts::{self, Call};
use crate::streams::create::{Created, Creation, NotCreated, base};
use crate::streams::model::kind::DEFAULT_CONTENT_TYPE;
use crate::streams::model::lifetime::Lifetime;
use crate::streams::registry::{Found, Streams};
use crate::streams::stream::Base;
use crate::subscriptions::STREAMS_MAX;

/// How often something that has changed under our hands is looked at again.
const ATTEMPTS: usize = 5;

impl Remote {
    /// Makes a stream, or finds that it is there as it was to be made.
    pub(crate) async fn create(
        self: &Arc<Self>,
        streams: &Arc<Streams>,
        creation: &Creation<'_>,
    ) -> Result<Created, NotCreated> {
        let gone = NotCreated::Unavailable;
        let source = match &creation.fork {
            None => None,
            Some(fork) => Some(creation.source(self.find(streams, fork.source, false).await.map_err(gone)?)?),
        };
        if source.is_some()
            && let Found::Present(there) = self.find(streams, creation.name, false).await.map_err(gone)?
        {
            return streams.same(&there, creation, source.as_ref());
        }
        for _ in 0..ATTEMPTS {
            let base = match (&creation.fork, &source) {
                (Some(fork), Some(source)) => Some(base(fork, Arc::clone(source), creation.kind.as_ref())?),
                _ => None,
            };
            let call = self.creation(streams, creation, base.as_ref());
            let (me, name) = (Arc::clone(self), Box::<str>::from(creation.name));
            let answer = self.run(async move { me.make_known(&call, &name).await });
            let new = match text(answer.await.map_err(gone)?.first()) {
                "made" => true,
                "there" => false,
                "full" => return Err(NotCreated::Full),
                "nosource" => return Err(NotCreated::NoSource),
                "sourcegone" => return Err(NotCreated::SourceGone),
                "badoffset" => return Err(NotCreated::BadOffset),
                other => return Err(gone(garbled(other))),
            };
            match self.find(streams, creation.name, false).await.map_err(gone)? {
                Found::Present(stream) if new => return Ok(Created { stream, new, ticket: None }),
                Found::Present(there) => return streams.same(&there, creation, source.as_ref()),
                Found::Hidden(_) => return Err(NotCreated::Exists),
                // Somebody has deleted it meanwhile.
                Found::Missing => {}
            }
        }
        Err(NotCreated::Exists)
    }

    fn creation(&self, streams: &Streams, creation: &Creation<'_>, base: Option<&Base>) -> Call {
        let source = base.map(|base| &base.source);
        let kind = match (source, &creation.kind) {
            (Some(source), _) => source.kind.as_str(),
            (None, Some(kind)) => kind.as_str(),
            (None, None) => DEFAULT_CONTENT_TYPE,
        };
        let lifetime = match (&creation.lifetime, source) {
            (Lifetime::Unbounded, Some(source)) => &source.lifetime,
            (lifetime, _) => lifetime,
        };
        let epoch = source.map_or_else(|| self.number(), |source| source.epoch);
        let call = Call::of(&scripts::CREATE).text(creation.name).text(kind).epoch(epoch);
        let call = match lifetime {
            Lifetime::Unbounded => call.text(None).text(None).text(None),
            Lifetime::Idle(seconds) => call.number(*seconds).text(None).text(None),
            Lifetime::Until { text, at } => call.text(None).number(*at).text(&**text),
        };
        let bounds = streams.bounds();
        let is_hidden = creation.generated || source.is_some_and(|source| source.is_hidden());
        call.text(creation.owner)
            .flag(creation.closed)
            .bytes(&creation.bytes)
            .bytes(&pack(&creation.ends))
            .text(creation.generated.then_some(&*self.node))
            .text(source.map(|source| &*source.name))
            .number(source.map_or(0, |source| source.id))
            .number(base.map_or(0, |base| base.position))
            .number(base.map_or(0, |base| base.depth).into())
            .number(bounds.streams as u64)
            .number(bounds.keep_ms)
            .number(STREAMS_MAX as u64)
            .flag(!is_hidden && bounds.shares(creation.name))
    }
}
