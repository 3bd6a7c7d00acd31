// A load balancer at its worst: every request goes to the next of several nodes, whatever it is about.
// node nodes.mjs PORT-FILE URL URL ...

import { writeFileSync } from "node:fs";
import http from "node:http";

const [portFile, ...nodes] = process.argv.slice(2);
let turn = 0;

const server = http.createServer((request, response) => {
  const node = nodes[turn++ % nodes.length];
  const { method, headers } = request;
  let answered = false;
  const onward = http.request(new URL(request.url, node), { method, headers, setHost: false, agent: false }, (answer) => {
    answered = true;
    response.writeHead(answer.statusCode, answer.rawHeaders);
    answer.pipe(response);
    answer.on("error", () => response.destroy());
  });
  // An answer may come before the request was sent to its end, which is then cut off: the answer is whole all the same.
  onward.on("error", () => answered || response.destroy());
  response.on("close", () => onward.destroy());
  request.pipe(onward);
});
server.keepAliveTimeout = 60_000;
server.listen(0, "127.0.0.1", () => writeFileSync(portFile, String(server.address().port)));
