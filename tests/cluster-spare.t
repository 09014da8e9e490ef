#!/bin/bash
# A spare: it holds nothing while the two others are in sync; when one of them stays away it is filled, comes into the set, and
# takes that one's vote, so that the volume bears the next loss; and goes out of both when that one is back.
. "$(dirname "$0")/lib.sh"
nodes=(a b c)

members() { status_of "$1" replication register members 2>/dev/null; }
set_is() { [ "$(members "$1" | tr -d '[]", ' | fold -w1 | sort | tr -d '\n')" = "$2" ]; }
votes() { # NODE NAME…: these and no others
    local node=$1
    shift
    [ "$("$BATON" voters --config "$CONFIG" --node "$node" | awk '$2 == "votes," { print $1 }' | sort | xargs)" = "$*" ]
}
is_primary() { [ "$(status_of "$1" role 2>/dev/null)" = primary ]; }
lsn_of() { status_of "$1" replication lsn; }
same() { diff -r "$(mount_of a)" "$(mount_of "$1")"; }

network_up
volume_create --witness "tcp://${address[witness]}:7400"
volume_set spare node c
volume_set spare after 3s
volume_set volume preferred a
for node in "${nodes[@]}"; do
    "$BATON" format --config "$CONFIG" --node "$node" >"$T/.out" 2>&1 || bail "baton format failed: $(cat "$T/.out")"
done
start_witness || bail "the witness does not start"
for node in "${nodes[@]}"; do
    start_node "$node" || bail "node $node does not start"
done
ok "a is primary" wait_until 120 is_primary a
ok "a and b are the set" wait_until 120 set_is a ab
ok "they and the witness vote" votes a a b witness
ok "a change is acknowledged" eval 'echo 1 >"$(mount_of a)/one" && sync "$(mount_of a)/one"'
is "$(lsn_of c)" 0 "the spare has nothing of it"

kill_node b
ok "b is away: the spare comes into the set" wait_until 120 set_is a ac
ok "and takes b's vote" wait_until 120 votes a a c witness
ok "it has all" same c

kill_node a
ok "a is lost, too: the spare takes over" wait_until 120 is_primary c
ok "it works" wait_until 60 eval 'echo 2 >"$(mount_of c)/two" && sync "$(mount_of c)/two"'
ok "a and b start again" eval 'start_node a && start_node b'
ok "a is primary again, as a spare is none if another one can be" wait_until 120 is_primary a
ok "a and b are the set again" wait_until 120 set_is a ab
ok "and vote" wait_until 120 votes a a b witness
is "$("$BATON" events --config "$CONFIG" --node a --json | sed -n 's/.*"voter":"\([a-z]*\)".*/\1/p' | xargs)" "b c" \
    "b first, then the spare did no more: at no time did the volume hang on each of the others"
ok "a change is acknowledged" eval 'echo 3 >"$(mount_of a)/three" && sync "$(mount_of a)/three"'
ok "nothing is lost" eval '[ "$(cat "$(mount_of a)/one" "$(mount_of a)/two" "$(mount_of a)/three" | xargs)" = "1 2 3" ]'
