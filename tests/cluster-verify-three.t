#!/bin/bash
# Three nodes: one compares its copy with each other one's; a standby may ask another standby.
. "$(dirname "$0")/lib.sh"
[ -x "$BATON_BUILD/tests/plant" ] || bail "make tests/plant first"

nodes=(a b c)
volume_up
a=$(mount_of a)
in_sync() { [ "$(status_of a replication link)" = working ]; }
ok "all are in sync" wait_until 60 in_sync
for i in $(seq 100); do echo "$i" >"$a/file-$i"; done
verify() { # NODE ARGUMENT…
    local node=$1
    shift
    timeout 120 "$BATON" verify --config "$CONFIG" --node "$node" "$@" >"$T/verify.out" 2>&1
}
ok "the primary compares its copy with all others'" verify a
is "$(grep -c "are equal at record" "$T/verify.out")" 2 "and finds both equal"
ok "a standby compares its own with another standby's" verify b --with c
is "$(cat "$T/verify.out" | wc -l)" 1 "with that one only"
stop_node c
"$BATON_BUILD/tests/plant" "$(store_of c)" mode "$(stat -c %i "$a/file-7")" 0700 || bail "nothing is planted"
start_node c || bail "the third node does not start again"
ok "all are in sync" wait_until 60 in_sync
verify a
is $? 1 "one of them differs"
like "$(cat "$T/verify.out")" "a and b are equal.*a and c differ in 1 place .*file-7: mode 100644 on a, 100700 on c" \
    "the output says which"
verify b
is $? 1 "which the standby finds, too"
ok "the other one is equal still" verify a --with b
stop_node b
for i in $(seq 10); do echo "$i" >"$a/later-$i"; done
verify a
is $? 2 "one is away: that is not known"
like "$(cat "$T/verify.out")" "node b is not heard|node b does not answer" "it says so"
like "$(cat "$T/verify.out")" "a and c differ in 1 place" "and compares the other one all the same"
