#!/bin/bash
# tools/quickstart: two mounts, a witness and a status; a node dies and the other one takes over; again over itself; --stop
# leaves nothing.
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
kill -KILL -- "-$(cat "$base/$now/pid")"
ok "$now is killed: $other takes changes by itself" wait_until 60 takes_changes "$other"
is "$(cat "$base/$other/mount/hello")" 1 "... and has what was written"

pid=$(cat "$base/$other/pid")
quickstart >"$T/start.out" 2>&1
is $? 0 "it starts again"
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
for pid in $pids; do
    ok "no process is left" process_gone "$pid"
done
ok "--stop again is no error" quickstart --stop
