#!/bin/bash
# The whole: batond with its runner and its exporters on two nodes and a witness, and a client on the same network that writes every
# 10 ms to each of the volume's shares: over NFSv3, over SMB and to an iSCSI disk. It goes on through a switchover there and back, a
# killed daemon, one that stands still, a node that is cut off, and the death of all of batond's processes: it sees a pause, no error
# and no stale handle; what was acknowledged is there, on both nodes; and the address was never on two.
#
# BATON_SHARE_ROUNDS=50: instead of these six, so many rounds of faults drawn from them and two more (the other node's daemon is
# killed; the nodes do not reach each other), each after a random time, with the same checks; every tenth round the copies are compared
# under load too. About ten seconds a round. BATON_SEED=N draws the same ones again. BATON_SHARE_FAULTS="died cut": these faults.
# VOLUME_ACKNOWLEDGE=write: a volume on which every write waits for the other node, and iSCSI disks have a write cache.
# Servers whose batond was killed are nobody's children: this process becomes their parent, so that none stays a zombie.
[ -n "${BATON_TEST_REAPS:-}" ] || BATON_TEST_REAPS=1 exec python3 -c 'import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)
os.execvp("bash", ["bash"] + sys.argv[1:])' "$0" "$@"
. "${BATON_SRC:-$(dirname "$0")/..}/tests/lib.sh"
. "$BATON_SRC/tests/sharing.sh"
protocols=(nfs smb iscsi)
shared_needs
read -ra faults <<<"${BATON_SHARE_FAULTS:-handover handover killed stopped cut died}"
rounds=${BATON_SHARE_ROUNDS:-0}
delays=() disk_size=32M # which is read at the end; ten minutes of records
if [ "$rounds" -gt 0 ]; then
    disk_size=1G
    kinds=(handover killed stopped cut died other-killed parted) faults=()
    RANDOM=${BATON_SEED:=$((RANDOM * 32768 + RANDOM))}
    diag "$rounds rounds; to draw them again: BATON_SHARE_ROUNDS=$rounds BATON_SEED=$BATON_SEED"
    for ((round = 0; round < rounds; round++)); do
        faults+=("${kinds[RANDOM % ${#kinds[@]}]}")
        delays+=("$((RANDOM % 2)).$((RANDOM % 10))")
    done
fi
shared_up
addresses_watch
wait_until 10 serves_all a
writer_start

go_on() { # every writer, 20 records more
    local protocol
    for protocol in "${protocols[@]}"; do
        acknowledged_more_than "$protocol" $((before[$protocol] + 20)) || { echo "not over $protocol" && return 1; }
    done
}
# The exports are on, at the other node or, if it was faster, again at this one, and the client goes on.
moved() { serves_all "$(primary_now)" && go_on; }
no_errors() { ! noticed; }
errors=0
no_more_errors() {
    local before=$errors
    noticed >"$T/noticed"
    errors=$(wc -l <"$T/noticed")
    tail -n "+$((before + 1))" "$T/noticed"
    [ "$errors" = "$before" ]
}
# goes_on NODE WHAT COMMAND…: the command is done to the node that serves.
goes_on() {
    local begin protocol most pauses='' slow=''
    local -A before
    begin=$(now_ns)
    for protocol in "${protocols[@]}"; do
        before[$protocol]=$(acknowledged "$protocol")
    done
    "${@:3}" || diag "$2: ${*:3} has failed"
    ok "$2: the client goes on" wait_until 30 moved || bail "$2: it does not: $(moved)"
    for protocol in "${protocols[@]}"; do
        read -r most _ < <(pause_since "$protocol" "$begin")
        pauses+=" $protocol $((most / 1000)) ms"
        # generous, for a machine that does other things; but no client waits until its own patience is over (20 s)
        [ "$most" -lt 12000000 ] || slow+=" $protocol"
    done
    diag "$2: pauses:$pauses"
    is "$slow" "" "$2: nobody waits for what is lost"
    ok "$2: without an error" no_more_errors
}
# The client's connection, which is a new one at each node, is on the volume's list within seconds of its beginning.
listed() {
    local peer
    peer=$(in_node "$1" ss -Hnt state established "( src $service and sport = :2049 )" | awk '{ print $4; exit }')
    peer=${peer//[][]/} peer=${peer//::ffff:/}
    [ -n "$peer" ] && grep -q "^$service 2049 ${peer%:*} ${peer##*:}\$" "$(mount_of "$1")/.baton/vip/connections"
}

hand_over() { "$BATON" switchover --config "$CONFIG" --node "$1"; }
serving() { now=$(primary_now) && serves_all "$now" && in_sync && restarted_all; }
restarted_all() {
    local node
    for node in a b; do
        node_pid[$node]=$(daemon_pid $node) || return 1
    done
}
settled() { wait_until 60 serving || bail "not in sync"; serving; }
equal_under_load() { "$BATON" verify --config "$CONFIG" --node "$now"; }

must_come=1 # the address, to some node
fault() { # KIND
    local at=$now stopped other
    other=$(other "$at")
    case $1 in
    handover)
        goes_on "$at" "a switchover from $at" hand_over "$at"
        must_come=$((must_come + 1))
        ;;
    killed) goes_on "$at" "the daemon of $at is killed" crash_node "$at" ;;
    stopped)
        stopped=$(daemon_pid "$at")
        goes_on "$at" "the daemon of $at stands still" kill -STOP "$stopped"
        kill -CONT "$stopped" 2>/dev/null
        ;;
    cut)
        ! shares nfs || ok "the volume knows whom a node that is cut off leaves" wait_until 6 listed "$at"
        goes_on "$at" "$at is cut off" network_cut "$at"
        network_mend "$at"
        ;;
    died)
        goes_on "$at" "batond's processes on $at are killed, all at one moment" kill_node "$at"
        start_node "$at" || bail "$at does not start again"
        ;;
    other-killed) goes_on "$at" "the daemon of $other, which does not serve, is killed" crash_node "$other" ;;
    parted)
        goes_on "$at" "$at and $other do not reach each other" network_cut_between a b
        network_mend_between a b
        ;;
    esac
    settled
    [ "$1" != handover ] || is "$now" "$other" "$other serves"
}

settled
is "$now" a "a serves"
for round in "${!faults[@]}"; do
    [ "$rounds" = 0 ] || diag "round $((round + 1)): ${faults[round]}, after ${delays[round]} s"
    sleep "${delays[round]:-0}" # so that a fault comes at any moment of what goes on
    fault "${faults[round]}"
    [ "$rounds" = 0 ] || [ $((round % 10)) != 9 ] || ok "the copies are equal, under load" equal_under_load
done

ok "the client's programs end" writers_end
ok "they have seen no error and read nothing wrong" no_errors
for protocol in "${protocols[@]}"; do
    ok "everything acknowledged over $protocol is in the file on the node that serves" holds "$protocol" "$now"
    ok "and on the other" wait_until 10 holds "$protocol" "$(other "$now")"
done
ok "the copies are equal" "$BATON_SRC/tests/treecmp" --same --settle 10 "$(mount_of a)" "$(mount_of b)"
ok "the address was never on both nodes" addresses_overlap $must_come
stop_node a
stop_node b
