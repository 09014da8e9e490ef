#!/bin/bash
# Two nodes that an etcd of three members tells who is primary. A daemon that dies, a machine that dies without a word, an order to
# hand over, a member of etcd that is killed; and when none of them answers any more nobody writes, until they do again.
. "$(dirname "$0")/lib.sh"
ETCD=/usr/bin/etcd
[ -x $ETCD ] || skip_all "$ETCD is not here; install etcd-server"

now_ms() { echo $(($(date +%s%N) / 1000000)); }
writes() { touch "$(mount_of "$1")/.probe" 2>/dev/null; }
linked() { [ "$(status_of "$1" replication link 2>/dev/null)" = working ]; }
in_sync() { linked "$1" && linked "$(other "$1")"; }
other() { [ "$1" = a ] && echo b || echo a; }

# What was acknowledged, and is to be there for ever.
acknowledged=0
make() { # NODE
    local i
    for i in 1 2 3 4 5; do
        echo "$acknowledged" >"$(mount_of "$1")/f$acknowledged" && sync "$(mount_of "$1")/f$acknowledged" || return 1
        acknowledged=$((acknowledged + 1))
    done
}
all_there() { # NODE
    local i
    for ((i = 0; i < acknowledged; i++)); do
        [ "$(cat "$(mount_of "$1")/f$i")" = $i ] || { echo "f$i is missing or different on $1"; return 1; }
    done
}
# takes_over NODE SINCE WHAT
takes_over() {
    ok "$3: the other node takes over" wait_until 120 writes "$1"
    diag "$3: $(($(now_ms) - $2)) ms until a write"
    ok "and has all that was acknowledged" all_there "$1"
    ok "it works" make "$1"
}

# ---- etcd: three members on the witness's address; whatever becomes of this script, they go with it ----
etcd_pid=()
etcd_start() { # MEMBER
    local ip=${address[witness]}
    nsenter --net="/run/netns/$ID-witness" -- setpriv --pdeathsig KILL $ETCD --name "m$1" --data-dir "$T/etcd/m$1" --log-level warn \
        --listen-client-urls "http://$ip:237$1" --advertise-client-urls "http://$ip:237$1" \
        --listen-peer-urls "http://$ip:238$1" --initial-advertise-peer-urls "http://$ip:238$1" --initial-cluster-token "$ID" \
        --initial-cluster "m1=http://$ip:2381,m2=http://$ip:2382,m3=http://$ip:2383" >>"$T/etcd/m$1.log" 2>&1 &
    etcd_pid[$1]=$!
}
etcd_end() {
    for pid in "${etcd_pid[@]}"; do
        is_child "$pid" && kill -KILL "$pid"
        wait "$pid" 2>/dev/null
    done
}
cleanup_hooks+=(etcd_end)
etcd_signal() { # SIGNAL MEMBER…
    local signal=$1 member
    shift
    for member; do
        kill "-$signal" "${etcd_pid[$member]}"
    done
}
etcd_answers() { # MEMBER: it has a leader, and a majority agrees
    in_node a python3 -c '
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open(urllib.request.Request(sys.argv[1] + "/v3/kv/range", b"{\"key\":\"eA==\"}"), timeout=2)' \
        "http://${address[witness]}:237$1"
}

network_up
mkdir "$T/etcd"
for member in 1 2 3; do
    etcd_start $member
done
for member in 1 2 3; do
    wait_until 120 etcd_answers $member || bail "etcd does not start: $(tail -n 5 "$T/etcd/m$member.log")"
done
volume_create
volume_set etcd endpoints "http://${address[witness]}:2371,http://${address[witness]}:2372,http://${address[witness]}:2373"
for node in "${nodes[@]}"; do
    "$BATON" format --config "$CONFIG" --node "$node" >"$T/.out" 2>&1 || bail "baton format failed: $(cat "$T/.out")"
done
for node in "${nodes[@]}"; do
    start_node "$node" || bail "node $node does not start"
done
ok "one of both becomes primary" wait_until 120 primary_now || bail "no node is primary"

p=$(primary_now) o=$(other "$p")
ok "a new volume: both are in sync" wait_until 120 in_sync "$p"
ok "changes are acknowledged" make "$p"
ok "the other one does not write" eval '! writes "$o"'

since=$(now_ms)
either() { writes a || writes b; }
crash_node "$p"
ok "the daemon died: one of both takes over" wait_until 120 either
diag "the daemon died: $(($(now_ms) - since)) ms until a write"
ok "its supervisor has started it again" wait_until 120 restarted "$p"
ok "one is primary" wait_until 120 primary_now || bail "no node is primary"
p=$(primary_now) o=$(other "$p")
ok "both are in sync" wait_until 120 in_sync "$p"
ok "nothing is lost" all_there "$p"

since=$(now_ms)
kill_node "$p" # and its supervisor
takes_over "$o" "$since" "the machine died without a word"
ok "it starts again" start_node "$p"
ok "both are in sync" wait_until 120 in_sync "$o"
p=$o o=$(other "$p")

since=$(now_ms)
ok "a switchover" "$BATON" switchover --config "$CONFIG" --node "$p"
takes_over "$o" "$since" "it was handed over"
ok "both are in sync" wait_until 120 in_sync "$o"
p=$o o=$(other "$p")

etcd_signal KILL 1
wait "${etcd_pid[1]}" 2>/dev/null
ok "a member of etcd was killed: somebody writes" wait_until 120 either
ok "one is primary" wait_until 120 primary_now || bail "no node is primary"
p=$(primary_now) o=$(other "$p")
ok "both are in sync" wait_until 120 in_sync "$p"
ok "it works" make "$p"
etcd_start 1
ok "the member comes back" wait_until 120 etcd_answers 1

etcd_signal STOP 1 2 3
ok "etcd stands still: nobody writes" wait_until 120 eval '! writes a && ! writes b'
ok "what is there can be read on the standby" all_there "$o"
etcd_signal CONT 1 2 3
ok "etcd goes on: somebody writes" wait_until 120 either
ok "one is primary" wait_until 120 primary_now || bail "no node is primary"
p=$(primary_now) o=$(other "$p")
ok "both are in sync" wait_until 120 in_sync "$p"
ok "it works" make "$p"
ok "nothing is lost on the primary" all_there "$p"
ok "nor on the standby" wait_until 60 all_there "$o"
ok "the copies are equal" "$BATON" verify --config "$CONFIG" --node "$p"
since=$(now_ms)
ok "a primary is stopped in order" stop_node "$p"
takes_over "$o" "$since" "it was stopped"
ok "the other one stops, too" stop_node "$o"
