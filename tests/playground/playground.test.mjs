// The promise: a person who opens the edge in a browser sees an answer stream in, can cut it, and is told the truth
// about how it ended. Runs against an edge that answers from its own simulator.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, it } from "node:test";

import { EDGE, grown, launch, openPlayground, reached, slide, state, text } from "./browser.mjs";
import { startEdge } from "./edge.mjs";

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

describe("the playground", () => {
  it("is served under a policy that lets nothing in from elsewhere", async () => {
    const response = await fetch(EDGE + "/");
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("content-type"), "text/html; charset=utf-8");
    const policy = response.headers.get("content-security-policy");
    assert.match(policy, /^default-src 'none'; script-src 'sha256-[^']+'; style-src 'sha256-[^']+';/);
    assert.match(policy, /connect-src 'self'/);
    assert.doesNotMatch(policy, /unsafe/);
  });

  it("streams an answer, measures it, and says that it finished", () => opened(async (page) => {
    assert.equal(await state(page), "idle");
    assert.ok(await page.isVisible("#sim"), "an edge without an upstream says that it simulates");
    await slide(page, "sim-events", 40);
    await page.fill("#prompt", "What is a sedge?");
    // Seen from within the page: from outside it may be over before anybody looks.
    await page.evaluate(() => {
      const output = document.getElementById("output");
      window.shown = [];
      new MutationObserver(() => window.shown.push([document.body.dataset.state, output.textContent]))
        .observe(output, { childList: true, characterData: true, subtree: true });
    });
    await page.keyboard.press("Control+Enter");
    await reached(page, "finished", "cut", "error");
    assert.equal(await state(page), "finished");
    const whole = await text(page, "output");
    const early = (await page.evaluate(() => window.shown)).filter(([state, text]) => state === "streaming" && text !== "");
    assert.ok(early.length > 0, "it streams");
    assert.ok(early.every(([, text]) => whole.startsWith(text)) && early[0][1].length < whole.length, "the text grew");
    assert.match(await text(page, "ttft"), /^[\d.]+ m?s$/);
    assert.match(await text(page, "tps"), /^[\d.,]+$/);
    assert.ok(Number(await text(page, "tokens")) > 0);
    assert.ok(Number(await text(page, "events")) >= 40);
    assert.match(await text(page, "status"), /^Finished: \d+ tokens in /);
    assert.match(await text(page, "headers"), /x-request-id(?!none)/);
    assert.ok(await page.isVisible("#plot"));
    assert.ok(await page.isHidden("#ending"));
  }));

  it("cuts the connection when told to, and the cut stays", () => opened(async (page) => {
    // Far longer than anybody takes to cut it.
    await slide(page, "sim-events", 512);
    await slide(page, "sim-interval", 200);
    await page.click("#send");
    await grown(page, "output", 20);
    await page.click("#cut");
    assert.equal(await state(page), "cut");
    const kept = await text(page, "output");
    assert.match(await text(page, "status"), /^You cut the connection/);
    // Time in which the cut stream would have gone on: another one, read to its end.
    const other = await page.evaluate(async () => {
      const response = await fetch("/v1/chat/completions", {
        method: "POST",
        headers: { "content-type": "application/json", "x-sim-events": "8", "x-sim-interval-ms": "40" },
        body: JSON.stringify({ model: "m", stream: true, messages: [{ role: "user", content: "x" }] }),
      });
      return response.text();
    });
    assert.match(other, /\[DONE\]/);
    assert.equal(await state(page), "cut");
    assert.equal(await text(page, "output"), kept);
  }));

  it("goes on after a cut: Escape cuts, and the next answer finishes", () => opened(async (page) => {
    await slide(page, "sim-events", 512);
    await slide(page, "sim-interval", 200);
    await page.click("#send");
    await grown(page, "output", 1);
    await page.keyboard.press("Escape");
    assert.equal(await state(page), "cut");
    await slide(page, "sim-events", 8);
    await page.click("#send");
    await reached(page, "finished", "error");
    assert.equal(await state(page), "finished");
    assert.ok(await page.isHidden("#ending"), "the ending of the first run is gone");
  }));

  it("shows a refusal: its status, the upstream's words and the request id", () => opened(async (page) => {
    await page.check("input[value=status]");
    for (const status of ["429", "400", "500"]) {
      await page.selectOption("#sim-status", status);
      await page.click("#send");
      await page.waitForFunction((status) => document.getElementById("status").textContent.includes("HTTP " + status), status);
      assert.equal(await state(page), "error");
      assert.notEqual(await text(page, "ending-text"), "");
      assert.match(await text(page, "ending-facts"), /type.*x-request-id/);
      assert.equal(await text(page, "output"), "");
      assert.equal(await text(page, "ttft"), "–");
    }
  }));

  it("never calls a stream finished that its upstream cut", () => opened(async (page) => {
    await slide(page, "sim-events", 40);
    await page.check("input[value=cut]");
    await slide(page, "sim-after", 10);
    await page.click("#send");
    await reached(page, "finished", "cut", "error");
    assert.equal(await state(page), "error");
    assert.doesNotMatch(await text(page, "status"), /^Finished/);
    assert.notEqual(await text(page, "output"), "", "what came before the cut stays");
    assert.notEqual(await text(page, "ending-text"), "");
  }));

  it("tells of an upstream that went silent, while it is silent", () => opened(async (page) => {
    await page.check("input[value=stall]");
    await slide(page, "sim-after", 6);
    await page.click("#send");
    await page.waitForSelector("#quiet:not([hidden])");
    assert.match(await text(page, "quiet"), /^no token for \d+ s$/);
    assert.equal(await state(page), "streaming");
    await page.click("#cut");
    assert.equal(await state(page), "cut");
    assert.ok(await page.isHidden("#quiet"));
  }));

  it("offers the models of the edge and takes any other", () => opened(async (page) => {
    const listed = (await (await fetch(EDGE + "/v1/models")).json()).data.map((model) => model.id);
    await page.click("#model");
    assert.deepEqual(await page.locator("#models li").allTextContents(), listed);
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    assert.equal(await page.inputValue("#model"), listed[0]);
    await page.fill("#model", "of-my-own");
    assert.match(await text(page, "code-curl"), /"model": "of-my-own"/);
  }));

  it("asks for its models and its answers with the key, where there are client keys", async () => {
    const key = "sk-playground";
    const sha256 = createHash("sha256").update(key).digest("hex");
    const own = await startEdge(`[[key]]\nname = "person"\nsha256 = "${sha256}"\n`);
    const { page, faults, close } = await openPlayground(browser, own.origin);
    try {
      assert.match(await text(page, "model-hint"), /^No list: /);
      await page.click("#send");
      await reached(page, "error");
      assert.match(await text(page, "status"), /^HTTP 401 /);
      await page.fill("#key", key);
      await page.keyboard.press("Tab");
      await page.waitForFunction(() => / listed/.test(document.getElementById("model-hint").textContent));
      await page.click("#send");
      await reached(page, "finished");
      assert.deepEqual(faults, []);
    } finally {
      await close();
      await own.stop();
    }
  });

  it("follows the system's light or dark, and a choice outlives a reload", async () => {
    const ground = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const seen = {};
    for (const colorScheme of ["light", "dark"]) {
      await opened(async (page) => {
        seen[colorScheme] = await ground(page);
        await page.click("#theme");
        seen[colorScheme + " toggled"] = await ground(page);
        await page.reload();
        seen[colorScheme + " reloaded"] = await ground(page);
      }, { colorScheme });
    }
    assert.notEqual(seen.light, seen.dark);
    assert.equal(seen["light toggled"], seen.dark);
    assert.equal(seen["dark toggled"], seen.light);
    assert.equal(seen["light reloaded"], seen.dark);
    assert.equal(seen["dark reloaded"], seen.light);
  });

  it("fits a phone 360 pixels wide", () => opened(async (page) => {
    await page.click("#send");
    await reached(page, "finished");
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  }, { viewport: { width: 360, height: 740 } }));
});

async function opened(use, options) {
  const { page, faults, close } = await openPlayground(browser, EDGE, options);
  try {
    await use(page);
    assert.deepEqual(faults, []);
  } finally {
    await close();
  }
}
