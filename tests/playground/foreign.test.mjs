// What pages of other sites can do to an edge without keys, in a real browser. A page whose name was rebound to 127.0.0.1 was of the
// same origin as the edge and could read all of it; any page could append to streams and spend the upstream's key by a POST that needs no
// preflight.

import assert from "node:assert/strict";
import http from "node:http";
import { after, before, test } from "node:test";

import { launch } from "./browser.mjs";
import { startEdge } from "./edge.mjs";

let browser, edge, port;

before(async () => {
  edge = await startEdge();
  port = new URL(edge.origin).port;
  // A name server of the attacker's own says the same.
  browser = await launch(["--host-resolver-rules=MAP evil.example 127.0.0.1", "--no-proxy-server"]);
  const made = await fetch(edge.origin + "/v1/stream/news", { method: "PUT", headers: { "Content-Type": "text/plain" }, body: "ours" });
  assert.equal(made.status, 201);
});

after(async () => {
  await browser?.close();
  await edge?.stop();
});

// What the page can see of a request: its status and the beginning of its body, or that it failed.
const look = (page, url, options = {}) => page.evaluate(async ([url, options]) => {
  try {
    const response = await fetch(url, options);
    return { status: response.status, type: response.type, text: (await response.text()).slice(0, 1000) };
  } catch (error) {
    return { error: String(error) };
  }
}, [url, options]);

const stream = async () => (await fetch(edge.origin + "/v1/stream/news")).text();

test("a page whose name was rebound to this machine sees nothing", async () => {
  const page = await browser.newPage();
  const attacker = `http://evil.example:${port}`;
  // Any document under that name will do: what matters is whose scripts run in it.
  await page.goto(attacker + "/livez");
  const body = JSON.stringify({ model: "sim", messages: [{ role: "user", content: "hi" }] });
  for (const [path, options] of [
    ["/v1/models", {}],
    ["/v1/chat/completions", { method: "POST", body }],
    ["/v1/stream/news", {}],
    ["/v1/stream/news", { method: "POST", headers: { "Content-Type": "text/plain" }, body: "theirs" }],
    ["/v1/stream/news", { method: "DELETE" }],
    ["/", {}],
  ]) {
    const seen = await look(page, path, options);
    assert.equal(seen.status, 421, `${path} ${JSON.stringify(seen)}`);
    assert.match(seen.text, /host_not_served/);
  }
  const followed = await page.evaluate(() => new Promise((resolve) => {
    const source = new EventSource("/v1/stream/news");
    source.onmessage = () => resolve("read");
    source.onerror = () => resolve("refused");
  }));
  assert.equal(followed, "refused");
  assert.equal(await stream(), "ours");
  await page.close();
});

test("a page of another port sends nothing that is obeyed, unless [cors] names it", async () => {
  const server = http.createServer((_, response) => response.setHeader("Content-Type", "text/html").end("<h1>cats</h1>"));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin = `http://localhost:${server.address().port}`;
  const open = await startEdge(`[cors]\norigins = ["${origin}"]\n`);
  const page = await browser.newPage();
  await page.goto(origin + "/");
  const append = (mode) => ({ method: "POST", mode, headers: { "Content-Type": "text/plain" }, body: "theirs" });
  for (const target of [edge.origin, `http://localhost:${port}`]) {
    const sent = await look(page, target + "/v1/stream/news", append("no-cors"));
    assert.equal(sent.type, "opaque", JSON.stringify(sent));
    assert.ok("error" in await look(page, target + "/v1/stream/news", append("cors")));
    assert.ok("error" in await look(page, target + "/v1/stream/news"));
  }
  assert.equal(await stream(), "ours");

  const made = await look(page, open.origin + "/v1/stream/news", { method: "PUT", headers: { "Content-Type": "text/plain" }, body: "a" });
  assert.equal(made.status, 201, JSON.stringify(made));
  assert.equal((await look(page, open.origin + "/v1/stream/news")).text, "a");
  await page.close();
  await open.stop();
  server.close();
});

test("its own pages go on as before", async () => {
  const page = await browser.newPage();
  for (const origin of [edge.origin, `http://localhost:${port}`]) {
    await page.goto(origin + "/");
    assert.equal((await look(page, "/v1/models")).status, 200);
    const asked = await look(page, "/v1/chat/completions", { method: "POST", body: JSON.stringify({ model: "sim", messages: [] }) });
    assert.equal(asked.status, 200, JSON.stringify(asked));
    assert.equal((await look(page, "/v1/stream/news")).text, "ours");
  }
  await page.close();
});
