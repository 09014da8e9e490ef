#!/bin/bash
# failover.sh [-r repeats] [-l lease-ms…] [-k kind…] [-g] — how long nobody serves. Two nodes and a witness in network namespaces, under a
# writer on each mount (lease-probe.py: create, write, fsync); the time between the last write that was acknowledged before a fault and the
# first one after it, at whichever node:
#   crashed      batond is killed (its supervisor lives)
#   killed       batond and its supervisor are killed at once (as when a machine dies with its network up)
#   gone         the node's network is cut: not a word
#   switchover   a person hands over, under load
#   stopped      batond is ended in order (SIGTERM), under load; how long it takes to end is a line of its own
# -l: lease times in ms (default: 2000 500). -k: these kinds alone. Prints median and worst in milliseconds. `make bench-failover` runs it. Root; the
# figures are worth something on an otherwise idle machine only. Beside it, where GlusterFS is installed, the same meter on a replica 2 volume with its
# default network.ping-timeout of 42 s (-g: one repeat takes a minute).
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"
need_root
tap_ended=1 # this is no test: no plan at the end
set +u

repeats=30 leases=() kinds=() gluster=
while getopts r:l:k:g option; do
    case $option in
    r) repeats=$OPTARG ;;
    l) leases+=("$OPTARG") ;;
    k) kinds+=("$OPTARG") ;;
    g) gluster=1 ;;
    *) exit 2 ;;
    esac
done
[ ${#leases[@]} -gt 0 ] || leases=(2000 500)
[ ${#kinds[@]} -gt 0 ] || kinds=(crashed killed gone switchover stopped)
other() { [ "$1" = a ] && echo b || echo a; }
in_sync() { [ "$(status_of "$(primary_now)" replication link 2>/dev/null)" = working ]; }
acknowledged() { cat "$T"/probe-* | grep -c '^ack'; }
more_than() { [ "$(acknowledged)" -gt "$1" ]; }

fault() { # KIND
    local now before begin begun
    now=$(primary_now)
    before=$(acknowledged)
    read -r begin _ </proc/uptime
    begin=${begin/./}0000000 # nanoseconds
    case $1 in
    crashed) crash_node "$now" ;;
    killed) kill_node "$now" ;;
    gone) network_cut "$now" ;;
    stopped)
        begun=$(($(date +%s%N) / 1000)) # microseconds
        stop_node "$now" || bail "node $now does not end"
        echo $(($(date +%s%N) / 1000 - begun)) >>"$T/ends"
        ;;
    switchover) "$BATON" switchover --config "$CONFIG" --node "$now" >"$T/.out" 2>&1 || cat "$T/.out" >&2 ;;
    esac
    wait_until 60 more_than $((before + 20)) || bail "nobody serves after $1"
    case $1 in
    killed | stopped) start_node "$now" || bail "node $now does not start again" ;;
    gone) network_mend "$now" ;;
    esac
    wait_until 60 in_sync || bail "not in sync again after $1"
    python3 - "$begin" "$T"/probe-* <<'END' >>"$T/gaps"
import sys
begin = int(sys.argv[1])
acks = sorted(int(line.split()[3]) for log in sys.argv[2:] for line in open(log) if line.startswith("ack"))
after = [time for time in acks if time > begin - 1000000000][:2000]
print(max(b - a for a, b in zip(after, after[1:])) // 1000)
END
}

series() { # LEASE KIND
    local i
    : >"$T/gaps"
    : >"$T/ends"
    for ((i = 0; i < repeats; i++)); do
        fault "$2"
        sleep "0.$((RANDOM % 5 + 1))" # not in step with renewals
    done
    report "$2, lease $1 ms" "$T/gaps"
    [ ! -s "$T/ends" ] || report "until it has ended" "$T/ends"
}

report() { # WHAT FILE: of microseconds
    python3 - "$1" "$2" <<'END'
import statistics, sys
gaps = sorted(int(line) / 1000 for line in open(sys.argv[2]))
print(f"| {sys.argv[1]} | {statistics.median(gaps):,.0f} | {gaps[-1]:,.0f} | {len(gaps)} |", flush=True)
END
}

cluster() { # LEASE
    local node
    network_up
    volume_create --witness "tcp://${address[witness]}:7400"
    volume_set lease duration "${1}ms"
    for node in a b; do
        "$BATON" format --config "$CONFIG" --node $node >"$T/.out" 2>&1 || bail "baton format failed: $(cat "$T/.out")"
    done
    start_witness || bail "the witness does not start"
    start_node a && start_node b || bail "a node does not start"
    wait_until 60 in_sync || bail "not in sync"
    mkdir "$(mount_of "$(primary_now)")/probes"
    wait_until 30 test -d "$(mount_of b)/probes" -a -d "$(mount_of a)/probes"
    for node in a b; do
        python3 "$here/../lease-probe.py" run "$(mount_of $node)" $node "$T/probe-$node" 0.002 &
        probe_pids+=($!)
        test_pids+=($!)
    done
    wait_until 30 more_than 20 || bail "the writers do not work"
}

cluster_down() {
    local node
    kill -TERM "${probe_pids[@]}"
    wait "${probe_pids[@]}"
    probe_pids=()
    for node in a b witness; do
        stop_node $node
    done
    for node in "${namespaces[@]}"; do
        ip netns delete "$node"
    done
    rm -rf --one-file-system "$T/a" "$T/b" "$T/witness" "$T"/probe-* "$CONFIG"*
}

probe_pids=()
echo "| what happens | median, ms | worst, ms | times |"
echo "| --- | ---: | ---: | ---: |"
for lease in "${leases[@]}"; do
    cluster "$lease"
    for kind in "${kinds[@]}"; do
        series "$lease" $kind
    done
    cluster_down
done
[ -z "$gluster" ] || bash "$here/failover-gluster.sh"
