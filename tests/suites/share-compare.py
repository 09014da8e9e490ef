#!/usr/bin/env python3
"""share-compare.py [--again] pynfs|smbtorture EXT4 BATON — compares what a suite said on two sides (the beginnings of the names of its
outputs, NAME*.out). Prints how many cases ended how, and as a table those that ended differently; exit status 1 if a case
passes on ext4 and does not on Baton, or if nothing was run. --again prints instead what is to be run once more for these, and
for those that did not come to an end: the code of each case (pynfs), its suite (smbtorture)."""
import collections
import glob
import re
import sys

PASSES = ("pass", "warning")


def of_pynfs(text):
    """The last word about each case: `CODE  suite.function  : RESULT`."""
    found, case = {}, None
    for line in text.split("\n"):
        match = re.match(r"^(\w+)\s+(st_\w+\.\w+)\s+: (RUNNING|PASS|FAILURE|WARNING|OMIT|NOTRUN|UNSUPPORTED|\w+)", line)
        if match:
            case = f"{match[1]} {match[2]}"
            word = {"RUNNING": "no end", "PASS": "pass", "WARNING": "warning", "FAILURE": "failure", "UNSUPPORTED": "unsupported"}
            found[case] = [word.get(match[3], match[3].lower()), ""]
        elif case and found[case][0] not in ("pass", "no end") and line.startswith("  ") and line.strip():
            found[case][1] += " " + line.strip()
        elif not line.startswith(" "):
            case = None
    return found


def of_smbtorture(text):
    """`success: CASE`, `failure: CASE [`, `skip: CASE [` with the reason in the lines up to `]`."""
    found, case, suite = {}, None, ""
    for line in text.split("\n"):
        match = re.match(r"^(suite|test|success|failure|error|skip|timeout): (\S.*?)( \[)?$", line)
        if not match:
            if line == "]":
                case = None
            elif case:
                found[case][1] += " " + line.strip()
            continue
        kind, name = match[1], match[2]
        case = None
        if kind == "suite":
            suite = name
            continue
        name = f"{suite} {name}" if suite and not name.startswith(suite) else name
        if kind == "test":
            found[name] = ["no end", ""]
            continue
        found[name] = ["pass" if kind == "success" else kind, ""]
        if match[3]:
            case = name
    return found


def turn(path):
    """Of NAME.out 0, of NAME.again-1.out 1, …"""
    match = re.search(r"\.again-(\d+)\.out$", path)
    return int(match[1]) if match else 0


def read(kind, beginning, best):
    """Of several runs the best result of each case, or the last one that came to an end; and what it came from."""
    found = {}
    for path in sorted(glob.glob(glob.escape(beginning) + "*.out"), key=lambda path: (turn(path), path)):
        suite = re.sub(r"(\.again-\d+)?\.out$", "", path[len(beginning) :])
        with open(path, errors="replace") as file:
            for case, result in (of_pynfs if kind == "pynfs" else of_smbtorture)(file.read()).items():
                if case not in found or (result[0] != "no end" and not (best and found[case][0] in PASSES)):
                    found[case] = result + [case.split()[0] if kind == "pynfs" else suite]
    return found


def main():
    again = sys.argv[1:2] == ["--again"]
    arguments = sys.argv[1 + again :]
    if len(arguments) != 3 or arguments[0] not in ("pynfs", "smbtorture"):
        sys.exit(__doc__)
    # Who passes on ext4 by chance only is no measure, and fails there the next time.
    ext4, baton = read(arguments[0], arguments[1], False), read(arguments[0], arguments[2], True)
    nothing = ["not run", "", ""]
    counts = collections.Counter()
    rows, worse, origins = [], 0, set()
    for case in sorted(set(ext4) | set(baton)):
        one, other = ext4.get(case, nothing), baton.get(case, nothing)
        counts[one[0], other[0]] += 1
        if "no end" in (one[0], other[0]):
            origins.add(one[2] or other[2])
        if (one[0] in PASSES) == (other[0] in PASSES) and (one[0] in PASSES or one[0] == other[0]):
            continue
        worse += one[0] in PASSES
        origins.add(one[2] or other[2])
        reason = (other if other[1] else one)[1].replace("|", "/").strip()
        rows.append(f"| {case} | {one[0]} | {other[0]} | {reason[:300]} |")
    if again:
        print("".join(f"{origin}\n" for origin in sorted(origins)), end="")
        return
    print("\n".join(f"{count} cases: {one} on ext4, {other} on Baton" for (one, other), count in sorted(counts.items())))
    if rows:
        print("\n".join(["| case | ext4 | Baton | |", "| --- | --- | --- | --- |"] + rows))
    sys.exit(1 if worse or not any(one in PASSES for one, _ in counts) else 0)


main()
