# The disk of the primary is replaced while both nodes are down: its empty store must neither begin a volume of its own
# nor make the other node take back what it has, not even if a person calls it the first one by mistake.
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
role_is() { [ "$(status_of "$1" role 2>&1)" = "$2" ]; }
trouble_of() { status_of "$1" replication trouble 2>&1; }
in_trouble() { [[ "$(trouble_of "$1")" = *"$2"* ]]; }
replace_store() { # NODE [--first]
    local store
    store=$(store_of "$1")
    rm -rf "$store" "$store.register"
    "$BATON" format --config "$CONFIG" --node "$@" >"$T/.out" 2>&1 || bail "format: $(cat "$T/.out")"
}
ok "both are in sync" wait_until 60 link_is a working
for i in 1 2 3; do
    echo precious >"$a/$i"
done
sync "$a/3"
kill_node a
kill_node b

replace_store a
start_node a
is "$(status_of a role)" standby "the emptied node does not start as primary"
ok "and says what is wrong" in_trouble a "not heard who is primary"
fails "it is not promoted without force" "$BATON" promote --config "$CONFIG" --node a
start_node b
is "$(status_of b role)" standby "b waits for a person too"
ok "b, whose copy it is, is promoted with force" "$BATON" promote --config "$CONFIG" --node b --force
ok "and feeds the new store" wait_until 60 link_is b working
is "$(cat "$a/3")" precious "which has everything then"

echo more >"$b/4"
sync "$b/4"
kill_node a
kill_node b
replace_store a --first
start_node a
kill_node a
start_node a # until its epoch is newer than that of b's promotion, the third
kill_node a
start_node a
kill_node a
start_node a
is "$(status_of a role)" primary "called the first one by mistake, the empty store begins a volume"
start_node b
ok "b takes nothing back" wait_until 60 in_trouble b "nothing is taken back"
is "$(cat "$b/1" "$b/4" 2>&1)" $'precious\nmore' "and has its files"
stop_node a
ok "b is promoted with force" "$BATON" promote --config "$CONFIG" --node b --force
ok "it serves" sh -c "echo on >$b/5"
