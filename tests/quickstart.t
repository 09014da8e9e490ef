#!/bin/bash
# tools/quickstart: two mounts, a witness and a status; shares that answer at their address before and after a failover that it
# shows; a node dies and the other one takes over; again over itself, without shares; --stop leaves nothing.
. "$(dirname "$0")/lib.sh"
need_root

export BATON_QUICKSTART=$ID BATON_QUICKSTART_BUILD=$BATON_BUILD
base=/srv/$ID-quickstart
quickstart() { "$BATON_SRC/tools/quickstart" "$@"; }
cleanup_hooks+=("quickstart --stop >/dev/null 2>&1")
shows() { [ "$(cat "$base/$other/mount/hello" 2>/dev/null)" = "$1" ]; }
takes_changes() { touch "$base/$1/mount/file"; }
find_primary() { # as quickstart tells it
    now=$(sed -n "s|.*\"demo\" is mounted twice: $base/\(.\)/mount takes changes.*|\1|p" "$T/start.out")
    other=$([ "$now" = a ] && echo b || echo a)
}

quickstart >"$T/start.out" 2>&1
is $? 0 "it starts" || bail "$(tail -n 20 "$T/start.out")"
find_primary
like "$(cat "$T/start.out")" "node $now: primary" "a node is primary"
like "$(cat "$T/start.out")" "node $other: standby" "... the other one standby"
like "$(cat "$T/start.out")" "in sync" "... in sync"
echo 1 >"$base/$now/mount/hello"
ok "a file written on $now is seen on $other" wait_until 30 shows 1
fails "$other takes no changes" touch "$base/$other/mount/file"

client() { nsenter --net="/run/netns/$ID-client" timeout -s KILL 5 "$@"; }
welcome_nfs() {
    client nfs-cat 'nfs://10.99.0.100/demo/share/welcome?version=3&nfsport=2049&mountport=20048' | grep -q Welcome
}
welcome_smb() { client smbclient -N //10.99.0.100/demo -c 'get welcome -' | grep -q Welcome; }
shows_a_change() { # --failover or --handover, from, to
    local last
    ok "$1" quickstart "$1"
    cp "$T/.out" "$T/shown"
    is "$(grep -cE '^ +[0-9]+ (a|b|nobody) +answer +[0-9]+' "$T/shown")" 15 "... a line for each of 15 seconds"
    like "$(grep -E '^ +1 ' "$T/shown")" "1 $2 " "... $2 serves in the first"
    last=$(grep -E '^ +15 ' "$T/shown")
    like "$last" "15 $3 " "... $3 in the last"
    more() { # WORD: the number in that word of the last second's line is greater than in the third's
        awk -v n="$1" '$1 == 3 { then = $n + 0 } $1 == 15 { now = $n + 0 } END { exit !(then > 0 && now > then) }' "$T/shown"
    }
    ok "... the client of NFS has more answers" more 4
    ok "... that of SMB too" more 9
    diag "$(grep longest "$T/shown")"
}
shares=$(grep -c '^\[export' "$base/demo.conf")
if [ "$shares" = 2 ]; then
    ok "the NFS share answers" wait_until 10 welcome_nfs
    ok "the SMB share answers" wait_until 10 welcome_smb
    shows_a_change --failover "$now" "$other"
    back=$(cat "$base/$now/mount/hello")
    is "$back" 1 "$now follows"
    shows_a_change --handover "$other" "$now"
    sync_again() { "$BATON" status --config "$base/demo.conf" --node "$now" | grep -q "peer $other *in sync"; }
    ok "in sync again" wait_until 60 sync_again
else
    like "$(cat "$T/start.out")" "no shares this time" "without the shares' programs it says that there are none"
fi
kill -KILL -- "-$(cat "$base/$now/pid")"
ok "$now is killed: $other takes changes by itself" wait_until 60 takes_changes "$other"
is "$(cat "$base/$other/mount/hello")" 1 "... and has what was written"
if [ "$shares" = 2 ]; then
    ok "... the NFS share answers" wait_until 30 welcome_nfs
    ok "... the SMB share too" wait_until 30 welcome_smb
fi
pids=$(for node in a b client; do ip netns pids "$ID-$node"; done)
like "$pids" "[0-9]" "processes run"
ok "--stop, with servers on a node whose batond is dead" quickstart --stop
is "$(for pid in $pids; do process_gone "$pid" || cat "/proc/$pid/comm"; done)" "" "no process is left"
is "$(ip netns list | grep -c "^$ID-")" 0 "no namespace is left"

quickstart --no-shares >"$T/start.out" 2>&1
is $? 0 "it starts again, without shares"
fails "... there are none" grep '^\[export' "$base/demo.conf"
pid=$(cat "$base/b/pid")
quickstart --no-shares >"$T/start.out" 2>&1
is $? 0 "it starts over itself"
find_primary
ok "... a new daemon" process_gone "$pid"
fails "... and an empty volume" test -e "$base/$now/mount/hello"
echo 2 >"$base/$now/mount/hello"
ok "it works again" wait_until 30 shows 2
ok "the volume is handed over" "$BATON" switchover --config "$base/demo.conf" --node "$now"
ok "... $other takes changes now" wait_until 30 takes_changes "$other"
pids="$(cat "$base/a/pid") $(cat "$base/b/pid") $(cat "$base/witness/pid")"
kill -KILL -- "-$(cat "$base/b/pid")"
ok "--stop, with one daemon dead" quickstart --stop
is "$(ip netns list | grep -c "^$ID-")" 0 "no namespace is left"
is "$(grep -c "$base" /proc/self/mountinfo)" 0 "no mount is left"
fails "no file is left" test -e "$base"
fails "... nor in /run" test -e /run/baton/demo
for pid in $pids; do
    ok "no process is left" process_gone "$pid"
done
ok "--stop again is no error" quickstart --stop
