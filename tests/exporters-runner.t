#!/bin/bash
# Exporters are started where the lease is, in order, the address last, and stopped in reverse, the address first, before another
# node serves: in a switchover, when the daemon dies, when it is stopped (SIGSTOP), when the node is cut off, at an orderly stop.
# One that fails is started again once, then the volume goes to the other node.
. "${BATON_SRC:-$(dirname "$0")/..}/tests/lib.sh"
need_root

export BATON_EXPORTERS="$T/exporters" BATON_TEST_FOLDER="$T/told"
mkdir -p "$BATON_EXPORTERS" "$BATON_TEST_FOLDER"
# An exporter that notes what it is told, with the time, and serves a file: told/NODE.EXPORT.on. It fails where told/NODE.EXPORT.VERB-fails is.
cat >"$BATON_EXPORTERS/one" <<'SCRIPT'
#!/bin/bash
F=$BATON_TEST_FOLDER/$BATON_NODE.$BATON_EXPORT
exec 2>&1
read -r now _ </proc/uptime
[ "$1" = monitor ] || [ "$1" = status ] || echo "$now $BATON_NODE $BATON_EXPORT $1${BATON_HURRY:+ hurry}" >>"$BATON_TEST_FOLDER/log"
[ "$1 $BATON_EXPORT" != "monitor vip" ] || echo "$now" >>"$BATON_TEST_FOLDER/looks.$BATON_NODE"
[ ! -e "$F.$1-fails" ] || { echo "told to fail"; exit 1; }
[ ! -e "$F.$1-hangs" ] || sleep 100
case $1 in
check) ;;
start)
    [ "$BATON_EXPORT" != vip ] || ip address replace "$BATON_ADDRESSES" dev lo valid_lft 2 preferred_lft 2
    [ -d "$BATON_STATE" ] || { echo "no $BATON_STATE"; exit 1; }
    [ -d "$BATON_LOCAL" ] || { echo "no $BATON_LOCAL"; exit 1; }
    touch "$F.on"
    env | grep ^BATON_ | sort >"$F.environment"
    echo "$BATON_EXPORT serves"
    ;;
stop)
    [ "$BATON_EXPORT" != vip ] || ip address del "$BATON_ADDRESSES" dev lo
    rm -f "$F.on"
    ;;
monitor) [ -e "$F.on" ] || { echo "it is not on"; exit 1; } ;;
status) [ -e "$F.on" ] || exit 3 ;;
*) exit 2 ;;
esac
SCRIPT
chmod +x "$BATON_EXPORTERS/one"
cp "$BATON_EXPORTERS/one" "$BATON_EXPORTERS/two"
cp "$BATON_EXPORTERS/one" "$BATON_EXPORTERS/vip"
mkdir "$T/hooks"
printf '#!/bin/bash\necho "$BATON_NODE $1" >>"$BATON_TEST_FOLDER/hooks"\n' >"$T/hooks/10-note"
chmod +x "$T/hooks/10-note"

on() { [ -e "$BATON_TEST_FOLDER/$1.$2.on" ]; }
all_on() { on "$1" one && on "$1" second && on "$1" vip; }
none_on() { ! on "$1" one && ! on "$1" second && ! on "$1" vip; }
told() { # NODE VERB: the exporters in the order in which they were told that
    awk -v node="$1" -v verb="$2" '$2 == node && $4 == verb {print $3}' "$BATON_TEST_FOLDER/log" | tr '\n' ' '
}
forget() { : >"$BATON_TEST_FOLDER/log"; }
state_of() { status_of "$1" exports "$2" state; }
in_sync() { [ "$(status_of "$1" replication link 2>/dev/null)" = working ]; }
other() { [ "$1" = a ] && echo b || echo a; }
# Between the last stop on one node and the first start on the other: no time at which both served.
never_both() {
    awk -v node="$1" '$2 == node && $4 == "stop" {stopped = $1} $2 != node && $4 == "start" && !begun {begun = $1}
        END {exit !(stopped && begun && begun >= stopped)}' "$BATON_TEST_FOLDER/log"
}
moves() { # FROM WHAT: the exports are on the other node, and were never on both
    local to
    to=$(other "$1")
    ok "$2: the exports are on the other node" wait_until 30 all_on "$to"
    is "$(told "$to" start)" "one second vip " "$2: started in order, the address last"
}

network_up
volume_create --witness "tcp://${address[witness]}:7400"
volume_set volume hooks "$T/hooks"
volume_set volume preferred a
cat >>"$CONFIG" <<END

[export one]
address = 10.77.9.1/24
monitor-every = 200ms
some-option = with words

[export second]
type = two
monitor-every = 200ms
END
volume_format
start_witness
touch "$BATON_TEST_FOLDER/a.second.check-fails"
refused() { ! start_node a >/dev/null 2>\&1; }
ok "an exporter whose check fails is told at the start" refused
like "$(tail -n 3 "$T/a.log")" "export second. is not right: told to fail" "by name, with its words"
wait "${node_parent[a]}" 2>/dev/null
unset "node_parent[a]"
rm "$BATON_TEST_FOLDER/a.second.check-fails"
start_node a
start_node b
ok "the exports of a new volume are on its primary" wait_until 30 all_on a
ok "and not on the standby" none_on b
is "$(told a start)" "one second vip " "started in order, the address last"
is "$(grep -c '^BATON_OPTION_SOME_OPTION=with words$' "$BATON_TEST_FOLDER/a.one.environment")" 1 "they are told of their own keys"
is "$(grep '^BATON_ADDRESSES=' "$BATON_TEST_FOLDER/a.vip.environment")" "BATON_ADDRESSES=10.77.9.1/24" "and of the address"
is "$(stat -c '%a %U' "$(mount_of a)/.baton/one")" "700 root" "they have a folder on the volume"
is "$(state_of a 0) $(state_of a 1) $(state_of a 2)" "on on on" "status shows them"

in_netns() { nsenter --net="/run/netns/$ID-$1" -- "${@:2}"; }
has_address() { in_netns "$1" ip -o address show to 10.77.9.1 | grep -q 10.77.9.1; }
four_seconds_on() { [ $((SECONDS - begin)) -ge 4 ]; }
begin=$SECONDS
wait_until 10 four_seconds_on
ok "the address outlives its lifetime in the kernel: that is renewed" has_address a
# The exporter vip notes who is connected.
cat >"$T/connect.py" <<'PYTHON'
import socket, sys, time
def uptime(): return float(open("/proc/uptime").read().split()[0])
def look_after(moment):
    until = uptime() + 10
    while uptime() < until:
        for line in open(sys.argv[1]):
            if float(line) >= moment:
                return float(line)
        time.sleep(0.01)
    sys.exit("it has not looked")
server = socket.create_server(("10.77.9.1", 5000))
open(sys.argv[1], "a").close()
client = socket.create_connection(("10.77.9.1", 5000))
first = look_after(uptime())
another = socket.create_connection(("10.77.9.1", 5000))
print("%.2f s" % (look_after(first + 0.01) - first))
sys.exit(look_after(first + 0.01) - first > 1.9)
PYTHON
ok "who connects is noted, and who comes right after that, too" in_netns a python3 "$T/connect.py" "$BATON_TEST_FOLDER/looks.a"
diag "looked again after $(cat "$T/.out")"
in_netns a ip address del 10.77.9.1/24 dev lo
ok "an address that a person has removed is put back" wait_until 10 has_address a

forget
wait_until 30 in_sync a
ok "a switchover" "$BATON" switchover --config "$CONFIG" --node a
moves a "switchover"
is "$(told a stop)" "vip second one " "switchover: stopped in reverse, the address first"
ok "switchover: not on both nodes at a time" never_both a

forget
wait_until 30 in_sync b
crash_node b
moves b "the daemon is killed"
is "$(told b stop | cut -d' ' -f1-3)" "vip second one" "the daemon is killed: its exports are stopped, the address first"
ok "the daemon is killed: in a hurry" grep -q ' b vip stop hurry' "$BATON_TEST_FOLDER/log"
ok "the daemon is killed: not on both nodes at a time" never_both b
wait_until 30 restarted b

forget
wait_until 30 in_sync a
stopped=$(daemon_pid a)
kill -STOP "$stopped"
moves a "the daemon is stopped"
ok "the daemon is stopped: nothing is on at the first node" none_on a
ok "the daemon is stopped: not on both nodes at a time" never_both a
kill -CONT "$stopped" 2>/dev/null

forget
wait_until 60 in_sync b
network_cut b
moves b "the link is cut"
ok "the link is cut: nothing is on at the first node" wait_until 10 none_on b
ok "the link is cut: not on both nodes at a time" never_both b
network_mend b

forget
wait_until 60 in_sync a
touch "$BATON_TEST_FOLDER/a.second.start-fails"
rm "$BATON_TEST_FOLDER/a.second.on"
moves a "an export fails and cannot be started again"
like "$("$BATON" status --config "$CONFIG" --node a --why 2>&1)" "export second does not serve: told to fail" "status says why the node lets others go first"
rm "$BATON_TEST_FOLDER/a.second.start-fails"

forget
wait_until 60 in_sync b
rm "$BATON_TEST_FOLDER/b.second.on"
ok "an export that fails is started again" wait_until 30 on b second
is "$(primary_now)" b "and the volume stays where it is"

forget
touch "$BATON_TEST_FOLDER/b.one.stop-hangs"
ok "an orderly stop, with an exporter that hangs in its stop" stop_node b
like "$(cat "$T/b.log")" "export one does not stop in order: stop did not end within 5000 ms" "whose time limit is kept"
moves b "orderly stop"
rm "$BATON_TEST_FOLDER/b.one.stop-hangs"
stop_node a
ok "after an orderly stop nothing is on" none_on a
is "$(sort -u "$BATON_TEST_FOLDER/hooks" | tr '\n' ' ')" "a primary a standby b primary b standby " "hooks were told of both roles on both nodes"
