#!/bin/bash
# share-failover.sh [-r repeats] [-k kind…] [-l lease-ms] [-p nfs] — the pause that a client of a share sees. Two nodes and a witness in
# network namespaces, batond with its exporters, an NFSv3 client on the same network that writes every 10 ms (tests/nfs-writer.c); the
# longest time between two acknowledgements around:
#   killed       batond's serving process is killed (its supervisor and the runner of the exporters live)
#   gone         the node's network is cut: not a word
#   switchover   a person hands over
# Median and worst in milliseconds, and beside them the phases, as medians: `promoted`, from the fault to "primary in epoch" (batond's
# own total of a takeover, from when it was noticed, is in `takeover`), what the server and the address took to start, and the rest,
# until the client had its answer. Root; the figures are worth something on an otherwise idle machine only.
[ -n "${BATON_TEST_REAPS:-}" ] || BATON_TEST_REAPS=1 exec python3 -c 'import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)
os.execvp("bash", ["bash"] + sys.argv[1:])' "$0" "$@"
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"
. "$here/../sharing.sh"
tap_ended=1 # this is no test: no plan at the end
set +u

repeats=30 kinds=() lease=2000 protocol=nfs
while getopts r:k:l:p: option; do
    case $option in
    r) repeats=$OPTARG ;;
    k) kinds+=("$OPTARG") ;;
    l) lease=$OPTARG ;;
    p) protocol=$OPTARG ;;
    *) exit 2 ;;
    esac
done
[ "$protocol" = nfs ] || { echo "share-failover.sh: only nfs can be measured so far" >&2; exit 2; }
[ ${#kinds[@]} -gt 0 ] || kinds=(killed gone switchover)
shared_needs

moved() { to=$(primary_now) && serves_all "$to" && acknowledged_more_than $((before + 50)); }
in_sync_now() { in_sync && serves_all "$(primary_now)"; }
# When the node became primary the last time, in ns of CLOCK_BOOTTIME: the watcher of its log puts the time before each line.
logged_at() { awk -v words="$2" 'index($0, words) { at = $1 } END { print at + 0 }' "$T/$1.times"; }
started_in() { sed -n "s/.*export $2 serves, started in \([0-9]*\) ms/\1/p" "$T/$1.log" | tail -n 1; }
watch_logs() {
    local node
    for node in a b; do
        python3 -u -c '
import os, sys, time
with open(sys.argv[1]) as log:
    while True:
        line = log.readline()
        if line:
            print(time.clock_gettime_ns(time.CLOCK_BOOTTIME), line, end="")
        else:
            time.sleep(0.002)' "$T/$node.log" >"$T/$node.times" &
        test_pids+=($!)
        disown $!
    done
}

fault() { # KIND
    local now to before begin promoted all
    now=$(primary_now)
    before=$(acknowledged)
    begin=$(python3 -c 'import time; print(time.clock_gettime_ns(time.CLOCK_BOOTTIME))')
    case $1 in
    killed) crash_node "$now" ;;
    gone) network_cut "$now" ;;
    switchover) "$BATON" switchover --config "$CONFIG" --node "$now" >"$T/.out" 2>&1 || cat "$T/.out" >&2 ;;
    esac
    wait_until 60 moved || bail "nobody serves after $1"
    moved
    promoted=$((($(logged_at "$to" "primary in epoch") - begin) / 1000000))
    all=$(pause_since "$begin")
    echo "$all $promoted $(status_of "$to" replication takeover total_ms 2>/dev/null || echo 0) $(started_in "$to" nfs) \
        $(started_in "$to" address)" >>"$T/pauses"
    case $1 in
    killed) wait_until 60 restarted "$now" ;;
    gone) network_mend "$now" ;;
    esac
    wait_until 60 in_sync_now || bail "not in sync again after $1"
}

series() { # KIND
    local i
    : >"$T/pauses"
    for ((i = 0; i < repeats; i++)); do
        fault "$1"
        sleep "0.$((RANDOM % 5 + 1))" # not in step with renewals
    done
    python3 - "$1" "$T/pauses" <<'END'
import statistics, sys
rows = [[int(word) for word in line.split()] for line in open(sys.argv[2])]
for row in rows:
    row[0] /= 1000
    row.append(row[0] - row[1] - row[3] - row[4])
median = [statistics.median(column) for column in zip(*rows)]
print(f"| {sys.argv[1]} | {median[0]:,.0f} | {max(row[0] for row in rows):,.0f} | {len(rows)} | " +
      " | ".join(f"{value:,.0f}" for value in median[1:]) + " | ", flush=True)
END
    [ -z "${BATON_BENCH_ROWS:-}" ] || sed "s/^/# $1: /" "$T/pauses" # each: pause in µs, and the phases
}

VOLUME_LEASE=${lease}ms
shared_up
writer_start
watch_logs
wait_until 10 test -s "$T/a.times"
echo "| what happens | median, ms | worst, ms | times | promoted | takeover | server | address | rest |"
echo "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
for kind in "${kinds[@]}"; do
    series "$kind"
done
grep -E '^(error|wrong)' "$T/writer" && echo "the client has seen errors" >&2
kill -TERM "$writer_pid"
wait "$writer_pid"
stop_node a
stop_node b
stop_node witness
