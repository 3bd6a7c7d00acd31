//! A reader reads for as long as its authority lasts: until the moment for which its address was signed, or until a reload takes
//! its key away. Then it is told so in-band, and cut: an `EventSource` that comes back gets 401, and stays away.
//!
//! Nothing is looked at for each reader: the end of a signed address is a deadline of its connection like any other, and keys are
//! compared once, when other settings are in force.

use super::event_reader::{Reader, Worked};
use super::live::send;
use super::{Visit, is_signed, signed_url};
use crate::downstream::connection::Client;
use crate::downstream::deadlines::Timeout;
use crate::downstream::outbox::Beat;
use crate::proto::openai::ApiError;
use crate::relay::context::Core;
use crate::relay::pump::Framing;
use crate::relay::request::Request;
use crate::runtime::clock::unix_millis;
use crate::streams::fanout::events::{Events, payload};
use crate::streams::fanout::view::View;
use crate::upstream::client::Stop;

/// Binds what a connection is answered to what its request came with.
pub(crate) fn bind(request: &Request, client: &Client, core: &Core) {
    if let Some(holder) = request.holder() {
        client.deadlines.authority.set(holder.authority);
    } else if let Some(until) = signed_url::expires(request).filter(|_| is_signed(request, core)) {
        let left = until.saturating_sub(unix_millis());
        client.deadlines.total(core.shard.clock.millis().saturating_add(left));
        client.arm();
    }
}

/// Whether it is that its reader may read no more what has ended an answer. Nothing else limits a read as a whole.
pub(crate) fn over(stop: &Stop) -> Option<Timeout> {
    match stop {
        Stop::Timeout(timeout @ (Timeout::Authority | Timeout::Total)) => Some(*timeout),
        _ => None,
    }
}

/// The same in words.
pub(crate) fn error(over: Timeout) -> ApiError {
    match over {
        Timeout::Authority => ApiError::key_revoked(),
        _ => ApiError::new(
            401,
            "address_expired",
            "The signed address has expired. Get another one, and go on where you are.",
        ),
    }
}

/// Refuses one whose long poll has ended so.
pub(crate) fn check(visit: &Visit<'_>, stop: &Stop) -> Result<(), ApiError> {
    let Some(over) = over(stop) else { return Ok(()) };
    visit.client.deadlines.last_words(visit.core.shard.clock.millis());
    visit.client.arm();
    Err(error(over))
}

/// Tells a reader that stands between two events why there are no more. There is no last chunk: it is not the end.
pub(crate) async fn part(view: Option<View>, over: Timeout, reader: &Reader) -> Worked {
    let error = error(over);
    let (client, core) = (&reader.client, &reader.core);
    client.set_beat(Beat::Hold);
    client.deadlines.last_words(core.shard.clock.millis());
    client.arm();
    let mut events = Events::default();
    match view {
        Some(View::Verbatim) => events.verbatim(&error.event()),
        _ => events.error(&error.body()),
    }
    let bytes = reader.streams().count(events.finish());
    let bytes = if reader.framing == Framing::Close { bytes.slice(payload(&bytes)) } else { bytes };
    send(client, &bytes).await?;
    Err(Stop::Timeout(over))
}
