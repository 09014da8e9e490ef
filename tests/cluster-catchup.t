#!/bin/bash
# A standby that comes back over a line on which it takes less than is being written: it is shown how far it is; new work
# is slowed, so that it gets there; reading is not; and a standby that stalls or goes away slows nobody.
. "$(dirname "$0")/lib.sh"
here=$BATON_SRC/tests
need_root

network_up
tc -n "$ID-hub" qdisc add dev to-b root tbf rate 1gbit burst 64k latency 50ms 2>/dev/null || skip_all "tc has no tbf"
volume_create
volume_set journal history 0
volume_set lease duration 5s # of processor time others may take much
volume_set catch-up share 75%
volume_set catch-up floor 64KiB
volume_format
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
a=$(mount_of a) b=$(mount_of b)
line() { tc -n "$ID-hub" qdisc change dev to-b root tbf rate "$1" burst 64k latency 50ms; } # towards b
link_is() { [ "$(status_of a replication link)" = "$1" ]; }
peer_b() { status_of a replication peers 0 "$@"; }
slowing() { status_of a replication slowing; }
not_slowing() { status_of a replication lsn >/dev/null && ! slowing; }
catching_up() { [ "$(peer_b state)" = "catching up" ]; }
measured() { [ "$(peer_b catch_up bytes_per_second)" -gt 0 ]; }
equal() { "$here/treecmp" --same --settle 60 "$a" "$b"; }
mkdir "$a/elsewhere"
head -c 1M /dev/urandom >"$a/elsewhere/file"
ok "in sync" wait_until 60 link_is working
is_fed() { [ "$(peer_b state)" = fed ]; }
ok "a peer that is in sync is not catching up" wait_until 30 is_fed

written() { cut -d' ' -f1 "$T/report"; }
longest() { cut -d' ' -f2 "$T/report"; }
rate() { # SECONDS: KiB a second that the writer gets done
    local before
    before=$(written)
    sleep "$1"
    echo $((($(written) - before) / 1024 / $1))
}

look_around() { # ms for each round of reading and looking
    local i begin
    begin=$(date +%s%N)
    for i in $(seq 10); do
        echo 2 >/proc/sys/vm/drop_caches
        cat "$a/elsewhere/file" >/dev/null
        stat "$a/written" "$a/backlog" >/dev/null
        ls "$a" >/dev/null
    done
    echo $((($(date +%s%N) - begin) / 10000000))
}
measure() { # counts only if new work was slowed all the time: on a busy machine b may seem to stall
    local tries before
    for tries in 1 2 3 4 5 6; do
        wait_until 20 slowing
        before=$(status_of a replication slowing since_ms)
        rm -f "$T/report"
        wait_until 60 test -e "$T/report"
        slow=$(rate 3)
        took=$(look_around)
        [ "$(status_of a replication slowing since_ms)" -gt "$((before + 3000))" ] && return
        catching_up || return 1
    done
}

# ---- six are written a second, two go over the line ----
stop_node b
head -c 24M /dev/urandom >"$a/backlog"
"$here/paced-writer.py" "$a/written" 65536 6000000 "$T/report" &
writer=$!
test_pids+=("$writer")
wait_until 60 test -e "$T/report"
alone=$(rate 2)
ok "it writes what it likes: $alone KiB/s" test "$alone" -gt 2000
quick=$(look_around)
line 16mbit
start_node b || bail "node b does not start again"
ok "it is catching up" wait_until 60 catching_up
ok "its rate is measured" wait_until 60 measured
ok "the bytes that it lacks are told" test "$(peer_b catch_up bytes_left)" -gt 6000000
ok "and the records" test "$(peer_b catch_up records_left)" -gt 90
ok "new work is slowed after a while" wait_until 60 slowing
ok "then the time left is told" wait_until 60 peer_b catch_up seconds_left
wait_until 20 slowing
"$BATON" status --config "$CONFIG" --node a >"$T/status"
like "$(cat "$T/status")" "catching up; standby" "status says: catching up"
like "$(cat "$T/status")" "lacks [0-9]+ records, about [0-9.]+ MiB; takes [0-9.]+ [KM]iB a second, [0-9.]+ [KM]iB a second are added" \
    "how far and how fast"
like "$(cat "$T/status")" "slowing   new work to [0-9.]+ [KM]iB a second, for .* now, because node b would never catch up" \
    "and why new work is slow"
like "$(cat "$T/a.log")" "new work is slowed to [0-9]+ KiB a second, or node b would never catch up" "the log does, too"
ok "it is slowed for a while" measure
ok "it writes on, slowly: $slow KiB/s" test "$slow" -gt 30 -a "$slow" -lt 2000
ok "no write took long: $(longest) ms" test "$(longest)" -lt 20000
ok "reading and looking is not slowed: $took ms for each round" test "$took" -lt "$((quick * 4 + 100))"
ok "b is there" wait_until 180 link_is working
ok "nothing is slowed any more" not_slowing
line 1gbit
kill "$writer" && wait "$writer" 2>/dev/null
ok "both are equal" equal

# ---- a standby that stalls, and one that goes away, while new work is slowed for it ----
for way in stalls "is cut off"; do
    stop_node b
    head -c 24M /dev/urandom >"$a/backlog"
    "$here/paced-writer.py" "$a/written" 65536 6000000 "$T/report" &
    writer=$!
    test_pids+=("$writer")
    line 16mbit
    start_node b || bail "node b does not start again"
    ok "slowed again" wait_until 30 slowing
    case $way in
    stalls) kill -STOP "${node_pid[b]}" ;;
    *) network_cut b ;;
    esac
    ok "b $way: nothing is slowed any more after the lease time" wait_until 60 not_slowing
    free=$(rate 2)
    ok "it writes what it likes: $free KiB/s" test "$free" -gt 2000
    kill "$writer" && wait "$writer" 2>/dev/null
    line 1gbit
    case $way in
    stalls) kill -CONT "${node_pid[b]}" ;;
    *) network_mend b ;;
    esac
    ok "b catches up when it goes on" wait_until 60 link_is working
    ok "both are equal" equal
done

# ---- one whose store is built anew: what is made meanwhile it has to catch up with ----
stop_node b
rm -rf "$(store_of b)" "$(store_of b).register"
"$BATON" format --config "$CONFIG" --node b >/dev/null || bail "no store for b"
"$here/paced-writer.py" "$a/written" 65536 4000000 "$T/report" &
writer=$!
test_pids+=("$writer")
line 16mbit
start_node b || bail "node b does not start again"
ok "it is built, and then catching up" wait_until 90 catching_up
like "$(cat "$T/b.log")" "has taken the old one's place" "it was built anew"
ok "new work is slowed for it" wait_until 60 slowing
ok "b is there" wait_until 180 link_is working
ok "nothing is slowed any more" not_slowing
kill "$writer" && wait "$writer" 2>/dev/null
line 1gbit
ok "both are equal" equal

# ---- share = 0 ----
stop_node b
stop_node a
volume_set catch-up share 0
start_node a || bail "node a does not start"
head -c 24M /dev/urandom >"$a/backlog"
"$here/paced-writer.py" "$a/written" 65536 6000000 "$T/report" &
writer=$!
test_pids+=("$writer")
line 16mbit
start_node b || bail "node b does not start"
ok "it is catching up" wait_until 60 catching_up
sleep 9
ok "share = 0: nothing is slowed" not_slowing
free=$(rate 2)
ok "it writes what it likes: $free KiB/s" test "$free" -gt 2000
kill "$writer" && wait "$writer" 2>/dev/null
line 1gbit
ok "b is there when it may be" wait_until 60 link_is working
ok "both are equal" equal
