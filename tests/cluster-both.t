#!/bin/bash
# Both nodes work: two volumes with one witness, each of which prefers another node. A machine dies: the other one serves both.
# It comes back: the volume that prefers it is handed back by itself, if failback = auto, and else by a person. A node that is
# kept as standby gets nothing back, also after a restart, until that is ended.
. "$(dirname "$0")/lib.sh"
SECOND=$T/second.conf

network_up
volume_create --witness "tcp://${address[witness]}:7400"
for node in a b; do mkdir -p "$T/$node/second"; done
"$BATON" create --config "$SECOND" --volume "$ID-2" --witness-of "$CONFIG" \
    --node "a=tcp://${address[a]}:7500,store=$T/a/store2,mount=$T/a/second" \
    --node "b=tcp://${address[b]}:7500,store=$T/b/store2,mount=$T/b/second" >"$T/.out" 2>&1 || bail "$(cat "$T/.out")"
first=$CONFIG
volume_set lease duration 1s
volume_set volume preferred a
volume_set volume failback auto
CONFIG=$SECOND
volume_set lease duration 1s
volume_set volume preferred b
CONFIG=$first

# A node's daemon of the second volume, known to lib.sh as a2 or b2.
start_second() {
    local node=$1
    : >"$T/${node}2.out"
    in_node "$node" "$BATOND" --config "$SECOND" --node "$node" >"$T/${node}2.out" 2>>"$T/${node}2.log" &
    node_parent[${node}2]=$!
    wait_until 60 grep -q '^ready' "$T/${node}2.out" && node_pid[${node}2]=$(daemon_pid "${node}2")
}
says() { "$BATON" status --config "$1" --node "$2" --json | python3 -c 'import json, sys
status = json.load(sys.stdin); print(status["role"], status["replication"]["link"])'; }
primary() { [[ "$(says "$1" "$2" 2>/dev/null)" = "primary "* ]]; }
in_sync() { [ "$(says "$1" "$2" 2>/dev/null)" = "primary working" ]; }
machine_dies() {
    network_cut "$1"
    kill_node "$1"
    kill_node "${1}2"
}
machine_returns() {
    network_mend "$1"
    start_node "$1" && start_second "$1"
}
handed_back_count() { "$BATON" events --config "$1" --node "$2" --json | grep -c '"handed-over"'; }

for node in a b; do
    for config in "$CONFIG" "$SECOND"; do
        "$BATON" format --config "$config" --node $node >"$T/.out" 2>&1 || bail "baton format failed: $(cat "$T/.out")"
    done
done
start_witness "$SECOND" || bail "the witness does not start"
for node in b a; do
    start_node $node || bail "node $node does not start"
    start_second $node || bail "node $node does not start with the second volume"
done
ok "the first volume is served by a, which it prefers" wait_until 60 in_sync "$CONFIG" a
ok "the second one by b" wait_until 60 in_sync "$SECOND" b
echo 1 >"$T/a/mount/one" && sync "$T/a/mount/one"
echo 2 >"$T/b/second/two" && sync "$T/b/second/two"

machine_dies a
ok "a dies: b serves both" wait_until 60 primary "$CONFIG" b
ok "... the second one as before" primary "$SECOND" b
is "$(cat "$T/b/mount/one" "$T/b/second/two" | xargs)" "1 2" "with everything that was acknowledged"
echo 3 >"$T/b/mount/three" && sync "$T/b/mount/three"
machine_returns a || bail "node a does not come back"
ok "a comes back: the volume that prefers it is handed back by itself" wait_until 90 in_sync "$CONFIG" a
ok "... and only that one" in_sync "$SECOND" b
is "$(cat "$T/a/mount/one" "$T/a/mount/three" | xargs)" "1 3" "with what was changed meanwhile"

machine_dies b
ok "b dies: a serves both" wait_until 60 primary "$SECOND" a
echo 4 >"$T/a/second/four" && sync "$T/a/second/four"
machine_returns b || bail "node b does not come back"
ok "b comes back, in sync" wait_until 90 in_sync "$SECOND" a
ok "failback = manual: a person hands back" "$BATON" switchover --config "$SECOND" --node a
ok "... and b serves what prefers it" wait_until 60 in_sync "$SECOND" b
is "$(handed_back_count "$SECOND" a)" 1 "nothing else had handed it back"
is "$(cat "$T/b/second/four")" 4 "with what was changed meanwhile"

# ---- kept as standby ----
ok "a is kept as standby, for maintenance" "$BATON" standby --config "$CONFIG" --node a
ok "b serves its volume" wait_until 60 in_sync "$CONFIG" b
ok "a may be stopped" wait_until 60 "$BATON" ready-to-stop --config "$CONFIG" --node a
ok "it is" stop_node a
ok "and starts again" start_node a
ok "in sync" wait_until 60 in_sync "$CONFIG" b
before=$(handed_back_count "$CONFIG" b)
sleep 8 # longer than it takes until a volume is handed back: five lease times
ok "but it is not handed back to it" primary "$CONFIG" b
is "$(handed_back_count "$CONFIG" b)" "$before" "nor was it in between"
like "$("$BATON" status --config "$CONFIG" --node a --why)" "kept as standby" "status says why"
ok "that is ended" "$BATON" standby --end --config "$CONFIG" --node a
ok "then it is handed back by itself" wait_until 90 in_sync "$CONFIG" a
