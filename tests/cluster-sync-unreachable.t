#!/bin/bash
# A node has to be built anew, and only the primary's port for copies cannot be reached from it: status and the log say so,
# with the address; as soon as it can be reached the node is built.
. "$(dirname "$0")/lib.sh"
need_root
network_up
volume_create
volume_set journal history 0
volume_set journal size 1MiB
volume_set journal limit 2MiB
volume_format
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
a=$(mount_of a) b=$(mount_of b)
link_is() { [ "$(status_of "$1" replication link 2>&1)" = "$2" ]; }
ok "both are in sync" wait_until 60 link_is a working
end=$(status_of b replication lsn)
stop_node b
for i in $(seq 60); do head -c 200K /dev/urandom >"$a/file-$((i % 7))"; done
trimmed() { [ "$(status_of a state journal_first)" -gt "$((end + 1))" ]; }
ok "the primary's journal does not reach back any more" wait_until 60 trimmed

rule=(to "${address[a]}" ipproto tcp dport 7403 unreachable)
ip -n "$ID-b" rule add "${rule[@]}" || bail "no rule could be made"
ok "b starts" start_node b
why() { status_of b replication synchronization why 2>/dev/null; }
told() { why | grep -q "node a has answered nothing for [0-9]* s at tcp://${address[a]}:7403"; }
ok "its status says what is not answered, for how long, and where" wait_until 60 told
like "$(why)" "firewall" "and what to look at"
like "$("$BATON" status --config "$CONFIG" --node b)" "answered nothing" "people see it, too"
logged() { grep -q "answered nothing for" "$T/b.log"; }
ok "so does the log" wait_until 60 logged
is "$(grep -c "answered nothing for" "$T/b.log")" 1 "once"

ip -n "$ID-b" rule del "${rule[@]}"
ok "b is built and in sync" wait_until 60 link_is a working
is "$(why)" "" "and nothing of it is said any more"
same() { diff -r --no-dereference "$a" "$b"; }
ok "both mounts are equal" wait_until 60 same
stop_node a
stop_node b
