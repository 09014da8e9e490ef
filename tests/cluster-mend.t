#!/bin/bash
# A block that is bad on one node's disk is had from the other one before a reader gets an answer, on the primary and on the
# standby; where neither has it, or nobody is there to ask, reading fails, and status says so.
. "$(dirname "$0")/lib.sh"

volume_up
a=$(mount_of a) b=$(mount_of b)
peer_in_sync() { [ "$(status_of a replication link)" = working ]; }
ok "both are in sync" wait_until 30 peer_in_sync
KiB=64
for name in primary standby both away; do
    dd if=/dev/urandom of="$T/$name" bs=1K count=$KiB status=none
    cp "$T/$name" "$a/$name" || bail "no file could be written"
done
sync "$a/primary" # each file went into a segment by one large write, not by way of memory and the tail
bad_of() { status_of "$1" state bad_blocks "$2"; }

# damage NODE FILE: a byte of each place in the node's segments that holds the second half of the file's block 5
cat >"$T/damage.py" <<'PY'
import glob, sys
store, name = sys.argv[1:]
wanted = open(name, "rb").read()[5 * 4096 + 2048:6 * 4096]
found = 0
for path in glob.glob(store + "/data/*.seg") + glob.glob(store + "/generation.*/data/*.seg"):
    with open(path, "r+b") as segment:
        at = segment.read().find(wanted)
        if at >= 0:
            segment.seek(at + 10)
            segment.write(b"damaged")
            found += 1
sys.exit(found != 1)
PY
damage() { python3 "$T/damage.py" "$(store_of "$1")" "$T/$2" || bail "the block of $2 is not found on node $1"; }
drop_caches() { sync && echo 3 >/proc/sys/vm/drop_caches; }
bad_still() { ! cat "$a/away" >/dev/null 2>&1; }
same_again() { cmp "$a/away" "$T/away"; }

damage a primary
drop_caches
ok "a block that is bad on the primary is read right" cmp "$a/primary" "$T/primary"
is "$(bad_of a found) $(bad_of a mended) $(bad_of a unmended)" "1 1 0" "status counts it"
like "$("$BATON" status --config "$CONFIG" --node a)" "1 block on this disk" "and says so to people"
like "$(cat "$T/a.log")" "block 5 was bad here and has been mended" "the log, too"
drop_caches
python3 "$T/damage.py" "$(store_of a)" "$T/primary"
is "$?" 0 "the right bytes are on the disk again (and are damaged for the standby's turn)"
drop_caches
ok "again" cmp "$a/primary" "$T/primary"

damage b standby
drop_caches
ok "a block that is bad on the standby is read right there" cmp "$b/standby" "$T/standby"
is "$(bad_of b found) $(bad_of b mended)" "1 1" "the standby's status counts it"

damage a both
damage b both
drop_caches
fails "where neither node has it, reading fails" cmp "$a/both" "$T/both"
like "$(cat "$T/.out")" "Input/output error" "with an I/O error"
is "$(bad_of a unmended)" 1 "which status shows"
inode=$(stat -c %i "$a/both")
like "$("$BATON" status --config "$CONFIG" --node a)" "1 not mended.*inode $inode block 5" "with the file"
ok "and writing the block" dd if="$T/both" of="$a/both" bs=4096 seek=5 skip=5 count=1 conv=notrunc status=none
ok "makes the file whole" cmp "$a/both" "$T/both"

damage a away
stop_node b
unheard() { [ "$(status_of a replication peers 0 last_contact_ms)" -gt 2500 ]; } # longer than the lease time
ok "the other node is no longer heard" wait_until 60 unheard
drop_caches
began=$(date +%s%N)
fails "nobody is there: reading fails" dd if="$a/away" of=/dev/null bs=4096 skip=5 count=1
ok "at once" test $(($(date +%s%N) - began)) -lt 1000000000
start_node b || bail "node b does not start"
ok "both are in sync" wait_until 30 peer_in_sync
ok "the other node is back: it is read right" wait_until 60 same_again

is "$(bad_of a unmended)" 0 "none is left, the overwritten one neither"
checkpoint_made() { [ "$(store_of a)/checkpoint" -nt "$T/mark" ]; }
for i in 1 2; do # the first one may have been begun before
    touch "$T/mark" "$a/change$i"
    ok "a checkpoint" wait_until 60 checkpoint_made
done
kill_node a
start_node a || bail "node a does not start"
is "$(bad_of a found) $(bad_of a mended)" "4 3" "after a kill it is still known how many there were"
