// openai-node against the edge at SEDGE_URL, which relays to the simulator: everything an application does with it, and
// every way it is told of a failure.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import OpenAI from "openai";

const URL = process.env.SEDGE_URL.replace(/\/$/, "");
const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: "sk-test", maxRetries: 0, timeout: 120_000 });
const messages = [{ role: "user", content: "hi" }];
const tools = [
  {
    type: "function",
    function: {
      name: "weather",
      description: "The weather in a city",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
];

const chat = (headers = {}, more = {}) =>
  client.chat.completions.create({ model: "sim", messages, ...more }, { headers });

async function collect(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

const text = (chunks) => chunks.map((c) => c.choices[0]?.delta.content ?? "").join("");

test("a streamed completion", async () => {
  const headers = { "x-sim-events": "10", "x-sim-bytes": "5" };
  const chunks = await collect(await chat(headers, { stream: true }));
  assert.equal(text(chunks).length, 50);
  assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  const whole = await chat(headers);
  assert.equal(whole.choices[0].message.content, text(chunks));
});

test("usage comes when asked for", async () => {
  const chunks = await collect(await chat({}, { stream: true, stream_options: { include_usage: true } }));
  const last = chunks.at(-1);
  assert.deepEqual(last.choices, []);
  assert.ok(last.usage.completion_tokens > 0);
});

test("tool calls", async () => {
  const chunks = await collect(await chat({}, { stream: true, tools }));
  const deltas = chunks.flatMap((c) => c.choices[0]?.delta.tool_calls ?? []);
  assert.equal(deltas[0].function.name, "weather");
  assert.match(deltas.map((d) => d.function.arguments ?? "").join(""), /^\{.*\}$/s);
});

test("a streamed response", async () => {
  const events = await collect(await client.responses.create({ model: "sim", input: "hi", stream: true }));
  assert.equal(events[0].type, "response.created");
  assert.equal(events.at(-1).type, "response.completed");
  const deltas = events.filter((e) => e.type === "response.output_text.delta").map((e) => e.delta);
  assert.ok(deltas.join("").length > 0);
});

test("a response that was lost is taken up again", async () => {
  const headers = { "sedge-durable": "true", "x-sim-events": "12", "x-sim-interval-ms": "20" };
  const body = { model: "sim", input: "lost in the middle of node", stream: true };
  const seen = [];
  for await (const event of await client.responses.create(body, { headers })) {
    seen.push(event);
    if (event.type === "response.output_text.delta") break;
  }
  const id = seen[0].response.id;
  const rest = await client.responses.retrieve(id, { stream: true, starting_after: seen.at(-1).sequence_number });
  seen.push(...(await collect(rest)));
  assert.deepEqual(seen.map((e) => e.sequence_number), seen.map((_, number) => number));
  assert.equal(seen.at(-1).type, "response.completed");
  assert.deepEqual(await collect(await client.responses.retrieve(id, { stream: true })), seen);
});

test("embeddings and models", async () => {
  const answer = await client.embeddings.create({ model: "sim", input: ["a", "b"] });
  assert.deepEqual(answer.data.map((d) => d.index), [0, 1]);
  const models = await collect(await client.models.list());
  assert.ok(models.length > 0 && models.every((m) => m.id && m.object === "model"));
});

for (const [status, type] of [
  [400, OpenAI.BadRequestError],
  [401, OpenAI.AuthenticationError],
  [404, OpenAI.NotFoundError],
  [429, OpenAI.RateLimitError],
  [500, OpenAI.InternalServerError],
]) {
  test(`status ${status} raises its class`, async () => {
    for (const stream of [false, true]) {
      const error = await chat({ "x-sim-status": String(status) }, { stream }).then(assert.fail, (e) => e);
      assert.ok(error instanceof type, `${error}`);
      assert.ok(error.requestID, "requestID comes from x-request-id");
      assert.deepEqual(Object.keys(error.error).sort(), ["code", "message", "param", "type"]);
    }
  });
}

test("a cut upstream raises", async () => {
  for (const after of [0, 1, 5]) {
    const chunks = [];
    await assert.rejects(async () => {
      const stream = await chat({ "x-sim-cut-after": String(after) }, { stream: true });
      for await (const chunk of stream) chunks.push(chunk);
    }, (error) => !(error instanceof assert.AssertionError));
    assert.ok(chunks.length <= after);
    assert.ok(chunks.every((c) => c.choices[0].finish_reason === null));
  }
});

test("a cut stream looks unfinished to fetch", async () => {
  const answer = await fetch(`${URL}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-sim-cut-after": "3" },
    body: JSON.stringify({ model: "sim", messages, stream: true }),
  });
  await assert.rejects(answer.text(), TypeError);
});

test("a cancelled stream frees the client", async () => {
  const stream = await chat({ "x-sim-events": "100000", "x-sim-interval-ms": "1" }, { stream: true });
  let count = 0;
  for await (const chunk of stream) {
    assert.ok(chunk.choices);
    if (++count === 3) break;
  }
  assert.equal(count, 3);
  assert.ok(stream.controller.signal.aborted);
  assert.ok(text(await collect(await chat({ "x-sim-events": "1" }, { stream: true }))));
});

test("two hundred streams at once", async () => {
  const one = async (n) => {
    const headers = { "x-sim-events": "20", "x-sim-bytes": String((n % 7) + 1), "x-sim-interval-ms": "5" };
    const chunks = await collect(await chat(headers, { stream: true }));
    return [text(chunks).length, chunks.at(-1).choices[0].finish_reason];
  };
  const results = await Promise.all(Array.from({ length: 200 }, (_, n) => one(n)));
  assert.deepEqual(results, Array.from({ length: 200 }, (_, n) => [20 * ((n % 7) + 1), "stop"]));
});

/** An edge of its own before the one at SEDGE_URL; gives back its URL. */
async function edgeBefore(t, route) {
  const file = join(await mkdtemp(join(tmpdir(), "sedge-")), "sedge.toml");
  await writeFile(file, `[[upstream]]\nname = "edge"\nurl = "${URL}"\n\n[[route]]\n${route}\n`);
  const args = ["--listen", "127.0.0.1:0", "--admin", "off", "--config", file];
  const child = spawn(process.env.SEDGE_BIN, args, { stdio: ["ignore", "ignore", "pipe"] });
  t.after(() => child.kill("SIGKILL"));
  for await (const line of createInterface(child.stderr)) {
    const found = line.match(/listening on (http:\/\/\S+)/);
    if (found) return found[1].replace(/\/$/, "");
  }
  throw new Error("sedge ended before it served");
}

// A busy machine may take longer for a request than the next one takes to be earned: the limit is used up by as many requests as
// that takes, and once more when one was earned before the patient client came.
test("a limit of ours is waited for", async (t) => {
  const url = await edgeBefore(t, "limits = { requests_per_minute = 12 }");
  const usedUp = async () => {
    for (let served = 0; served < 1000; served++) {
      const answer = await fetch(`${url}/v1/models`);
      await answer.text();
      if (answer.status === 429) {
        const wait = Number(answer.headers.get("retry-after-ms"));
        assert.ok(wait > 0 && wait <= 5000, `${wait}`);
        return served;
      }
    }
    assert.fail("a thousand requests, and none was refused");
  };
  assert.ok((await usedUp()) >= 12);
  let seen = [];
  const counting = async (...request) => {
    const answer = await fetch(...request);
    seen.push(answer.status);
    return answer;
  };
  const patient = new OpenAI({ baseURL: `${url}/v1`, apiKey: "sk-test", maxRetries: 2, fetch: counting });
  for (let turn = 0; turn < 100; turn++) {
    seen = [];
    const chunks = await collect(await patient.chat.completions.create({ model: "sim", messages, stream: true }));
    assert.ok(text(chunks));
    if (seen.length > 1) break;
    await usedUp();
  }
  // By itself the SDK waits for a second and a half in two retries: without our word it would have given up.
  assert.deepEqual(seen, [429, 200]);
});
