#!/bin/bash
# A node whose store has to be built anew, over a line that takes its time, while users write more than the journal may keep
# ([journal] limit) for so long: they are slowed, and it gets there at the first try; the journal stays within its limit and the
# quarter beyond it. Shown in status. After it nobody is slowed.
. "$(dirname "$0")/lib.sh"
here=$BATON_SRC/tests
need_root

network_up
tc -n "$ID-hub" qdisc add dev to-b root tbf rate 1gbit burst 64k latency 50ms 2>/dev/null || skip_all "tc has no tbf"
volume_create
volume_set journal history 0
volume_set journal size 1MiB
volume_set journal limit 24MiB
volume_set lease duration 5s # of processor time others may take much
volume_set catch-up floor 64KiB
volume_format
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
a=$(mount_of a) b=$(mount_of b)
limit=$((24 << 20))
line() { tc -n "$ID-hub" qdisc change dev to-b root tbf rate "$1" burst 64k latency 50ms; } # towards b
link_is() { [ "$(status_of a replication link)" = "$1" ]; }
slowing() { status_of a replication slowing "$@"; }
equal() { "$here/treecmp" --same --settle 20 "$a" "$b"; }
for i in $(seq 40); do mkdir "$a/dir-$i" && echo "$i" >"$a/dir-$i/file"; done
head -c 96M /dev/urandom >"$a/large"
sync -f "$a/large"
ok "in sync" wait_until 30 link_is working

# ---- an empty store, ten seconds of copying, and work that fills the journal in one ----
stop_node b
rm -rf "$(store_of b)" "$(store_of b).register"
ok "node b has an empty store" "$BATON" format --config "$CONFIG" --node b
"$here/paced-writer.py" "$a/large" 65536 30000000 "$T/report" $((96 << 20)) &
writer=$!
test_pids+=("$writer")
written() { cut -d' ' -f1 "$T/report"; }
more_than_the_limit() { [ -e "$T/report" ] && [ "$(written)" -gt $((2 * limit)) ]; }
ok "the writer writes more than the journal may keep" wait_until 60 more_than_the_limit
before=$(written)
line 80mbit
start_node b || bail "node b does not start with its new store"
most=0
most_slowed=0 # since two seconds after work was slowed: what it made at its full rate until then has been trimmed
because=""
text=""
look() { # true when b is in sync
    local bytes since
    since=$([ "$(slowing because)" = "it copies" ] && slowing since_ms)
    bytes=$(status_of a state journal_bytes)
    [ -n "$bytes" ] && [ "$bytes" -gt "$most" ] && most=$bytes
    [ -n "$since" ] && because="it copies"
    [ -n "$bytes" ] && [ "${since:-0}" -gt 2000 ] && [ "$bytes" -gt "$most_slowed" ] && most_slowed=$bytes
    [ -n "$text" ] || text=$("$BATON" status --config "$CONFIG" --node a | grep -A1 "feeding .*node b whole" | grep "of the journal until then")
    link_is working
}
ok "node b is in sync, though nobody stops writing" wait_until 120 look
ok "the writer wrote more than the journal may keep meanwhile" test $(($(written) - before)) -gt $limit
is "$because" "it copies" "its work was slowed for the copy"
like "$text" "it needs .* of the journal until then, which may have 24" "status says what the copy needs"
ok "the copy was not in vain: the journal reached" bash -c "! grep -q 'was given up meanwhile' '$T/a.log'"
is "$(grep -c "node b copies this store as it was" "$T/a.log")" 1 "one state was copied"
ok "while work was slowed the journal had $((most_slowed >> 10)) KiB at most, of a limit of $((limit >> 10)): that and a quarter" \
    test "$most_slowed" -gt 0 -a "$most_slowed" -le $((limit + limit / 4))
# Before that 30 MB are made a second, or more by a writer that makes up for lost time, and a pass of trimming comes every second.
ok "before, $((most >> 10)) KiB: what is made between two passes of trimming comes on top" test "$most" -le $((limit * 5))
line 1gbit
not_slowing() { status_of a replication lsn >/dev/null && ! slowing; }
ok "nobody is slowed any more" wait_until 30 not_slowing
kill "$writer" && wait "$writer" 2>/dev/null
ok "both are equal" equal
ok "every row is equal on both" "$BATON" verify --config "$CONFIG" --node b
stop_node b
stop_node a
ok "b's store is in order" "$BATON" check --data --config "$CONFIG" --node b
