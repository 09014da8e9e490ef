# A primary that went on alone and was then lost comes back to a volume that went another way: what only it had is kept in
# a file, told in status, taken back, and it becomes a standby equal to the new primary.
. "$(dirname "$0")/lib.sh"
need_root
network_up
volume_create
volume_set lease duration 500ms
volume_format
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
a=$(mount_of a) b=$(mount_of b)
link_is() { [ "$(status_of "$1" replication link 2>&1)" = "$2" ]; }
ok "both are in sync" wait_until 60 link_is a working
mkdir "$a/shared" && echo common >"$a/shared/file" && ln -s file "$a/shared/link"

network_cut b
ok "a goes on alone" wait_until 60 link_is a failed
mkdir "$a/alone"
for i in $(seq 200); do echo "only here $i" >"$a/alone/$i"; done
echo changed by a >"$a/shared/file"
rm "$a/shared/link"
setfattr -n user.by -v a "$a/shared/file"
truncate -s 10M "$a/alone/1"
kill_node a
ok "b, which cannot know, is promoted" wait_until 60 "$BATON" promote --config "$CONFIG" --node b
network_mend b
is "$(cat "$b/shared/file")" common "b has what was common"
echo changed by b >"$b/shared/file"
mkdir "$b/of-b"

ok "a comes back" start_node a
ok "and becomes a standby in sync" wait_until 30 link_is b working
same() { diff -r --no-dereference "$a" "$b"; }
ok "both mounts are equal" wait_until 60 same
is "$(cat "$a/shared/file")" "changed by b" "a shows b's file"
ok "with its link" test -L "$a/shared/link"
fails "and without a's attribute" getfattr -n user.by "$a/shared/file"

undone=$(status_of a state undone 0 path)
ok "status names the file with what a alone had" test -s "$undone"
"$BATON" journal list --config "$CONFIG" --node a --undone "$undone" >"$T/undone.txt" 2>&1
ok "baton journal shows the names in it" grep -q "created file alone/200 " "$T/undone.txt"
ok "and what was done" grep -q "set the size of alone/1 to 10485760" "$T/undone.txt"
is "$(head -c 4096 "$undone" | head -c 8)" BATONUN1 "it is such a file"
ok "the data is in it" grep -qa "only here 200" "$undone"

ok "every row is equal on both" "$BATON" verify --config "$CONFIG" --node a
stop_node a
stop_node b
for node in a b; do
    ok "the store of $node is whole" "$BATON" check --config "$CONFIG" --node $node
done
