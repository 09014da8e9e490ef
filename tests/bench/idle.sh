#!/bin/bash
# idle.sh [-s seconds] [COUNT…] — what volumes cost that nobody uses: COUNT of them (default: 1 50), each on two nodes in network
# namespaces, one witness for all. Prints processor time, packets and memory of each node and of the witness, a minute, as
# an average over so many seconds (60) after everything is in sync. `make bench-idle` runs it. Root.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"
need_root
tap_ended=1 # this is no test: no plan at the end
set +u

seconds=60
while getopts s: option; do
    case $option in
    s) seconds=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
counts=("$@")
[ $# -gt 0 ] || counts=(1 50)

pids_of_node() { # batond's and their supervisors'
    local node=$1 pid
    for pid in "${daemons[@]}"; do
        [ "${pid%%:*}" = "$node" ] && echo "${pid#*:}" && cat "/proc/${pid#*:}/task/${pid#*:}/children"
    done
}
ticks() { # PIDS: of processor time
    local pid
    for pid in "$@"; do
        cat "/proc/$pid/stat" 2>/dev/null
    done | awk '{ sub(/.*\) /, ""); sum += $12 + $13 } END { print sum + 0 }'
}
resident() { # PIDS: KiB that are theirs alone
    local pid
    for pid in "$@"; do
        cat "/proc/$pid/smaps_rollup" 2>/dev/null
    done | awk '/^Private_/ { sum += $2 } END { print sum + 0 }'
}
packets() { nsenter --net="/run/netns/$ID-$1" -- cat /proc/net/dev | awk '/eth0/ { sub(/.*:/, ""); print $2 + $10 }'; }
synced() {
    local i
    for ((i = 0; i < count; i++)); do
        "$BATON" status --config "$T/volume$i.conf" --node a --json 2>/dev/null | grep -q '"link":"working"' || return 1
    done
}

measure() { # COUNT
    local i node port before after
    count=$1
    daemons=()
    network_up
    for ((i = 0; i < count; i++)); do
        port=$((7400 + 5 * i))
        for node in a b; do
            mkdir -p "$T/$i/$node/mount"
        done
        "$BATON" create --config "$T/volume$i.conf" --volume "$ID-$i" --witness "tcp://${address[witness]}:7000" \
            --node "a=tcp://${address[a]}:$port,store=$T/$i/a/store,mount=$T/$i/a/mount" \
            --node "b=tcp://${address[b]}:$port,store=$T/$i/b/store,mount=$T/$i/b/mount" >/dev/null || bail "create failed"
        # one witness, one key, for all of them
        if [ "$i" -gt 0 ]; then
            key=$(awk '/^\[witness\]/ { inside = 1 } inside && $1 == "public-key" { print $3 }' "$T/volume0.conf")
            awk -v key="$key" '/^\[/ { inside = ($0 == "[witness]") } inside && $1 == "public-key" { print "public-key = " key; next } { print }' \
                "$T/volume$i.conf" >"$T/new" && mv "$T/new" "$T/volume$i.conf"
        fi
        for node in a b; do
            "$BATON" format --config "$T/volume$i.conf" --node $node >/dev/null || bail "format failed"
        done
    done
    CONFIG=$T/volume0.conf
    mkdir -p "$T/witness"
    nsenter --net="/run/netns/$ID-witness" -- "$BATON_BUILD/baton-witness" --state "$T/witness/state" --secret-key "$T/volume0.conf.witness.key" "$T"/volume*.conf \
        >"$T/witness.out" 2>"$T/witness.log" &
    witness=$!
    test_pids+=($witness)
    wait_until 60 grep -q ready "$T/witness.out" || bail "no witness: $(tail -n 3 "$T/witness.log")"
    for ((i = 0; i < count; i++)); do
        for node in a b; do
            nsenter --net="/run/netns/$ID-$node" -- "$BATOND" --config "$T/volume$i.conf" --node $node >"$T/$i/$node/out" 2>"$T/$i/$node/log" &
            daemons+=("$node:$!")
            test_pids+=($!)
        done
    done
    wait_until 300 synced || bail "not all are in sync"
    sleep 5 # what the start has left to do
    declare -A t0 p0
    for node in a b; do
        t0[$node]=$(ticks $(pids_of_node $node)) p0[$node]=$(packets $node)
    done
    t0[witness]=$(ticks $witness) p0[witness]=$(packets witness)
    before=$(date +%s%N)
    sleep "$seconds"
    for node in a b witness; do
        if [ $node = witness ]; then pids=$witness; else pids=$(pids_of_node $node); fi
        after=$(($(date +%s%N) - before))
        awk -v count="$count" -v node=$node -v ticks=$(($(ticks $pids) - t0[$node])) -v hz="$(getconf CLK_TCK)" \
            -v packets=$(($(packets $node) - p0[$node])) -v ns=$after -v kib="$(resident $pids)" 'BEGIN {
            printf "| %d | %s | %.0f | %.0f | %.1f |\n", count, node, ticks / hz * 1000 * 60e9 / ns, packets * 60e9 / ns, kib / 1024 }'
    done
    for i in "${daemons[@]}" "w:$witness"; do
        kill -TERM "${i#*:}"
    done
    for i in "${daemons[@]}" "w:$witness"; do
        wait "${i#*:}"
    done
    for node in "${namespaces[@]}"; do
        ip netns delete "$node"
    done
    rm -rf --one-file-system "$T"/[0-9]* "$T"/volume* "$T/witness"
}

echo "| volumes | of | processor, ms a minute | packets a minute | private memory, MiB |"
echo "| ---: | --- | ---: | ---: | ---: |"
for count in "${counts[@]}"; do
    measure "$count"
done
