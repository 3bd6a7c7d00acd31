//! The life of a client's connection.
//!
//! ```text
//!  idle ──first byte──► head ──complete──► answer ──► idle ...
//!   │ keep_alive         │ request_head: 408     │ close: say so, read what is still coming, close
//!   ▼ silently           ▼ refused: 4xx          ▼ abort: reset
//! closed              lingering               closed
//! ```

use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::Door;
use super::endpoints::streams::{Answered, Held};
use super::endpoints::{batch, builtin, models, streams};
use super::head::{self, Taken};
use crate::admission;
use crate::config::Config;
use crate::downstream::connection::Client;
use crate::downstream::deadlines::Timeout;
use crate::downstream::outbox::write_all;
use crate::proto::http1::Reject;
use crate::proto::http1::request::{FIELD_SECTION_BYTES, HeadScanner, REQUEST_LINE_BYTES, RequestBody};
use crate::proto::openai::ApiError;
use crate::relay::context::Core;
use crate::relay::exchange::{After, millis, relay};
use crate::relay::pump::Framing;
use crate::relay::request::Request;
use crate::relay::request_record::Ledger;
use crate::relay::response_head::{self, Local};
use crate::relay::settings::Settings;
use crate::runtime::block::BLOCK_BYTES;
use crate::runtime::clock::{Micros, Millis};
use crate::telemetry::Outcome;

/// A head never needs more room than this: its bounds, and a line end before it.
const HEAD_BYTES_MAX: usize = REQUEST_LINE_BYTES + FIELD_SECTION_BYTES + 1024;

/// How long a connection that is being closed waits for more to read, so that the last answer is not lost to a reset.
const LINGER_MS: u32 = 1000;

/// How long it reads at most: a client that is in the middle of its upload looks for an answer when it is done.
const LINGER_TOTAL_MS: Millis = 10_000;

/// How much it reads at most meanwhile.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What came of waiting for a head.
enum Waited {
    /// It is there, this long.
    Head(usize),
    /// The connection is over.
    Closed,
    /// It did not come in time.
    Late,
    /// It cannot be accepted.
    Refused(Reject),
    /// It stopped in its middle, and too many others have as well.
    NoRoom,
}

/// What becomes of a request. Boxed, each of them: while an answer streams the match still keeps room for the largest.
enum Next {
    /// It goes to an upstream.
    Relay(Box<Request>),
    /// All upstreams are asked.
    Union(Box<Request>),
    /// It is several.
    Batch(Box<Request>),
    /// It is about durable streams.
    Streams(Box<Request>),
    /// It asks for an answer again, which may be kept as a stream.
    Again(Box<Request>),
    /// It is answered here.
    Give(Box<Request>, Box<builtin::Found>),
    /// It cannot be understood.
    Refuse(Box<Reject>),
}

/// Serves requests until the connection ends, or a reader of events is to be left to a task of its own
/// ([`streams::Following`]), which is far smaller than this one. `after` is what came of an answer that was given there.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice, and this one is kept by every connection"
)]
pub(crate) fn run<'a>(
    client: &'a Client,
    core: &'a Rc<Core>,
    peer: IpAddr,
    door: Door,
    mut after: Option<After>,
) -> impl Future<Output = Option<Held>> + 'a {
    async move {
        loop {
            match after {
                None | Some(After::Next) => {}
                Some(After::Close) => {
                    linger(client, core).await;
                    return None;
                }
                Some(After::Abort) => {
                    client.stream().reset_on_close();
                    return None;
                }
            }
            let came = match wait(client, core, door, after.is_none()).await {
                Waited::Closed => return None,
                Waited::Late => {
                    let limit = core.shared.settings.load().config.timeouts.request_head;
                    Box::pin(refuse(client, core, peer, &ApiError::request_head_timeout(limit))).await;
                    After::Close
                }
                Waited::Refused(reject) => {
                    Box::pin(refuse(client, core, peer, &reject.into())).await;
                    After::Close
                }
                Waited::NoRoom => {
                    Box::pin(refuse(client, core, peer, &ApiError::overloaded())).await;
                    After::Close
                }
                Waited::Head(length) => {
                    let began = core.shard.clock.micros();
                    match read(client, core, peer, door, length) {
                        // Polled from here without a layer between: each one costs every segment of an answer its share.
                        Next::Relay(mut request) => relay(client, core, &mut request, peer, began).await,
                        Next::Union(mut request) => {
                            Box::pin(models::answer(client, core, &mut request, peer, began)).await
                        }
                        Next::Batch(request) => {
                            Box::pin(batch::answer(client, core, &request, peer, began)).await
                        }
                        Next::Streams(request) => {
                            match Box::pin(streams::answer(client, core, request, peer, began)).await {
                                Answered::Done(after) => after,
                                Answered::Follows(held) => return Some(held),
                            }
                        }
                        Next::Again(request) => {
                            match Box::pin(streams::answer_again(client, core, request, peer, began)).await {
                                Ok(Answered::Done(after)) => after,
                                Ok(Answered::Follows(held)) => return Some(held),
                                Err(mut request) => {
                                    Box::pin(relay(client, core, &mut request, peer, began)).await
                                }
                            }
                        }
                        Next::Give(request, found) => give(client, core, peer, &request, began, &found).await,
                        Next::Refuse(reject) => {
                            Box::pin(refuse(client, core, peer, &(*reject).into())).await;
                            After::Close
                        }
                    }
                }
            };
            after = Some(came);
        }
    }
}

/// Waits for the head of a request.
async fn wait(client: &Client, core: &Rc<Core>, door: Door, first: bool) -> Waited {
    let mut scanner = HeadScanner::default();
    let (head_limit, idle_limit) = {
        let timeouts = &core.settings().config.timeouts;
        (millis(timeouts.request_head), millis(timeouts.keep_alive))
    };
    let now = core.shard.clock.millis();
    let mut begun = first || !client.inbound().is_empty();
    match begun {
        true => client.phase(Timeout::RequestHead, now, head_limit),
        false => client.phase(Timeout::KeepAlive, now, idle_limit),
    }
    poll_fn(|cx| {
        if client.poll_expired(cx).is_ready() {
            let nothing = client.inbound().is_empty();
            return Poll::Ready(if nothing { Waited::Closed } else { Waited::Late });
        }
        loop {
            match scanner.scan(client.inbound().bytes()) {
                Ok(Some(length)) => return Poll::Ready(Waited::Head(length)),
                Ok(None) => {}
                Err(reject) => return Poll::Ready(Waited::Refused(reject)),
            }
            // The admin's door stays open until the process ends: that it is draining is asked there. Who was let in before
            // another process took over, and has not asked yet, is not sent away: it would see a failure of a service that runs.
            let leaves =
                core.shared.is_draining() && door == Door::Public && !(first && core.shared.is_succeeded());
            if leaves && client.inbound().is_empty() {
                return Poll::Ready(Waited::Closed);
            }
            match client.poll_fill(cx, HEAD_BYTES_MAX) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Waited::Closed),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending if client.inbound().is_empty() => return Poll::Pending,
                Poll::Pending => {
                    client.park();
                    let room = core.has_head_room(&core.settings());
                    return if room { Poll::Pending } else { Poll::Ready(Waited::NoRoom) };
                }
            }
            if !begun {
                begun = true;
                let now = core.shard.clock.micros() / 1000;
                client.phase(Timeout::RequestHead, now, head_limit);
            }
        }
    })
    .await
}

/// Reads a complete head, and decides what becomes of the request.
fn read(client: &Client, core: &Rc<Core>, peer: IpAddr, door: Door, length: usize) -> Next {
    client.deadlines.no_phase();
    let settings = core.settings();
    // Our own answers, too, have to be taken.
    client.deadlines.stall(millis(settings.config.timeouts.client_stall));
    let mut inbound = client.inbound();
    let Taken { mut request, preflight, barred } =
        match head::parse(&inbound.bytes()[..length], &settings.config) {
            Ok(head) => head::take(&head, core, &settings, peer, door),
            Err(reject) => return Next::Refuse(Box::new(reject)),
        };
    inbound.consume(length);
    drop(inbound);
    if let Some(error) = barred {
        return refusal(request, &error);
    }
    if let Some(found) = builtin::find(&request, core, door) {
        return Next::Give(request, Box::new(found));
    }
    if preflight && is_relayed(request.path(), &settings.config) {
        return Next::Give(request, Box::new(builtin::preflight()));
    }
    match admit(&mut request, core, &settings, door) {
        Ok(()) if batch::is_batch(&request) => Next::Batch(request),
        Ok(()) if streams::is_ours(&request) => Next::Streams(request),
        Ok(()) if streams::may_be_kept(&request, core) => Next::Again(request),
        Ok(()) if models::is_union(&request, core) => Next::Union(request),
        Ok(()) => Next::Relay(request),
        Err(error) => refusal(request, &error),
    }
}

/// An error in place of what was asked for.
fn refusal(request: Box<Request>, error: &ApiError) -> Next {
    let found = builtin::Found {
        status: error.status,
        content_type: "application/json",
        body: request.api().error_body(error, &request.id).into(),
        fields: response_head::error_fields(error),
        error: error.code,
        quiet: false,
    };
    Next::Give(request, Box::new(found))
}

/// Whether the request may go on: its path is relayed, its key is known, and the process has room for it.
fn admit(request: &mut Request, core: &Core, settings: &Settings, door: Door) -> Result<(), ApiError> {
    let path = request.path();
    if door == Door::Admin || !is_relayed(path, &settings.config) {
        return Err(ApiError::no_route(&request.method, path));
    }
    if !settings.config.keys.is_empty() && !streams::is_for_anyone(path) && !streams::is_signed(request, core)
    {
        let (authorization, api_key) = request.credentials();
        let key = admission::check(&settings.config.keys, authorization, api_key)?;
        if let Some(holder) = settings.holders.get(key) {
            request.who = holder.number;
            request.account_mut().holder = Some(Arc::clone(holder));
        }
        // Each request of a batch shows them once more.
        if !batch::is_batch(request) {
            request.forget_credentials();
        }
    }
    if core.shared.is_draining() && !core.shared.is_succeeded() {
        return Err(ApiError::draining());
    }
    if core.has_room(settings) { Ok(()) } else { Err(ApiError::overloaded()) }
}

fn is_relayed(path: &str, config: &Config) -> bool {
    path == "/v1" || path.starts_with("/v1/") || config.relay_all
}

/// Gives an answer of our own. A body that was sent with the request is not read: the connection is closed after the answer.
async fn give(
    client: &Client,
    core: &Rc<Core>,
    peer: IpAddr,
    request: &Request,
    began: Micros,
    local: &builtin::Found,
) -> After {
    let keep = matches!(request.body, RequestBody::None | RequestBody::Length(0))
        && response_head::keeps(request, Framing::Length, core)
        && !client.is_to_leave();
    let answer = Local {
        status: local.status,
        content_type: local.content_type,
        body: &local.body,
        fields: local.fields,
    };
    let written = write_all(client, &core.shard, &answer.write(request, keep, core)).await;
    if !local.quiet {
        let mut ledger = Ledger::new(began);
        ledger.status = local.status;
        ledger.error = local.error;
        ledger.bytes_out = local.body.len() as u64;
        let outcome = if local.error.is_some() { Outcome::Refused } else { Outcome::Local };
        ledger.close(outcome, request, peer, core);
    }
    client.deadlines.reset();
    After::written(&written, keep)
}

/// Answers a request that could not be understood.
async fn refuse(client: &Client, core: &Rc<Core>, peer: IpAddr, error: &ApiError) {
    let request = Request::unparsed(client.inbound().bytes(), &mut core.ids.borrow_mut());
    let body = error.body();
    let answer = Local {
        status: error.status,
        content_type: "application/json",
        body: &body,
        fields: response_head::error_fields(error),
    };
    let bytes = answer.write(&request, false, core);
    client.deadlines.phase(Timeout::ClientStall, core.shard.clock.millis(), LINGER_MS);
    client.arm();
    // Whoever sent this may well be gone.
    let _ = write_all(client, &core.shard, &bytes).await;
    let mut ledger = Ledger::new(core.shard.clock.micros());
    ledger.status = error.status;
    ledger.error = error.code;
    ledger.close(Outcome::Refused, &request, peer, core);
}

/// Closes for writing, and reads what still comes for a moment: closing with bytes unread would send a reset, and a reset may
/// take the last answer with it (RFC 9112, 9.6).
async fn linger(client: &Client, core: &Rc<Core>) {
    client.deadlines.reset();
    let now = core.shard.clock.millis();
    client.deadlines.total(now + LINGER_TOTAL_MS);
    client.deadlines.phase(Timeout::KeepAlive, now, LINGER_MS);
    client.arm();
    let mut read = 0;
    let mut shut = false;
    poll_fn(|cx| {
        if client.poll_expired(cx).is_ready() {
            return Poll::Ready(());
        }
        if !shut {
            match client.stream().poll_shutdown(cx) {
                Poll::Ready(Ok(())) => shut = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        loop {
            let held = client.inbound().bytes().len();
            client.inbound().consume(held);
            read += held;
            if read > LINGER_BYTES_MAX {
                return Poll::Ready(());
            }
            match client.poll_fill(cx, BLOCK_BYTES) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {
                    let now = core.shard.clock.micros() / 1000;
                    client.deadlines.phase(Timeout::KeepAlive, now, LINGER_MS);
                    client.arm();
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}
