//! One webhook: dialed, signed, sent, and its answer read.
//!
//! Whoever subscribes chooses where it goes, so the address is checked when it is known, and no redirect is followed: an answer
//! that is no 2xx has not been taken.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use crate::proto::http1::body::BodyDecoder;
use crate::proto::http1::fields::{write_field, write_number};
use crate::relay::context::Core;
use crate::runtime::net::stream::Stream;
use crate::subscriptions::{ANSWER_BYTES_MAX, Delivered, Delivery, Signer, UnixMillis, WebhookUrl};
use crate::upstream::client::Asking;
use crate::upstream::dial::{Dialer, Place, Tried, dial_place};

/// Sends it, signed for the time that it is on the wall. The caller keeps the time that it takes.
pub(crate) async fn send(
    core: &Rc<Core>,
    signer: &Signer,
    unix: UnixMillis,
    delivery: &Delivery,
) -> Delivered {
    // It was checked when it was configured; what is allowed may have changed.
    let settings = core.settings();
    let Ok(url) = WebhookUrl::parse(&delivery.url, settings.local_webhooks()) else {
        return Delivered::Failed;
    };
    let tls = match url.origin.tls {
        false => None,
        true => {
            let settings = Arc::clone(&settings);
            // Reading the system's certificates takes a while, once.
            let config = tokio::task::spawn_blocking(move || settings.outbound_tls()).await;
            let (Ok(Some(config)), Ok(name)) = (config, ServerName::try_from(url.origin.host.clone())) else {
                return Delivered::Failed;
            };
            Some((config, name))
        }
    };
    drop(settings);
    let reach = url.reach;
    let place = Place {
        host: &url.origin.host,
        port: url.origin.port,
        tls: tls.as_ref(),
        allows: &|address| reach.allows(address),
        first: None,
    };
    let tried = Tried::default();
    let dialer = Dialer { resolver: &core.webhook_resolver, ..core.dialer(&tried) };
    let Ok(dialed) = dial_place(&place, dialer, |_| {}).await else { return Delivered::Failed };
    let request = request(&url, &signer.sign(unix, &delivery.body), &delivery.body);
    answer(core, dialed.stream, &request).await.unwrap_or(Delivered::Failed)
}

fn request(url: &WebhookUrl, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + body.len());
    out.extend_from_slice(format!("POST {} HTTP/1.1\r\n", url.target).as_bytes());
    write_field(&mut out, "Host", url.origin.authority().as_bytes());
    write_field(&mut out, "User-Agent", b"sedge");
    write_field(&mut out, "Content-Type", b"application/json");
    write_field(&mut out, "Webhook-Signature", signature.as_bytes());
    write_number(&mut out, "Content-Length", body.len() as u64);
    out.extend_from_slice(b"Connection: close\r\n\r\n");
    out.extend_from_slice(body);
    out
}

/// What the receiver says; nothing, if it breaks off before its head is there.
async fn answer(core: &Rc<Core>, stream: Stream, request: &[u8]) -> Option<Delivered> {
    let mut asking = Asking::new(stream, request, 0);
    let mut answered = poll_fn(|cx| asking.poll_alone(cx, core, false)).await.ok()?;
    let (status, mut decoder) = (answered.status(), BodyDecoder::from(answered.head().body));
    let mut body = Vec::new();
    let whole = feed(&mut decoder, &mut answered.block[answered.rest.clone()], &mut body);
    if whole.is_none() {
        let mut block = core.shard.blocks.take();
        loop {
            let read = poll_fn(|cx| asking.stream.poll_read(cx, &mut block)).await;
            match read {
                Ok(read) if read > 0 => {
                    if feed(&mut decoder, &mut block[..read], &mut body).is_some() {
                        break;
                    }
                }
                // One that ends by close is whole now; of any other nothing is believed but its status.
                _ if matches!(decoder, BodyDecoder::Close) => break,
                _ => return Some(Delivered::by_answer(status, &[])),
            }
        }
    }
    let body = if body.len() > ANSWER_BYTES_MAX { &[] } else { &body[..] };
    Some(Delivered::by_answer(status, body))
}

/// Takes what has come; something, if no more has to be read.
fn feed(decoder: &mut BodyDecoder, bytes: &mut [u8], body: &mut Vec<u8>) -> Option<()> {
    if decoder.finished() {
        return Some(());
    }
    let Ok(decoded) = decoder.decode_in_place(bytes) else {
        // What is not understood says nothing.
        body.clear();
        return Some(());
    };
    body.extend_from_slice(&bytes[..decoded.payload]);
    (decoded.ended || body.len() > ANSWER_BYTES_MAX).then_some(())
}
