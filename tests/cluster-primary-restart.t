# The primary is killed and starts again: the standby notices the new epoch at once and follows, long before a lease time
# has gone. (It used to hold on to the dead session until then, and every change waited.)
. "$(dirname "$0")/lib.sh"
need_root
network_up
volume_create
volume_set lease duration 60s
volume_format
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
a=$(mount_of a)
link_is() { [ "$(status_of "$1" replication link 2>&1)" = "$2" ]; }
ok "both are in sync" wait_until 60 link_is a working
echo 1 >"$a/file"
kill_node a
ok "the primary starts again" start_node a
is "$(status_of a role)" primary "as primary"
is "$(status_of a replication register members)" '["b", "a"]' "with both in the set"
ok "a change is answered long before the lease time is over" timeout 40 touch "$a/more"
ok "the link works" wait_until 40 link_is a working
