# Two nodes under writers that know what was acknowledged, while nodes are killed, stopped, cut off and switched over at
# random. Nothing acknowledged is lost, and in the end both copies are equal and whole.
#
# BATON_CHAOS_ROUNDS: faults (8; hundreds for a soak). BATON_SEED: repeats a run.
. "$(dirname "$0")/lib.sh"
need_root
rounds=${BATON_CHAOS_ROUNDS:-8}
seed=${BATON_SEED:-$RANDOM$RANDOM}
diag "BATON_SEED=$seed, $rounds rounds"
RANDOM=$((seed % 32768))
where=$T/where

network_up
volume_create
volume_set lease duration 1s
volume_format
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
writers=()
primary=a
other() { [ "$1" = a ] && echo b || echo a; }
in_sync() { [ "$(status_of "$primary" replication link 2>&1)" = working ]; }
serve() { mount_of "$1" >"$where.new" && mv "$where.new" "$where"; }
pause() { echo pause >"$where.new" && mv "$where.new" "$where"; }
let_them_work() { # until every writer has done some more, or a few seconds have gone
    wait_until 3 false
}

serve a
for ((i = 0; i < 3; i++)); do
    python3 "$BATON_SRC/tests/chaos-writer.py" "$where" "w$i" $((seed + i)) >"$T/writer$i.log" 2>&1 &
    writers+=($!)
    test_pids+=($!)
done

faults=(kill_primary kill_standby stop_standby cut switchover restart_primary restart_standby)
kill_primary() { # the standby takes over; the old primary comes back as its standby
    local old=$primary
    in_sync || return 0
    kill_node "$old"
    pause
    primary=$(other "$old")
    "$BATON" promote --config "$CONFIG" --node "$primary" >"$T/.out" 2>&1 ||
        { sleep 0.5; "$BATON" promote --config "$CONFIG" --node "$primary" >"$T/.out" 2>&1; } # poll interval: a dead link is noticed
    serve "$primary"
    start_node "$old"
}
kill_standby() { kill_node "$(other "$primary")"; let_them_work; start_node "$(other "$primary")"; }
stop_standby() {
    local pid=${node_pid[$(other "$primary")]}
    kill -STOP "$pid"; let_them_work; kill -CONT "$pid"
}
cut() { network_cut "$(other "$primary")"; let_them_work; network_mend "$(other "$primary")"; }
switchover() {
    "$BATON" switchover --config "$CONFIG" --node "$primary" >"$T/.out" 2>&1 || { diag "$(cat "$T/.out")"; return 1; }
    primary=$(other "$primary")
    serve "$primary"
}
restart_primary() { pause; stop_node "$primary" && start_node "$primary"; serve "$primary"; }
restart_standby() { stop_node "$(other "$primary")" && start_node "$(other "$primary")"; }

for ((round = 1; round <= rounds; round++)); do
    let_them_work
    fault=${faults[RANDOM % ${#faults[@]}]}
    [ "$round" = 1 ] && fault=kill_primary
    $fault
    status=$?
    wait_until 60 in_sync
    [ $? = 0 ] && [ $status = 0 ]
    tap_report $? "round $round: $fault, then in sync again (primary $primary)" || break
done

let_them_work
echo stop >"$where.new" && mv "$where.new" "$where"
for ((i = 0; i < 3; i++)); do
    wait "${writers[i]}"
    is "$?" 0 "writer $i found everything that was acknowledged: $(tail -n 1 "$T/writer$i.log")" ||
        diag "$(grep violation "$T/writer$i.log" | head -n 5)"
done
same_position() { [ "$(status_of a state lsn)" = "$(status_of b state lsn)" ]; }
ok "both nodes stand at one LSN" wait_until 30 same_position
ok "both mounts are equal" diff -r --no-dereference "$(mount_of a)" "$(mount_of b)"
ok "every row is" "$BATON" verify --config "$CONFIG" --node a
for node in a b; do
    ok "the journal of $node is whole" "$BATON" journal verify --config "$CONFIG" --node $node
    stop_node $node
    ok "the store of $node is whole" "$BATON" check --config "$CONFIG" --node $node
done
