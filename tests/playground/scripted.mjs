// A server on loopback that serves the edge's own page and answers its requests as a test dictates, byte by byte:
// what no well-behaved upstream sends, the page must still read right.

import { createServer } from "node:http";

import { EDGE } from "./browser.mjs";

export async function scripted({ ready = "ready", models = ["m"] } = {}) {
  const original = await fetch(EDGE + "/");
  const page = Buffer.from(await original.arrayBuffer());
  const policy = original.headers.get("content-security-policy");
  const requests = [];
  let answer = finished;
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    if (request.url === "/") {
      response.writeHead(200, { "content-type": "text/html; charset=utf-8", "content-security-policy": policy }).end(page);
    } else if (request.url === "/readyz") {
      response.end(ready);
    } else if (request.url === "/v1/models") {
      response.writeHead(200, { "content-type": "application/json" })
        .end(JSON.stringify({ object: "list", data: models.map((id) => ({ id, object: "model" })) }));
    } else {
      requests.push({ method: request.method, url: request.url, headers: request.headers, body: JSON.parse(body) });
      await answer(response);
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: "http://127.0.0.1:" + server.address().port,
    requests,
    answerWith: (next) => { answer = next; },
    close: () => { server.closeAllConnections(); return new Promise((resolve) => server.close(resolve)); },
  };
}

export function head(response, headers = {}) {
  response.writeHead(200, { "content-type": "text/event-stream", ...headers });
  response.flushHeaders();
}

export const chunk = (content, more = {}) =>
  JSON.stringify({ id: "c", object: "chat.completion.chunk", model: "m", choices: [{ index: 0, delta: { content } }], ...more });

function finished(response) {
  head(response);
  response.end(`data: ${chunk("fine")}\n\ndata: [DONE]\n\n`);
}
