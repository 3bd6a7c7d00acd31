#!/usr/bin/env python3
"""Judges a run of tests/http1/run.py: which verdicts are a failure, and which differences are meant.

Nothing may be smuggled, forwarded dirty, or left hanging, and every case must be answered as RFC 9112 demands. The
stricter answers are demanded too, but for the cases in MEANT, each with its reason.
"""

import collections
import json
import sys

MEANT = {}


def main(path):
    with open(path, encoding="utf-8") as file:
        cases = [json.loads(line) for line in file]
    if not cases:
        sys.exit("no cases")
    failures = []
    for case in cases:
        for kind in ("rfc", "strict"):
            verdict = case[f"{kind}_verdict"]
            if verdict != "PASS" and not (kind == "strict" and case["name"] in MEANT):
                failures.append(f"{kind:6} {verdict:8} {case['name']}: {case['statuses']}; {case['why']}")
    stale = sorted(set(MEANT) - {c["name"] for c in cases if c["strict_verdict"] != "PASS"})
    failures += [f"MEANT   {name} passes now: take it off the list" for name in stale]
    print("\n".join(failures))
    verdicts = collections.Counter(c["strict_verdict"] for c in cases)
    print(f"{len(cases)} cases, {dict(verdicts)}, {len(MEANT)} meant")
    if failures:
        sys.exit(f"{len(failures)} failures")


main(sys.argv[1])
