// The promise: a person sees on the page of streams that nothing is lost and nothing comes twice, whatever becomes of the
// connection: a browser's own EventSource comes back to where it was, and the numbers on the page tell.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";

import { launch, says, state, text } from "./browser.mjs";
import { startCuttingProxy, startEdge } from "./edge.mjs";

const KEPT_RECORDS = 1000;
const SIGN_KEY = "what-addresses-are-signed-with";

let browser, edge, proxy;
before(async () => {
  [browser, edge] = await Promise.all([launch(), startEdge(`[streams]\nkeep_records = ${KEPT_RECORDS}\n`)]);
  proxy = await startCuttingProxy(edge.origin);
});
after(async () => {
  proxy?.stop();
  await Promise.all([browser?.close(), edge?.stop()]);
});

describe("the page of streams", () => {
  it("is served under a policy that lets nothing in from elsewhere", async () => {
    const response = await fetch(edge.origin + "/streams");
    assert.equal(response.status, 200);
    assert.match(response.headers.get("content-security-policy"), /^default-src 'none'; script-src 'sha256-[^']+'; style-src 'sha256-[^']+';/);
  });

  it("shows every number exactly once, though connections break within events and answers are lost", () => opened(async (page, name) => {
    await create(page, name);
    proxy.cutting = true;
    await page.locator("#pace").fill("50");
    await page.click("#count");
    await page.click("#watch");
    await poll(() => proxy.cuts >= 25 && proxy.lost >= 10, "25 cuts");
    await page.click("#count");
    proxy.cutting = false;
    await page.click("#close");
    await status(page, "Finished: the stream is closed");
    const messages = await (await fetch(`${edge.origin}/v1/stream/${name}`)).json();
    const all = Array.from(messages, (_, i) => i + 1);
    assert.ok(all.length > 100, `${all.length} numbers`);
    assert.deepEqual(messages.map((message) => message.n), all, "each was published exactly once");
    assert.deepEqual(await shown(page), all, "each is shown exactly once");
    assert.equal(await number(page, "missing"), 0);
    assert.equal(await number(page, "doubled"), 0);
    assert.ok(await number(page, "opened") > 25, "the browser came back each time");
  }));

  it("cuts and resumes by button and by key, where it was", () => opened(async (page, name) => {
    await create(page, name);
    await page.click("#watch");
    await append(name, [1, 2, 3]);
    await says(page, "last", "3");
    for (const cut of [() => page.click("#cut"), () => page.keyboard.press("Escape")]) {
      const before = await number(page, "last");
      await cut();
      assert.equal(await state(page), "cut");
      await append(name, [before + 1, before + 2]);
      await cut();
      await says(page, "last", String(before + 2));
      assert.equal(await state(page), "streaming");
    }
    assert.deepEqual(await shown(page), [1, 2, 3, 4, 5, 6, 7]);
    assert.equal(await number(page, "missing") + await number(page, "doubled"), 0);
  }));

  it("hears events by their names, and only those it listens for", () => opened(async (page, name) => {
    await create(page, name);
    await page.fill("#hear", "chat");
    await page.click("#watch");
    await append(name, [1], "chat");
    await append(name, [2], "unheard");
    await append(name, [3]);
    await says(page, "last", "3");
    assert.deepEqual(await rows(page), ["chat 1", "message 3"]);
    assert.equal(await text(page, "missing"), "1", "what is not listened for is missing");
    // A name that the page itself publishes under is heard from then on.
    await page.fill("#event", "greeting");
    await page.fill("#message", '{"n":4}');
    await page.focus("#message");
    await page.keyboard.press("Control+Enter");
    await says(page, "last", "4");
    assert.deepEqual((await rows(page)).at(-1), "greeting 4");
  }));

  it("watches several streams on one connection", () => opened(async (page, name) => {
    const names = [name, name + "-b", name + "-c"];
    for (const each of names) await put(each);
    await page.fill("#names", names.join(", "));
    const before = proxy.watchers;
    await page.click("#watch");
    for (const n of [1, 2, 3, 4]) {
      for (const each of names) await append(each, [n], n % 2 === 0 ? "tick" : undefined);
      if (n !== 2) continue;
      await says(page, "events", "6");
      await page.click("#cut");
    }
    assert.equal(proxy.watchers, before + 1, "one connection");
    await page.click("#cut");
    await says(page, "events", "12");
    for (const each of names) assert.deepEqual(await shown(page, each), [1, 2, 3, 4], each);
    assert.equal(await number(page, "missing") + await number(page, "doubled"), 0);
    for (const each of names) await close(each);
    await status(page, "Finished: all streams are closed");
  }));

  it("tells when what was asked for is no longer kept", () => opened(async (page, name) => {
    await create(page, name);
    await page.click("#watch");
    await append(name, [1, 2]);
    await says(page, "last", "2");
    await page.click("#cut");
    for (let n = 3; n < KEPT_RECORDS + 50; n += 1) await append(name, [n]);
    await page.click("#cut");
    await says(page, "resets", "1");
    await says(page, "last", (KEPT_RECORDS + 49).toLocaleString("en"));
    assert.match(await page.locator(".mark-row.warn").textContent(), /^Reset \(trimmed\): \w+-\d+ cannot be served, on from \w+-\d+$/);
    assert.equal(await number(page, "doubled"), 0);
  }));

  it("stays away from a stream that is closed: 204", () => opened(async (page, name) => {
    await create(page, name);
    await append(name, [1]);
    await page.click("#close");
    await page.waitForFunction(() => document.getElementById("note").textContent.includes("is closed"));
    const before = proxy.watchers;
    await page.click("#watch");
    await status(page, "Finished: the stream is closed");
    assert.deepEqual(await shown(page), [1]);
    assert.equal(proxy.watchers, before + 2, "once for the events, once for the 204");
    // A stream to which nothing can be appended says why.
    await page.click("#append");
    await page.waitForFunction(() => document.getElementById("note").textContent.startsWith("HTTP 409: "));
  }));

  it("forks a stream where it was read to", () => opened(async (page, name) => {
    await create(page, name);
    await page.click("#watch");
    await append(name, [1, 2, 3]);
    await says(page, "last", "3");
    await page.click("#cut");
    await append(name, [4, 5]);
    await page.click("#fork");
    await page.waitForFunction((name) => document.getElementById("stream").value.startsWith(name + "-"), name);
    const fork = await page.inputValue("#stream");
    await page.click("#watch");
    await page.click("#count");
    await page.waitForFunction(() => +document.getElementById("last").textContent >= 5);
    await page.click("#count");
    await page.click("#close");
    await status(page, "Finished: the stream is closed");
    const all = await shown(page, fork);
    assert.deepEqual(all, Array.from(all, (_, i) => i + 1));
    assert.equal(await number(page, "missing") + await number(page, "doubled"), 0);
  }));

  it("hears events that come compressed", async () => {
    const own = await startEdge('[streams]\ncompress = "always"\n');
    try {
      await opened(async (page, name) => {
        const codings = [];
        page.on("response", (response) => {
          if (response.request().resourceType() === "eventsource") codings.push(response.headers()["content-encoding"]);
        });
        await create(page, name);
        await page.click("#watch");
        await page.click("#count");
        await page.waitForFunction(() => +document.getElementById("last").textContent >= 5);
        await page.click("#cut");
        await page.click("#cut");
        await page.waitForFunction(() => +document.getElementById("last").textContent >= 10);
        await page.click("#close");
        await status(page, "Finished: the stream is closed");
        const all = await shown(page, name);
        assert.deepEqual(all, Array.from(all, (_, i) => i + 1));
        assert.ok(codings.length >= 2 && codings.slice(0, 2).every((coding) => ["zstd", "br", "gzip"].includes(coding)), `${codings}`);
      }, { origin: own.origin });
    } finally {
      await own.stop();
    }
  });

  it("says why it gave up", () => opened(async (page) => {
    await page.fill("#names", "nowhere");
    await page.click("#watch");
    await status(page, "Given up: there is no stream nowhere");
    assert.equal(await state(page), "error");
  }));

  describe("where there are client keys", () => {
    const KEY = "sk-page-of-streams";
    let own, ownProxy;
    before(async () => {
      const sha256 = createHash("sha256").update(KEY).digest("hex");
      process.env.SEDGE_TEST_SIGN_KEY = SIGN_KEY;
      own = await startEdge(`[[key]]\nname = "page"\nsha256 = "${sha256}"\n\n[streams]\nsign_key = "env:SEDGE_TEST_SIGN_KEY"\n`);
      ownProxy = await startCuttingProxy(own.origin);
    });
    after(async () => {
      ownProxy?.stop();
      await own?.stop();
    });

    const keyed = (use) => opened(use, { origin: ownProxy.origin });
    const asked = (name, init) => fetch(`${own.origin}/v1/stream/${name}`, { ...init, headers: { ...init?.headers, authorization: "Bearer " + KEY } });

    it("shows every number exactly once with a key, though connections break within events and answers are lost", () => keyed(async (page, name) => {
      await page.fill("#key", KEY);
      await create(page, name);
      const addresses = [];
      page.on("request", (request) => addresses.push(request.url()));
      ownProxy.cutting = true;
      await page.locator("#pace").fill("50");
      await page.click("#count");
      await page.click("#watch");
      await poll(() => ownProxy.cuts >= 25 && ownProxy.lost >= 10, "25 cuts");
      await page.click("#count");
      ownProxy.cutting = false;
      await page.click("#cut");
      assert.equal(await state(page), "cut");
      await page.click("#cut");
      await page.click("#close");
      await status(page, "Finished: the stream is closed");
      const messages = await (await asked(name)).json();
      const all = Array.from(messages, (_, i) => i + 1);
      assert.ok(all.length > 50, `${all.length} numbers`);
      assert.deepEqual(messages.map((message) => message.n), all, "each was published exactly once");
      assert.deepEqual(await shown(page), all, "each is shown exactly once");
      assert.equal(await number(page, "missing") + await number(page, "doubled"), 0);
      assert.ok(await number(page, "opened") > 25, "the page came back each time");
      // The key is in the tab's memory and nowhere else.
      assert.ok(addresses.length > 50 && addresses.every((address) => !address.includes(KEY)));
      const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href]));
      assert.ok(!kept.includes(KEY), kept);
    }));

    it("watches several streams with a key, and is told of a reset", () => keyed(async (page, name) => {
      await page.fill("#key", KEY);
      const headers = { "content-type": "application/json" };
      for (const each of [name, name + "-b"]) assert.equal((await asked(each, { method: "PUT", headers })).status, 201);
      const say = async (each, n) => assert.equal((await asked(each, { method: "POST", headers, body: JSON.stringify({ n }) })).status, 204);
      await page.fill("#names", `${name}, ${name}-b`);
      await page.click("#watch");
      for (const n of [1, 2]) for (const each of [name, name + "-b"]) await say(each, n);
      await says(page, "events", "4");
      await page.click("#cut");
      for (const each of [name, name + "-b"]) await say(each, 3);
      await page.click("#cut");
      await says(page, "events", "6");
      assert.equal(await number(page, "missing") + await number(page, "doubled"), 0);
      // Another log under the same name: what was read of the first is not gone on with.
      await page.fill("#names", name);
      await page.click("#watch");
      await says(page, "events", "3");
      await page.click("#cut");
      assert.equal((await asked(name, { method: "DELETE" })).status, 204);
      assert.equal((await asked(name, { method: "PUT", headers })).status, 201);
      await say(name, 1);
      await page.click("#cut");
      await says(page, "resets", "1");
      assert.match(await page.locator(".mark-row.warn").textContent(), /^Reset \(epoch\): /);
    }));

    it("says in words that a key is missing, wrong or none, and that there is no stream for it", () => keyed(async (page) => {
      const told = async (published, watching) => {
        await page.click("#append");
        await says(page, "note", published);
        await page.click("#watch");
        await status(page, watching);
      };
      await page.fill("#stream", "nowhere");
      const missing = "his edge wants a key: fill in “API key”", unknown = "he edge does not know this key";
      await told("T" + missing, "Given up: t" + missing);
      await page.fill("#key", "sk-another");
      await told("T" + unknown, "Given up: t" + unknown);
      assert.equal(await state(page), "error");
      await page.fill("#key", "sk-ünknown");
      const none = "No key looks like this: it has a space in it, or a letter that cannot be sent";
      await told(none, none);
      await page.fill("#key", KEY);
      await told("There is no stream nowhere for this key", "Given up: there is no stream nowhere for this key");
    }));

    it("shows how an address is signed that needs no key", () => keyed(async (page, name) => {
      await page.fill("#key", KEY);
      await create(page, name);
      await page.click("#append");
      await page.waitForFunction(() => document.getElementById("note").textContent.startsWith("Appended"));
      await page.click("#close");
      await page.waitForFunction(() => document.getElementById("note").textContent.includes("is closed"));
      await page.click("summary");
      const shown = await page.innerText("#signed");
      const ran = await promisify(execFile)("sh", ["-c", shown], { env: { ...process.env, SIGN_KEY }, timeout: 120_000 });
      assert.match(ran.stdout, /^data: ?.*Why do reeds grow/m, shown + ran.stderr);
      assert.match(ran.stdout, /"streamClosed":true/);
    }));
  });

  it("is used by keyboard alone, light and dark, on a phone", async () => {
    const grounds = new Set();
    for (const colorScheme of ["light", "dark"]) {
      await opened(async (page, name) => {
        await page.focus("#create");
        await page.keyboard.press("Enter");
        await page.waitForFunction(() => document.getElementById("note").textContent.includes("is there now"));
        await page.focus("#watch");
        await page.keyboard.press("Enter");
        await page.keyboard.press("Control+Enter");
        await says(page, "events", "1");
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
        grounds.add(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
        await close(name);
        await status(page, "Finished: the stream is closed");
      }, { colorScheme, viewport: { width: 360, height: 740 } });
    }
    assert.equal(grounds.size, 2);
  });

  it("is one step from the playground, and back", () => opened(async (page) => {
    await page.click(".other");
    await page.waitForFunction(() => document.title === "sedge playground");
    await page.click(".other");
    await page.waitForFunction(() => document.title === "sedge streams");
  }));
});

// Uses the page with a stream of its own, whose name it has made up.
async function opened(use, { origin = proxy.origin, ...options } = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (line) => {
    if (/Content Security Policy|Refused to|TrustedHTML/.test(line.text())) faults.push(line.text());
  });
  try {
    await page.goto(origin + "/streams");
    await page.waitForFunction(() => document.getElementById("health").dataset.ready === "yes");
    await use(page, await page.inputValue("#stream"));
    assert.deepEqual(faults, []);
  } finally {
    proxy.cutting = false;
    await context.close();
  }
}

const number = async (page, id) => Number((await text(page, id)).replaceAll(",", ""));

// Makes the stream by the page, and waits until it is there: what comes from outside the page must find it.
async function create(page, name) {
  await page.click("#create");
  await says(page, "note", `${name} is there now, at /v1/stream/${name}`);
}

const status = (page, expected) => page.waitForFunction((expected) => document.getElementById("status").textContent === expected, expected);

// The numbers on the page, of one stream or all.
const shown = (page, name) => page.evaluate((name) => [...document.querySelectorAll("#log li[data-n]")]
  .filter((row) => name === undefined || row.dataset.stream === name).map((row) => +row.dataset.n), name);

// The events on the page: name and number.
const rows = (page) => page.evaluate(() => [...document.querySelectorAll("#log li[data-n]")]
  .map((row) => row.firstElementChild.textContent + " " + row.dataset.n));

async function told(name, init) {
  const answer = await fetch(`${edge.origin}/v1/stream/${name}`, init);
  assert.ok(answer.ok, `${init.method} ${name}: ${answer.status} ${await answer.text()}`);
}

const put = (name) => told(name, { method: "PUT", headers: { "content-type": "application/json" } });

const close = (name) => told(name, { method: "POST", headers: { "stream-closed": "true" } });

// Appends these numbers from outside the page, a record each.
async function append(name, numbers, event) {
  for (const n of numbers) {
    const headers = { "content-type": "application/json", ...(event === undefined ? {} : { "stream-event": event }) };
    await told(name, { method: "POST", headers, body: JSON.stringify({ n }) });
  }
}

async function poll(holds, what) {
  const end = performance.now() + 300_000;
  while (!holds()) {
    assert.ok(performance.now() < end, what + " did not come");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
