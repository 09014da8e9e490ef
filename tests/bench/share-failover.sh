#!/bin/bash
# share-failover.sh [-r repeats] [-k kind…] [-l lease-ms] [-p nfs|nfs41|smb|iscsi] — the pause that a client of a share sees. Two nodes and
# a witness in network namespaces, batond with its exporters, a client on the same network that writes every 10 ms (tests/nfs-writer.c,
# over NFSv3, usual; smb-writer.c, iscsi-writer.c; nfs41: mount-client.c on the mount of a Linux kernel in qemu, the only client of the
# share, times as its lines arrive here; -p may be given more than once: one after the other); the longest time between two
# acknowledgements around:
#   killed       batond's serving process is killed (its supervisor and the runner of the exporters live)
#   gone         the node's network is cut: not a word
#   switchover   a person hands over
# Median and worst in milliseconds, and beside them, as medians, the phases that the pause consists of: until the other node begins to
# take over (`detected`; the last acknowledgement to a switchover's begin of that), until it is primary (`promoted`), until the
# exporter's server answers (`server up`), until the exporter vip has announced the address and says so (`announced`), until the client
# had its answer (`first answer`: less than nothing if the client was faster than the script). BATON_BENCH_ROWS=1: each pause too.
# Root; the figures are worth something on an otherwise idle machine only.
[ -n "${BATON_TEST_REAPS:-}" ] || BATON_TEST_REAPS=1 exec python3 -c 'import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)
os.execvp("bash", ["bash"] + sys.argv[1:])' "$0" "$@"
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"
. "$here/../sharing.sh"
tap_ended=1 # this is no test: no plan at the end
set +u

repeats=30 kinds=() lease=2000 measured=()
while getopts r:k:l:p: option; do
    case $option in
    r) repeats=$OPTARG ;;
    k) kinds+=("$OPTARG") ;;
    l) lease=$OPTARG ;;
    p) measured+=("$OPTARG") ;;
    *) exit 2 ;;
    esac
done
[ ${#measured[@]} -gt 0 ] || measured=(nfs)
for protocol in "${measured[@]}"; do
    case $protocol in
    nfs | nfs41 | smb | iscsi) ;;
    *) echo "share-failover.sh: -p nfs, nfs41, smb or iscsi" >&2; exit 2 ;;
    esac
done
[ ${#kinds[@]} -gt 0 ] || kinds=(killed gone switchover)
if [ ${#measured[@]} -gt 1 ]; then # each on a volume of its own
    for protocol in "${measured[@]}"; do
        bash "$here/share-failover.sh" -r "$repeats" -l "$lease" -p "$protocol" "${kinds[@]/#/-k}" || exit
    done
    exit
fi
export_name=$protocol
protocols=("$protocol")
if [ "$protocol" = nfs41 ]; then
    export_name=nfs protocols=(nfs) BATON_LINUX_CLIENTS=1
    . "$here/../linux-client.sh"
    linux_client_needs
    linux_client_image || bail "the client's file system could not be made"
    shared_sections() { printf '[export nfs]\naddress = %s/24\npath = /share\nsquash = none\nprotocols = 4\n' "$service"; }
    # A Linux client with the program on its mount; the end of each line's time is replaced by when it has arrived.
    writer_start() {
        linux_client_boot one 10.77.0.51 && linux_client_ready one || bail "qemu does not start"
        guest one "mkdir /mnt/share && mount -t nfs4 -o vers=4.1,addr=$service,clientaddr=10.77.0.51 $service:/share /mnt/share" ||
            bail "the share cannot be mounted: $(guest one dmesg | tail -n 3)"
        guest_run one client mount-client write /mnt/share/written 10
        with_times "$T/client" "$T/writer.nfs41" 3
        wait_until 20 acknowledged_more_than nfs41 20 || bail "nothing is written: $(cat "$T/client")"
    }
    writers_end() { guest_end client && wait_until 30 grep -q "^end" "$T/client"; }
    noticed() { grep -v '^ack' "$T/writer.nfs41"; }
fi
shared_needs

moved() { to=$(primary_now) && serves_all "$to" && acknowledged_more_than "$protocol" $((before + 50)); }
in_sync_now() { in_sync && serves_all "$(primary_now)"; }
# When the node wrote this the last time, in ns of CLOCK_BOOTTIME: the watcher of its log puts the time before each line.
logged_at() { awk -v words="$2" 'index($0, words) { at = $1 } END { printf "%.0f\n", at }' "$T/$1.times"; }
with_times() { # FROM TO [WORD]: each line, with that time before it, or instead of its word of that number
    python3 -u -c '
import sys, time
line, instead = "", len(sys.argv) > 2 and int(sys.argv[2])
with open(sys.argv[1]) as log:
    while True:
        line += log.readline()
        if not line.endswith("\n"):
            time.sleep(0.002)
            continue
        words = line.split()
        words[instead:instead + (1 if instead else 0)] = [str(time.clock_gettime_ns(time.CLOCK_BOOTTIME))]
        print(*words)
        line = ""' "$1" ${3:+"$3"} >"$2" &
    test_pids+=($!)
    disown $!
}
watch_logs() {
    with_times "$T/a.log" "$T/a.times"
    with_times "$T/b.log" "$T/b.times"
}
# A takeover's own time, in ns, from when it was begun.
takeover_of() { status_of "$1" replication takeover | python3 -c '
import json, sys
takeover = json.load(sys.stdin)
print((takeover["total_ms"] - takeover["phases"]["silence"]) * 1000000)'; }

fault() { # KIND
    local now to before begin pause over promoted
    now=$(primary_now)
    before=$(acknowledged "$protocol")
    begin=$(python3 -c 'import time; print(time.clock_gettime_ns(time.CLOCK_BOOTTIME))')
    case $1 in
    killed) crash_node "$now" ;;
    gone) network_cut "$now" ;;
    switchover) "$BATON" switchover --config "$CONFIG" --node "$now" >"$T/.out" 2>&1 || cat "$T/.out" >&2 ;;
    esac
    wait_until 60 moved || bail "nobody serves after $1"
    moved
    read -r pause over < <(pause_since "$protocol" "$begin")
    promoted=$(logged_at "$to" "primary in epoch")
    # moments, in ns, from the pause's begin to its end
    echo "$((over - pause * 1000)) $((promoted - $(takeover_of "$to"))) $promoted $(logged_at "$to" "export $export_name serves") \
        $(logged_at "$to" "export address serves") $over" >>"$T/pauses"
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
    python3 - "$protocol, $1" "$T/pauses" <<'END'
import os, statistics, sys
rows = [[int(word) / 1e6 for word in line.split()] for line in open(sys.argv[2])]
pauses = [row[-1] - row[0] for row in rows]
phases = [[after - before for before, after in zip(row, row[1:])] for row in rows]
print(f"| {sys.argv[1]} | {statistics.median(pauses):,.0f} | {max(pauses):,.0f} | {len(rows)} | " +
      " | ".join(f"{statistics.median(column):,.0f}" for column in zip(*phases)) + " |", flush=True)
if os.environ.get("BATON_BENCH_ROWS"):
    for pause, row in zip(pauses, phases):
        print(f"# {sys.argv[1]}: {pause:,.0f} = " + " + ".join(f"{phase:,.0f}" for phase in row), flush=True)
END
}

VOLUME_LEASE=${lease}ms
shared_up
writer_start
watch_logs
wait_until 10 test -s "$T/a.times"
echo "| what happens | median, ms | worst, ms | times | detected | promoted | server up | announced | first answer |"
echo "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
for kind in "${kinds[@]}"; do
    series "$kind"
done
noticed && echo "the client has seen errors" >&2
writers_end
stop_node a
stop_node b
stop_node witness
