#!/bin/bash
# Two nodes and a witness that decide by themselves who is primary, under probes of both mounts, while faults happen at
# random: processes and machines die, stand still for longer than the lease, links are cut between any two or all, or in one
# direction, disks fill, people stop nodes and switch over. What was acknowledged is there and in the order in which it was, at whichever node; after
# each fault somebody serves; in the end both copies are equal and whole.
#
# BATON_CHAOS_ROUNDS: faults (20; hundreds for a soak). BATON_SEED: repeats a run. BATON_LEASE_MS (1000).
. "$(dirname "$0")/lib.sh"
here=$BATON_SRC/tests
need_root
rounds=${BATON_CHAOS_ROUNDS:-20}
seed=${BATON_SEED:-$RANDOM$RANDOM}
lease_ms=${BATON_LEASE_MS:-1000}
diag "BATON_SEED=$seed, $rounds faults, a lease of $lease_ms ms"
RANDOM=$((seed % 32768))

network_up
for node in a b; do # a file system each, for full disks
    mkdir -p "$T/$node"
    truncate -s 1200M "$T/$node.image"
    mkfs.ext4 -q -m 0 "$T/$node.image" && mount -o loop "$T/$node.image" "$T/$node" || skip_all "needs ext4 on a loop device"
done
volume_create --witness "tcp://${address[witness]}:7400"
volume_set lease duration "${lease_ms}ms"
for node in a b; do
    "$BATON" format --config "$CONFIG" --node $node >"$T/.out" 2>&1 || bail "baton format failed: $(cat "$T/.out")"
done
start_witness || bail "the witness does not start"
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
wait_until 60 primary_now || bail "no node becomes primary"
mkdir "$(mount_of "$(primary_now)")/probes" || bail "no folder for the probes"
there() { [ -d "$(mount_of a)/probes" ] && [ -d "$(mount_of b)/probes" ]; }
wait_until 30 there || bail "the folder for the probes does not come to both nodes"

probes=()
for node in a b; do
    python3 "$here/lease-probe.py" run "$(mount_of $node)" $node "$T/probe-$node" 0.004 2>"$T/probe-$node.log" &
    probes+=($!)
    test_pids+=($!)
done

# ---- faults; each ends with everything mended ----
primary() { primary_now || echo a; }
other() { [ "$1" = a ] && echo b || echo a; }
for_long() { sleep "$(awk "BEGIN { print ($lease_ms * 2.2 + 300) / 1000 }")"; } # how long a fault lasts: longer than the lease
for_short() { sleep "0.$((RANDOM % 4 + 1))"; }                                # ... or not
lasts() { if [ $((RANDOM % 3)) = 0 ]; then for_short; else for_long; fi; }
still() { # PIDS; one that was stuck for too long may have been ended by its supervisor meanwhile
    kill -STOP "$@"
    lasts
    kill -CONT "$@" 2>/dev/null
}
pids_of() { echo "${node_parent[$1]} $(daemon_pid "$1")"; } # the supervisor and who serves
cut_from() { ip -n "$ID-$1" neighbour replace "${address[$2]}" lladdr 02:00:00:00:00:fe nud permanent dev eth0; }
mend_from() { ip -n "$ID-$1" neighbour delete "${address[$2]}" dev eth0 2>/dev/null; }
one_way() { cut_from "$1" "$2"; lasts; mend_from "$1" "$2"; }
apart() { network_cut_between "$1" "$2"; lasts; network_mend_between "$1" "$2"; }
away() { network_cut "$1"; lasts; network_mend "$1"; }
again() { start_node "$1" || { tap_report 1 "node $1 does not start again"; return 1; }; }
fill() { fallocate -l $(($(df --output=avail -B1 "$T/$1" | tail -1) - 500000)) "$T/$1/ballast"; lasts; rm -f "$T/$1/ballast"; }

fault_kill_primary() { local p; p=$(primary); kill_node "$p"; lasts; again "$p"; }
fault_kill_standby() { local s; s=$(other "$(primary)"); kill_node "$s"; lasts; again "$s"; }
fault_crash_primary() { crash_node "$(primary)"; lasts; }
fault_crash_standby() { crash_node "$(other "$(primary)")"; lasts; }
fault_kill_both() { kill_node a; kill_node b; for_short; again a && again b; }
fault_kill_witness() { kill_node witness; lasts; start_witness; }
fault_kill_witness_and_primary() { local p; p=$(primary); kill_node witness; kill_node "$p"; for_short; start_witness; again "$p"; }
fault_kill_all() { kill_node witness; kill_node a; kill_node b; start_witness; again b && again a; }
fault_stand_still_primary() { still $(pids_of "$(primary)"); }
fault_stand_still_daemon() { still "$(daemon_pid "$(primary)")"; }
fault_stand_still_standby() { still $(pids_of "$(other "$(primary)")"); }
fault_stand_still_both() { still $(pids_of a) $(pids_of b); }
fault_stand_still_witness() { still "${node_pid[witness]}"; }
fault_cut_primary() { away "$(primary)"; }
fault_cut_standby() { away "$(other "$(primary)")"; }
fault_cut_witness() { away witness; }
fault_cut_nodes() { apart a b; }
fault_cut_primary_from_witness() { apart "$(primary)" witness; }
fault_cut_standby_from_witness() { apart "$(other "$(primary)")" witness; }
fault_cut_all() { network_cut a; network_cut b; lasts; network_mend a; for_short; network_mend b; }
fault_one_way_to_standby() { one_way "$(primary)" "$(other "$(primary)")"; }
fault_one_way_to_primary() { one_way "$(other "$(primary)")" "$(primary)"; }
fault_one_way_to_witness() { one_way "$(primary)" witness; }
fault_one_way_from_witness() { one_way witness "$(primary)"; }
fault_flap() {
    local i node
    for i in 1 2 3 4; do
        node=$( ((RANDOM % 2)) && echo a || echo b)
        network_cut "$node"; for_short; network_mend "$node"; for_short
    done
}
fault_stop_primary() { local p; p=$(primary); stop_node "$p"; lasts; again "$p"; }
fault_stop_standby() { local s; s=$(other "$(primary)"); stop_node "$s"; lasts; again "$s"; }
fault_stop_both() { stop_node a; stop_node b; again b && again a; }
fault_switchover() { "$BATON" switchover --config "$CONFIG" --node "$(primary)" >"$T/.out" 2>&1 || diag "no switchover: $(cat "$T/.out")"; }
fault_full_primary() { fill "$(primary)"; }
fault_full_standby() { fill "$(other "$(primary)")"; }

faults=()
for name in $(compgen -A function fault_ | sort); do
    faults+=("${name#fault_}")
done
acknowledged() { grep -c '^ack' "$T/probe-a" "$T/probe-b" 2>/dev/null | awk -F: '{ sum += $2 } END { print sum + 0 }'; }
more_than() { [ "$(acknowledged)" -gt "$1" ]; }
show_state() {
    local node
    for node in a b; do
        diag "$node: $("$BATON" status --why --config "$CONFIG" --node $node 2>&1 | head -20)"
    done
}

note_journal() { "$BATON" journal list --json --type create --config "$CONFIG" --node "$(primary)" >>"$T/journal.json" 2>"$T/.err"; }

for ((round = 1; round <= rounds; round++)); do
    fault=${faults[RANDOM % ${#faults[@]}]}
    for_short
    begin=$(date +%s%N)
    "fault_$fault"
    before=$(acknowledged)
    wait_until 90 more_than $((before + 3))
    served=$?
    tap_report $served "$round: ${fault//_/ }; somebody serves ($(($(date +%s%N) - begin)) ns)" || { show_state; break; }
    [ $((round % 5)) != 0 ] || note_journal # a full disk shortens it
done

# ---- what is left ----
in_sync() { [ "$(status_of "$(primary)" replication link 2>&1)" = working ]; }
ok "in sync in the end" wait_until 120 in_sync || show_state
kill -TERM "${probes[@]}"
wait "${probes[@]}"
primary=$(primary)
same_position() { [ "$(status_of a state lsn)" = "$(status_of b state lsn)" ]; }
wait_until 60 same_position
ok "both mounts are equal" "$here/treecmp" --same --settle 60 "$(mount_of a)" "$(mount_of b)"
note_journal
ok "what was acknowledged is there, and in order" python3 "$here/lease-probe.py" judge "$(mount_of "$primary")" "$T/journal.json" "$T/probe-a" "$T/probe-b"
diag "$(tail -n 1 "$T/.out")"
ok "the copies are equal" "$BATON" verify --config "$CONFIG" --node "$primary"
for node in "$(other "$primary")" "$primary"; do
    ok "$node stops" stop_node "$node"
    ok "the store of $node is whole" "$BATON" check --data --config "$CONFIG" --node "$node"
done
ok "the witness stops" stop_node witness
