#!/bin/bash
# The process that serves dies, and its parent cleans up after it: callers get errors, never an empty directory; a note says
# how it died; it is started again, later and later when it dies at once; what is orderly stays orderly. On a volume of one
# node.
. "$(dirname "$0")/lib.sh"
need_root
nodes=(a)
network_up
volume_create
volume_format
start_node a || bail "node a does not start"
a=$(mount_of a)
died=$(store_of a).died
notes() { cat "$died" 2>/dev/null | wc -l; }
notes_are() { [ "$(notes)" -ge "$1" ]; }
mounts() { grep -c " $a .* - fuse.baton " /proc/self/mountinfo; }
kernel_has() { # MAJOR MINOR
    local major minor
    IFS=.- read -r major minor _ < <(uname -r)
    [ "$major" -gt "$1" ] || { [ "$major" = "$1" ] && [ "$minor" -ge "$2" ]; }
}
last_note() { tail -n 1 "$died"; }

is "$(status_of a supervisor pid)" "${node_parent[a]}" "the status names the supervisor"
is "$(status_of a pid)" "${node_pid[a]}" "and the process that serves, another one"
is "$(cut -d: -f2- <<<"$(grep -h ^PPid "/proc/${node_pid[a]}/status")" | tr -d '\t ')" "${node_parent[a]}" "... its child"

# ---- a crash ----
echo one >"$a/one"
exec 5<"$a/one"
crash_node a
ok "killed, it is started again" wait_until 60 restarted a
is "$(cat "$a/one")" one "what was there is there"
fails "who had a file open gets an error" dd of=/dev/null status=none <&5
exec 5<&-
is "$(mounts)" 1 "one mount, no dead one below or above it"
ok "a note is left" wait_until 30 notes_are 1
like "$(last_note)" "killed by signal 9 \(KILL\) after serving [0-9.]+ s, at LSN $(($(status_of a state lsn))) of epoch|at LSN [0-9]+ of epoch 1; 0 restarts" "how, and where"
is "$(status_of a supervisor restarts)" 1 "the status counts it"
like "$("$BATON" status --config "$CONFIG" --node a)" "died +20[0-9TZ:-]+ killed by signal 9" "and shows the note"
is "$(grep -c '^ready' "$T/a.out")" 1 "ready is said once"
like "$(grep "has died" "$T/a.log")" "^batond\[$ID.a\]: the process that serves has died" "the log has it, in the same name"

# ---- while it is away, callers get errors; the directory below is not shown ----
cat >"$T/looks.py" <<'PY'
import errno, os, sys
path, seen, empty = sys.argv[1], set(), 0
print("looks", flush=True)
while not os.path.exists(sys.argv[2]):
    try:
        empty += os.listdir(path) == []
        seen.add(0)
    except OSError as error:
        seen.add(error.errno)
print(empty, " ".join(sorted(errno.errorcode.get(number, "fine") for number in seen)))
PY
touch "$a/two"
python3 "$T/looks.py" "$a" "$T/enough" >"$T/looks" &
looks=$!
test_pids+=($looks)
wait_until 30 grep -q looks "$T/looks"
for round in 2 3 4; do
    crash_node a
    wait_until 60 restarted a || bail "it is not started again"
done
touch "$T/enough"
wait $looks
read -r empty errors < <(tail -n 1 "$T/looks")
if kernel_has 6 5; then
    is "$empty" 0 "nobody saw the empty directory below"
else
    skip 1 "before Linux 6.5 it is seen for a moment"
fi
like "$errors" "ENOTCONN" "they got errors"
ok "each death has a note" wait_until 30 notes_are 4

# ---- later and later ----
restart_delays() { sed -n 's/.*it is started again in \([0-9.]*\) s/\1/p' "$T/a.log" | tr '\n' ' '; }
is "$(restart_delays)" "0.1 0.5 1.0 2.0 " "one that dies again and again is started later and later"

# ---- its orderly end ----
before=$(notes)
parent=${node_parent[a]}
ok "SIGTERM ends it in order" stop_node a
is "$(mounts)" 0 "nothing is mounted"
is "$(notes)" "$before" "that is worth no note"
start_node a || bail "node a does not start"
kill -INT "${node_parent[a]}"
wait "${node_parent[a]}"
is $? 0 "SIGINT too, with exit status 0"
unset "node_pid[a]" "node_parent[a]"

start_node a || bail "node a does not start"
umount "$a"
wait "${node_parent[a]}"
is $? 0 "unmounted, both end with exit status 0"
unset "node_pid[a]" "node_parent[a]"

# ---- told to stop while none serves ----
start_node a || bail "node a does not start"
for round in 1 2 3; do
    crash_node a
    [ $round = 3 ] || wait_until 60 restarted a || bail "it is not started again"
done
nobody_serves() { ! daemon_pid a; }
wait_until 30 nobody_serves
fails "in the directory there are errors meanwhile" ls "$a"
ok "SIGTERM between two starts" stop_node a
is "$(mounts)" 0 "leaves nothing mounted"

# ---- the parent is killed ----
start_node a || bail "node a does not start"
child=${node_pid[a]}
echo three >"$a/three"
kill -KILL "${node_parent[a]}" && wait "${node_parent[a]}" 2>/dev/null
ok "its parent killed, the process that serves ends" wait_until 60 process_gone "$child"
is "$(mounts)" 0 "in order: nothing is mounted"
like "$(tail -n 40 "$T/a.log")" "stopping: signal TERM" "it was told"
unset "node_pid[a]" "node_parent[a]"

# ---- both are killed ----
start_node a || bail "node a does not start"
kill_node a
is "$(mounts)" 1 "both killed: a dead mount stays"
fails "which gives errors" ls "$a"
ok "the next start clears it" start_node a
is "$(cat "$a/three")" three "and all is there"
is "$(mounts)" 1 "in one mount"

# ---- it stands still: without a lease, nobody minds ----
kill -STOP "${node_pid[a]}"
sleep 2.5
kill -CONT "${node_pid[a]}"
is "$(cat "$a/three")" three "stopped and continued, it goes on"
is "$(daemon_pid a)" "${node_pid[a]}" "the same process"
stop_node a

# ---- errors at the start are told as ever ----
fails "an unknown node" "$BATOND" --config "$CONFIG" --node z
"$BATOND" --config "$CONFIG" --node a --mount "$(store_of a)/data" >"$T/out" 2>&1
is $? 1 "a mount that cannot be: exit status 1"
is "$(grep -c 'lie in each other' "$T/out")" 1 "said once: it is not tried again"
is "$(grep -c 'has died' "$T/out")" 0 "and is no death"

# ---- in one process ----
ok "without a supervisor it serves" start_node a --no-supervisor
is "$(daemon_pid a)" "${node_parent[a]}" "in one process"
fails "of which the status knows no parent" status_of a supervisor
ok "and ends" stop_node a
