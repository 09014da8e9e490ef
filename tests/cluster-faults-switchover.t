#!/bin/bash
# Faults while the nodes change roles under a writer. Whatever comes of it: one of them is primary, and nothing is lost.
. "$(dirname "$0")/faults.sh"
prepare() {
    wait_until 30 in_sync || return 1
    "$BATON" switchover --config "$CONFIG" --node $primary >"$T/switchover.out" 2>&1 &
    switching=$!
    test_pids+=($switching)
}
in_phase() { kill -0 $switching 2>/dev/null; }
role_of() { status_of "$1" replication role 2>&1; }
# One serves: the nodes say which. Both being standbys is what only a person can end.
finished() {
    kill -0 $switching 2>/dev/null && return 1
    wait $switching
    if [ "$(role_of a)" = primary ] && [ "$(role_of b)" = standby ]; then
        primary=a standby=b
    elif [ "$(role_of b)" = primary ] && [ "$(role_of a)" = standby ]; then
        primary=b standby=a
    else
        return 1
    fi
    serve $primary
    in_sync
}
cluster_begin
scenarios "a switchover"
