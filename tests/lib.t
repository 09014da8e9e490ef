#!/bin/bash
# tests/lib.sh itself: TAP lines, waiting, namespaces, and that nothing is left behind, also after an interrupt.
. "$(dirname "$0")/lib.sh"
need_root

lib=$BATON_SRC/tests/lib.sh
run_child() { # script
    BATON_SRC=$BATON_SRC BATON_BUILD=$BATON_BUILD bash -c ". '$lib'; $1" 2>&1
}
left_behind() { # output of a child: names of what it made that still exist
    local id
    id=$(sed -n 's/^# ID //p' <<<"$1")
    ip netns list | grep "$id-"
    ls -d "${TMPDIR:-/tmp}/$id."* 2>/dev/null
    grep "/$id\." /proc/self/mountinfo
}

out=$(run_child 'echo "# ID $ID"; ok "a" true; is 1 2 "b"; skip 1 "c"; like abc "^a" "d"; fails "e" false')
like "$out" "ok 1 - a"$'\n'"not ok 2 - b"$'\n'"# expected: 2"$'\n'"#     seen: 1"$'\n'"ok 3 # SKIP c" "TAP lines"
like "$out" "1\.\.5" "the plan comes last"
is "$(left_behind "$out")" "" "nothing is left behind"

out=$(run_child 'echo "# ID $ID"; bail "enough"')
like "$out" "Bail out! enough" "bail"
is "$(grep -c '^1\.\.' <<<"$out")" 0 "... without a plan"

ok "wait_until waits for a condition" wait_until 10 true
before=$(date +%s)
fails "... and no longer than it should" wait_until 1 false
ok "... by the clock" [ $(($(date +%s) - before)) -le 3 ]

out=$(run_child 'echo "# ID $ID"; network_up; mkdir $T/m; mount -t tmpfs $ID $T/m
    sleep 1000 & test_pids+=($!); echo "# pid $!"
    ok "a reaches b" in_node a ping -c 1 -w 5 10.77.0.2
    network_cut_between a b; fails "cut" in_node a ping -c 1 -w 1 10.77.0.2
    ok "witness" in_node a ping -c 1 -w 5 10.77.0.3
    network_mend_between a b; ok "mended" in_node a ping -c 1 -w 5 10.77.0.2
    kill -INT $$; sleep 1; echo not reached')
if command -v ping >/dev/null; then
    is "$(grep -c '^ok' <<<"$out")" 4 "namespaces are joined, cut and mended" || diag "$out"
else
    skip 1 "no ping here"
fi
is "$(grep -c 'not reached' <<<"$out")" 0 "an interrupt ends the test"
like "$out" "Bail out! interrupted" "... which says so"
is "$(left_behind "$out")" "" "... and leaves nothing behind"
ok "... no process either" process_gone "$(sed -n 's/^# pid //p' <<<"$out")"

run_child 'echo "# ID $ID"; echo "# pid $$"; network_up; for ((i = 0; i < 1000; i++)); do ok "more" true; sleep 0.01; done' | head -n 20 >"$T/cut"
ended() { process_gone "$(sed -n 's/^# pid //p' "$T/cut")"; }
ok "when nobody reads any more it ends" wait_until 10 ended
is "$(left_behind "$(cat "$T/cut")")" "" "... and leaves nothing behind"
