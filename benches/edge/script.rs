//! What the upstream says, and so what the client must read: fixed before anything runs, so that checking a stream is one
//! comparison of memory and never the measurement's bottleneck.
//!
//! There are [`VARIANTS`] scripts that differ in their ids; neighbours among the streams follow different ones, so a relay that
//! mixes two streams up is found out.

/// Scripts that differ in their ids.
pub const VARIANTS: usize = 16;

/// What ends a stream of OpenAI's.
const DONE: &[u8] = b"data: [DONE]\n\n";

/// The head before every stream: the fields that OpenAI sends and a proxy must carry.
const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\
Date: Mon, 05 Jan 2026 10:00:00 GMT\r\n\
Content-Type: text/event-stream; charset=utf-8\r\n\
Transfer-Encoding: chunked\r\n\
Connection: keep-alive\r\n\
access-control-expose-headers: X-Request-ID\r\n\
openai-organization: bench\r\n\
openai-processing-ms: 184\r\n\
openai-version: 2020-10-01\r\n\
x-ratelimit-limit-requests: 10000\r\n\
x-ratelimit-remaining-requests: 9999\r\n\
x-request-id: req_0123456789abcdef0123456789abcdef\r\n\r\n";

/// One stream, as it leaves the upstream and as a client must find it.
pub struct Script {
    /// The answer's head.
    pub head: Vec<u8>,
    /// The events as they stand on the wire: each in a chunk of its own.
    pub wire: Vec<u8>,
    /// The same without framing.
    pub payload: Vec<u8>,
    /// Bytes of one event on the wire.
    pub wire_event: usize,
    /// Bytes of one event's payload.
    pub event: usize,
    /// `[DONE]` and the last chunk, as they stand on the wire.
    pub end: Vec<u8>,
    /// Events before the end.
    pub events: usize,
}

impl Script {
    /// The script of a stream of `events` events of `bytes` bytes each.
    pub fn stream(variant: usize, events: usize, bytes: usize) -> Script {
        let mut payload = Vec::with_capacity(events * bytes + DONE.len());
        let mut wire = Vec::with_capacity(events * (bytes + 8));
        for number in 0..events {
            let event = event(variant, number, bytes);
            wire.extend_from_slice(format!("{:x}\r\n", event.len()).as_bytes());
            wire.extend_from_slice(&event);
            wire.extend_from_slice(b"\r\n");
            payload.extend_from_slice(&event);
        }
        payload.extend_from_slice(DONE);
        let end = [format!("{:x}\r\n", DONE.len()).as_bytes(), DONE, b"\r\n0\r\n\r\n"].concat();
        let wire_event = wire.len() / events;
        Script { head: STREAM_HEAD.to_vec(), wire, payload, wire_event, event: bytes, end, events }
    }

    /// The script of a whole answer of `bytes` bytes: one event, no chunks, no end.
    pub fn whole(variant: usize, bytes: usize) -> Script {
        let front = format!("{{\"id\":\"chatcmpl-{variant:02}\",\"choices\":[{{\"message\":{{\"content\":\"");
        let back = "\"}}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21}}";
        let body = format!("{front}{}{back}", words(variant, bytes - front.len() - back.len()));
        let head = format!(
            "HTTP/1.1 200 OK\r\nDate: Mon, 05 Jan 2026 10:00:00 GMT\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nopenai-processing-ms: 184\r\nopenai-version: 2020-10-01\r\n\
             x-request-id: req_0123456789abcdef0123456789abcdef\r\n\r\n",
            body.len()
        );
        let body = body.into_bytes();
        Script {
            head: head.into_bytes(),
            wire_event: body.len(),
            event: body.len(),
            wire: body.clone(),
            payload: body,
            end: Vec::new(),
            events: 1,
        }
    }

    /// The wire bytes of event `number`.
    pub fn wire_of(&self, number: usize) -> &[u8] {
        &self.wire[number * self.wire_event..(number + 1) * self.wire_event]
    }
}

/// A chunk of a chat completion, of exactly `bytes` bytes with its blank line.
fn event(variant: usize, number: usize, bytes: usize) -> Vec<u8> {
    let front = format!(
        "data: {{\"id\":\"chatcmpl-{variant:02}\",\"object\":\"chat.completion.chunk\",\"created\":1767607200,\
         \"model\":\"gpt-4o-mini\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{number:05} "
    );
    let back = "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
    let filling = bytes.checked_sub(front.len() + back.len()).expect("an event has at least 200 bytes");
    format!("{front}{}{back}", words(variant + number, filling)).into_bytes()
}

/// Filling that differs with the seed.
pub fn words(seed: usize, bytes: usize) -> String {
    let words = ["token ", "stream ", "of ", "light ", "over ", "cold ", "water "];
    let mut text = String::with_capacity(bytes + 8);
    for word in words.iter().cycle().skip(seed % words.len()) {
        if text.len() >= bytes {
            break;
        }
        text.push_str(word);
    }
    text.truncate(bytes);
    text
}

/// The request of stream `id`, with a body of `bytes` bytes.
pub fn request(id: usize, stream: bool, bytes: usize) -> Vec<u8> {
    let front = format!(
        "{{\"model\":\"gpt-4o-mini\",\"stream\":{stream},\"messages\":[{{\"role\":\"user\",\"content\":\""
    );
    let back = "\"}]}";
    let body = format!("{front}{}{back}", words(id, bytes.saturating_sub(front.len() + back.len())));
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: api.example.test\r\nAccept: application/json\r\n\
         User-Agent: OpenAI/Python 1.60.0\r\nAuthorization: Bearer sk-0123456789abcdef0123456789abcdef\r\n\
         X-Stainless-Lang: python\r\nX-Stainless-Retry-Count: 0\r\nX-Bench-Stream: {id}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
