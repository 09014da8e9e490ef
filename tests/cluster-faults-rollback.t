#!/bin/bash
# Faults while a node whose history went another way takes its own changes back.
. "$(dirname "$0")/faults.sh"
alone() { ! status_of "$1" replication register members | grep -q "\"$2\""; }
undone() { status_of "$1" state undone 2>/dev/null | grep -o '"path"' | wc -l; }
prepare() {
    local i
    wait_until 30 in_sync || return 1
    writer_rests || return 1
    wait_until 60 same_position || return 1
    local old=$primary
    kept=$(undone "$old")
    network_cut $standby
    wait_until 60 alone $primary $standby || return 1
    # Nobody was promised these: a person ends this node and forces the other one.
    for i in $(seq 500); do echo "only here $i" >"$(mount_of "$old")/only-$i"; done
    head -c 8M /dev/urandom >"$(mount_of "$old")/only-large"
    kill_node "$old"
    primary=$standby standby=$old
    "$BATON" promote --force --config "$CONFIG" --node $primary || return 1
    serve $primary
    network_mend $primary
    network_speed 40
    start_node $standby
}
in_phase() { ! in_sync; }
finished() { [ "$(undone $standby)" -gt "$kept" ] && in_sync; }
cluster_begin
scenarios "taking changes back"
