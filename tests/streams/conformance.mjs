// The public conformance suite of the Durable Streams protocol, all of it, against the edge at SEDGE_URL.

import { runConformanceTests } from "@durable-streams/server-conformance-tests";

runConformanceTests({ baseUrl: process.env.SEDGE_URL, longPollTimeoutMs: 1_000, subscriptions: true });
