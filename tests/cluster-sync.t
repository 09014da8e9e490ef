#!/bin/bash
# A node that was away for longer than the primary's journal reaches back is built anew from the primary: what it has
# already is taken over, the rest is fetched; its mount stays; it goes on after kills on either side; what only it had is
# kept. The primary works on meanwhile.
. "$(dirname "$0")/lib.sh"
here=$BATON_SRC/tests
need_root

network_up
volume_create
volume_set journal history 0
volume_set journal size 1MiB
volume_set journal limit 2MiB
volume_format
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
a=$(mount_of a)
b=$(mount_of b)
link_is() { [ "$(status_of "$1" replication link)" = "$2" ]; }
lsn_of() { status_of "$1" replication lsn; }
equal() { "$here/treecmp" --same --settle 60 "$a" "$b"; }
trimmed_beyond() { [ "$(status_of a state journal_first)" -gt "$1" ]; }
ok "in sync" wait_until 60 link_is a working

# ---- away for too long ----
mkdir "$a/kept" "$a/changed"
head -c 24M /dev/urandom >"$a/kept/large"
for i in $(seq 200); do echo "$i" >"$a/changed/$i"; done
setfattr -n user.note -v here "$a/kept/large"
sync -f "$a/kept"
ok "both are equal" equal
end=$(lsn_of b)
stop_node b
work() { # N: changes, more than the journal may keep for somebody who is away
    local i
    for i in $(seq 60); do head -c 200K /dev/urandom >"$a/changed/new-$1-$((i % 7))"; done
    for i in $(seq "$1" 7 200); do echo "again $1" >"$a/changed/$i"; done
    mkdir "$a/made-$1" && echo x >"$a/made-$1/file" && mv "$a/changed/new-$1-1" "$a/made-$1/moved"
}
work 1
ok "the primary's journal does not reach back any more" wait_until 30 trimmed_beyond "$((end + 1))"
start_node b || bail "node b does not start again"
ok "b is in sync again" wait_until 60 link_is a working
ok "both are equal again" equal
like "$(cat "$T/b.log")" "has taken the old one's place" "it was built anew"
like "$(cat "$T/b.log")" "cannot feed this store from its journal" "... and said why"
ok "its status says working" wait_until 60 link_is b working
is "$(status_of b replication synchronization 2>/dev/null)" "" "and nothing of a synchronization"
ok "no old generation is left" bash -c "! ls -d '$(store_of b)'/meta 2>/dev/null"
nothing_kept() { [ "$(status_of a replication copies)" = "[]" ]; }
ok "the primary keeps nothing for it any more" wait_until 30 nothing_kept

# ---- the mount stays; the primary works meanwhile ----
exec 7<"$b/kept/large"
end=$(lsn_of b)
kill_node b
work 2
ok "trimmed again" wait_until 30 trimmed_beyond "$((end + 1))"
exec 7<&-
start_node b || bail "node b does not start again"
exec 7<"$b/kept/large"
while :; do date +%N >"$a/busy" && cp "$a/busy" "$a/busy-2"; done &
busy=$!
test_pids+=("$busy")
replaced() { [ "$(grep -c "has taken the old one's place" "$T/b.log")" -ge "$1" ]; }
ok "built anew while the primary works" wait_until 60 replaced 2
ok "b is in sync" wait_until 60 link_is a working
kill "$busy" && wait "$busy" 2>/dev/null
ok "a file that was open on b all the time is read" cmp /proc/self/fd/7 "$a/kept/large"
exec 7<&-
ok "both are equal" equal

# ---- killed again and again, on either side ----
kill_node b
end=$(lsn_of a)
work 3
head -c 64M /dev/urandom >"$a/kept/larger"
sync -f "$a/kept"
ok "trimmed again" wait_until 30 trimmed_beyond "$((end + 1))"
for round in 1 2 3 4 5 6; do
    start_node b || bail "node b does not start in round $round"
    sleep "0.$((RANDOM % 5))"
    kill_node b
done
start_node b || bail "node b does not start"
sleep "0.$((RANDOM % 5))"
kill_node a
start_node a || bail "node a does not start"
ok "b is in sync after kills of both" wait_until 90 link_is a working
ok "both are equal" equal

# ---- an empty store, of a node whose disk was replaced ----
stop_node b
rm -rf "$(store_of b)" "$(store_of b).register"
ok "formatted" "$BATON" format --config "$CONFIG" --node b
start_node b || bail "node b does not start with its new store"
ok "b is in sync" wait_until 60 link_is a working
ok "both are equal" equal
ok "it can be handed over" "$BATON" switchover --config "$CONFIG" --node a
ok "b serves" bash -c "echo x >'$b/by-b'"
ok "a follows" wait_until 30 link_is b working

# ---- what only one had ----
end=$(lsn_of a)
network_cut a
for i in 1 2 3; do echo "only b had $i" >"$b/only-b-$i"; done # alone after the lease time
is_alone() { ! status_of b replication register members | grep -q '"a"'; }
ok "b goes on alone" wait_until 30 is_alone
stop_node b
network_mend a
ok "a is promoted by force" "$BATON" promote --force --config "$CONFIG" --node a
end=$(lsn_of a)
work 4
start_node b || bail "node b does not start"
ok "b is in sync" wait_until 60 link_is a working
ok "both are equal" equal
ok "what only b had is kept" bash -c "ls '$(store_of b)'/undone/*.records"
ok "... and can be got out" "$BATON" journal extract --undone "$(ls "$(store_of b)"/undone/*.records)" "$T/got" --config "$CONFIG" --node b
is "$(cat "$T/got/files/only-b-2")" "only b had 2" "with its content"

ok "every row is equal on both" "$BATON" verify --config "$CONFIG" --node b
stop_node b
stop_node a
ok "a's store is in order" "$BATON" check --data --config "$CONFIG" --node a
ok "b's store is in order" "$BATON" check --data --config "$CONFIG" --node b
