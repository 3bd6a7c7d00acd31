// An edge of a test's own, and a TCP proxy before it that breaks connections in the middle of an event.

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const BINARY = process.env.SEDGE_BIN ?? fileURLToPath(new URL("../../target/release/sedge", import.meta.url));

// An edge with this configuration, on a port that was free.
export async function startEdge(config = "") {
  const dir = await mkdtemp(join(tmpdir(), "sedge-page-"));
  await writeFile(join(dir, "sedge.toml"), config);
  const child = spawn(BINARY, ["--listen", "127.0.0.1:0", "--admin", "off", "--config", join(dir, "sedge.toml")], { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  const origin = await new Promise((resolve, reject) => {
    child.stderr.on("data", (bytes) => {
      said += bytes;
      const found = /listening on (http:\/\/[^ /]+)/.exec(said);
      if (found) resolve(found[1]);
    });
    child.on("exit", (code) => reject(new Error(`the edge ended with ${code}: ${said}`)));
  });
  return {
    origin,
    stop: async () => {
      const ended = new Promise((resolve) => child.on("exit", resolve));
      child.kill("SIGKILL");
      await ended;
      await rm(dir, { recursive: true });
    },
  };
}

// A proxy before `origin`. While `cutting`, each event stream is broken off within the data of an event, a few hundred bytes
// after it began, now by an end and now by a reset; and every fifth answer to a POST never arrives, though it was given.
export async function startCuttingProxy(origin) {
  const { hostname, port } = new URL(origin);
  const proxy = { cutting: false, cuts: 0, lost: 0, watchers: 0, posts: 0 };
  const open = new Set();
  const server = net.createServer((client) => {
    const edge = net.connect(+port, hostname);
    let kind = "other", passed = 0, until = 0;
    const end = () => { client.destroy(); edge.destroy(); };
    for (const socket of [client, edge]) {
      open.add(socket);
      socket.setNoDelay(true).on("error", end).on("close", () => { open.delete(socket); end(); });
    }
    client.on("data", (bytes) => {
      const head = bytes.toString("latin1");
      if (/^GET \/v1\/stream[/?]/.test(head)) {
        kind = "watcher";
        proxy.watchers += 1;
        passed = 0;
        until = 500 + (proxy.watchers * 7919) % 900;
      } else if (/^[A-Z]+ \//.test(head)) {
        kind = head.startsWith("POST ") ? "post" : "other";
        proxy.posts += kind === "post" ? 1 : 0;
      }
      edge.write(bytes);
    });
    edge.on("data", (bytes) => {
      if (kind === "post" && proxy.cutting && proxy.posts % 5 === 0) {
        proxy.lost += 1;
        return client.resetAndDestroy();
      }
      if (kind !== "watcher") return client.write(bytes);
      const text = bytes.toString("latin1");
      // How long a browser waits is not what is tested: as many digits, but a few milliseconds.
      bytes = Buffer.from(text.replace(/^retry: (\d+)$/m, (_, ms) => "retry: " + "20".padStart(ms.length, "0")), "latin1");
      const at = proxy.cutting ? text.indexOf('{"n":', Math.max(0, until - passed)) : -1;
      passed += bytes.length;
      if (at < 0) return client.write(bytes);
      proxy.cuts += 1;
      const byReset = proxy.cuts % 3 === 0;
      client.write(bytes.subarray(0, at + 4), () => { byReset ? client.resetAndDestroy() : client.destroy(); edge.destroy(); });
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  proxy.origin = "http://127.0.0.1:" + server.address().port;
  proxy.stop = () => {
    server.close();
    open.forEach((socket) => socket.destroy());
  };
  return proxy;
}
