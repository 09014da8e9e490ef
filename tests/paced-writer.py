#!/usr/bin/env python3
"""paced-writer.py FILE BYTES RATE REPORT [SPAN]: writes BYTES at a time over the first SPAN bytes (8 MiB) of FILE, at most
RATE bytes a second, until it is killed, and tells in REPORT, four times a second, how many bytes it has written and the longest write so far, in
ms, since REPORT was last removed."""
import os
import sys
import time

path, size, rate, report = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
span = int(sys.argv[5]) if len(sys.argv) > 5 else 8 << 20
file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
data = os.urandom(size)
at = written = 0
longest = told = 0.0
due = time.monotonic()
while True:
    before = time.monotonic()
    os.pwrite(file, data, at % span)
    now = time.monotonic()
    at += size
    written += size
    longest = max(longest, now - before)
    if now - told > 0.25:
        told = now
        if not os.path.exists(report):
            longest = 0.0
        with open(report + ".new", "w") as to:
            to.write(f"{written} {longest * 1000:.0f}\n")
        os.rename(report + ".new", report)
    due = max(due + size / rate, now - 0.1)
    time.sleep(max(0.0, due - now))
