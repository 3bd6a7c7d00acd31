// The promise: the page reads every legal stream the same, however it is sliced, and names every ending for what it is.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

import { launch, openPlayground, reached, says, state, text } from "./browser.mjs";
import { chunk, head, scripted } from "./scripted.mjs";

let browser, server, opened;
before(async () => {
  browser = await launch();
  server = await scripted();
  opened = await openPlayground(browser, server.origin);
});
after(async () => {
  await browser?.close();
  await server?.close();
});

// Sends `slices` one by one, each only once the page has counted the bytes of the one before: no two can merge.
async function sliced(slices) {
  const { page } = opened;
  let response;
  const arrived = new Promise((resolve) => server.answerWith((r) => { head(r); response = r; resolve(); }));
  await page.click("#send");
  await arrived;
  let sent = 0;
  for (const slice of slices) {
    response.write(slice);
    sent += slice.length;
    await says(page, "bytes", sent + " B");
  }
  response.end();
  await reached(page, "finished", "error", "cut");
}

async function ending(answer) {
  const { page } = opened;
  server.answerWith(answer);
  await page.click("#send");
  await page.waitForFunction(() => !["connecting", "streaming"].includes(document.body.dataset.state));
  return { state: await state(page), status: await text(page, "status"), facts: await text(page, "ending-facts"),
    output: await text(page, "output") };
}

const at = (bytes, ...cuts) => [0, ...cuts].map((from, i) => bytes.subarray(from, cuts[i]));

describe("the page's reader", () => {
  for (const [name, end] of [["LF", "\n"], ["CRLF", "\r\n"], ["CR", "\r"]]) {
    it(`reads lines that end in ${name}, sliced inside line ends and characters`, async () => {
      const stream = Buffer.from([`\ufeff: hello`, `data: ${chunk("né 🌾")}`, "", ":", `data:${chunk("|two")}`, "id: 7", "retry", "",
        "data: [DONE]", "", ""].join(end));
      const plant = stream.indexOf(Buffer.from("🌾")), accent = stream.indexOf(Buffer.from("é"));
      const firstEnd = stream.indexOf(Buffer.from(end)), blank = stream.indexOf(Buffer.from(end + end));
      const cuts = [1, firstEnd + 1, accent + 1, plant + 1, plant + 3, blank + 1, blank + end.length, blank + end.length + 1];
      await sliced(at(stream, ...cuts));
      assert.equal(await state(opened.page), "finished");
      assert.equal(await text(opened.page, "output"), "né 🌾|two");
      assert.equal(await text(opened.page, "heartbeats"), "2");
      assert.equal(await text(opened.page, "events"), "3");
    });
  }

  it("keeps the id of the last whole event, and the time to come back after, however it is sliced", async () => {
    const stream = Buffer.from([
      "\ufeffid: 1", "retry: 0250", "event: tick", "data: é", "data", "data:  🌾", "",
      "id: no\0ne", "retry: 3s", "data: same id", "",
      "id: 2", "event: lost", "",
      "data:", "",
      "id", "data: no id", "",
      "id: 3", "data: not whole",
    ].join("\r\n"));
    const expected = [["é\n\n 🌾", "tick", "1"], ["same id", "", "1"], ["", "", "2"], ["no id", "", ""]];
    for (let size = 1; size <= stream.length; size += 1) {
      const read = await opened.page.evaluate(([bytes, size]) => {
        const parser = new SseParser("0"), events = [];
        for (let at = 0; at < bytes.length; at += size) {
          parser.feed(new Uint8Array(bytes.slice(at, at + size)), (data, type) => events.push([data, type, parser.lastId]));
        }
        return { events, lastId: parser.lastId, retryMs: parser.retryMs };
      }, [[...stream], size]);
      assert.deepEqual(read, { events: expected, lastId: "", retryMs: 250 }, `slices of ${size}`);
    }
  });

  it("joins the data lines of one event", async () => {
    await sliced([Buffer.from(`data: {"choices":\ndata: [{"delta":{"content":"joined"}}]}\n\ndata: [DONE]\n\n`)]);
    assert.equal(await text(opened.page, "output"), "joined");
  });

  it("takes the count of tokens from usage, and shows reasoning apart", async () => {
    await sliced([Buffer.from([
      `data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}`, `data: ${chunk("a")}`, `data: ${chunk("b")}`,
      `data: {"choices":[],"usage":{"completion_tokens":17}}`, "data: [DONE]", "",
    ].join("\n\n"))]);
    assert.equal(await text(opened.page, "tokens"), "17");
    assert.equal(await text(opened.page, "output"), "ab");
    assert.equal(await text(opened.page, "reasoning"), "hm");
  });

  it("shows markup as text", async () => {
    await sliced([Buffer.from(`data: ${chunk("<img src=x onerror=alert(1)>")}\n\ndata: [DONE]\n\n`)]);
    assert.equal(await text(opened.page, "output"), "<img src=x onerror=alert(1)>");
    assert.equal(await opened.page.locator("#output img").count(), 0);
  });
});

describe("the page's endings", () => {
  it("finished needs [DONE], and holds though the connection then breaks", async () => {
    let response;
    const end = await ending((r) => { head(r); response = r; r.write(`data: ${chunk("all")}\n\ndata: [DONE]\n\n`); });
    const broken = opened.page.waitForEvent("requestfailed");
    response.destroy();
    await broken;
    assert.equal(end.state, "finished");
    assert.equal(await state(opened.page), "finished");
    assert.equal(end.output, "all");
  });

  it("finished holds though the upstream never closes, and the page then does", async () => {
    let closed;
    const left = new Promise((resolve) => { closed = resolve; });
    const end = await ending((r) => { head(r); r.on("close", closed); r.write(`data: ${chunk("all")}\n\ndata: [DONE]\n\n`); });
    assert.equal(end.state, "finished");
    await left;
    assert.equal(await state(opened.page), "finished");
  });

  it("a clean end without [DONE] is no finish", async () => {
    const end = await ending((r) => { head(r); r.end(`data: ${chunk("half")}\n\n`); });
    assert.equal(end.state, "error");
    assert.match(end.status, /^Ended without \[DONE\]\..*after 1 token\./);
    assert.equal(end.output, "half");
  });

  it("an event that lost its end is thrown away, and that is said", async () => {
    const end = await ending((r) => { head(r); r.end(`data: ${chunk("half")}\n\ndata: ${chunk("lost")}`); });
    assert.match(end.status, /The last event was not whole\./);
    assert.equal(end.output, "half");
  });

  it("a broken body is a cut", async () => {
    const end = await ending((r) => { head(r); r.write(`data: ${chunk("half")}\n\n`, () => r.destroy()); });
    assert.equal(end.state, "error");
    assert.match(end.status, /^Cut off before the end\./);
  });

  it("an error event is shown with its message, type and code, whatever follows it", async () => {
    const error = { message: "the model fell over", type: "server_error", param: null, code: "model_crashed" };
    const end = await ending((r) => {
      head(r, { "x-request-id": "req-1" });
      r.end(`data: ${chunk("half")}\n\ndata: ${JSON.stringify({ error })}\n\ndata: [DONE]\n\n`);
    });
    assert.equal(end.state, "error");
    assert.match(end.status, /^Error in the stream\. the model fell over/);
    assert.equal(end.facts, "typeserver_errorcodemodel_crashedx-request-idreq-1");
  });

  it("no answer at all is an error of its own", async () => {
    const end = await ending((r) => r.destroy());
    assert.equal(end.state, "error");
    assert.match(end.status, /^No answer\./);
  });

  it("a refusal without JSON shows its text", async () => {
    const end = await ending((r) => { r.writeHead(502, { "content-type": "text/plain" }).end("bad gateway"); });
    assert.match(end.status, /^HTTP 502 Bad Gateway\. bad gateway/);
  });

  it("an answer that is no stream is not taken for one", async () => {
    const end = await ending((r) => { r.writeHead(200, { "content-type": "application/json" }).end("{}"); });
    assert.equal(end.state, "error");
    assert.match(end.status, /^Not a stream\./);
  });

  it("an event without bounds is not read to its end", async () => {
    const end = await ending((r) => { head(r); r.end("data: " + "x".repeat(3 << 20)); });
    assert.match(end.status, /^Gave up\./);
  });

  it("none of this made the page itself fail", () => assert.deepEqual(opened.faults, []));
});
