#!/bin/bash
# Nodes are upgraded one after the other: a program of the protocol's previous version and this one work together, each in
# either role, through everything that replication does. A program that is too far away is refused with a sentence.
JOURNAL_LIMIT=4MiB
. "$(dirname "$0")/faults.sh"
previous=$BATON_BUILD/tests/batond-previous
distant=$BATON_BUILD/tests/batond-distant
current=$BATOND
built() { grep -c "has taken the old one's place" "$T/$standby.log"; }
runs() { status_of "$1" replication peers 0 "$2" 2>&1; }
start_as() { BATOND=$2 start_node "$1"; } # NODE PROGRAM

away_for_a_while() { # the journal reaches back
    stop_node $standby
    for i in $(seq 50); do echo "$RANDOM" >"$(mount_of $primary)/missed-$i"; done
    start_as $standby "$1" && wait_until 30 in_sync
}
away_for_too_long() {
    local before end
    before=$(built)
    stop_node $standby
    end=$(status_of $primary state lsn)
    trimmed() {
        head -c 2M /dev/urandom >"$(mount_of $primary)/large-$((RANDOM % 4))"
        [ "$(status_of $primary state journal_first)" -gt $((end + 1)) ]
    }
    wait_until 30 trimmed
    start_as $standby "$1" && wait_until 60 in_sync && [ "$(built)" -gt "$before" ]
}
alone() { ! status_of "$1" replication register members | grep -q "\"$2\""; }
another_history() { # OLD-PRIMARY'S PROGRAM, which comes back as standby
    local old=$primary
    writer_rests || return 1
    network_cut $standby
    wait_until 60 alone $primary $standby
    for i in $(seq 20); do echo "only here" >"$(mount_of "$old")/only-$i"; done
    kill_node "$old"
    primary=$standby standby=$old
    "$BATON" promote --force --config "$CONFIG" --node $primary || return 1
    serve $primary
    network_mend $primary
    start_as $standby "$1" && wait_until 30 in_sync && ! [ -e "$(mount_of $primary)/only-1" ]
}
hand_over() {
    "$BATON" switchover --config "$CONFIG" --node $primary || return 1
    local old=$primary
    primary=$standby standby=$old
    serve $primary
    wait_until 60 in_sync
}
through_everything() { # WHO, PROGRAM OF THE STANDBY, PROGRAM OF THE PRIMARY
    ok "$1: in sync" wait_until 30 in_sync
    ok "$1: catching up" away_for_a_while "$2"
    ok "$1: a full synchronization" away_for_too_long "$2"
    ok "$1: taking changes back" another_history "$3"
    ok "$1: both mounts are equal" equal
}

BATOND=$previous cluster_begin
is "$(status_of a replication protocol)" 1 "both nodes begin with protocol 1"
ok "the standby is stopped" stop_node b
ok "and started with the new program" start_as b "$current"
through_everything "a new standby" "$current" "$previous"
is "$primary" b "now the new one is primary"
is "$(status_of b replication protocol)" 3 "it speaks protocol 3"
is "$(runs b protocol)" 1 "and knows that the other one does not"
like "$("$BATON" status --config "$CONFIG" --node b)" "with protocol 1; this node speaks 3" "it tells so"
through_everything "a new primary" "$previous" "$current"
is "$primary" a "the old one is primary again"
ok "the old one hands over to the new one" hand_over
ok "the new one hands over to the old one" hand_over
ok "and once more" hand_over
fails "they are not compared" "$BATON" verify --config "$CONFIG" --node b
like "$("$BATON" verify --config "$CONFIG" --node b 2>&1)" "upgrade" "... and it says why"
ok "the other node is stopped" stop_node a
ok "and started with the new program" start_as a "$current"
ok "in sync" wait_until 30 in_sync
ok "each knows what the other runs" wait_until 60 bash -c "'$BATON' status --config '$CONFIG' --node a --json | grep -q '\"program\"'"
ok "the copies are equal, says verify" wait_until 60 "$BATON" verify --config "$CONFIG" --node a
ok "both mounts are equal" equal

# ---- too far away ----
stop_node a
ok "a starts with a program that is too far away" start_as a "$distant"
unfit() { [[ "$(runs "$1" why)" = *"versions $2"*"upgrade the node with the older program"* ]]; }
ok "the primary says so" wait_until 60 unfit b "9 to 9"
ok "so does the other one" wait_until 60 unfit a "1 to 3"
ok "the primary goes on alone" wait_until 60 touch "$(mount_of b)/alone"
stop_node a
ok "a starts with the right one" start_as a "$current"
ok "and is in sync" wait_until 30 in_sync
ok "both mounts are equal" equal
cluster_end
