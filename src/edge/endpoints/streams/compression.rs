//! Answers that are compressed on their way: which of them, and how they are written.
//!
//! An encoder is large beside all else that a reader needs (see [`crate::streams::fanout::encode`]), so a core has a number of them and
//! no more: who finds none gets the bytes as they are, which any client can read. For the same reason events are left alone as
//! they come, unless the configuration says otherwise: their readers stay for hours.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Visit;
use crate::config::Compress;
use crate::downstream::connection::Client;
use crate::downstream::deadlines::Timeout;
use crate::downstream::outbox::write_all;
use crate::proto::http1::Version;
use crate::proto::http1::coding::Coding;
use crate::proto::http1::fields::write_field;
use crate::relay::context::Core;
use crate::relay::exchange::millis;
use crate::streams::fanout::encode::{Encoder, End};
use crate::upstream::client::Stop;

/// What is no longer is sent as it is, in bytes: it fits one packet either way.
const CODED_BYTES_MIN: u64 = 1 << 10;

/// The most encoders in use at once, on a core: 64 MiB of memory at most.
const ENCODERS_MAX: u32 = 64;

/// The last chunk.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The head of a chunk whose size is not known yet.
const CHUNK_HEAD: &[u8] = b"00000000\r\n";

/// A comment, for whoever waits.
const BEAT: &[u8] = b":\n";

/// The encoder of one answer, and the chunks it goes out in.
pub(crate) struct Coded {
    coding: Coding,
    encoder: Encoder,
    core: Rc<Core>,
}

impl Coded {
    /// For an answer of that type with so many bytes, if it is to be compressed. Boxed: there is room for it in whatever waits,
    /// and hardly anybody has one.
    pub(crate) fn of_range(visit: &Visit<'_>, content_type: &str, length: u64) -> Option<Box<Coded>> {
        let worth = length > CODED_BYTES_MIN && varies(visit) && !is_packed(content_type);
        if worth { Coded::new(visit) } else { None }
    }

    /// For events as they come, if they are to be compressed.
    pub(crate) fn of_events(visit: &Visit<'_>) -> Option<Box<Coded>> {
        if events_vary(visit) { Coded::new(visit) } else { None }
    }

    fn new(visit: &Visit<'_>) -> Option<Box<Coded>> {
        // Without chunks nothing would tell the end of what cannot be counted beforehand.
        if visit.request.version == Version::Http10 || visit.core.encoders.get() >= ENCODERS_MAX {
            return None;
        }
        let coding = visit.request.coding();
        let encoder = Encoder::new(coding)?;
        visit.core.encoders.set(visit.core.encoders.get() + 1);
        Some(Box::new(Coded { coding, encoder, core: Rc::clone(visit.core) }))
    }

    /// Which one it is.
    pub(crate) fn coding(&self) -> Coding {
        self.coding
    }

    /// Appends `bytes` and what follows them as a chunk, if there is anything to be sent yet.
    pub(crate) fn chunk(&mut self, bytes: &[u8], end: End, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(CHUNK_HEAD);
        self.encoder.encode(bytes, end, out);
        let size = out.len() - start - CHUNK_HEAD.len();
        if size == 0 {
            return out.truncate(start);
        }
        for (place, digit) in out[start..start + 8].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[size >> (4 * (7 - place)) & 15];
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Waits until `news` tells something, with heartbeats meanwhile: the wheel's own are not compressed.
    pub(crate) async fn wait(
        &mut self,
        client: &Client,
        core: &Core,
        mut news: impl FnMut(&mut Context<'_>) -> Poll<Result<(), Stop>>,
    ) -> Result<(), Stop> {
        let every = millis(core.settings().config.heartbeat);
        loop {
            client.deadlines.phase(Timeout::KeepAlive, core.shard.clock.millis(), every);
            client.arm();
            let told = poll_fn(&mut news).await;
            client.deadlines.no_phase();
            match told {
                Err(Stop::Timeout(Timeout::KeepAlive)) => {
                    let mut out = Vec::new();
                    self.chunk(BEAT, End::Flush, &mut out);
                    write_all(client, &core.shard, &out).await?;
                    core.metrics.heartbeats.add(1);
                }
                told => return told,
            }
        }
    }
}

impl Drop for Coded {
    fn drop(&mut self) {
        self.core.encoders.set(self.core.encoders.get() - 1);
    }
}

/// Fields of a request that another response to the same address depends on: whether events are wanted, and from where.
pub(crate) const VARY: &str = "Accept, Last-Event-ID";

/// Writes how a response is coded.
pub(crate) fn write_coding(lines: &mut Vec<u8>, coding: Coding) {
    if coding != Coding::Identity {
        write_field(lines, "Content-Encoding", coding.name().as_bytes());
    }
}

/// Writes that another client may get another response; with `by_coding`, one that is coded otherwise too.
pub(crate) fn write_vary(lines: &mut Vec<u8>, by_coding: bool) {
    let all = if by_coding { "Accept, Last-Event-ID, Accept-Encoding" } else { VARY };
    write_field(lines, "Vary", all.as_bytes());
}

/// Whether what is read is compressed for those who ask.
pub(crate) fn varies(visit: &Visit<'_>) -> bool {
    visit.core.settings().config.streams.compress != Compress::Never
}

/// Likewise, events as they come.
pub(crate) fn events_vary(visit: &Visit<'_>) -> bool {
    visit.core.settings().config.streams.compress == Compress::Always
}

/// Whether bytes of that type are as small already as they get.
fn is_packed(content_type: &str) -> bool {
    const SUBTYPES: [&str; 6] = ["zip", "gzip", "x-gzip", "zstd", "x-7z-compressed", "x-brotli"];
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.split_once('/') {
        Some(("audio" | "video", _)) => true,
        Some(("image", kind)) => kind != "svg+xml",
        Some(("application", kind)) => SUBTYPES.contains(&kind),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_left_alone() {
        for packed in ["image/png", "Video/MP4; codecs=x", "application/gzip", "audio/ogg"] {
            assert!(is_packed(packed), "{packed}");
        }
        for plain in ["text/plain", "application/json", "application/octet-stream", "image/svg+xml", "x"] {
            assert!(!is_packed(plain), "{plain}");
        }
    }
}
