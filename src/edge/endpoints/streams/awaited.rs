//! A stream that is not there yet: with `wait=1` its readers have an open connection until it is made. An EventSource that gets a 404
//! gives up for good, and pages are often there before what they show.

use std::future::poll_fn;
use std::sync::Arc;

use super::event_reader::{Reader, Start, Who, Worked};
use super::live::{self, Follower, Odd, poll_news};
use super::target::Query;
use super::write::field;
use super::{Answer, Visit, is_signed};
use crate::admission::api_key::Holder;
use crate::downstream::deadlines::Timeout;
use crate::downstream::outbox::{Beat, write_all};
use crate::proto::openai::ApiError;
use crate::relay::exchange::millis;
use crate::relay::pump::Framing;
use crate::runtime::clock::{Millis, unix_millis};
use crate::streams::fanout::view::View;
use crate::streams::{Found, Stream};
use crate::upstream::client::Stop;

/// How often a stream is looked for, in milliseconds.
const LOOK_MS: Millis = 500;

/// Who reads a stream that is found later.
pub(crate) struct Asker {
    holder: Option<Arc<Holder>>,
    is_signed: bool,
}

impl Asker {
    pub(crate) fn of(visit: &Visit<'_>) -> Asker {
        Asker { holder: visit.request.holder().cloned(), is_signed: is_signed(visit.request, visit.core) }
    }

    /// The stream of that name, if it is there and may be read.
    pub(crate) async fn find(&self, name: &str, reader: &Reader) -> Option<Arc<Stream>> {
        let found = reader.streams().reach(name, unix_millis(), true).await;
        let Ok(Found::Present(stream)) = found else { return None };
        let key = self.holder.as_ref().map(|holder| &*holder.name);
        (self.is_signed || stream.is_open_to(key)).then_some(stream)
    }
}

/// A reader of a stream that is not there yet.
pub(crate) struct Awaited {
    name: String,
    asker: Asker,
    /// The position that it had in another stream of that name.
    had: Option<String>,
    view: View,
}

/// Waits for the stream of that name.
pub(crate) fn follow(visit: &Visit<'_>, name: String, query: &Query) -> Result<Answer, ApiError> {
    let last_event = field(visit.request, "last-event-id")?.or(query.last_event_id.as_deref());
    let had = last_event.filter(|id| !id.is_empty()).map(str::to_owned);
    let view = if query.live.is_some() { View::Protocol } else { View::EventSource };
    let awaited = Awaited { name, asker: Asker::of(visit), had, view };
    Ok(Answer::Events(Box::new(Who::Awaited(awaited))))
}

impl Awaited {
    /// Waits, and then tells what there is, as to one who came then.
    pub(crate) async fn run(self, start: Start, reader: &Reader) -> Worked {
        let Reader { client, core, framing, .. } = reader;
        write_all(client, &core.shard, &start.head).await?;
        let stream = loop {
            if let Some(stream) = self.asker.find(&self.name, reader).await {
                break stream;
            }
            let every = millis(core.shared.settings.load().config.heartbeat);
            client.deadlines.heartbeat(core.shard.clock.millis(), every);
            client.arm();
            if start.coded.is_none() {
                client.set_beat(if *framing == Framing::Close { Beat::Bare } else { Beat::Chunk });
            }
            let stopped = tokio::select! {
                stopped = poll_fn(|cx| poll_news(cx, client, core, || false)) => stopped,
                () = core.shard.pause(LOOK_MS) => Ok(()),
            };
            client.set_beat(Beat::Hold);
            match stopped {
                Ok(()) => {}
                Err(Stop::Timeout(Timeout::Drain)) => {
                    return live::end(start.coded, reader).await.map(|()| None);
                }
                Err(stop) => return Err(stop),
            }
        };
        let holds_events = stream.kind.is("text/event-stream") && self.view == View::EventSource;
        let view = if holds_events { View::Published } else { self.view };
        let position = stream.status().start;
        let odd = self.odd(&stream, position);
        let follower = Follower::new(core.hub.sit(&stream), position, 0, view);
        live::tell(follower, odd, Some(Start { head: Vec::new(), coded: start.coded }), reader).await
    }

    /// Whatever it had was of another stream.
    fn odd(&self, stream: &Stream, position: u64) -> Odd {
        let reason = |had: &String| match had.parse() {
            Ok(start) => match stream.position(start) {
                Ok(at) if at == position => None,
                Ok(_) => Some("unknown"),
                Err(unreadable) => Some(super::read::reason(unreadable)),
            },
            Err(_) => Some("unknown"),
        };
        let reset = self.had.as_ref().and_then(|had| Some((reason(had)?, had.clone())));
        Odd { reset, after: None }
    }
}
