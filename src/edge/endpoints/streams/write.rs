//! PUT, POST and DELETE: a stream is made, appended to, closed, ended.
//!
//! Nobody is told of what is not durable: each answer, a refusal as well, waits for whatever it rests on.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::access::of_another_key;
use super::reply::Reply;
use super::{Visit, target};
use crate::proto::openai::ApiError;
use crate::relay::request::Request;
use crate::runtime::clock::unix_millis;
use crate::streams::reserved::RESERVED_EVENTS;
use crate::streams::store::journal::{AppendError, Ticket};
use crate::streams::store::redis::Unavailable;
use crate::streams::{
    Append, Appended, Claim, Creation, Fork, Form, Kind, Lifetime, MESSAGES_MAX, Messages, NUMBER_MAX,
    NoMessages, NotCreated, NotDeleted, OverQuota, Refused, Stream, WORD_BYTES_MAX,
};

/// `PUT`: makes a stream, or finds that it is there as it was to be made.
pub(crate) async fn create(visit: &Visit<'_>, name: &str, body: &[u8]) -> Result<Reply, ApiError> {
    let request = visit.request;
    let kind = match field(request, "content-type")? {
        None => None,
        Some(text) => Some(Kind::new(text).ok_or_else(|| bad("Content-Type", "is no media type"))?),
    };
    let source = match field(request, "stream-forked-from")? {
        None => None,
        Some(path) => {
            Some(target::name(path).map_err(|_| bad("Stream-Forked-From", "is no path of a stream"))?)
        }
    };
    let from = match &source {
        None => None,
        Some(source) => Some(visit.fork_source(source).await?),
    };
    let fork = match (&source, &from) {
        (None, _) if field(request, "stream-fork-offset")?.is_some() => {
            return Err(bad("Stream-Fork-Offset", "needs Stream-Forked-From beside it"));
        }
        (None, _) if field(request, "stream-fork-sub-offset")?.is_some() => {
            return Err(bad("Stream-Fork-Sub-Offset", "needs Stream-Forked-From beside it"));
        }
        (Some(source), Some(from)) => Some(fork(request, source, from.id)?),
        _ => None,
    };
    let form = kind.as_ref().map(|kind| kind.form).or(from.as_ref().map(|source| source.kind.form));
    let form = form.unwrap_or(Form::Binary);
    // A list of no messages makes an empty stream.
    let (bytes, ends) = match kept(form, body) {
        Err(_) if form == Form::Json && is_empty_list(body) => Default::default(),
        kept => kept?,
    };
    let creation = Creation {
        name,
        kind,
        lifetime: lifetime(request)?,
        bytes,
        ends,
        closed: closes(request),
        fork,
        owner: visit.key(),
        generated: false,
    };
    let created = visit.streams().begin(&creation, unix_millis()).await;
    let created = created.map_err(|error| not_created(&error, name))?;
    if created.new {
        visit.hub().appended(created.ticket, &created.stream);
    }
    durable(visit, created.ticket).await?;
    let stream = &created.stream;
    let status = stream.status();
    let mut reply = Reply::new(if created.new { 201 } else { 200 });
    if created.new {
        reply = reply.field("Location", &visit.url());
    }
    Ok(reply
        .field("Content-Type", stream.kind.as_str())
        .next(stream, status.tail)
        .lifetime(&stream.lifetime)
        .closed_if(status.closed)
        .body(Bytes::new()))
}

/// `POST`: appends, closes, or both.
pub(crate) async fn append(visit: &Visit<'_>, stream: &Arc<Stream>, body: &[u8]) -> Result<Reply, ApiError> {
    let request = visit.request;
    let (close, claim) = (closes(request), claim(request)?);
    if body.is_empty() && !close {
        return Err(bad("the body", "is empty: there is nothing to append"));
    }
    let content_type = field(request, "content-type")?;
    if content_type.is_none() && !body.is_empty() {
        return Err(bad("Content-Type", "is missing"));
    }
    let is_same = content_type.is_some_and(|kind| stream.kind.is(kind));
    let (bytes, ends) = match body.is_empty() || !is_same {
        // What does not fit is refused below, unless the stream is closed, which counts for more.
        true => (Bytes::copy_from_slice(body), Box::default()),
        false => kept(stream.kind.form, body)?,
    };
    let append = Append {
        bytes,
        ends,
        content_type,
        event: event(request)?,
        claim,
        seq: word(request, "stream-seq")?,
        close,
        own: false,
    };
    let outcome = visit.hub().post(stream, &append, unix_millis()).await;
    // What was not taken rests on nothing.
    if !matches!(outcome.result, Err(Refused::Store(_))) {
        durable(visit, outcome.ticket).await?;
    }
    match outcome.result {
        Ok(appended) => Ok(told(stream, &appended, claim, body.is_empty())),
        Err(refused) => Ok(refusal(stream, &refused, claim, visit)),
    }
}

fn told(stream: &Stream, appended: &Appended, claim: Option<Claim<'_>>, empty: bool) -> Reply {
    // A producer is told apart whether its data is new.
    let is_new = claim.is_some() && appended.duplicate.is_none() && !empty;
    let status = if is_new { 200 } else { 204 };
    let mut reply = Reply::new(status).next(stream, appended.tail).closed_if(appended.closed);
    if let Some(claim) = claim {
        let last = appended.duplicate.unwrap_or(claim.seq);
        reply = reply.number("Producer-Epoch", claim.epoch).number("Producer-Seq", last);
    }
    if status == 200 { reply.body(Bytes::new()) } else { reply }
}

fn refusal(stream: &Stream, refused: &Refused, claim: Option<Claim<'_>>, visit: &Visit<'_>) -> Reply {
    let error = |status, code, message: String| Reply::error(&ApiError::new(status, code, message));
    match *refused {
        Refused::Gone => Reply::error(&visit.missing()),
        Refused::Closed(tail) => {
            error(409, "stream_closed", "The stream is closed: nothing can be appended.".into())
                .next(stream, tail)
                .closed_if(true)
        }
        Refused::Generated => error(
            403,
            "kept_response",
            "The stream is a kept response, to which only sedge appends. `Stream-Closed: true` without a body stops it.".into(),
        ),
        Refused::ContentType => error(
            409,
            "content_type_mismatch",
            format!("The stream holds {}: append that.", stream.kind.as_str()),
        ),
        Refused::Fenced(epoch) => error(
            403,
            "stale_producer_epoch",
            format!("A newer session of this producer has taken over: epoch {epoch}."),
        )
        .number("Producer-Epoch", epoch),
        Refused::Gap(expected) => error(
            409,
            "producer_sequence_gap",
            format!("An append before this one is missing: Producer-Seq {expected} comes next."),
        )
        .number("Producer-Expected-Seq", expected)
        .number("Producer-Received-Seq", claim.map_or(0, |claim| claim.seq)),
        Refused::BadStart => {
            Reply::error(&bad("Producer-Seq", "is not 0, with which the session of a producer begins"))
        }
        Refused::TooManyProducers(max) => error(
            429,
            "too_many_producers",
            format!("The stream knows {max} producers, and may know no more."),
        ),
        Refused::NotInSequence => {
            error(409, "sequence_conflict", "Stream-Seq is not greater than the last one.".into())
        }
        Refused::Quota(quota) => Reply::error(&over_quota(quota)),
        Refused::Full => Reply::error(&full()),
        Refused::Store(ref why) => Reply::error(&store(why)),
        Refused::Unavailable(ref why) => Reply::error(&unavailable(why)),
    }
}

/// `DELETE`: ends a stream.
pub(crate) async fn delete(visit: &Visit<'_>, stream: &Arc<Stream>) -> Result<Reply, ApiError> {
    let ticket = visit.streams().end(stream).await.map_err(|error| match error {
        NotDeleted::Missing => visit.missing(),
        NotDeleted::Store(error) => store(&error),
        NotDeleted::Unavailable(error) => unavailable(&error),
    })?;
    durable(visit, ticket).await?;
    Ok(Reply::new(204))
}

/// Waits until what was done is as durable as configured.
async fn durable(visit: &Visit<'_>, ticket: Option<Ticket>) -> Result<(), ApiError> {
    let hub = Rc::clone(visit.hub());
    hub.durable(ticket).await.map_err(|failure| store(&AppendError::Stopped(failure)))
}

/// A body as a stream of that form keeps it.
fn kept(form: Form, body: &[u8]) -> Result<(Bytes, Box<[u32]>), ApiError> {
    if form != Form::Json || body.is_empty() {
        return Ok((Bytes::copy_from_slice(body), Box::default()));
    }
    match Messages::read(body) {
        Ok(Messages { bytes, ends }) => Ok((bytes, ends)),
        Err(NoMessages::NotJson(error)) => Err(bad("the body", &format!("is not JSON: {error}"))),
        Err(NoMessages::TooDeep) => Err(bad("the body", "is nested deeper than 128 levels")),
        Err(NoMessages::Empty) => Err(bad("the body", "is an empty array: there is nothing to append")),
        Err(NoMessages::TooMany) => Err(ApiError::new(
            413,
            "too_many_messages",
            format!("The body is more than {MESSAGES_MAX} messages. Append them in several requests."),
        )),
    }
}

fn is_empty_list(body: &[u8]) -> bool {
    matches!(Messages::read(body), Err(NoMessages::Empty))
}

fn fork<'a>(request: &'a Request, source: &'a str, id: u64) -> Result<Fork<'a>, ApiError> {
    let offset = match field(request, "stream-fork-offset")? {
        None => None,
        Some(text) => Some(
            text.parse().map_err(|error| bad("Stream-Fork-Offset", &format!("cannot be used: {error}")))?,
        ),
    };
    let sub_offset = match field(request, "stream-fork-sub-offset")? {
        None => 0,
        Some(text) => number(text).ok_or_else(|| bad("Stream-Fork-Sub-Offset", "is no whole number"))?,
    };
    Ok(Fork { source, id, offset, sub_offset })
}

fn lifetime(request: &Request) -> Result<Lifetime, ApiError> {
    match (field(request, "stream-ttl")?, field(request, "stream-expires-at")?) {
        (None, None) => Ok(Lifetime::Unbounded),
        (Some(ttl), None) => {
            Lifetime::of_ttl(ttl).ok_or_else(|| bad("Stream-TTL", "is no number of seconds"))
        }
        (None, Some(time)) => {
            Lifetime::of_time(time).ok_or_else(|| bad("Stream-Expires-At", "is no time of RFC 3339"))
        }
        (Some(_), Some(_)) => Err(bad("Stream-TTL", "and Stream-Expires-At exclude each other")),
    }
}

fn closes(request: &Request) -> bool {
    request.field_values("stream-closed").any(|value| value.eq_ignore_ascii_case(b"true"))
}

/// What the producer says: all of it, or nothing (PROTOCOL.md, 5.2.1).
fn claim(request: &Request) -> Result<Option<Claim<'_>>, ApiError> {
    let whole = |name: &'static str, text: &str| {
        number(text).filter(|&n| n <= NUMBER_MAX).ok_or_else(|| bad(name, "is no whole number up to 2^53-1"))
    };
    match (word(request, "producer-id")?, field(request, "producer-epoch")?, field(request, "producer-seq")?)
    {
        (None, None, None) => Ok(None),
        (Some(id), Some(epoch), Some(seq)) => {
            Ok(Some(Claim { id, epoch: whole("Producer-Epoch", epoch)?, seq: whole("Producer-Seq", seq)? }))
        }
        _ => Err(bad("Producer-Id", "Producer-Epoch and Producer-Seq come together or not at all")),
    }
}

/// A decimal number of digits alone.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The value of a field that may stand once.
pub(crate) fn field<'a>(request: &'a Request, name: &'static str) -> Result<Option<&'a str>, ApiError> {
    let mut values = request.field_values(name);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad(name, "stands there more than once"));
    }
    std::str::from_utf8(value).map(Some).map_err(|_| bad(name, "is not UTF-8"))
}

/// Likewise, of something that is kept: neither empty nor too long.
fn word<'a>(request: &'a Request, name: &'static str) -> Result<Option<&'a str>, ApiError> {
    match field(request, name)? {
        Some("") => Err(bad(name, "is empty")),
        Some(word) if word.len() > WORD_BYTES_MAX => Err(bad(name, "has more than 256 bytes")),
        word => Ok(word),
    }
}

/// The publisher's name for what it appends.
fn event(request: &Request) -> Result<Option<&str>, ApiError> {
    match word(request, "stream-event")? {
        Some(name) if RESERVED_EVENTS.contains(&name) => {
            Err(bad("Stream-Event", "is a name that only the edge or the browser gives: choose another"))
        }
        name => Ok(name),
    }
}

pub(crate) fn bad(what: &str, why: &str) -> ApiError {
    ApiError::new(400, "invalid_request", format!("{what} {why}."))
}

fn not_created(error: &NotCreated, name: &str) -> ApiError {
    let conflict = |code, message: String| ApiError::new(409, code, message);
    match error {
        NotCreated::Exists => {
            conflict("stream_exists", format!("There is a stream {name} already, and it is another one."))
        }
        NotCreated::Foreign => of_another_key(),
        NotCreated::Quota(quota) => over_quota(*quota),
        NotCreated::Full => full(),
        NotCreated::NoSource => no_source(),
        NotCreated::SourceGone => source_gone(),
        NotCreated::SourceKind => conflict(
            "content_type_mismatch",
            "A fork holds what its source holds: leave Content-Type out.".into(),
        ),
        NotCreated::BadOffset => bad("Stream-Fork-Offset", "leads to no place in the source"),
        NotCreated::TooDeep => {
            conflict("fork_too_deep", "It would be a fork of a fork more than 64 times.".into())
        }
        NotCreated::Store(error) => store(error),
        NotCreated::Unavailable(error) => unavailable(error),
    }
}

pub(crate) fn no_source() -> ApiError {
    ApiError::new(404, "stream_not_found", "There is no stream as Stream-Forked-From names it.")
}

pub(crate) fn source_gone() -> ApiError {
    ApiError::new(409, "stream_gone", "The stream that Stream-Forked-From names was deleted.")
}

/// Redis cannot be asked.
pub(crate) fn unavailable(error: &Unavailable) -> ApiError {
    if error.full {
        let message = "Redis, where the durable streams are, has no memory left (its maxmemory): nothing was changed. Delete \
                       streams or raise it, and ask again.";
        return ApiError::new(503, "storage_unavailable", message);
    }
    let message = match error.unknown {
        false => {
            "Redis, where the durable streams are, cannot be reached or refuses: nothing was changed. Ask again."
        }
        true => {
            "Redis, where the durable streams are, did not answer: it is not known whether anything was changed. Ask \
             again; an append that has a producer's numbers is never doubled."
        }
    };
    ApiError::new(503, "storage_unavailable", message)
}

fn over_quota(OverQuota(bytes): OverQuota) -> ApiError {
    let what = format!(
        "The streams of this key may hold {bytes} bytes now, and this would be more: delete some, or raise \
         `stream_bytes` in the key's limits."
    );
    ApiError::new(507, "stream_quota_exceeded", what)
}

fn full() -> ApiError {
    ApiError::new(
        503,
        "streams_full",
        "There is no room for more in streams now: delete some, or raise the bounds in [streams].",
    )
}

pub(crate) fn store(error: &AppendError) -> ApiError {
    match error {
        AppendError::TooLong => ApiError::body_too_large(crate::streams::APPEND_BYTES_MAX),
        AppendError::Busy => ApiError::new(503, "storage_busy", format!("It was not stored: {error}.")),
        AppendError::NoRoom => ApiError::new(503, "storage_full", format!("It was not stored: {error}.")),
        AppendError::Stopped(failure) if failure.no_room => ApiError::new(
            503,
            "storage_full",
            "It is not known to be stored: the disk is full. sedge stores it once there is room, unless it is stopped before. Ask \
             again then; an append that has a producer's numbers is never doubled.",
        ),
        AppendError::Stopped(_) => ApiError::new(
            503,
            "storage_failed",
            "It is not known to be stored: the disk has failed. The log says how.",
        ),
    }
}
