#!/bin/bash
# Faults while a node's store is built anew, over a slow link, and the primary works on: in any of its phases.
JOURNAL_LIMIT=16MiB # what the writer makes in half a minute
WRITER_PAUSE=0.05
. "$(dirname "$0")/faults.sh"
built() { grep -c "has taken the old one's place" "$T/$standby.log"; }
prepare() {
    wait_until 90 in_sync || return 1
    local end
    stop_node $standby
    end=$(status_of $primary state lsn)
    trimmed() {
        head -c 2M /dev/urandom >"$(mount_of $primary)/missed$((RANDOM % 4))"
        [ "$(status_of $primary state journal_first)" -gt $((end + 1)) ]
    }
    head -c 6M /dev/urandom >"$(mount_of $primary)/large"
    wait_until 120 trimmed || return 1
    network_speed 20
    start_node $standby
}
in_phase() { [[ "$(status_of $standby replication synchronization phase 2>/dev/null)" = @(rows|blocks|completing) ]]; }
# A primary that is killed may be back with a journal that still reaches back: then nothing is built.
finished() { in_sync; }
cluster_begin
scenarios "a full synchronization"
ok "stores were built anew meanwhile" [ "$(built)" -ge 1 ]
