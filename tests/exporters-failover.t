#!/bin/bash
# The whole: batond with its runner and its exporters on two nodes and a witness, and an NFSv3 client on the same network that
# writes every 10 ms. It goes on through a switchover there and back, a killed daemon, one that stands still, a node that is cut
# off, and the death of all of batond's processes: it sees a pause, no error and no stale handle; what was acknowledged is there,
# on both nodes; and the address was never on two.
# Servers whose batond was killed are nobody's children: this process becomes their parent, so that none stays a zombie.
[ -n "${BATON_TEST_REAPS:-}" ] || BATON_TEST_REAPS=1 exec python3 -c 'import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)
os.execvp("bash", ["bash"] + sys.argv[1:])' "$0" "$@"
. "${BATON_SRC:-$(dirname "$0")/..}/tests/lib.sh"
. "$BATON_SRC/tests/sharing.sh"
shared_needs
shared_up
addresses_watch
wait_until 10 serves_all a
writer_start

moved() { # FROM: the exports are on, at the other node or, if it was faster, again at this one, and the client goes on
    serves_all "$(primary_now)" && acknowledged_more_than $((before + 20))
}
no_errors() { ! grep -E '^(error|wrong)' "$T/writer"; }
# goes_on NODE WHAT COMMAND…: the command is done to the node that serves.
goes_on() {
    local begin before most
    begin=$(now_ns)
    before=$(acknowledged)
    "${@:3}" || diag "$2: ${*:3} has failed"
    ok "$2: the client goes on" wait_until 30 moved "$1" || bail "$2: it does not"
    most=$(($(pause_since "$begin") / 1000))
    diag "$2: a pause of $most ms"
    # generous, for a machine that does other things; but no client waits until its own patience is over (20 s)
    ok "$2: nobody waits for what is lost" [ $most -lt 12000 ]
    ok "$2: without an error" no_errors
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

goes_on a "a switchover" hand_over a
ok "the volume knows at once who is connected" wait_until 6 listed b
settled
is "$now" b "b serves"
goes_on b "a switchover back" hand_over b
settled
is "$now" a "a serves"
goes_on "$now" "the daemon is killed" crash_node "$now"
settled
stopped=$(daemon_pid "$now")
goes_on "$now" "the daemon stands still" kill -STOP "$stopped"
kill -CONT "$stopped" 2>/dev/null
settled
ok "the volume knows whom a node that is cut off leaves" wait_until 6 listed "$now"
goes_on "$now" "the node is cut off" network_cut "$now"
network_mend a
network_mend b
settled
goes_on "$now" "batond's processes are killed, all at one moment" kill_node "$now"
start_node "$now"
ok "in sync at the end" wait_until 60 in_sync

kill -TERM "$writer_pid"
wait "$writer_pid"
ok "the client's program ends" [ $? = 0 ]
is "$(grep -vc '^ack' "$T/writer")" 0 "it has seen no error and read nothing wrong" || diag "$(grep -v '^ack' "$T/writer" | head)"
holds() { # NODE: everything acknowledged
    python3 - "$T/writer" "$(mount_of "$1")/written" <<'END'
import sys
data = open(sys.argv[2], "rb").read()
numbers = [int(line.split()[1]) for line in open(sys.argv[1]) if line.startswith("ack")]
missing = [n for n in numbers if data[n * 64:n * 64 + 64] != b"%-63d\n" % n]
print(f"{len(missing)} of {len(numbers)} are missing: {missing[:20]}")
sys.exit(bool(missing) or len(numbers) < 200)
END
}
ok "everything acknowledged is in the file on the node that serves" holds a
ok "and on the other" wait_until 10 holds b
ok "the copies are equal" "$BATON_SRC/tests/treecmp" --same --settle 10 "$(mount_of a)" "$(mount_of b)"
ok "the address was never on both nodes" addresses_overlap 5
stop_node a
stop_node b
