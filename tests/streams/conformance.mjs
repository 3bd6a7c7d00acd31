// The public conformance suite of the Durable Streams protocol, all of it, against the edge at SEDGE_URL.

import { runConformanceTests } from "@durable-streams/server-conformance-tests";

// The time is what a test may take that waits for a long-poll, not what a long-poll takes.
runConformanceTests({ baseUrl: process.env.SEDGE_URL, longPollTimeoutMs: 120_000, subscriptions: true });
