#!/bin/bash
# Nobody reads what batond logs: its standard error is a pipe that is full. It logs under locks that the lease needs; the lease is
# renewed all the same, and changes are acknowledged.
. "$(dirname "$0")/lib.sh"

linked() { [ "$(status_of "$1" replication link 2>/dev/null)" = working ]; }
alone() { [ "$(status_of "$p" replication register members 2>/dev/null)" = "[\"$p\"]" ]; }
lease() { status_of "$p" replication lease "$1" 2>/dev/null; }

volume_up_with_witness
p=$(primary_now)
[ "$p" = a ] && o=b || o=a
ok "both are in sync" wait_until 120 eval 'linked a && linked b'

# The primary once more, with such a pipe.
stop_node "$p" || bail "node $p does not end"
mv "$T/$p.log" "$T/$p.log.before"
mkfifo "$T/$p.log"
exec 9<>"$T/$p.log"
ok "one starts again, and logs into a pipe" start_node "$p"
rm "$T/$p.log"
ok "both are in sync" wait_until 120 eval 'linked a && linked b'
"$BATON" switchover --config "$CONFIG" --node "$o" >"$T/.out" 2>&1 || bail "not handed over: $(cat "$T/.out")"
ok "it is primary" wait_until 60 eval '[ "$(primary_now)" = "$p" ] && linked "$p" && linked "$o"'
epoch=$(status_of "$p" replication epoch)
python3 -c '
import os, sys
os.set_blocking(9, False)
for size in 4096, 1:
    try:
        while True:
            os.write(9, b"x" * size)
    except BlockingIOError:
        pass
os.set_blocking(9, True)'
kill_node "$o"
ok "the pipe is full, the standby dies: a change is acknowledged" timeout 60 touch "$(mount_of "$p")/alone"
ok "the primary is alone in the set" wait_until 60 alone
is "$(lease held)" true "it holds the lease"
is "$(status_of "$p" replication epoch)" "$epoch" "without a break"
ok "the standby comes back" start_node "$o"
ok "both are in sync" wait_until 120 eval 'linked "$p" && linked "$o"'
ok "changes are acknowledged" timeout 60 touch "$(mount_of "$p")/both"

# Somebody reads.
timeout 60 dd bs=65536 count=1 <&9 >/dev/null 2>&1
kill_node "$o"
ok "the standby dies again, and somebody reads: what was lost is counted" \
    timeout 60 grep -q -a -m 1 "of this log found no room" <&9
ok "the standby comes back" start_node "$o"
ok "both are in sync" wait_until 120 eval 'linked "$p" && linked "$o"'
stop_node "$p"
exec 9>&-
