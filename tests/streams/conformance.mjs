// The public conformance suite of the Durable Streams protocol, all of it, against the edge at SEDGE_URL; without subscriptions
// where SEDGE_SUBSCRIPTIONS is `off`.

import { runConformanceTests } from "@durable-streams/server-conformance-tests";

const subscriptions = process.env.SEDGE_SUBSCRIPTIONS !== "off";

runConformanceTests({ baseUrl: process.env.SEDGE_URL, longPollTimeoutMs: 1_000, subscriptions });
