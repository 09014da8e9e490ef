#!/bin/bash
# Two nodes and a witness decide by themselves who is primary: nobody says --first, and nobody promotes. A daemon that dies, a
# node that is cut off, one that is stopped in order, a switchover, a voter that has lost its disk. Nothing acknowledged is lost.
. "$(dirname "$0")/lib.sh"

now_ms() { echo $(($(date +%s%N) / 1000000)); }
writes() { touch "$(mount_of "$1")/.probe" 2>/dev/null; }
is_primary() { [ "$(status_of "$1" role 2>/dev/null)" = primary ]; }
linked() { [ "$(status_of "$1" replication link 2>/dev/null)" = working ]; }
in_sync() { linked "$1" && linked "$(other "$1")"; }
other() { [ "$1" = a ] && echo b || echo a; }
members() { status_of "$1" replication register members 2>/dev/null; }

# What was acknowledged, and is to be there for ever.
acknowledged=0
make() { # NODE
    local i
    for i in 1 2 3 4 5; do
        echo "$acknowledged" >"$(mount_of "$1")/f$acknowledged" && sync "$(mount_of "$1")/f$acknowledged" || return 1
        acknowledged=$((acknowledged + 1))
    done
}
all_there() { # NODE
    local i
    for ((i = 0; i < acknowledged; i++)); do
        [ "$(cat "$(mount_of "$1")/f$i")" = $i ] || { echo "f$i is missing or different on $1"; return 1; }
    done
}
# takes_over NODE SINCE WHAT
takes_over() {
    ok "$3: the other node takes over" wait_until 120 writes "$1"
    diag "$3: $(($(now_ms) - $2)) ms until a write; $("$BATON" status --config "$CONFIG" --node "$1" | grep takeover)"
    ok "and has all that was acknowledged" all_there "$1"
    ok "it works" make "$1"
}
only_one() { # at most one mount is writable
    local node writable=0
    for node in a b; do
        [ -n "${node_pid[$node]:-}" ] && writes "$node" && writable=$((writable + 1))
    done
    [ $writable -le 1 ]
}

volume_up_with_witness
p=$(primary_now)
ok "a new volume: both are in sync" wait_until 120 in_sync "$p"
ok "changes are acknowledged" make "$p"
ok "one of them writes" only_one

o=$(other "$p")
either() { writes a || writes b; }
since=$(now_ms)
crash_node "$p"
ok "the daemon died: one of both takes over" wait_until 120 either
diag "$(($(now_ms) - since)) ms until a write"
ok "its supervisor has started it again" wait_until 120 restarted "$p"
p=$(primary_now) || bail "no node is primary"
o=$(other "$p")
diag "$("$BATON" status --config "$CONFIG" --node "$p" | grep takeover)"
ok "both are in sync" wait_until 120 in_sync "$p"
ok "nothing is lost" all_there "$p"
ok "it works" make "$p"
ok "one of them writes" only_one

since=$(now_ms)
network_cut "$p"
takes_over "$o" "$since" "the node was cut off"
ok "the one that was cut off has ceased" wait_until 120 eval '! writes "$p"'
why() { "$BATON" status --config "$CONFIG" --node "$1" --why; }
like "$(why "$p")" "has ceased to be primary|no majority of the voters answers" "and says why"
like "$(why "$p")" "Voter witness does not answer" "and which voters it misses"
ok "in the end that there is no majority" wait_until 60 eval 'why "$p" | grep -q "no majority of the voters answers"'
network_mend "$p"
ok "both are in sync" wait_until 120 in_sync "$o"

p=$o o=$(other "$p")
since=$(now_ms)
ok "a primary is stopped in order" stop_node "$p"
takes_over "$o" "$since" "it was stopped"
like "$(grep "node $p leaves the in-sync set" "$T/$o.log" | tail -n 1)" "it left" "which waits for nothing: who stops says so"
ok "it starts again" start_node "$p"
ok "both are in sync" wait_until 120 in_sync "$o"

p=$o o=$(other "$p")
since=$(now_ms)
ok "a switchover" "$BATON" switchover --config "$CONFIG" --node "$p"
takes_over "$o" "$since" "it was handed over"
ok "both are in sync" wait_until 120 in_sync "$o"
p=$o o=$(other "$p")
ready() { "$BATON" ready-to-stop --config "$CONFIG" --node "$1"; }
ok "the standby may be stopped" wait_until 60 ready "$o" || diag "$(ready "$o"; why "$o")"
ok "the primary, too" wait_until 60 ready "$p" || diag "$(ready "$p")"

kill_node "$o"
ok "without its standby the primary goes on" make "$p"
ok "and may not be stopped" wait_until 60 eval '! "$BATON" ready-to-stop --config "$CONFIG" --node "$p"'
ok "alone in the set" wait_until 60 eval '[ "$(members "$p")" = "[\"$p\"]" ]'
kill_node "$p"
ok "the other one starts" start_node "$o"
ok "and does not become primary: it lacks something" wait_until 60 eval \
    '"$BATON" status --config "$CONFIG" --node "$o" --why | grep -q "not in the in-sync set"'
fails "nor is it promoted" "$BATON" promote --config "$CONFIG" --node "$o"
like "$(cat "$T/.out")" "not in the in-sync set" "in words"
ok "the first one starts" start_node "$p"
ok "and is primary" wait_until 120 is_primary "$p"
ok "both are in sync" wait_until 120 in_sync "$p"
ok "nothing is lost" all_there "$p"

kill_node witness
ok "a switchover while the witness is away" "$BATON" switchover --config "$CONFIG" --node "$p"
ok "the other node takes over" wait_until 60 writes "$o"
ok "both are in sync" wait_until 120 in_sync "$o"
ok "the witness comes back" start_witness
grants() { "$BATON" voters --config "$CONFIG" --node "$1" | grep -q "^ *witness *votes, answers, grants"; }
ok "and grants the lease to a primary of which it had not heard" wait_until 60 grants "$o"
p=$o o=$(other "$p")

stop_node witness
rm -r "$T/witness/state"
ok "a witness that has lost its state" start_witness
votes() { "$BATON" voters --config "$CONFIG" --node "$p" | grep -q "^ *witness *votes, answers"; }
ok "is let in again" wait_until 120 votes

ok "the primary is kept as standby" "$BATON" standby --config "$CONFIG" --node "$p"
ok "the other one is primary" wait_until 120 is_primary "$o"
ok "it works" make "$o"
ok "that has an end" "$BATON" standby --end --config "$CONFIG" --node "$p"
ok "both are in sync" wait_until 120 in_sync "$o"
ok "nothing is lost on the primary" all_there "$o"
ok "nor on the standby" all_there "$p"
like "$("$BATON" events --config "$CONFIG" --node "$o" --json)" '"event":"primary"' "events tell who became primary"
