#!/bin/bash
# Three nodes: each standby is at its own position; one that is away is waited for by nobody, and the journal is kept for it up
# to its limit; the primary is killed and another one promoted, whatever each of them has; the third follows it, takes back what
# the new primary never had, or gets what it lacks; one whose records are trimmed is built anew.
. "$(dirname "$0")/lib.sh"
here=$BATON_SRC/tests
need_root

nodes=(a b c)
network_up
volume_create
volume_set lease duration 6s # nobody is to leave the set while a write waits for him
volume_set journal history 0
volume_set journal size 1MiB
volume_set journal limit 24MiB
volume_format
for node in a b c; do start_node $node || bail "node $node does not start"; done
a=$(mount_of a) b=$(mount_of b) c=$(mount_of c)
works() { [ "$(status_of "$1" replication link)" = working ]; }
all_work() { works a && works b && works c; }
members() { status_of "$1" replication register members | tr -d '[] "' | tr ',' '\n' | sort | tr -d '\n'; }
set_is() { [ "$(members "$1")" = "$2" ]; }
lsn_of() { status_of "$1" replication lsn; }
peer() { # NODE PEER KEY…: what NODE's status says of PEER
    local node=$1 other=$2
    shift 2
    status_of "$node" replication peers | python3 -c '
import json, sys
value = next(peer for peer in json.load(sys.stdin) if peer["node"] == sys.argv[1])
for key in sys.argv[2:]:
    value = value[key]
print(value)' "$other" "$@"
}
first_of() { status_of "$1" state journal_first; }
equal() { "$here/treecmp" --same --settle 60 "$a" "$1"; }
work() { # NODE NAME: some changes, each has to be answered
    local i
    for i in $(seq 30); do echo "$2 $i" >"$(mount_of "$1")/$2-$i" || return 1; done
    head -c 1M /dev/urandom >"$(mount_of "$1")/$2-large" && sync -f "$(mount_of "$1")/$2-large"
}

ok "all are in sync" wait_until 60 all_work
is "$(members a)" abc "all are in the set"
ok "changes are made" work a first
ok "b has them" equal "$b"
ok "c has them" equal "$c"

# ---- c is away: the others go on in sync, and the journal is kept for it ----
kill_node c
ok "changes are made without c" work a without-c
ok "the set is a and b" set_is a ab
of_each() { [ "$(peer a b in_set) $(peer a c in_set)" = "True False" ]; }
ok "status says it of each" wait_until 60 of_each
ok "b has them" equal "$b"
end=$(peer a c durable)
for i in 1 2 3 4; do work a "more-$i"; done
trimmed_to_b() { [ "$(first_of a)" -gt "$((end + 1))" ]; }
kept() { [ "$(first_of a)" -le "$((end + 1))" ]; }
sleep 3 # two checkpoints, which trim
ok "a's journal reaches back to c's last record ($end), which b does not need" kept
ok "c is further behind than b" test "$(peer a c received)" -lt "$(peer a b received)"
start_node c || bail "node c does not start again"
ok "c is back in sync" wait_until 30 works c
ok "it was not built anew" bash -c "! grep 'has taken the old one' '$T/c.log'"
ok "c has all" equal "$c"
ok "the journal is not kept any longer than needed" wait_until 60 trimmed_to_b

# ---- c stands still: it leaves the set after the lease time, and comes back ----
kill -STOP "${node_pid[c]}"
ok "changes are made while c stands still" work a stands
ok "the set is a and b" set_is a ab
kill -CONT "${node_pid[c]}"
ok "c is back in sync" wait_until 30 all_work

# ---- the primary is killed; c had records that b never had, and b is promoted ----
mkdir "$a"/own-{1..5} # a create that waits keeps its directory locked
ok "in sync" wait_until 60 all_work
begin=$(lsn_of b)
network_cut_between a b
waiting=()
for i in $(seq 5); do # nobody gets an answer: b is in the set
    (echo "only c" >"$a/own-$i/only-c") 2>/dev/null &
    waiting+=($!)
done
c_ahead() { [ "$(lsn_of c)" -gt "$((begin + 4))" ]; }
ok "c has what b has not" wait_until 60 c_ahead
kill_node a
ahead=$(lsn_of c)
ok "c is ahead of b: $ahead, $(lsn_of b)" test "$ahead" -gt "$(lsn_of b)"
network_mend_between a b
# What the dead one had said into a cut line may still arrive.
ok "b is promoted without force" wait_until 60 "$BATON" promote --config "$CONFIG" --node b
c_follows() { [ "$(peer b c state)" = fed ] && peer b c in_set | grep -q True; }
ok "c follows b" wait_until 30 c_follows
ok "b takes changes" work b b-first
ok "what only c had is gone there" wait_until 60 test ! -e "$c/own-1/only-c"
ok "c has the same" "$here/treecmp" --same --settle 60 "$b" "$c"
ok "what only c had is kept there" bash -c "ls '$(store_of c)'/undone/*.records"
wait "${waiting[@]}" 2>/dev/null
start_node a || bail "node a does not start again"
ok "a follows b" wait_until 30 all_work
ok "all are equal" bash -c "'$here/treecmp' --same --settle 60 '$b' '$a' && '$here/treecmp' --same --settle 60 '$b' '$c'"
ok "what a took back is kept there" bash -c "ls '$(store_of a)'/undone/*.records"
is "$(members b)" abc "all are in the set again"

# ---- the primary, b, is killed; a had records that c never had, and is promoted ----
network_cut_between b c
waiting=()
for i in $(seq 5); do
    (echo "not on c" >"$b/own-$i/not-on-c") 2>/dev/null &
    waiting+=($!)
done
behind=$(lsn_of c)
a_ahead() { [ "$(lsn_of a)" -gt "$((behind + 4))" ]; }
ok "a has what c has not" wait_until 60 a_ahead
kill_node b
network_mend_between b c
ok "a is promoted without force" wait_until 60 "$BATON" promote --config "$CONFIG" --node a
ok "c follows a" wait_until 30 set_is a ac
ok "c has got what only a had" equal "$c"
ok "all of it" test -e "$c/own-1/not-on-c" -a -e "$c/own-5/not-on-c"
wait "${waiting[@]}" 2>/dev/null

# ---- b is away for longer than the journal's limit; then it is built anew ----
end=$(peer a b durable)
for i in $(seq 30); do head -c 1M /dev/urandom >"$a/large"; done
sync -f "$a/large"
gone() { [ "$(first_of a)" -gt "$((end + 1))" ]; }
ok "a's journal is at its limit and does not reach back to b any more" wait_until 60 gone
ok "c is in sync all the time" works c
start_node b || bail "node b does not start again"
ok "b is back in sync" wait_until 60 all_work
like "$(cat "$T/b.log")" "has taken the old one's place" "it was built anew"
ok "b has all" equal "$b"
ok "c has all" equal "$c"

# ---- handed over from one to the next ----
for pair in "a c" "c b" "b a"; do
    read -r from to <<<"$pair"
    ok "handed over from $from to $to" "$BATON" switchover --config "$CONFIG" --node "$from" --to "$to"
    ok "$to takes changes" work "$to" "by-$to"
    ok "all are in sync" wait_until 30 all_work
done
ok "b has all" equal "$b"
ok "c has all" equal "$c"
for node in c b a; do stop_node $node; done
for node in a b c; do
    ok "the store of $node is in order" "$BATON" check --data --config "$CONFIG" --node $node
done
