#!/bin/bash
# Large things through a mount, with a standby: a file overwritten ten times, with little history kept, whose space comes
# back on both nodes; a large directory that is read on both nodes while it changes.
#
# BATON_SIZE_MIB (64) and BATON_ENTRIES (20,000); the full size is BATON_SIZE_MIB=1024 BATON_ENTRIES=1000000.
. "$(dirname "$0")/lib.sh"
here=$BATON_SRC/tests
size=${BATON_SIZE_MIB:-64} entries=${BATON_ENTRIES:-20000}
need_root

network_up
volume_create
volume_set journal history 1s
volume_set journal size 16MiB
volume_format
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
a=$(mount_of a)
b=$(mount_of b)
link_is() { [ "$(status_of a replication link)" = "$1" ]; }
ok "in sync" wait_until 60 link_is working

# ---- space ----
used() { du -sm "$(store_of "$1")" | cut -f 1; }
empty_a=$(used a)
empty_b=$(used b)
overwrite() { dd if="$T/pattern" of="$a/file" bs=1M conv=notrunc,fsync status=none; }
near() { [ $(($(used "$1") - $2)) -le $((size * 115 / 100 + 24)) ]; }
peak=0
for round in $(seq 10); do
    head -c "${size}M" /dev/urandom >"$T/pattern"
    ok "round $round" overwrite
    now=$(($(used a) - empty_a))
    [ "$now" -le "$peak" ] || peak=$now
done
ok "a's store comes back to the live size" wait_until 60 near a "$empty_a"
ok "b's, too" wait_until 60 near b "$empty_b"
diag "live: $size MiB; a: $(($(used a) - empty_a)) MiB, at most $peak MiB between the rounds; b: $(($(used b) - empty_b)) MiB"
ok "the file is what was written last" cmp "$T/pattern" "$a/file"
ok "on the standby, too" cmp "$T/pattern" "$b/file"
rm "$T/pattern"

# ---- a large directory ----
mkdir "$a/large"
begin=$SECONDS
ok "$entries entries are made" "$here/dir-churn.py" fill "$a/large" "$entries"
diag "in $((SECONDS - begin)) s"
seen_at_b() { [ -e "$b/large/stay-$((entries - 1))" ]; }
ok "they are at the standby" wait_until 60 seen_at_b
passes=$((entries > 100000 ? 3 : 20))
mkfifo "$T/end"
"$here/dir-churn.py" change "$a/large" <"$T/end" >"$T/change.out" 2>&1 &
change=$!
test_pids+=("$change")
exec 8>"$T/end"
"$here/dir-churn.py" read "$b/large" "$entries" "$passes" >"$T/read.b" 2>&1 &
reader=$!
test_pids+=("$reader")
ok "read while it changes" "$here/dir-churn.py" read "$a/large" "$entries" "$passes"
diag "$(tail -n 1 "$T/.out")"
ok "on the standby, too" wait "$reader"
diag "$(tail -n 1 "$T/read.b")"
exec 8>&-
ok "it changed all the time" wait "$change"
diag "$(cat "$T/change.out")"
ok "it can be removed" rm -rf "$a/large"
gone_at_b() { [ ! -e "$b/large" ]; }
ok "at the standby, too" wait_until 60 gone_at_b
stop_node a
stop_node b
ok "a's store is in order" "$BATON" check --config "$CONFIG" --node a
ok "b's store is in order" "$BATON" check --config "$CONFIG" --node b
