#!/bin/bash
# Faults while a node that was away gets what it missed from the journal, over a slow link, and the primary works on.
. "$(dirname "$0")/faults.sh"
prepare() {
    local i
    wait_until 30 in_sync || return 1
    stop_node $standby
    head -c 10M /dev/urandom >"$(mount_of $primary)/missed"
    mkdir -p "$(mount_of $primary)/many"
    for i in $(seq 300); do echo "$RANDOM" >"$(mount_of $primary)/many/$i"; done
    network_speed 40
    start_node $standby
}
in_phase() { [ "$(status_of $primary replication link 2>&1)" = synchronizing ]; }
finished() { in_sync; }
cluster_begin
scenarios "catching up"
