#!/bin/bash
# The process that runs the exporters is killed; it and the supervisor and the daemon are killed; an exporter hangs in its start and is
# not wanted any more; the address's script fails and the address goes all the same. `baton exporter test` tells good exporters from bad
# ones; the one of the man page is a good one.
. "${BATON_SRC:-$(dirname "$0")/..}/tests/lib.sh"
need_root

export BATON_EXPORTERS="$T/exporters" BATON_TEST_FOLDER="$T/told"
mkdir -p "$BATON_EXPORTERS" "$BATON_TEST_FOLDER"
cat >"$BATON_EXPORTERS/one" <<'SCRIPT'
#!/bin/bash
F=$BATON_TEST_FOLDER/$BATON_NODE.$BATON_EXPORT
[ ! -e "$F.$1-fails" ] || { echo "told to fail"; exit 1; }
echo $$ >"$F.$1-pid"
[ ! -e "$F.$1-hangs" ] || exec sleep 1000
case $1 in
start) touch "$F.on" ;;
stop)
    [ ! -e "$F.stop-slow" ] || sleep 1
    rm -f "$F.on"
    read -r now _ </proc/uptime
    echo "$now" >"$F.stopped"
    ;;
monitor) [ -e "$F.on" ] || { echo "it is not on"; exit 1; } ;;
status) [ -e "$F.on" ] || exit 3 ;;
check) ;;
*) exit 2 ;;
esac
SCRIPT
# The address, without care: its stop does nothing.
cat >"$BATON_EXPORTERS/vip" <<'SCRIPT'
#!/bin/bash
case $1 in
start) ip address add "${BATON_ADDRESSES%% *}" dev lo 2>/dev/null; exit 0 ;;
stop) echo "it cannot be stopped"; exit 1 ;;
status) exit 3 ;;
esac
SCRIPT
chmod +x "$BATON_EXPORTERS"/*
on() { [ -e "$BATON_TEST_FOLDER/$1.one.on" ]; }
off() { ! on "$1"; }
in_netns() { nsenter --net="/run/netns/$ID-$1" -- "${@:2}"; }
has_address() { in_netns "$1" ip -o address show to 10.77.9.1 | grep -q 10.77.9.1; }
lacks_address() { ! has_address "$1"; }
serves() { on "$1" && has_address "$1"; }
in_sync() { [ "$(status_of "$1" replication link 2>/dev/null)" = working ]; }
runner_pid() {
    local child
    for child in $(cat "/proc/${node_parent[$1]}/task/${node_parent[$1]}/children"); do
        [ "$(cat "/proc/$child/comm")" = batond-exports ] && echo "$child" && return
    done
    return 1
}
another_runner() { local now; now=$(runner_pid "$1") && [ "$now" != "$2" ]; }

network_up
volume_create --witness "tcp://${address[witness]}:7400"
cat >>"$CONFIG" <<TEXT

[export one]
address = 10.77.9.1/32
monitor-every = 200ms
start-timeout = 60s

[export web]
type = none
TEXT

# The man page's example.
mkdir "$T/pages" "$T/site"
echo hello >"$T/site/index.html"
sed -n '/^#!\/bin\/bash/,/^\.EE/p' "$BATON_SRC/tools/man/baton-exporter.7" | sed '/^\.EE/d; s/\\-/-/g; s/\\e/\\/g' >"$BATON_EXPORTERS/none"
chmod +x "$BATON_EXPORTERS/none"
if command -v busybox >/dev/null; then
    sed -i 's/^type = none/type = none\nport = 8123/' "$CONFIG"
    in_netns a ip link set lo up
    ok "the manual's example does what the manual demands" in_netns a "$BATON" exporter test web --config "$CONFIG" --node a --mount "$T/site"
else
    skip 1 "no busybox here"
fi
out=$(in_netns a "$BATON" exporter test vip --config "$CONFIG" --node a --mount "$T/site")
is $? 1 "one that does not stop is found out"
like "$out" "WRONG *stop" "and what is wrong is told"
in_netns a ip address del 10.77.9.1/32 dev lo
sed -i '/^\[export web\]/,$d' "$CONFIG"

volume_format
start_witness
start_node a
start_node b
wait_until 30 in_sync a
ok "the export and the address are on" wait_until 30 serves a
like "$(in_netns a "$BATON" exporter test one --config "$CONFIG" --node a 2>&1)" "is being exported from here" "while batond serves it, no trial is made"

old=$(runner_pid a)
rm "$BATON_TEST_FOLDER/a.one.start-pid"
kill -KILL "$old"
ok "the process that runs exporters is killed: another one comes" wait_until 10 another_runner a "$old"
ok "which starts them anew" wait_until 10 test -e "$BATON_TEST_FOLDER/a.one.start-pid"
ok "and the address" wait_until 10 serves a
is "$(primary_now)" a "and the node stays primary"

# A server that works in the mount is not to hear of the daemon's death before it is ended.
cat >"$T/work.py" <<'PY'
import os, sys
number = 0
try:
    while True:
        number += 1
        with open(f"{sys.argv[1]}/work-{number % 50}", "w") as file:
            file.write("x" * 100)
except OSError as error:
    now = open("/proc/uptime").read().split()[0]
    os.write(1, f"{now} {error.errno}\n".encode()) # in one piece: others write there, too
PY
hears_late() { # COMMAND…: it ends the daemon on a, where four work in the mount
    touch "$BATON_TEST_FOLDER/a.one.stop-slow"
    rm -f "$BATON_TEST_FOLDER/a.one.stopped" "$(mount_of a)/work-49"
    : >"$T/errors"
    workers=()
    for i in 1 2 3 4; do
        python3 "$T/work.py" "$(mount_of a)" >>"$T/errors" &
        workers+=($!)
        test_pids+=($!)
    done
    wait_until 10 test -e "$(mount_of a)/work-49"
    "$@"
    wait_until 30 test "$(wc -l <"$T/errors")" -ge 1
    wait "${workers[@]}"
    is "$(wc -l <"$T/errors")" 4 "$*: who works in its mount gets an error"
    ok "but not before the exporters were stopped" awk 'NR == FNR {stopped = $1; next} $1 < stopped {exit 1}' "$BATON_TEST_FOLDER/a.one.stopped" "$T/errors"
    rm "$BATON_TEST_FOLDER/a.one.stop-slow"
}
hears_late crash_node a
wait_until 30 serves b
wait_until 30 restarted a
wait_until 30 in_sync b
"$BATON" switchover --config "$CONFIG" --node b >"$T/.out" 2>&1
wait_until 30 serves a
wait_until 30 in_sync a

both_killed() { # the supervisor cannot notice anything
    kill -STOP "${node_parent[$1]}"
    kill -KILL "$(daemon_pid "$1")" "${node_parent[$1]}"
}
keepers() { # NODE: how many processes keep its mount's descriptors
    local process count=0 space
    space=$(in_netns "$1" readlink /proc/self/ns/net)
    for process in /proc/[0-9]*; do
        [ "$(cat "$process/comm" 2>/dev/null)" != batond-keeper ] || [ "$(readlink "$process/ns/net")" != "$space" ] || count=$((count + 1))
    done
    echo $count
}
kept() { [ "$(keepers "$1")" = "$2" ]; }
is "$(keepers a)" 1 "one process keeps the mount for servers"
hears_late both_killed a
ok "and ends then" wait_until 10 kept a 0
ok "daemon and supervisor are killed: exporters stop," wait_until 10 off a
ok "the address goes, whatever its script does," wait_until 10 lacks_address a
ok "and both are on the other node" wait_until 30 serves b
kill_node a
touch "$BATON_TEST_FOLDER/a.one.on"
in_netns a ip address add 10.77.9.1/32 dev lo
start_node a
ok "what is left on a node from before is taken away at the start:" wait_until 10 off a
ok "the address too" wait_until 10 lacks_address a

wait_until 30 in_sync b
touch "$BATON_TEST_FOLDER/a.one.start-hangs"
rm -f "$BATON_TEST_FOLDER/a.one.start-pid"
"$BATON" switchover --config "$CONFIG" --node b >"$T/.out" 2>&1
ok "an exporter hangs in its start" wait_until 10 test -s "$BATON_TEST_FOLDER/a.one.start-pid"
hanging=$(cat "$BATON_TEST_FOLDER/a.one.start-pid")
wait_until 30 in_sync a
ok "the volume can be handed on all the same" "$BATON" switchover --config "$CONFIG" --node a
ok "it is ended," wait_until 5 process_gone "$hanging"
ok "and the other node serves" wait_until 30 serves b
rm "$BATON_TEST_FOLDER/a.one.start-hangs"

# Nobody can take over: what can be served is served.
is "$(keepers a)" 1 "a has one again"
stop_node a
is "$(keepers a)" 0 "which has ended when a has"
touch "$BATON_TEST_FOLDER/b.one.start-fails"
rm "$BATON_TEST_FOLDER/b.one.on"
failed_now() { [ "$(status_of b exports 0 state)" = failed ]; }
ok "an export fails where no other node is in sync: status says so" wait_until 30 failed_now
is "$(primary_now)" b "the node goes on"
rm "$BATON_TEST_FOLDER/b.one.start-fails"
ok "and it is tried again" wait_until 30 serves b
