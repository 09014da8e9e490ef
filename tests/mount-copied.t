#!/bin/bash
# A mount namespace that was made while the volume was mounted has a copy of the mount (services with PrivateTmp, containers). batond
# ends all the same, at once, and starts again; who uses the copy gets errors.
. "${BATON_SRC:-$(dirname "$0")/..}/tests/lib.sh"
need_root

network_up
volume_create
volume_format
start_node a || bail "batond does not start"
echo here >"$(mount_of a)/file"
unshare --mount --propagation private sleep 1000 &
copy=$!
test_pids+=("$copy")
has_copy() { [ "$(readlink "/proc/$copy/ns/mnt")" != "$(readlink /proc/self/ns/mnt)" ] && grep -q "$(mount_of a) " "/proc/$copy/mountinfo"; }
wait_until 10 has_copy || bail "no namespace of its own"
is "$(nsenter --mount="/proc/$copy/ns/mnt" cat "$(mount_of a)/file")" here "another mount namespace has a copy of the mount"
STOP_SECONDS=10 ok "batond ends" stop_node a
like "$(cat "$T/a.log")" "another mount namespace has a copy" "and says what it met"
ok "who uses the copy gets errors" eval '! nsenter --mount="/proc/$copy/ns/mnt" cat "$(mount_of a)/file" 2>/dev/null'
ok "it starts again" start_node a
ok "and serves" wait_until 30 grep -q here "$(mount_of a)/file"
STOP_SECONDS=10 ok "and ends again, while the copy of the mount before is still there" stop_node a
kill -KILL "$copy"
