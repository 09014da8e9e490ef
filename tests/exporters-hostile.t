#!/bin/bash
# Exporters, hooks and people that do what they should not: output without end, a child that keeps the pipe, words that are no
# UTF-8, a folder on the volume that is somebody else's, a hook that hangs, an address that a person puts where it is not to be,
# the process that runs exporters stopped. The address stays where it belongs, and nowhere else; all goes on.
# BATON_TEST_LONG=1: all of it.
. "${BATON_SRC:-$(dirname "$0")/..}/tests/lib.sh"
need_root

export BATON_EXPORTERS="$T/exporters" BATON_TEST_FOLDER="$T/told"
mkdir -p "$BATON_EXPORTERS" "$BATON_TEST_FOLDER" "$T/hooks"
cat >"$BATON_EXPORTERS/one" <<'SCRIPT'
#!/bin/bash
F=$BATON_TEST_FOLDER/$BATON_NODE.$BATON_EXPORT
[ ! -e "$F.$1-fails" ] || { cat "$F.$1-fails"; exit 1; }
case $1 in
start)
    echo x >>"$F.starts"
    if [ -e "$F.floods" ]; then
        for i in {1..8}; do
            yes "a line without end" &
            echo $! >>"$F.flooder"
        done
    fi
    [ ! -e "$F.lines" ] || seq 1000000
    touch "$F.on"
    ;;
stop)
    [ ! -e "$F.flooder" ] || kill -KILL $(cat "$F.flooder")
    rm -f "$F.on" "$F.flooder"
    ;;
monitor) [ -e "$F.on" ] || { echo "it is not on"; exit 1; } ;;
status) [ -e "$F.on" ] || exit 3 ;;
check) ;;
*) exit 2 ;;
esac
SCRIPT
cat >"$BATON_EXPORTERS/vip" <<'SCRIPT'
#!/bin/bash
case $1 in
start) ip address replace "${BATON_ADDRESSES%@*}" dev svc valid_lft 2 preferred_lft 2 ;;
stop) [ ! -e "$BATON_TEST_FOLDER/$BATON_NODE.vip.stop-hangs" ] || exec sleep 1000; ip address del "${BATON_ADDRESSES%@*}" dev svc 2>/dev/null; exit 0 ;;
monitor) ip link show dev svc | grep -q LOWER_UP || { echo "svc has no link"; exit 1; } ;;
status) ! ip -o address show to "${BATON_ADDRESSES%/*}" | grep -q . || exit 0; exit 3 ;;
esac
SCRIPT
# As smbd: its children serve, and outlive it.
export BATON_TEST_LIB=$BATON_SRC/exporters/lib.sh
cat >"$BATON_EXPORTERS/forks" <<'SCRIPT'
#!/bin/bash
. "$BATON_TEST_LIB"
child() { echo "$BATON_TEST_FOLDER/$BATON_NODE.child"; }
verb_check() { :; }
verb_start() {
    server_alive main && return
    server_start_family main bash -c '(read -r self _ </proc/self/stat; echo $self >"$0.new"; mv "$0.new" "$0"; exec sleep 1000) & exec sleep 1000' "$(child)"
}
verb_stop() { server_kill main; }
verb_monitor() { server_alive main || die "main does not run"; }
verb_status() { server_gone main && exit 3; echo runs; }
exporter_run "$@"
SCRIPT
chmod +x "$BATON_EXPORTERS"/*
cat >"$T/hooks/10-slow" <<'SCRIPT'
#!/bin/bash
[ ! -e "$BATON_TEST_FOLDER/$BATON_NODE.hook-hangs" ] || { echo $$ >"$BATON_TEST_FOLDER/$BATON_NODE.hook"; exec sleep 1000; }
SCRIPT
chmod +x "$T/hooks/10-slow"

told() { echo "$BATON_TEST_FOLDER/$1"; }
on() { [ -e "$(told "$1.one.on")" ]; }
in_netns() { nsenter --net="/run/netns/$ID-$1" -- "${@:2}"; }
has_address() { in_netns "$1" ip -o address show to 10.77.9.1 | grep -q 10.77.9.1; }
lacks_address() { ! has_address "$1"; }
serves() { on "$1" && has_address "$1" && [ "$(status_of "$1" exports 0 state)" = on ]; }
in_sync() { [ "$(status_of "$1" replication link 2>/dev/null)" = working ]; }
starts() { grep -c x "$(told "$1.one.starts")" 2>/dev/null; }
started_more_than() { [ "$(starts "$1")" -gt "$2" ]; }
runner_pid() {
    local child
    for child in $(cat "/proc/${node_parent[$1]}/task/${node_parent[$1]}/children"); do
        [ "$(cat "/proc/$child/comm")" = batond-exports ] && echo "$child" && return
    done
    return 1
}
another_runner() { local now; now=$(runner_pid "$1") && [ "$now" != "$2" ]; }
for_seconds() { # SECONDS COMMAND…: it is true all that time
    local until=$((SECONDS + $1 + 1))
    shift
    while [ $SECONDS -lt $until ]; do
        "$@" || return 1
        sleep 0.05
    done
}
switchover() { timeout 60 "$BATON" switchover --config "$CONFIG" --node "$1"; }
says() { grep -q "$2" "$T/$1.log"; }

network_up
for node in a b; do
    ip -n "$ID-$node" link add svc type veth peer name cable
    ip -n "$ID-$node" link set svc up
    ip -n "$ID-$node" link set cable up
done
volume_create --witness "tcp://${address[witness]}:7400"
volume_set volume hooks "$T/hooks"
volume_set volume preferred a
cat >>"$CONFIG" <<TEXT

[export one]
address = 10.77.9.1/32@svc
monitor-every = 200ms

[export forks]
monitor-every = 200ms
TEXT
volume_format
start_witness

cp "$BATON_EXPORTERS/one" "$BATON_EXPORTERS/baton-helper"
mkdir "$BATON_EXPORTERS/folder"
is "$("$BATON" exporter list | grep "$T" | awk '{ print $1 }' | tr '\n' ' ')" "forks one vip " "exporters are listed, and nothing else"
rmdir "$BATON_EXPORTERS/folder"
chmod -x "$BATON_EXPORTERS/one"
refused() { ! start_node "$1" >/dev/null 2>&1; }
ok "an exporter that is not executable is refused" refused a
ok "... and not passed over for another one of its name" says a "exporters/one is not executable: chmod +x"
wait "${node_parent[a]}" 2>/dev/null
unset "node_parent[a]"
chmod +x "$BATON_EXPORTERS/one"

start_node a
start_node b
wait_until 30 in_sync a
ok "the export and the address are on" wait_until 30 serves a

# ---- a hook that hangs ----
touch "$(told b.hook-hangs)"
switchover a >"$T/.out" 2>&1
ok "a hook hangs" wait_until 20 test -s "$(told b.hook)"
hook=$(cat "$(told b.hook)")
ok "the address stays, longer than its lifetime in the kernel" for_seconds 3 has_address b
wait_until 10 in_sync b
fails "... while the hook hangs" process_gone "$hook"
begin=$SECONDS
ok "the volume is handed on" switchover b
ok "... at once" [ $((SECONDS - begin)) -lt 6 ]
ok "... and the hook is ended" process_gone "$hook"
ok "the other node serves" wait_until 20 serves a
rm "$(told b.hook-hangs)"

# ---- output ----
touch "$(told a.one.floods)"
before=$(starts a)
rm "$(told a.one.on)"
ok "an exporter leaves a child that prints without end" wait_until 20 started_more_than a "$before"
ok "... and serves" wait_until 20 serves a
ok "... and the address stays" for_seconds 3 has_address a
rm "$(told a.one.floods)"
touch "$(told b.one.lines)"
wait_until 30 in_sync a
switchover a >"$T/.out" 2>&1
ok "an exporter prints a million lines, and serves" wait_until 30 serves b
some() { [ "$1" -gt 100 ] && [ "$1" -lt 500 ]; }
ok "... the log has some of them" some "$(grep -c 'one start: [0-9]*$' "$T/b.log")"
rm "$(told b.one.lines)"
wait_until 30 in_sync b
switchover b >"$T/.out" 2>&1
ok "back again" wait_until 30 serves a

# ---- words ----
wait_until 30 in_sync a
stop_node b
printf 'kein Schl\374ssel \033[31m %s\n' "$(printf 'ü%.0s' {1..150})" >"$(told a.one.start-fails)"
cp "$(told a.one.start-fails)" "$(told a.one.monitor-fails)"
why_told() { [[ $(status_of a exports 0 why 2>/dev/null) == *"kein Schl?ssel"* ]]; }
ok "what an export said stands in status, whatever bytes they are" wait_until 20 why_told || diag "$(status_of a exports)"
rm "$(told a.one.start-fails)" "$(told a.one.monitor-fails)"
ok "it is tried again" wait_until 30 serves a
start_node b
ok "in sync" wait_until 60 in_sync a

# ---- an address where it is not to be ----
in_netns b ip address add 10.77.9.1/32 dev lo
in_netns b ip address add 10.77.9.1/24 dev eth0
ok "an address that a person adds on the standby goes, from each interface" wait_until 5 lacks_address b
in_netns a ip address del 10.77.9.1/32 dev svc
in_netns a ip address add 10.77.9.1/32 dev svc
ends() { in_netns a ip -o address show to 10.77.9.1 | grep -q 'valid_lft [0-9]*sec'; }
ok "one that a person has added on the primary ends with the lease, as the others" wait_until 20 ends
ok "... and all is on" wait_until 20 serves a

# ---- its cable ----
wait_until 30 in_sync a
in_netns a ip link set cable down
begin=$(date +%s%N)
ok "the cable of the address's interface is out: the other node serves" wait_until 30 serves b
spent=$((($(date +%s%N) - begin) / 1000000))
ok "... soon ($spent ms)" [ $spent -lt 8000 ]
in_netns a ip link set cable up
wait_until 60 in_sync b
switchover b >"$T/.out" 2>&1
ok "and back" wait_until 30 serves a

# ---- the runner stopped ----
old=$(runner_pid a)
kill -STOP "$old"
ok "the process that runs exporters is stopped: another one takes its place" wait_until 20 another_runner a "$old"
ok "... and serves" wait_until 20 serves a
wait_until 30 in_sync a
kill -STOP "$(runner_pid a)"
begin=$(date +%s%N)
switchover a >"$T/.out" 2>&1 &
switching=$!
ok "it is stopped, and the volume is to be handed on: the address goes" wait_until 5 lacks_address a
spent=$((($(date +%s%N) - begin) / 1000000))
ok "... not by its lifetime ($spent ms)" [ $spent -lt 1500 ]
wait $switching
ok "... and the other node serves" wait_until 60 serves b
ok "which stops what is on here" wait_until 30 eval '! on a'

# ---- its script hangs in stop, and the lease is over ----
wait_until 60 in_sync b
touch "$(told b.vip.stop-hangs)"
kill -STOP "$(daemon_pid b)"
ok "the daemon stands still, the address cannot be stopped: it is taken off" wait_until 10 lacks_address b
ok "... and the other node serves" wait_until 30 serves a
rm "$(told b.vip.stop-hangs)"
wait_until 60 in_sync a

# ---- its children are not the runner's ----
child=$(cat "$(told a.child)")
fails "a server's child runs" process_gone "$child"
main=$(cut -d ' ' -f 1 "/run/baton/$ID/a/forks/main.pid")
kill -KILL "$main"
another_child() { local now; now=$(cat "$(told a.child)") && [ "$now" != "$child" ]; }
ok "the server dies: its child ends," wait_until 5 process_gone "$child"
ok "... and another one is there" wait_until 20 another_child
child=$(cat "$(told a.child)")
kill -KILL "$(runner_pid a)"
ok "the runner dies: the child ends," wait_until 5 process_gone "$child"
ok "... and another one is there" wait_until 20 another_child
wait_until 20 serves a
wait_until 60 in_sync a
child=$(cat "$(told a.child)")
kill_node a
ok "all of batond's processes die at once: the child ends" wait_until 5 process_gone "$child"
ok "the address goes" wait_until 5 lacks_address a
ok "the other node serves" wait_until 30 serves b
start_node a
wait_until 60 in_sync b
switchover b >"$T/.out" 2>&1
ok "and hands over again" wait_until 30 serves a
wait_until 60 in_sync a

# ---- runner and supervisor die, the daemon lives ----
kill -STOP "${node_parent[a]}"
kill -KILL "$(runner_pid a)" "${node_parent[a]}"
begin=$(date +%s%N)
ok "runner and supervisor are killed: the other node serves" wait_until 30 serves b
spent=$((($(date +%s%N) - begin) / 1000000))
ok "... soon ($spent ms)" [ $spent -lt 8000 ]
ok "... and the address is there alone" lacks_address a
kill_node a
start_node a
wait_until 60 in_sync b
switchover b >"$T/.out" 2>&1
ok "and back once more" wait_until 30 serves a
wait_until 60 in_sync a

# ---- .baton is somebody else's ----
stop_node b
mv "$(mount_of a)/.baton" "$(mount_of a)/.baton-before"
mkdir "$T/elsewhere"
ln -s "$T/elsewhere" "$(mount_of a)/.baton"
rm "$(told a.one.on)"
failed() { [ "$(status_of a exports 0 state 2>/dev/null)" = failed ]; }
ok "somebody has put a link where the servers' secrets are to be: an export does not start" wait_until 30 failed
like "$(status_of a exports 0 why)" "/.baton is not a folder of root's: somebody else has put it there" "... and says so"
is "$(ls "$T/elsewhere")" "" "... and nothing is written behind it"
if [ -n "${BATON_TEST_LONG:-}" ]; then # a try each ten seconds
    rm "$(mount_of a)/.baton"
    mkdir "$(mount_of a)/.baton" && chown 1234 "$(mount_of a)/.baton"
    refuses_again() { [ "$(grep -c "not a folder of root's" "$T/a.log")" -gt "$seen" ]; }
    seen=$(grep -c "not a folder of root's" "$T/a.log")
    ok "a folder of somebody else's is not taken either" wait_until 30 refuses_again
    chown 0 "$(mount_of a)/.baton" && chmod 755 "$(mount_of a)/.baton"
    ok "one of root's is" wait_until 30 serves a
    is "$(stat -c %a "$(mount_of a)/.baton")" 700 "... and is root's alone then"
fi
fails "no server is missed that was none" grep "there still" "$T/a.log" "$T/b.log"
