// The promise: the code the page shows is the request the page sends. It is run as shown, by a shell, by Python and by
// Node, and the server must see the same body, the same key and the same headers, whatever was typed.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { after, before, describe, it } from "node:test";

import { launch, openPlayground, reached, slide, text } from "./browser.mjs";
import { scripted } from "./scripted.mjs";

const PROMPT = "it's \"quoted\" `ticked` $HOME $(id) ${x} %s {y} \\n \\ !! #1 // two\n\tthree\u2028four é 🌾 \u202edaehlatot\u0007 end\\";
const MODEL = "o'dd/\"model\"$1";
const PYTHON = process.env.PYTHON ?? "python3";

const RUNNERS = [
  ["curl", "code-curl", "sh", [], runs("curl", ["--version"])],
  ["Python", "code-python", PYTHON, ["-"], runs(PYTHON, ["-c", "import openai"])],
  ["JavaScript", "code-js", process.execPath, ["--input-type=module", "-"], true],
];

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

for (const [name, id, program, args, present] of RUNNERS) {
  describe(`the ${name} shown`, { skip: present ? false : `${program} cannot run it here` }, () => {
    it("sends what the page sends", () => same({ ready: "ready" }, async () => {}));

    it("sends the key from the environment, and does not show it", () =>
      same({ ready: "ready" }, (page) => page.fill("#key", "sk-secret")));

    it("sends the simulator's knobs", () => same({ ready: "ready, answers from the simulator" }, async (page) => {
      await slide(page, "sim-interval", 5);
      await page.check("input[value=cut]");
      await slide(page, "sim-after", 9);
    }));
  });

  async function same(options, fill) {
    const server = await scripted(options);
    const { page, close } = await openPlayground(browser, server.origin);
    try {
      await page.fill("#prompt", PROMPT);
      await page.fill("#model", MODEL);
      await fill(page);
      await page.click("#send");
      await reached(page, "finished");
      const code = await text(page, id);
      assert.ok(!code.includes("sk-secret"));
      const output = await run(program, args, code);
      assert.match(output, /fine/, "the answer is printed");
      assert.equal(server.requests.length, 2);
      const [sent, shown] = server.requests.map(essence);
      assert.equal(sent.body.messages[0].content, PROMPT);
      assert.deepEqual(shown, sent);
    } finally {
      await close();
      await server.close();
    }
  }
}

function essence({ method, url, headers, body }) {
  const kept = Object.entries(headers).filter(([header]) => header === "authorization" || header.startsWith("x-sim-"));
  return { method, url, body, type: headers["content-type"], headers: Object.fromEntries(kept.sort()) };
}

function run(program, args, code) {
  const env = { ...process.env, NO_PROXY: "127.0.0.1", no_proxy: "127.0.0.1", OPENAI_API_KEY: "sk-secret" };
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: import.meta.dirname, env, stdio: ["pipe", "pipe", "pipe"] });
    let output = "", complaint = "";
    child.stdout.on("data", (data) => { output += data; });
    child.stderr.on("data", (data) => { complaint += data; });
    child.on("error", reject);
    child.on("close", (status) => status === 0 ? resolve(output) : reject(new Error(`${program}: ${complaint}`)));
    child.stdin.end(code);
  });
}

function runs(program, args) {
  return spawnSync(program, args, { stdio: "ignore" }).status === 0;
}
