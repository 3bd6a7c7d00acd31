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
    // That the node closes its connection is between the two of them.
    const kept = (_, at, all) => !/^(connection|keep-alive)$/i.test(all[at - (at % 2)]);
    response.writeHead(answer.statusCode, answer.rawHeaders.filter(kept));
    answer.pipe(response);
    answer.on("error", () => response.destroy());
  });
  // An answer may come before the request was sent to its end, which is then cut off: the answer is whole all the same, and reaches
  // whoever has asked only if what is still sent is read.
  onward.on("error", () => answered || response.destroy());
  onward.on("close", () => request.resume());
  response.on("close", () => onward.destroy());
  request.pipe(onward);
});
server.keepAliveTimeout = 60_000;
server.listen(0, "127.0.0.1", () => writeFileSync(portFile, String(server.address().port)));
