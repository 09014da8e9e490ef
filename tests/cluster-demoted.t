# A primary that was replaced by force while it was cut off: who has files open there learns that what nobody had
# acknowledged may be lost, and does not hear later that it is safe; when it is primary again, fsync waits for what there
# is, not for what was undone.
. "$(dirname "$0")/lib.sh"

network_up
volume_create
volume_set lease duration 20s # a does not go on alone before it hears that it was replaced
volume_format
start_node a && start_node b || bail "a node does not start"
a=$(mount_of a) b=$(mount_of b)
link_is() { [ "$(status_of "$1" replication link)" = "$2" ]; }
role_is() { [ "$(status_of "$1" role)" = "$2" ]; }
both_working() { link_is a working && link_is b working; }
ok "in sync" wait_until 60 both_working
echo one >"$a/one"
echo two >"$a/two"

# Does what the test says, one word a line, and says what came of it.
cat >"$T/user.py" <<'PY'
import os, sys
files = {}
for line in sys.stdin:
    what, path = line.split()
    try:
        if what == "open":
            files[path] = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_WRONLY | os.O_APPEND)
        elif what == "write":
            for i in range(600):
                os.write(files[path], b"precious\n")
        elif what == "fsync":
            os.fsync(files[path])
        elif what == "fdatasync":
            os.fdatasync(files[path])
        elif what == "dup-close": # close flushes, the file stays open
            os.close(os.dup(files[path]))
        elif what == "close":
            os.close(files[path])
        print("done", flush=True)
    except OSError as error:
        print(os.strerror(error.errno), flush=True)
PY
coproc user { exec python3 "$T/user.py"; }
user_pid=$user_PID
test_pids+=("$user_pid")
user_does() { # WORD PATH: what came of it
    echo "$*" >&"${user[1]}"
    read -r -t 60 -u "${user[0]}" answer || answer="no answer"
    echo "$answer"
}
is "$(user_does open "$a/one") $(user_does open "$a/two") $(user_does open "$a")" "done done done" "two files and a directory are opened on a"
is "$(user_does write "$a/two") $(user_does fsync "$a/two")" "done done" "one is written, and synced"

network_cut b
is "$(user_does write "$a/one")" done "the other is written while the peer is away"
ok "b is promoted by force" "$BATON" promote --force --config "$CONFIG" --node b
network_mend b
ok "a becomes a standby" wait_until 60 role_is a standby
is "$(user_does fdatasync "$a/one")" "Input/output error" "fdatasync of what was not acknowledged fails"
is "$(user_does fsync "$a/one")" "Input/output error" "fsync, too"
is "$(user_does dup-close "$a/one")" "Input/output error" "and close"
is "$(user_does fdatasync "$a/two") $(user_does dup-close "$a/two")" "done done" "a file that was safe before is safe"
is "$(user_does fdatasync "$a")" done "fdatasync of a directory that had not changed"
ok "both are in sync again" wait_until 30 both_working
is "$(cat "$b/one")" one "what was not acknowledged is indeed not there"

ok "roles are changed back" "$BATON" switchover --config "$CONFIG" --node b --to a
ok "a is primary" wait_until 60 role_is a primary
is "$(user_does fsync "$a/one")" "Input/output error" "the file that was open all the time does not forget"
is "$(user_does close "$a/one")" "Input/output error" "until it is closed"
is "$(user_does open "$a/one")" done "opened anew"
ok "fsync of a file whose last changes were undone ends" timeout -s KILL 60 sync "$a/one"
is "$(user_does write "$a/one") $(user_does fsync "$a/one") $(user_does close "$a/one")" "done done done" "it works as ever"
ok "fsync of a new file ends" timeout -s KILL 60 sh -c "echo new >'$a/new' && sync '$a/new'"
eval "exec ${user[1]}>&-" # it ends
wait "$user_pid" # bash forgets $user_PID
stop_node a
stop_node b
