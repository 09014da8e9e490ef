#!/usr/bin/env python3
"""Probes a mount that may be primary's, or not, for tests of the lease; and judges what all probes saw.

usage: lease-probe.py run MOUNT NODE LOG [PAUSE]   until SIGTERM
       lease-probe.py judge MOUNT JOURNAL LOG…

run: makes one file after the other in MOUNT/probes (which must be there), with a name that nobody else takes and content that follows from it, and
fsyncs it. A line of LOG for each that was acknowledged: "ack NAME BEGIN END" (nanoseconds of CLOCK_BOOTTIME, which all
nodes of a test share), and for one with another outcome "err NAME ERRNO BEGIN END".

judge: JOURNAL is what `baton journal list --json --type create` of any nodes printed, at any times. Every acknowledged file is
in MOUNT, with its content. And of two acknowledged ones of which one had ended before the other began, the journal has that
one first, by whichever node: so no node acknowledged anything after another one had begun to serve. (Those that no journal
has any more, of a full disk say, are not judged by that.) Prints a line for each that is wrong and a summary "N
acknowledged, N missing, N out of order of N in the journal, longest gap S s"; the exit status says whether all is well.
"""
import errno
import json
import os
import signal
import sys
import time


def now():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def content(name):
    return (name + "\n").encode() * 20


def run(mount, node, log, pause):
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    number = 0
    with open(log, "a", buffering=1) as out:
        while not stop:
            number += 1
            name = f"{node}-{os.getpid()}-{number}"
            begin = now()
            try:
                fd = os.open(f"{mount}/probes/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                try:
                    written = os.write(fd, content(name))
                    if written != len(content(name)):
                        raise OSError(errno.EIO, "a short write")
                    os.fsync(fd)
                finally:
                    os.close(fd)
                out.write(f"ack {name} {begin} {now()}\n")
                time.sleep(pause)
            except OSError as error:
                out.write(f"err {name} {errno.errorcode.get(error.errno, error.errno)} {begin} {now()}\n")
                time.sleep(max(pause, 0.02))


def judge(mount, journal, logs):
    acks = []
    for log in logs:
        with open(log) as lines:
            for line in lines:
                parts = line.split()
                if parts[0] == "ack" and len(parts) == 4:
                    acks.append((int(parts[2]), int(parts[3]), parts[1]))
    places = {}
    with open(journal) as lines:
        for line in lines:
            record = json.loads(line)
            for key in ("name", "path"):
                text = record.get(key)
                if isinstance(text, str): # the last word counts: before it, the record may have been taken back
                    places[text.rsplit("/", 1)[-1]] = record["lsn"]
    missing = order = 0
    for _, _, name in acks:
        try:
            with open(f"{mount}/probes/{name}", "rb") as file:
                if file.read() != content(name):
                    missing += 1
                    print(f"the content of {name} is another")
        except OSError as error:
            missing += 1
            print(f"{name} was acknowledged and is not there: {error}")
    known = [ack for ack in acks if ack[2] in places]
    # In the order in which they began: all that had ended before have smaller places.
    ends = sorted(known, key=lambda ack: ack[1])
    highest, highest_name, at = 0, None, 0
    for begin, _, name in sorted(known):
        while at < len(ends) and ends[at][1] < begin:
            if places[ends[at][2]] > highest:
                highest, highest_name = places[ends[at][2]], ends[at][2]
            at += 1
        if places[name] < highest:
            order += 1
            print(f"{name} (record {places[name]}) began after {highest_name} (record {highest}) was acknowledged")
    times = [ack[1] for ack in ends]
    gap = max((b - a for a, b in zip(times, times[1:])), default=0)
    print(f"{len(acks)} acknowledged, {missing} missing, {order} out of order of {len(known)} in the journal, longest gap {gap / 1e9:.2f} s")
    return 0 if known and not missing and not order else 1


if sys.argv[1] == "run":
    run(sys.argv[2], sys.argv[3], sys.argv[4], float(sys.argv[5]) if len(sys.argv) > 5 else 0.005)
else:
    sys.exit(judge(sys.argv[2], sys.argv[3], sys.argv[4:]))
