# The standby dies, the primary goes on alone and acknowledges, then dies too; the standby comes back first. Its own
# register still has it in the set: without a word from the primary it is not to be promoted on the strength of that.
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
promote() { "$BATON" promote --config "$CONFIG" --node "$@"; }
ok "both are in sync" wait_until 60 link_is b working
kill_node b
ok "a goes on alone" wait_until 60 link_is a failed
echo acknowledged >"$a/file"
sync "$a/file"
kill_node a
start_node b
fails "b, which cannot know of it, is not promoted" promote b
like "$(cat "$T/.out")" "has not heard from a primary since it started.*--force" "and says why, and what to do"

start_node a
ok "a comes back and brings b up to date" wait_until 60 link_is b working
is "$(cat "$b/file")" acknowledged "b has what a had acknowledged"
kill_node a
ok "now b may be promoted" promote b
