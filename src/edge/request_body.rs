//! The body of a request that is answered here: received whole, in a block that is counted with all that is held, before
//! anything is decided.

use std::net::IpAddr;
use std::rc::Rc;

use crate::downstream::connection::Client;
use crate::downstream::deadlines::Timeout;
use crate::downstream::outbox::write_all;
use crate::proto::http1::request::{CONTINUE, RequestBody};
use crate::proto::openai::ApiError;
use crate::relay::context::Core;
use crate::relay::exchange::{After, millis};
use crate::relay::pump::Framing;
use crate::relay::request::Request;
use crate::relay::request::body::{Upload, UploadError};
use crate::relay::request::body_scan::Decides;
use crate::relay::request_record::Ledger;
use crate::relay::response_head;
use crate::runtime::block::Block;
use crate::telemetry::Outcome;
use crate::upstream::client::{Stop, receive_more};

/// Why a request is not answered as it was meant.
pub(crate) enum Failure {
    /// Its client is told.
    Error(ApiError),
    /// It has left, or a limit has passed.
    Stop(Stop),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Failure {
        Failure::Error(error)
    }
}

/// The whole body, which may have `max` bytes.
pub(crate) async fn receive(
    client: &Client,
    core: &Rc<Core>,
    request: &Request,
    max: u64,
    ledger: &mut Ledger,
) -> Result<Block, Failure> {
    let (max, limit) = {
        let config = &core.settings().config;
        (max.min(config.limits.max_body), millis(config.timeouts.request_body))
    };
    let now = core.shard.clock.millis();
    let mut upload = Upload::new(&request.body, None, Decides::NOTHING, max, now, limit);
    let received = all(client, core, request, &mut upload, max).await;
    ledger.bytes_in = upload.received;
    received?;
    client.deadlines.no_phase();
    let mut whole = core.shard.blocks.take_exact(upload.received as usize);
    upload.copy_held(&mut whole);
    Ok(whole)
}

async fn all(
    client: &Client,
    core: &Rc<Core>,
    request: &Request,
    upload: &mut Upload,
    max: u64,
) -> Result<(), Failure> {
    let failure = |stop| match stop {
        Stop::Upload(UploadError::Malformed(why)) => ApiError::new(400, "invalid_request", why).into(),
        Stop::Upload(UploadError::TooLarge) => ApiError::body_too_large(max).into(),
        other => Failure::Stop(other),
    };
    if matches!(request.body, RequestBody::Length(length) if length > max) {
        return Err(ApiError::body_too_large(max).into());
    }
    if request.expect_continue && !upload.ended && client.inbound().is_empty() {
        write_all(client, &core.shard, CONTINUE).await.map_err(failure)?;
    }
    upload.receive(client, &core.shard).map_err(Stop::Upload).map_err(failure)?;
    while !upload.ended {
        let settings = core.settings();
        if !core.has_room(&settings) {
            return Err(ApiError::overloaded().into());
        }
        if !upload.has_share(|| core.share(request.who, &settings)) {
            core.metrics.bodies_over_share.inc();
            return Err(ApiError::bodies_over_share().into());
        }
        receive_more(client, core, upload).await.map_err(failure)?;
    }
    Ok(())
}

/// Answers with an error, or not at all. `read` says that all of the request's body was read.
pub(crate) async fn refuse(
    client: &Client,
    core: &Rc<Core>,
    request: &Request,
    peer: IpAddr,
    mut ledger: Ledger,
    failure: Failure,
    read: bool,
) -> After {
    let (error, outcome) = match failure {
        Failure::Error(error) => (error, Outcome::Refused),
        Failure::Stop(Stop::Timeout(Timeout::RequestBody)) => {
            let limit = core.settings().config.timeouts.request_body;
            (ApiError::request_body_timeout(limit), Outcome::TimeoutRequestBody)
        }
        Failure::Stop(Stop::Timeout(Timeout::Drain)) => (ApiError::draining(), Outcome::Drained),
        Failure::Stop(_) => {
            client.deadlines.reset();
            ledger.close(Outcome::ClientGone, request, peer, core);
            return After::Abort;
        }
    };
    client.deadlines.last_words(core.shard.clock.millis());
    client.arm();
    let keep = read && response_head::keeps(request, Framing::Length, core);
    (ledger.status, ledger.error) = (error.status, error.code);
    let written = write_all(client, &core.shard, &response_head::error(&error, request, keep, core)).await;
    client.deadlines.reset();
    ledger.close(if written.is_ok() { outcome } else { Outcome::ClientGone }, request, peer, core);
    After::written(&written, keep)
}
