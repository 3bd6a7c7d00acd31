// The official TypeScript client against the edge at SEDGE_URL: whatever an application does with it, also when its
// connections are cut wherever it hurts. SEDGE_KEY, if there is one, is the key that opens the edge.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { connect, createServer } from "node:net";
import { after, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import {
  DurableStream,
  FetchError,
  IdempotentProducer,
  StaleEpochError,
  stream as read,
} from "@durable-streams/client";

const URL = process.env.SEDGE_URL.replace(/\/$/, "");
const KEY = process.env.SEDGE_KEY;
const headers = KEY ? { Authorization: `Bearer ${KEY}` } : {};
const JSON_TYPE = "application/json";
const OFFSET = /^[A-Za-z0-9_-]{1,64}$/;

const name = (what) => `${URL}/v1/stream/${what}-${randomUUID()}`;
const create = (what, contentType, more = {}) =>
  DurableStream.create({ url: name(what), contentType, ...more, headers: { ...headers, ...more.headers } });
const all = (handle, options = {}) => handle.stream({ live: false, ...options });
const text = async (handle, options) => (await all(handle, options)).text();
const json = async (handle, options) => (await all(handle, options)).json();
const numbers = (from, to) => Array.from({ length: to - from }, (_, i) => ({ n: from + i, pad: "x".repeat((from + i) % 97) }));

// A proxy before the edge that cuts each connection after so many bytes of the answers: a different number each time, so that in
// the end every place of an event is hit.
const proxies = [];
async function cutting(bytes) {
  const sockets = new Set();
  const proxy = { cuts: 0 };
  const server = createServer((client) => {
    const upstream = connect(Number(new globalThis.URL(URL).port), new globalThis.URL(URL).hostname);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => {}).on("close", () => (client.destroy(), upstream.destroy(), sockets.delete(socket)));
    }
    let left = bytes(proxy.cuts);
    client.pipe(upstream);
    upstream.on("data", (data) => {
      client.write(data.subarray(0, left));
      left -= data.length;
      if (left <= 0) {
        proxy.cuts += 1;
        upstream.destroy();
        client.end();
      }
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  proxies.push(() => (server.close(), sockets.forEach((socket) => socket.destroy())));
  proxy.of = (url) => url.replace(URL, `http://127.0.0.1:${server.address().port}`);
  return proxy;
}
after(() => proxies.forEach((close) => close()));

// A fetch that tries again when its connection is cut, as a producer that must not lose anything does.
const stubborn = async (...args) => {
  for (;;) {
    try {
      return await fetch(...args);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
  }
};

test("created, appended, read, deleted", async () => {
  const handle = await create("plain", "text/plain");
  assert.equal(await text(handle), "");
  await handle.append("one ");
  await handle.append("two");
  assert.equal(await text(handle), "one two");
  const head = await handle.head();
  assert.equal(head.contentType, "text/plain");
  assert.match(head.offset, OFFSET);
  assert.equal(await text(handle, { offset: head.offset }), "");
  await handle.append(", three");
  assert.equal(await text(handle, { offset: head.offset }), ", three");
  assert.equal(await text(handle, { offset: "now" }), "");
  await handle.delete();
  await assert.rejects(text(handle), (error) => error.status === 404);
});

test("bytes come back as they are", async () => {
  const handle = await create("bytes", "application/octet-stream");
  const bytes = Uint8Array.from({ length: 70_000 }, (_, i) => (i * 7) & 255);
  await handle.append(bytes);
  assert.deepEqual(await (await all(handle)).body(), bytes);
  const parts = [];
  const response = await handle.stream({ live: "sse", offset: "-1" });
  for await (const chunk of response.bodyStream()) {
    parts.push(chunk);
    if (parts.reduce((sum, part) => sum + part.length, 0) >= bytes.length) break;
  }
  response.cancel();
  assert.deepEqual(new Uint8Array(Buffer.concat(parts)), bytes);
});

test("an append of a stream, without a length", async () => {
  const handle = await create("chunked", "text/plain");
  await handle.appendStream((async function* () {
    for (let i = 0; i < 100; i++) yield `part ${i};`;
  })());
  assert.equal((await text(handle)).split(";").length, 101);
});

test("JSON messages keep their edges", async () => {
  const handle = await create("json", JSON_TYPE);
  assert.deepEqual(await json(handle), []);
  await Promise.all(numbers(0, 40).map((message) => handle.append(JSON.stringify(message))));
  await handle.append(JSON.stringify([[1, 2], "äöü 🌊", null]));
  const messages = await json(handle);
  assert.deepEqual(messages.slice(0, 40).sort((a, b) => a.n - b.n), numbers(0, 40));
  assert.deepEqual(messages.slice(40), [[[1, 2], "äöü 🌊", null]]);
});

test("an idempotent producer, whose connections are cut", { timeout: 300_000 }, async () => {
  const handle = await create("producer", JSON_TYPE);
  // Sometimes before the answer's head is whole, so that the append has happened and nobody knows.
  const proxy = await cutting((cut) => 1 + ((cut * 131) % 1_500));
  const through = new DurableStream({ url: proxy.of(handle.url), headers, contentType: JSON_TYPE });
  const errors = [];
  const producer = new IdempotentProducer(through, "p", { fetch: stubborn, lingerMs: 0, maxBatchBytes: 200, onError: (e) => errors.push(e) });
  const sent = numbers(0, 400);
  for (const message of sent) producer.append(JSON.stringify(message));
  await producer.flush();
  assert.deepEqual(errors, []);
  assert.deepEqual(await json(handle), sent, "each once, in order");
  assert.ok(proxy.cuts > 5, `${proxy.cuts} cuts`);
});

test("a producer that was replaced is fenced off, and another claims its name", async () => {
  const handle = await create("fenced", "text/plain");
  const say = async (word, options) => {
    const producer = new IdempotentProducer(handle, "p", { ...options, onError: (e) => (producer.error = e) });
    producer.append(word);
    await producer.flush().catch(() => {});
    return producer;
  };
  await say("a", { epoch: 3 });
  const late = await say("b", { epoch: 2 });
  assert.ok(late.error instanceof StaleEpochError, `${late.error}`);
  assert.equal(late.error.currentEpoch, 3);
  const claimed = await say("c", { autoClaim: true });
  assert.equal(claimed.error, undefined);
  assert.equal(claimed.epoch, 4);
  assert.equal(await text(handle), "ac");
});

for (const live of ["long-poll", "sse", true]) {
  test(`followed while it grows, live = ${live}`, { timeout: 300_000 }, async () => {
    const handle = await create("live", JSON_TYPE);
    await handle.append(JSON.stringify({ n: 0 }));
    const got = [];
    const response = await handle.stream({ live });
    for await (const message of response.jsonStream()) {
      got.push(message.n);
      // The next one only when this one has come: whatever is kept back stops the test.
      if (got.length < 30) await handle.append(JSON.stringify({ n: got.length }));
      else if (got.length === 30) await handle.close({ body: JSON.stringify({ n: 30 }) });
    }
    assert.deepEqual(got, Array.from({ length: 31 }, (_, i) => i));
    assert.equal(response.streamClosed, true);
  });

  test(`resumed after cuts in the middle of events, live = ${live}`, { timeout: 300_000 }, async () => {
    const handle = await create("cut", JSON_TYPE);
    // Now and then enough for all of it: what a client reads to catch up it must read as a whole.
    const proxy = await cutting((cut) => 700 + ((cut * 3_889) % 30_000));
    const sent = numbers(0, 300);
    const publish = (async () => {
      for (const message of sent) await handle.append(JSON.stringify(message));
      await handle.close();
    })();
    const got = [];
    let [offset, closed] = ["-1", false];
    const backoffOptions = { initialDelay: 1, maxDelay: 5, multiplier: 1 };
    while (got.length < sent.length || !closed) {
      const response = await read({ url: proxy.of(handle.url), headers, live, offset, backoffOptions });
      response.subscribeJson((batch) => {
        got.push(...batch.items);
        offset = batch.offset;
      });
      await response.closed.catch(() => {});
      closed = response.streamClosed;
      // It ends a moment before its last batch is told.
      for (let turn = 0; turn < 1_000 && offset !== response.offset; turn++) await setImmediate();
    }
    await publish;
    assert.deepEqual(got, sent, "each once, in order");
    assert.ok(proxy.cuts >= 2, `${proxy.cuts} cuts`);
  });
}

test("closed is closed, for writers and for readers", async () => {
  const handle = await create("closed", "text/plain");
  const { finalOffset } = await handle.close({ body: "the end" });
  assert.match(finalOffset, OFFSET);
  await handle.close();
  await assert.rejects(handle.append("more"), /closed/i);
  assert.equal((await handle.head()).streamClosed, true);
  for (const live of [false, "long-poll", "sse"]) {
    const response = await handle.stream({ live });
    let words = "";
    for await (const part of response.textStream()) words += part;
    assert.equal(words, "the end", `${live}`);
    assert.equal(response.streamClosed, true, `${live}`);
  }
});

test("a fork has what was before it, and goes its own way", async () => {
  const source = await create("source", JSON_TYPE);
  await source.append(JSON.stringify({ n: 1 }));
  const { offset } = await source.head();
  await source.append(JSON.stringify({ n: 2 }));
  const from = { "Stream-Forked-From": new globalThis.URL(source.url).pathname };
  const fork = await create("fork", JSON_TYPE, { headers: { ...from, "Stream-Fork-Offset": offset } });
  // The handle goes on with the fields it was made with: a new one, without them.
  const own = new DurableStream({ url: fork.url, headers, contentType: JSON_TYPE });
  await own.append(JSON.stringify({ n: 3 }));
  assert.deepEqual(await json(own), [{ n: 1 }, { n: 3 }]);
  assert.deepEqual(await json(source), [{ n: 1 }, { n: 2 }]);
  await source.delete();
  assert.deepEqual(await json(own), [{ n: 1 }, { n: 3 }], "though its source is gone");
  await assert.rejects(text(source), (error) => error.status === 410);
});

test("a time to live is told, and two that disagree are refused", async () => {
  const handle = await create("ttl", "text/plain", { ttlSeconds: 3600 });
  const head = await fetch(handle.url, { method: "HEAD", headers });
  assert.equal(head.headers.get("stream-ttl"), "3600");
  const both = { ttlSeconds: 60, expiresAt: new Date(Date.now() + 60_000).toISOString() };
  await assert.rejects(create("both", "text/plain", both), (error) => error.status === 400);
});

test("without its key, nobody gets in", { skip: !KEY && "the edge has no keys" }, async () => {
  const url = name("locked");
  const refused = (error) => error.status === 401;
  await assert.rejects(DurableStream.create({ url, contentType: "text/plain" }), refused);
  await DurableStream.create({ url, contentType: "text/plain", headers, body: "secret" });
  await assert.rejects(read({ url, live: false }), (error) => error instanceof FetchError && refused(error));
  await assert.rejects(new DurableStream({ url, contentType: "text/plain" }).append("x"), refused);
  await assert.rejects(DurableStream.head({ url }), refused);
  await assert.rejects(DurableStream.delete({ url }), refused);
  assert.equal(await (await read({ url, headers, live: false })).text(), "secret");
});
