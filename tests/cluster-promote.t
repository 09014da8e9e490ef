# The primary is killed while somebody writes; the standby is promoted by a command: everything acknowledged is there, its
# mount takes changes in place. The old primary comes back as standby.
. "$(dirname "$0")/lib.sh"

network_up
volume_create
volume_set lease duration 60s # the primary does not go on alone when the line is cut
volume_format
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
a=$(mount_of a) b=$(mount_of b)
link_is() { [ "$(status_of "$1" replication link)" = "$2" ]; }
both_working() { link_is a working && link_is b working; }
promote() { "$BATON" promote --config "$CONFIG" --node "$@"; }
ok "in sync" wait_until 60 both_working

fails "promote is refused while the primary answers" promote b
like "$(cat "$T/.out")" "switchover" "and says what to do instead"

# One name after the other; a name is in the log when its close has been answered without an error (a shell does not look
# at that).
mkdir "$a/work"
writer() {
    exec python3 -c '
import sys
i = 0
while True:
    with open(f"{sys.argv[1]}/{i}", "w") as file:
        file.write(f"content {i}\n")
    with open(sys.argv[2], "a") as log:
        log.write(f"{i}\n")
    i += 1' "$a/work" "$T/acknowledged" 2>/dev/null
}
writer &
test_pids+=($!)
enough() { [ "$(wc -l <"$T/acknowledged")" -ge 500 ]; }
ok "a writer is at work" wait_until 30 enough
exec 7<"$b/work" # an open directory of the standby's mount stays good
# What it has not sent when it dies is on no other node, and nobody was told that it was done.
network_cut b
(echo "only on a" >"$a/only-a") 2>/dev/null &
waiting=$!
lsn_of() { status_of "$1" state lsn; }
a_ahead() { [ "$(lsn_of a)" -gt "$(lsn_of b)" ]; }
ok "a has what b has not" wait_until 30 a_ahead
kill_node a
wait $waiting 2>/dev/null
network_mend b

ok "b is promoted" wait_until 60 promote b
is "$(status_of b role)" primary "b is primary"
missing=0 wrong=0
while read -r i; do
    [ -e "$b/work/$i" ] || missing=$((missing + 1))
    [ "$(cat "$b/work/$i" 2>/dev/null)" = "content $i" ] || wrong=$((wrong + 1))
done <"$T/acknowledged"
is "$missing $wrong" "0 0" "of $(wc -l <"$T/acknowledged") acknowledged files none is missing, none has other content"
ok "b's mount takes changes in place" sh -c "echo new >$b/work/new && echo more >>$b/work/0 && mkdir $b/work/dir"
ok "the directory that was open before is still good" test -e /proc/self/fd/7/new
exec 7<&-

ok "a starts again" start_node a
is "$(status_of a role)" standby "a is standby now"
same() { diff -r "$a" "$b"; }
ok "a becomes equal" wait_until 60 same
fails "a takes no changes" touch "$a/no"
ok "what a had beyond that is kept aside" "$BATON" journal list --config "$CONFIG" --node a --undone "$(store_of a)"/undone/*.records
like "$(cat "$T/.out")" "by epoch 1" "and can be read"
ok "which b never had" test ! -e "$b/only-a"
ok "both are in sync" wait_until 60 both_working
stop_node a
stop_node b
for node in a b; do
    ok "the store of $node is whole" "$BATON" check --config "$CONFIG" --node $node
done
