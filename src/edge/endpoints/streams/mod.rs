//! Durable streams at `/v1/stream/NAME`: the Durable Streams protocol, and what browsers need beside it.
//!
//! ```text
//!  PUT POST ──body──► judged, stored ──durable──► answer
//!  GET ──► position ──► what there is ──► answer                         catch-up
//!                  └──► wait for news ──► what there is ──► answer       long-poll
//!                  └──► events ◄── wait for news ◄──┐                    event stream
//!                          └── all told ────────────┘
//! ```
//!
//! A reader is a position and a socket: what it has not taken is in the log, so one that is slow costs nothing but its place.
//!
//! What may never happen: an answer that tells of something that a crash could take back; an event stream that ends as if it
//! were complete when it is not.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `target.rs` | names and queries |
//! | `authority.rs` | readers whose key or address is good no more |
//! | `access.rs`, `limits.rs` | which key may use which stream, and how much of them |
//! | `write.rs` | making, appending, closing, deleting |
//! | `read.rs` | positions, metadata, what there is |
//! | `live.rs`, `multi_stream.rs`, `merged.rs` | what is yet to come: of one stream, of many on one connection |
//! | `awaited.rs` | a stream that is not there yet |
//! | `frames.rs` | frames of one stream, made step by step |
//! | `event_reader.rs` | the task of whoever follows events |
//! | `multi_cursor.rs` | where a reader of many is |
//! | `compression.rs` | which answers are compressed, and how they are written |
//! | `signed_url.rs` | addresses that need no key |
//! | `cache_cursor.rs` | what keeps caches from serving one answer for ever |
//! | `reply.rs` | an answer on its way |

pub(crate) mod access;
pub(crate) mod authority;
pub(crate) mod awaited;
pub(crate) mod cache_cursor;
pub(crate) mod compression;
pub(crate) mod event_reader;
pub(crate) mod frames;
pub(crate) mod limits;
pub(crate) mod live;
pub(crate) mod merged;
pub(crate) mod multi_cursor;
pub(crate) mod multi_stream;
pub(crate) mod read;
pub(crate) mod reply;
pub(crate) mod signed_url;
pub(crate) mod target;
pub(crate) mod write;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

pub(crate) use self::event_reader::{Following, Held};
use self::event_reader::{Opened, Who};
use self::reply::Reply;
use self::target::{ANSWERS, is_of_streams};
pub(crate) use super::subscriptions::path::is_for_anyone;
use crate::downstream::connection::Client;
use crate::downstream::outbox::write_all;
use crate::edge::request_body::{self, Failure};
use crate::proto::http1::request::RequestBody;
use crate::proto::openai::ApiError;
use crate::relay::context::Core;
use crate::relay::exchange::After;
use crate::relay::pump::Framing;
use crate::relay::request::Request;
use crate::relay::request_record::{Ledger, outcome_of};
use crate::relay::request_summary::Memo;
use crate::relay::response_head;
use crate::runtime::clock::{Micros, Millis, unix_millis};
use crate::streams::{Hub, Streams};
use crate::telemetry::Outcome;
use crate::tell;
use crate::upstream::client::Stop;

/// What can be asked of a stream.
const METHODS: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";

/// Whether a request needs no key, since its address was signed.
pub(crate) fn is_signed(request: &Request, core: &Core) -> bool {
    let settings = core.shared.settings.load();
    let secret = settings.config.streams.sign_key.as_ref();
    secret.is_some_and(|secret| signed_url::opens(request, secret, unix_millis()))
}

/// How often it is looked what is over.
const SWEEP_MS: Millis = 1000;

/// Whether a request is about streams by its path.
pub(crate) fn is_ours(request: &Request) -> bool {
    is_of_streams(request.path())
}

/// Whether streams, or answers that may be kept as such, are read at a path.
pub(crate) fn is_read(path: &str) -> bool {
    is_of_streams(path) || path.starts_with(ANSWERS)
}

/// Whether a request asks for an answer again that may be kept as a stream, as `GET /v1/responses/{id}?stream=true`; those that
/// are not are the upstream's to give ([`answer_again`]).
pub(crate) fn may_be_kept(request: &Request, core: &Core) -> bool {
    answer_of(request).is_some_and(|id| {
        let streams = &core.shared.streams;
        streams.remote().is_some() || streams.answer(id, unix_millis()).is_some()
    })
}

/// What the answer is called that a request asks for again.
fn answer_of(request: &Request) -> Option<&str> {
    let id = request.path().strip_prefix(ANSWERS).filter(|_| &*request.method == "GET")?;
    let is_streamed = request.target.split(['?', '&']).skip(1).any(|parameter| parameter == "stream=true");
    is_streamed.then_some(id)
}

/// Answers a request for an answer that is kept.
///
/// # Errors
/// If it is not: the request, for its upstream.
pub(crate) async fn answer_again(
    client: &Client,
    core: &Rc<Core>,
    mut request: Box<Request>,
    peer: IpAddr,
    began: Micros,
) -> Result<Answered, Box<Request>> {
    let Some(id) = answer_of(&request) else { return Err(request) };
    // Where Redis cannot be asked the upstream may know it as well.
    let Ok(Some(stream)) = core.shared.streams.reach_answer(id, unix_millis()).await else {
        return Err(request);
    };
    let admitted = limits::admit(&mut request, core);
    authority::bind(&request, client, core);
    let visit = Visit { client, core, request: &request };
    let query = admitted.and_then(|()| target::query(&request.target).map_err(bad_target));
    let decided = query.and_then(|query| {
        let stream = visit.allowed(stream)?;
        stream.touch(unix_millis());
        Ok(live::replay(&visit, &stream, query.starting_after))
    });
    let decided = decided.map_err(Failure::from);
    Ok(tell(client, core, request, decided, Ledger::new(began), peer).await)
}

/// A request about streams, and all that surrounds it.
pub(crate) struct Visit<'a> {
    client: &'a Client,
    core: &'a Rc<Core>,
    request: &'a Request,
}

impl Visit<'_> {
    fn streams(&self) -> &Arc<Streams> {
        &self.core.shared.streams
    }

    fn hub(&self) -> &Rc<Hub> {
        &self.core.hub
    }

    /// Where the stream is, as the client has called it.
    fn url(&self) -> String {
        let (host, path) = (String::from_utf8_lossy(self.request.host()), self.request.path());
        match (host.is_empty(), self.client.stream().is_tls()) {
            (true, _) => path.to_owned(),
            (false, true) => format!("https://{host}{path}"),
            (false, false) => format!("http://{host}{path}"),
        }
    }
}

/// What is to be sent.
pub(crate) enum Answer {
    /// A short answer.
    Reply(Reply),
    /// A part of a stream.
    Range(read::Range),
    /// Events, as they come.
    Events(Box<Who>),
}

/// What has become of a request.
pub(crate) enum Answered {
    /// It was answered.
    Done(After),
    /// It is being answered with events, for as long as its client stays: by a task of its own.
    Follows(Held),
}

/// Answers a request about streams.
pub(crate) async fn answer(
    client: &Client,
    core: &Rc<Core>,
    mut request: Box<Request>,
    peer: IpAddr,
    began: Micros,
) -> Answered {
    let admitted = limits::admit(&mut request, core);
    authority::bind(&request, client, core);
    let mut ledger = Ledger::new(began);
    if super::subscriptions::path::is_control(request.path()) {
        let answered = super::subscriptions::answer(client, core, &request, peer, ledger, admitted);
        return Answered::Done(Box::pin(answered).await);
    }
    let visit = Visit { client, core, request: &request };
    let decided = match admitted {
        Ok(()) => decide(&visit, &mut ledger).await,
        Err(error) => Err(error.into()),
    };
    tell(client, core, request, decided, ledger, peer).await
}

/// Gives the answer that was decided on.
async fn tell(
    client: &Client,
    core: &Rc<Core>,
    request: Box<Request>,
    decided: Result<Answer, Failure>,
    mut ledger: Ledger,
    peer: IpAddr,
) -> Answered {
    let visit = &Visit { client, core, request: &request };
    let answer = match decided {
        Ok(answer) => answer,
        Err(Failure::Error(error)) => Answer::Reply(Reply::error(&error)),
        Err(failure) => {
            let refused = request_body::refuse(client, core, &request, peer, ledger, failure, false);
            return Answered::Done(refused.await);
        }
    };
    // Answers of our own have to be taken, but the time for the body is over.
    client.deadlines.no_phase();
    let (written, keep) = match answer {
        Answer::Reply(reply) => visit.reply(&reply, &mut ledger).await,
        Answer::Range(range) => range.send(visit, &mut ledger).await,
        Answer::Events(who) => {
            let opened = Opened::new(visit, *who);
            return Answered::Follows(opened.held(Memo::of(*request, peer, ledger.began())));
        }
    };
    client.deadlines.reset();
    let outcome = outcome(&written, ledger.stream, ledger.error);
    ledger.close(outcome, &request, peer, core);
    Answered::Done(After::written(&written, keep))
}

/// How an answer has ended.
fn outcome(written: &Result<(), Stop>, is_stream: bool, error: Option<&str>) -> Outcome {
    match written {
        Ok(()) if error.is_some() => Outcome::Refused,
        Ok(()) if is_stream => Outcome::Finished,
        Ok(()) => Outcome::Local,
        Err(Stop::Timeout(timeout)) => outcome_of(*timeout),
        Err(_) => Outcome::ClientGone,
    }
}

async fn decide(visit: &Visit<'_>, ledger: &mut Ledger) -> Result<Answer, Failure> {
    let request = visit.request;
    let method = &*request.method;
    if method == "OPTIONS" {
        return Ok(Answer::Reply(options()));
    }
    if !matches!(method, "GET" | "HEAD" | "PUT" | "POST" | "DELETE") {
        let message = "A stream is made by PUT, appended to by POST, read by GET and HEAD, ended by DELETE.";
        return Err(ApiError::new(405, "method_not_allowed", message).into());
    }
    let query = target::query(&request.target).map_err(bad_target)?;
    if request.path() == target::ROOT && method == "GET" && !query.names.is_empty() {
        return Ok(multi_stream::follow(visit, &query).await?);
    }
    let name = target::name(request.path()).map_err(bad_target)?;
    let reply = match method {
        "PUT" => {
            let body = receive(visit, ledger).await?;
            write::create(visit, &name, &body).await?
        }
        "POST" => {
            let body = receive(visit, ledger).await?;
            visit.append(&name, &body).await?
        }
        "DELETE" => write::delete(visit, &visit.find(&name).await?).await?,
        "HEAD" => read::describe(&*visit.find(&name).await?),
        _ => match visit.find_to_read(&name, read::follows(request, &query)).await {
            Ok(stream) => return Ok(read::read(visit, &stream, &query).await?),
            Err(error) if error.status == 404 && query.wait && read::follows(request, &query) => {
                return Ok(awaited::follow(visit, name, &query)?);
            }
            Err(error) if error.status == 503 && read::is_browser(request, &query) => live::come_again(visit),
            Err(error) => return Err(error.into()),
        },
    };
    Ok(Answer::Reply(reply))
}

/// `OPTIONS`: what can be asked, for pages as well. Which pages may is said by `[cors]` alone; without it their browsers find
/// nothing here that lets them.
fn options() -> Reply {
    let reply = Reply::new(204).field("Allow", METHODS);
    reply.field("Access-Control-Allow-Methods", METHODS).field("Access-Control-Allow-Headers", "*")
}

fn bad_target(why: &'static str) -> ApiError {
    ApiError::new(400, "invalid_request", why)
}

async fn receive(visit: &Visit<'_>, ledger: &mut Ledger) -> Result<crate::runtime::block::Block, Failure> {
    if visit.request.encoded {
        let message = "The body is compressed. Send it without Content-Encoding.";
        return Err(ApiError::new(415, "unsupported_content_encoding", message).into());
    }
    let max = visit.streams().bounds().append;
    request_body::receive(visit.client, visit.core, visit.request, max, ledger).await
}

impl Visit<'_> {
    /// Whether the connection can carry another request after an answer in that form. One that came with a body that was not
    /// read cannot.
    fn keeps(&self, framing: Framing, read: bool) -> bool {
        let unread = !read && !matches!(self.request.body, RequestBody::None | RequestBody::Length(0));
        !unread && response_head::keeps(self.request, framing, self.core) && !self.client.is_to_leave()
    }

    /// Sends a short answer. Says whether the connection is kept.
    async fn reply(&self, reply: &Reply, ledger: &mut Ledger) -> (Result<(), Stop>, bool) {
        let request = self.request;
        // What was refused may not have been read to its end.
        let read = matches!(&*request.method, "PUT" | "POST") && reply.error.is_none();
        let keep = self.keeps(Framing::Length, read || self.is_read(ledger));
        let length = reply.has_body.then_some(reply.body.len() as u64);
        let mut out = response_head::begin(
            reply.status,
            &reply.lines,
            length,
            Framing::Length,
            request,
            keep,
            self.core,
        );
        if !request.is_head() {
            out.extend_from_slice(&reply.body);
        }
        (ledger.status, ledger.error) = (reply.status, reply.error);
        ledger.bytes_out = reply.body.len() as u64;
        (write_all(self.client, &self.core.shard, &out).await, keep)
    }

    /// Whether all of the request's body was read.
    fn is_read(&self, ledger: &Ledger) -> bool {
        matches!(self.request.body, RequestBody::Length(length) if length == ledger.bytes_in)
    }
}

/// Ends streams whose time is over, for ever.
pub(crate) async fn sweep(core: Rc<Core>) {
    let streams = &core.shared.streams;
    let (mut told, mut was_full) = (false, false);
    loop {
        core.shard.pause(SWEEP_MS).await;
        streams.sweep(unix_millis());
        let failure = streams.journal().and_then(|journal| journal.failure()).filter(|_| !told);
        if let Some(failure) = failure {
            told = true;
            tell!("sedge: durable streams: {failure}");
        }
        let no_room = streams.journal().and_then(|journal| journal.no_room());
        if let Some(lack) = no_room.as_ref().filter(|_| !was_full) {
            tell!("sedge: durable streams: {lack}: appends are refused");
        }
        // After a failure there is no more to come.
        if was_full && no_room.is_none() && !told {
            tell!("sedge: durable streams: there is room on the disk again: appends are accepted");
        }
        was_full = no_room.is_some();
    }
}
