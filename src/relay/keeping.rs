//! An answer that is kept as a durable stream: made when its head is there, read to its end whoever listens, and closed with
//! how it ended.
//!
//! | what happens | the upstream | the client | the stream |
//! | --- | --- | --- | --- |
//! | it ends | | the end | is closed |
//! | it breaks off, or a limit passes | is given up | an error event | the same error event, and is closed |
//! | the client leaves, or does not read | is read on | may come back as a reader | goes on |
//! | somebody deletes the stream | is cancelled | an error event | is gone |

use std::rc::Rc;

use bytes::Bytes;

use super::core::Core;
use super::deadline::Timeout;
use super::download::Ending;
use super::exchange::{After, Answer, Exchange};
use super::refusal::Failure;
use super::tee::{CONTENT_TYPE, Tee};
use crate::http::fields::write_field;
use crate::observe::Outcome;
use crate::openai::ApiError;
use crate::shard::clock::unix_millis;
use crate::stream::journal::Ticket;
use crate::stream::{Creation, Kind, Lifetime, NotCreated};

impl Exchange<'_> {
    /// Whether an answer could be kept now; asking an upstream for one that cannot be would be for nothing.
    pub(super) fn can_keep(&self) -> Result<(), ApiError> {
        let remote = self.core.shared.streams.remote();
        if self.request.durable && remote.is_some_and(|remote| !remote.is_up()) {
            return Err(ApiError::cannot_be_kept());
        }
        Ok(())
    }

    /// Makes the stream that the answer becomes, and says where it is.
    pub(super) async fn keep(
        &mut self,
        core: &Rc<Core>,
    ) -> Result<(Option<Box<Tee>>, Option<Ticket>), Failure> {
        // Only who was told it can guess it, where no key protects it.
        let name = format!("gen_{:016x}{:016x}", core.chance(), core.chance());
        let owner = self.request.holder().map(|holder| holder.name.to_string());
        let creation = Creation {
            name: &name,
            kind: Kind::new(CONTENT_TYPE),
            lifetime: Lifetime::Idle(self.settings.config.streams.keep_answers.as_secs().max(1)),
            bytes: Bytes::new(),
            ends: Box::default(),
            closed: false,
            fork: None,
            owner: owner.as_deref(),
            generated: true,
        };
        let streams = &core.shared.streams;
        let created = streams.begin(&creation, unix_millis()).await.map_err(|error| match error {
            NotCreated::Full => ApiError::new(
                503,
                "streams_full",
                "The answer cannot be kept: there is no room for more durable streams. Ask again later, or without Sedge-Durable.",
            ),
            NotCreated::Unavailable(_) => ApiError::cannot_be_kept(),
            _ => ApiError::new(
                503,
                "storage_failed",
                "The answer cannot be kept: the disk has failed. The log says how.",
            ),
        })?;
        let stream = &created.stream;
        core.hub.appended(created.ticket, stream);
        let mut lines = Vec::with_capacity(128);
        write_field(&mut lines, "Location", format!("/v1/stream/{name}").as_bytes());
        let begin = stream.offset(stream.status().tail);
        write_field(&mut lines, "Stream-Next-Offset", begin.to_string().as_bytes());
        self.request.kept_at = Some(lines.into());
        let named = self.request.path().ends_with("/responses");
        Ok((Some(Tee::new(stream, &core.hub, streams, named)), created.ticket))
    }

    /// The answer has ended for its client, in one way or another. It goes on for its stream if the upstream has not ended.
    pub(super) async fn end_kept(&mut self, answer: &mut Answer, ending: Ending) -> (Outcome, After) {
        let terminal = answer.download.terminal();
        let leaves = matches!(ending, Ending::Gone | Ending::Timeout(Timeout::ClientStall));
        if leaves && !terminal {
            self.ledger.answer(&answer.download);
            // What limits it is the request's time and the upstream's silence, as if somebody listened.
            let mut limits = answer.limits;
            limits.read_on = u32::MAX;
            let whole = self.read_on(&mut answer.download, &limits).await;
            self.close_kept(answer, (!whole).then(ApiError::upstream_closed).as_ref());
            return (Outcome::ClientGone, After::Abort);
        }
        let error = match &ending {
            Ending::Deleted => Some(ApiError::answer_deleted()),
            Ending::Cut(cut) => Some(cut.error()),
            Ending::Timeout(timeout) => Some(self.timeout_error(*timeout)),
            Ending::Finished | Ending::Gone => None,
        };
        let error = error.filter(|_| !terminal);
        self.close_kept(answer, error.as_ref());
        match (&ending, error) {
            (Ending::Deleted, Some(error)) => {
                self.ledger.answer(&answer.download);
                self.part(&answer.download, &error, Outcome::ClientGone).await
            }
            _ => Box::pin(self.end(answer, ending)).await,
        }
    }

    fn close_kept(&self, answer: &mut Answer, error: Option<&ApiError>) {
        if let Some(mut tee) = answer.download.tee.take() {
            tee.finish(error);
        }
    }
}
