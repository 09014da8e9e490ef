#!/bin/bash
# tools/quickstart: two mounts and a status; again over itself; --stop leaves nothing.
. "$(dirname "$0")/lib.sh"
need_root

export BATON_QUICKSTART=$ID BATON_QUICKSTART_BUILD=$BATON_BUILD
base=/srv/$ID-quickstart
quickstart() { "$BATON_SRC/tools/quickstart" "$@"; }
cleanup_hooks+=("quickstart --stop >/dev/null 2>&1")
shows() { [ "$(cat "$base/b/mount/hello" 2>/dev/null)" = "$1" ]; }

quickstart >"$T/start.out" 2>&1
is $? 0 "it starts" || bail "$(tail -n 20 "$T/start.out")"
like "$(cat "$T/start.out")" "node a: primary.*node b: standby.*in sync" "the status shows both nodes, in sync"
echo 1 >"$base/a/mount/hello"
ok "a file written on a is seen on b" wait_until 60 shows 1
fails "b takes no changes" touch "$base/b/mount/file"
pid=$(cat "$base/a/pid")
quickstart >"$T/start.out" 2>&1
is $? 0 "it starts again"
ok "... a new daemon" process_gone "$pid"
fails "... and an empty volume" test -e "$base/a/mount/hello"
echo 2 >"$base/a/mount/hello"
ok "it works again" wait_until 60 shows 2
ok "the volume is handed over" "$BATON" switchover --config "$base/demo.conf" --node a
ok "... b takes changes now" touch "$base/b/mount/file"
pids="$(cat "$base/a/pid") $(cat "$base/b/pid")"
kill -KILL "$(cat "$base/b/pid")"
ok "--stop, with one daemon dead" quickstart --stop
is "$(ip netns list | grep -c "^$ID-")" 0 "no namespace is left"
is "$(grep -c "$base" /proc/self/mountinfo)" 0 "no mount is left"
fails "no file is left" test -e "$base"
for pid in $pids; do
    ok "no process is left" process_gone "$pid"
done
ok "--stop again is no error" quickstart --stop
