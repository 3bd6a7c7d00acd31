// The JavaScript of the README in a real browser: what people copy first has to work as it stands.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, it } from "node:test";
import { EDGE, launch } from "./browser.mjs";

const README = new URL("../../README.md", import.meta.url);

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

it("follows a stream with the page's own EventSource, from before it is made", async () => {
  const [, code] = /```js\n(const source = new EventSource[^]*?)```/.exec(await readFile(README, "utf8"));
  const name = "readme-" + process.pid, url = EDGE + "/v1/stream/" + name;
  const page = await browser.newPage();
  const heard = [];
  page.on("console", (line) => { if (line.type() === "log") heard.push(line.text()); });
  const hears = async (text) => {
    while (!heard.includes(text)) await page.waitForEvent("console", { timeout: 120_000 }).catch(() => assert.fail(`${text} is not among ${heard}`));
  };
  await page.goto(EDGE + "/livez");
  const asked = page.waitForRequest((request) => request.url().startsWith(url));
  await page.evaluate(code.replaceAll("/v1/stream/news", "/v1/stream/" + name));
  await asked;
  const send = (method, headers, body) =>
    fetch(url, { method, body, headers: { "content-type": "text/plain", ...headers } }).then((answer) => assert.ok(answer.ok, `${answer.status}`));
  await send("PUT", {}, "the first");
  await hears("the first");
  await send("POST", {}, "a message");
  await hears("a message");
  await send("POST", { "stream-event": "update" }, "an update");
  await hears("an update");
  assert.deepEqual(heard, ["the first", "a message", "an update"]);
  // Another log under the same name: it is told, and goes on.
  await send("DELETE", {});
  await send("PUT", {}, "another");
  await hears("another");
  assert.ok(heard.includes("epoch"), `${heard}`);
  await page.close();
});
