#!/bin/bash
# line.sh [-r repeats] [-n files] [-s MiB] [LINE…] — what a longer or slower line between the nodes costs. Two nodes in
# network namespaces; LINE is "direct" (a pair of virtual devices), "1gbit" (the same, limited by tbf), or a time: packets
# take as long there and back, carried by a relay of our own (relay.c; "0ms" shows what that costs by itself). Default: direct 0ms 1ms
# 5ms 20ms 1gbit. Prints medians of rates and their ratios to the direct line. `make bench-line` runs it. Root; the
# figures are worth something on an otherwise idle machine only.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"
need_root
tap_ended=1 # this is no test: no plan at the end
set +u

repeats=3 files=2000 size=256
while getopts r:n:s: option; do
    case $option in
    r) repeats=$OPTARG ;;
    n) files=$OPTARG ;;
    s) size=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
lines=("$@")
[ $# -gt 0 ] || lines=(direct 0ms 1ms 5ms 20ms 1gbit)
BENCH=$BATON_BUILD/tests/bench/bench
RELAY=$BATON_BUILD/tests/bench/relay
[ -x "$BENCH" ] && [ -x "$RELAY" ] || { echo "line.sh: bench and relay are not there; \"make bench-line\" builds them" >&2; exit 1; }
in_sync() { [ "$(status_of a replication link)" = working ]; }

relay_up() { # MILLISECONDS there and back
    local node
    rm -f "$T/relay" # an earlier one's says that it is ready
    "$RELAY" "$(awk "BEGIN { printf \"%d\", $1 * 500 }")" "$ID-a" "$ID-b" >"$T/relay" 2>"$T/relay.err" &
    relay=$!
    test_pids+=($relay)
    wait_until 10 grep -q ready "$T/relay" || bail "no relay: $(cat "$T/relay.err")"
    for node in a b; do
        ip -n "$ID-$node" address add "${address[$node]}/24" dev line || bail "no address for node $node on the relay"
        ip -n "$ID-$node" link set line mtu 9000 up
    done
}

line() { # LINE
    local node
    address=([a]=10.77.0.1 [b]=10.77.0.2 [witness]=10.77.0.3)
    network_up
    relay=
    case $1 in
    direct) ;;
    1gbit) for node in a b; do tc -n "$ID-$node" qdisc add dev eth0 root tbf rate 1gbit burst 256k latency 50ms || bail "no tbf"; done ;;
    *ms) address=([a]=10.79.0.1 [b]=10.79.0.2) && relay_up "${1%ms}" ;;
    *) bail "$1 is no line" ;;
    esac
    volume_create --transport clear
    volume_format
    start_node a || bail "node a does not start"
    start_node b || bail "node b does not start"
    wait_until 30 in_sync || bail "not in sync"
    mkdir "$(mount_of a)/work"
    "$BENCH" -s "$size" -n "$files" -t 200 "$(mount_of a)/work" "sequential write" "random 4 KiB write, one fsync" \
        "4 KiB write + fdatasync each" "create + write 4 KiB + close" "the same by four threads" rename unlink 2>"$T/bench.err" |
        sed "s|^|$1\t|" >>"$T/figures"
    [ -s "$T/bench.err" ] && cat "$T/bench.err" >&2
    stop_node a
    stop_node b
    [ -z "$relay" ] || { kill "$relay" && wait "$relay" 2>/dev/null; }
    for node in "${namespaces[@]}"; do ip netns delete "$node"; done
    namespaces=()
    rm -rf "$T/a" "$T/b" "$CONFIG" "$CONFIG".*
}

for ((repeat = 1; repeat <= repeats; repeat++)); do
    for each in "${lines[@]}"; do
        echo "# $(date +%T) repeat $repeat: $each" >&2
        line "$each"
    done
done
python3 "$here/ratios.py" "$T/figures" "${lines[0]}"
