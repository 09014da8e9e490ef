#!/usr/bin/env python3
"""Reads a large directory while it changes.

dir-churn.py fill DIR ENTRIES    makes stay-N, ENTRIES of them, by four processes
dir-churn.py change DIR          until its standard input ends: makes, renames and removes; no name is used twice
dir-churn.py read DIR ENTRIES PASSES
    reads it from the beginning to the end, PASSES times: what stays must be there once, and nothing twice
"""
import os
import select
import sys
import time

WRITERS = 4


def fill(directory, entries):
    children = []
    for writer in range(WRITERS):
        child = os.fork()
        if child == 0:
            for number in range(writer, entries, WRITERS):
                os.mknod(f"{directory}/stay-{number}", 0o644)
            os._exit(0)
        children.append(child)
    # A child that raises ends with a status of 1.
    sys.exit(any(os.waitpid(child, 0)[1] for child in children))


def change(directory):
    count = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        os.mknod(f"{directory}/new-{count}", 0o600)
        if count >= 100:
            os.rename(f"{directory}/new-{count - 50}", f"{directory}/moved-{count - 50}")
            os.unlink(f"{directory}/moved-{count - 100}" if count >= 150 else f"{directory}/new-{count - 100}")
        count += 1
    print(f"{count} made, moved and removed")


def read_once(directory, entries):
    stay = bytearray(entries)
    others = set()
    for entry in os.scandir(directory):
        kind, number = entry.name.split("-")
        if kind == "stay":
            if stay[int(number)]:
                sys.exit(f"{entry.name} was read twice")
            stay[int(number)] = 1
        elif entry.name in others:
            sys.exit(f"{entry.name} was read twice")
        else:
            others.add(entry.name)
    if not all(stay):
        sys.exit(f"{stay.count(0)} names were not read, stay-{stay.index(0)} first")
    return len(others)


def read(directory, entries, passes):
    for _ in range(passes):
        begin = time.monotonic()
        others = read_once(directory, entries)
        print(f"{entries} that stay and {others} others in {time.monotonic() - begin:.2f} s")


if __name__ == "__main__":
    what, directory, *numbers = sys.argv[1:]
    {"fill": fill, "change": change, "read": read}[what](directory, *map(int, numbers))
