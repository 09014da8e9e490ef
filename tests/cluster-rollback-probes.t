# Two histories parted while both nodes were started as primary again and again: where the new primary's epoch began the
# other one has something else already, so the last common point has to be asked for, step by step. The one that asks heard
# the other at its own port first, before it could dial: its questions go over its own connection all the same.
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
epoch_of() { status_of "$1" replication epoch | cut -d. -f1; }
files() { # FOLDER COUNT
    local i
    for ((i = 0; i < $2; i++)); do echo "$1 $i" >"$1/$i" || return 1; done
}
again() { stop_node "$1" && start_node "$1"; }
ok "both are in sync" wait_until 60 link_is a working
mkdir "$a/common" && files "$a/common" 10
ok "b has it" wait_until 60 test -e "$b/common/9"

stop_node b
ok "a goes on alone" wait_until 60 link_is a failed
for i in 1 2 3; do
    mkdir "$a/alone-$i" && files "$a/alone-$i" 20
    ok "a starts again" again a
done
mkdir "$a/alone-4"
epoch_a=$(epoch_of a)
stop_node a

ok "b starts" start_node b
ok "b, which cannot know, is promoted" wait_until 60 "$BATON" promote --config "$CONFIG" --node b --force
first_b=$(epoch_of b)
ok "in an epoch below a's last one ($first_b, $epoch_a)" test "$first_b" -lt "$epoch_a"
mkdir "$b/of-b-1" && files "$b/of-b-1" 70
while [ "$(epoch_of b)" -le "$epoch_a" ]; do
    again b || bail "b does not start again"
done
mkdir "$b/of-b-2"

# a cannot dial b's control port (PORT + 2), b can dial a's.
rule=(to "${address[b]}" ipproto tcp dport 7402 unreachable)
ip -n "$ID-a" rule add "${rule[@]}" || bail "no rule could be made"
ok "a comes back" start_node a
hears() { [ "$(status_of a replication peers 0 role)" = primary ]; }
ok "a hears b, which has dialled it" wait_until 60 hears
ok "and has told it nothing over a connection of its own" test -z "$(in_node a ss -Htn state established \
    dst "${address[b]}:7402")"
ip -n "$ID-a" rule del "${rule[@]}"
ok "it takes back what only it had, and is a standby in sync" wait_until 30 link_is b working
same() { diff -r --no-dereference "$a" "$b"; }
ok "both mounts are equal" wait_until 60 same
ok "with what was common" test -e "$a/common/9"
undone=$(status_of a state undone 0 path)
"$BATON" journal list --config "$CONFIG" --node a --undone "$undone" >"$T/undone.txt" 2>&1
is "$(grep -c 'created file alone-./' "$T/undone.txt")" 60 "what only a had is kept"
is "$(grep -c 'created file common/' "$T/undone.txt")" 0 "and nothing else"
stop_node a
stop_node b
