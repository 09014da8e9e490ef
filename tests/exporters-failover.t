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

moved() { # FROM: the other node's exports are on, and the client goes on
    serves_all "$(other "$1")" && acknowledged_more_than $((before + 20))
}
no_errors() { ! grep -E '^(error|wrong)' "$T/writer"; }
# goes_on NODE WHAT COMMAND…: the command is done to the node that serves.
goes_on() {
    local begin before
    begin=$(now_ns)
    before=$(acknowledged)
    "${@:3}" || diag "$2: ${*:3} has failed"
    ok "$2: the client goes on at the other node" wait_until 30 moved "$1" || bail "$2: it does not"
    diag "$2: a pause of $(($(pause_since "$begin") / 1000)) ms"
    ok "$2: without an error" no_errors
}
stops() { kill -STOP "$(daemon_pid "$1")"; }

goes_on a "a switchover" "$BATON" switchover --config "$CONFIG" --node a
wait_until 60 in_sync || bail "not in sync"
goes_on b "a switchover back" "$BATON" switchover --config "$CONFIG" --node b
wait_until 60 in_sync || bail "not in sync"
goes_on a "the daemon is killed" crash_node a
wait_until 60 in_sync || bail "not in sync"
wait_until 30 restarted a
wait_until 30 restarted b
stopped=$(daemon_pid b)
goes_on b "the daemon stands still" kill -STOP "$stopped"
kill -CONT "$stopped" 2>/dev/null
wait_until 60 in_sync || bail "not in sync"
goes_on a "the node is cut off" network_cut a
network_mend a
wait_until 60 in_sync || bail "not in sync"
goes_on b "batond's processes are killed, all at one moment" kill_node b
start_node b
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
