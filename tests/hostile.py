#!/usr/bin/env python3
"""Judges a run of tests/http1/run.py: every case must be answered as RFC 9112 demands and as a hardened edge answers it."""

import collections
import json
import sys


def main(path):
    with open(path, encoding="utf-8") as file:
        cases = [json.loads(line) for line in file]
    if not cases:
        sys.exit("no cases")
    failures = []
    for case in cases:
        for kind in ("rfc", "strict"):
            verdict = case[f"{kind}_verdict"]
            if verdict != "PASS":
                failures.append(f"{kind:6} {verdict:8} {case['name']}: {case['statuses']}; {case['why']}")
    if failures:
        print("\n".join(failures))
    verdicts = collections.Counter(c["strict_verdict"] for c in cases)
    print(f"{len(cases)} cases, {dict(verdicts)}")
    if failures:
        sys.exit(f"{len(failures)} failures")


main(sys.argv[1])
