#!/bin/bash
# verify.sh [-r repeats] [-n files] [-s MiB] — what comparing copies and scrubbing cost the work that goes on. Two nodes in
# network namespaces on this machine, a volume that holds files and data; small files are made and read, first alone, then
# beside `baton verify` and beside `baton scrub`, each at its own rate and as fast as it can. Prints medians of the work's
# rates, their ratios to those without, and how fast the comparison or the scrub got on. `make bench-verify` runs it. Root; the figures are worth
# something on an otherwise idle machine only.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"
need_root
tap_ended=1 # this is no test: no plan at the end
set +u

repeats=3 files=20000 size=512
while getopts r:n:s: option; do
    case $option in
    r) repeats=$OPTARG ;;
    n) files=$OPTARG ;;
    s) size=$OPTARG ;;
    *) exit 2 ;;
    esac
done
BENCH=$BATON_BUILD/tests/bench/bench
[ -x "$BENCH" ] || { echo "verify.sh: $BENCH is not there; \"make bench-verify\" builds it" >&2; exit 1; }

network_up
volume_create
volume_format
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
in_sync() { [ "$(status_of a replication link)" = working ]; }
wait_until 30 in_sync || bail "not in sync"
DIR=$(mount_of a)
echo "# $(date +%T) $files files and $size MiB" >&2
mkdir "$DIR/held" "$DIR/work"
python3 - "$DIR/held" "$files" <<'PY'
import os, sys
top, count = sys.argv[1], int(sys.argv[2])
for i in range(count):
    if i % 500 == 0:
        os.mkdir(f"{top}/{i // 500}")
    with open(f"{top}/{i // 500}/{i}", "wb") as file:
        file.write(b"x" * 1000)
PY
head -c "${size}M" /dev/urandom >"$DIR/held/data"
sync

verify_for_ever() { # RATE
    while "$BATON" verify --config "$CONFIG" --node a --json ${1:+--rate "$1"} >>"$T/verify.json" 2>>"$T/verify.err"; do :; done
}
scrub_for_ever() { # RATE
    while "$BATON" scrub --wait --config "$CONFIG" --node a --json ${1:+--rate "$1"} >>"$T/scrub.json" 2>>"$T/scrub.err"; do :; done
}
end_all() {
    local pid
    for pid in "$@"; do kill "$pid" && wait "$pid"; done 2>/dev/null
    "$BATON" verify --stop --config "$CONFIG" --node a >/dev/null 2>&1
    "$BATON" scrub --stop --config "$CONFIG" --node a >/dev/null 2>&1
}

measure() { # NAME [FUNCTION [RATE]]
    local name=$1 pids=()
    rm -f "$T"/*.json
    if [ -n "${2:-}" ]; then
        "$2" "${3:-}" &
        pids=($!)
        test_pids+=($!)
    fi
    sleep 1
    "$BENCH" -s 64 -n 4000 -t 200 "$DIR/work" 2>"$T/bench.err" | sed "s|^|$name\t|" >>"$T/figures"
    [ -s "$T/bench.err" ] && cat "$T/bench.err" >&2
    end_all "${pids[@]}"
    cat "$T/verify.json" 2>/dev/null | sed "s|^|$name\t|" >>"$T/verified"
    cat "$T/scrub.json" 2>/dev/null | sed "s|^|$name\t|" >>"$T/scrubbed"
}

for ((repeat = 1; repeat <= repeats; repeat++)); do
    echo "# $(date +%T) repeat $repeat" >&2
    measure alone
    measure verify verify_for_ever
    measure verify-fast verify_for_ever 10GiB
    measure scrub scrub_for_ever
    measure scrub-fast scrub_for_ever 10GiB
done

touch "$T/verified" "$T/scrubbed"
python3 "$here/ratios.py" "$T/figures" alone
python3 - "$T" <<'PY'
import json, sys
from collections import defaultdict
where = sys.argv[1]
speeds = defaultdict(list)
for line in open(f"{where}/verified"):
    system, text = line.split("\t", 1)
    for report in json.loads(text)["reports"]:
        speeds[system].append((report["rows"], (report["ended"] - report["begun"]) / 1e9, report["outcome"]))
for system, runs in speeds.items():
    rows, seconds = sum(r[0] for r in runs), sum(r[1] for r in runs)
    print(f"{system}: {len(runs)} comparisons, {rows / seconds:,.0f} rows a second, all equal: {all(r[2] == 'equal' for r in runs)}")
for line in open(f"{where}/scrubbed"):
    system, text = line.split("\t", 1)
    last = json.loads(text).get("last")
    if last and last["seconds"]:
        speeds["scrub", system].append((last["bytes"], last["seconds"]))
for system, runs in speeds.items():
    if isinstance(system, tuple):
        amount, seconds = sum(r[0] for r in runs), sum(r[1] for r in runs)
        print(f"{system[1]}: {len(runs)} times, {amount / seconds / 2**20:,.0f} MiB a second")
PY
