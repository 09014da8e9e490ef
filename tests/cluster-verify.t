#!/bin/bash
# The copies are compared at one record while a program writes: equal copies are found equal, and each row that one node has
# otherwise is named with its path. What interrupts a comparison never makes it say "equal".
. "$(dirname "$0")/lib.sh"
[ -x "$BATON_BUILD/tests/plant" ] || bail "make tests/plant first"
plant() { ok "planted on b: $*" "$BATON_BUILD/tests/plant" "$(store_of b)" "$@"; }

volume_up
a=$(mount_of a)
in_sync() { [ "$(status_of a replication link)" = working ]; }
verify() { # NODE ARGUMENT…: its output goes to $T/verify.out
    local node=$1
    shift
    timeout 120 "$BATON" verify --config "$CONFIG" --node "$node" "$@" >"$T/verify.out" 2>&1
}
finds() { # STATUS DESCRIPTION NODE ARGUMENT…
    local expected=$1 description=$2 status
    shift 2
    verify "$@"
    status=$?
    is "$status" "$expected" "$description" || diag "$(cat "$T/verify.out")"
}
says() { like "$(cat "$T/verify.out")" "$1" "$2"; }
line_of() { [ "$(grep -cE -- "$1" "$T/verify.out")" = 1 ]; }
ok "both are in sync" wait_until 30 in_sync

# ---- equal, under load ----
mkdir "$a/tree" "$a/load"
for i in $(seq 300); do echo "$i" >"$a/tree/file-$i"; done
ln "$a/tree/file-1" "$a/tree/second name"
ln -s file-1 "$a/tree/link"
mkdir "$a/tree/sub"
head -c 3M /dev/urandom >"$a/tree/sub/data"
fallocate -l 8M "$a/tree/sub/unwritten"
echo x | dd of="$a/tree/sub/unwritten" bs=1 seek=1M conv=notrunc status=none
for i in $(seq 40); do head -c 5000 /dev/zero | tr '\0' x >>"$a/tree/sub/appended"; done
setfattr -n user.note -v here "$a/tree/sub/data"
load() { # changes of every kind, for as long as it lives
    local i=0
    while :; do
        i=$((i + 1))
        date +%N >"$a/load/$((i % 50))"
        mv "$a/load/$((i % 50))" "$a/load/moved-$((i % 30))"
        head -c 20000 /dev/urandom | dd of="$a/load/large" bs=4096 seek=$((i % 64)) conv=notrunc status=none
        [ $((i % 7)) != 0 ] || setfattr -n user.i -v "$i" "$a/load/large"
        [ $((i % 11)) != 0 ] || rm -f "$a/load/moved-$((i % 30))"
        [ $((i % 50)) != 0 ] || truncate -s $((i * 100)) "$a/load/large"
    done
}
load 2>/dev/null &
load=$!
test_pids+=("$load")
before=$(status_of a replication lsn)
for i in 1 2 3; do
    finds 0 "equal while a program writes, asked on a ($i)" a
    finds 0 "and on b ($i)" b
done
says "Nodes b and a are equal at record [0-9]+ \(" "it says so, and at which record"
ok "it did write" test "$(status_of a replication lsn)" -gt $((before + 100))
finds 0 "slowly" a --rate 128KiB
says "are equal at record" "still at one record"
is "$(status_of a replication verify results 0 outcome)" equal "status knows"
like "$("$BATON" status --config "$CONFIG" --node a)" "compared +with node b: equal at record [0-9]+" "and says so to people"
script -qec "'$BATON' verify --config '$CONFIG' --node a --rate 64KiB" "$T/typescript" </dev/null >/dev/null 2>&1
like "$(cat "$T/typescript")" "of about [0-9,]+ rows, [0-9.]+ [KM]?i?B/s, about .* left, 0 differences" "on a terminal it shows how far it is"
finds 0 "in a pipe" a
is "$(wc -l <"$T/verify.out")" 1 "only the result"
finds 0 "one directory only" a "$a/tree/sub"
says "equal below these paths" "which it says"
is "$(status_of a replication verify results 0 paths_only)" false "and which is not what status says of the whole"
finds 2 "a path that is on neither node" a tree/nothing/at/all
says "there is no \"tree/nothing/at/all\" on either node" "in words"
kill "$load" && wait "$load" 2>/dev/null

# ---- what one node has otherwise ----
inode_of() { stat -c %i "$a/$1"; }
tree=$(inode_of tree) data=$(inode_of tree/sub/data) sub=$(inode_of tree/sub)
one=$(inode_of tree/file-1) seven=$(inode_of tree/file-7) nine=$(inode_of tree/file-9)
appended=$(inode_of tree/sub/appended)
stop_node b || bail "b does not stop"
plant mode "$one" 0751
plant name "$tree" file-7 "$nine"
plant value "$data" user.note there
plant block "$data" 5
plant block "$data" 6
plant drop-name "$tree" file-11
plant add-name "$sub" only-on-b "$nine"
plant hole "$appended" 40
plant drop-inode "$seven"
start_node b || bail "node b does not start"
ok "both are in sync" wait_until 30 in_sync
finds 1 "what was planted is found" a
cp "$T/verify.out" "$T/found"
says "Nodes a and b differ in 8 places at record" "eight places"
ok "a mode, with both names" line_of "tree/file-1 = tree/second name: mode 100644 on a, 100751 on b \(inode $one\)"
ok "a name" line_of "tree/file-7: the name's inode $seven on a, $nine on b"
ok "an attribute" line_of "tree/sub/data: attribute user.note: 4 bytes on a, 5 bytes on b, not the same"
ok "checksums" line_of "tree/sub/data: blocks 5 to 6: other content"
ok "a name that is missing there" line_of "tree/file-11: the name is only on a"
ok "a name that is only there" line_of "tree/sub/only-on-b: the name is only on b"
ok "blocks that are missing there" line_of "tree/sub/appended: blocks? 40.*: data on a, a hole on b"
ok "an inode that is missing there" line_of "tree/file-7: only on a \(inode $seven\)"
is "$(grep -c '^  tree' "$T/found")" 8 "no other path is named more than it should be" ||
    diag "$(cat "$T/found")"
finds 1 "the other side finds the same" b
says "Nodes b and a differ in 8 places" "as many"
ok "the mode, the other way round" line_of "mode 100751 on b, 100644 on a"
ok "an inode that is missing here has the name that the other node knows" line_of "tree/file-7: only on a \(inode $seven\)"
finds 1 "a path below which something differs" a tree/sub
says "differ in 4 places" "only what is there"
finds 0 "one below which nothing does" a tree/file-2
finds 1 "a name that is only there" a tree/sub/only-on-b
says "differ in 1 place " "is one"
finds 1 "all" a --json
is "$(python3 -c '
import json, sys
report = json.load(open(sys.argv[1]))["reports"][0]
print(report["outcome"], report["differences"], len(report["found"]), sorted({d["table"] for d in report["found"]}))' "$T/verify.out")" \
    "different 8 8 ['dirent', 'extent', 'inode', 'xattr']" "as JSON"
is "$(status_of a replication verify results 0 differences)" 8 "status counts them"
like "$("$BATON" status --config "$CONFIG" --node a)" "compared +with node b: 8 DIFFERENCES at record" "and says so"

# ---- more than can be named ----
stop_node b || bail "b does not stop"
plant many 999000000000000 3000
start_node b || bail "node b does not start"
ok "both are in sync" wait_until 30 in_sync
finds 1 "three thousand rows more" a
says "more than 1000 places" "are not all named"

# ---- a row that cannot be read ----
stop_node b || bail "b does not stop"
plant rotten "$sub"
start_node b || bail "node b does not start"
ok "both are in sync" wait_until 30 in_sync
finds 2 "a row of the other node fails its checksum" a
says "could not be compared to the end.*node b: a row of the store cannot be read" "it says whose"
finds 2 "a row of this node does" b
says "a row of this node's store cannot be read" "it says so"

# ---- a node that differs is built anew ----
stop_node b || bail "b does not stop"
rm -rf "$(store_of b)"
ok "formatted" "$BATON" format --config "$CONFIG" --node b
start_node b || bail "node b does not start"
ok "both are in sync" wait_until 60 in_sync
finds 0 "after that it is equal" a

# ---- interruptions ----
for i in $(seq 1200); do echo "$i" >"$a/tree/more-$i"; done
begin() { # RATE: it takes its time
    "$BATON" verify --config "$CONFIG" --node a --rate "${1:-64KiB}" >"$T/verify.out" 2>&1 &
    verifier=$!
    test_pids+=("$verifier")
}
running() { [ "$(status_of a replication verify running)" = true ] && [ "$(status_of a replication verify now rows)" -gt 0 ]; }
kept_by_b() { [ "$(status_of b replication compares 0 lsn)" -gt 0 ]; }
begin
ok "one is running" wait_until 60 running
like "$("$BATON" status --config "$CONFIG" --node a)" "comparing +with node b" "status shows it"
ok "b keeps the state for it" wait_until 60 kept_by_b
like "$("$BATON" status --config "$CONFIG" --node b)" "compared +by node a" "and shows that"
finds 2 "another one is refused" a
says "running already" "with a sentence"
kill_node b
wait "$verifier"
is $? 2 "the other node is killed: it could not be done"
says "could not be compared to the end.*node b does not answer" "it says why"
is "$(status_of a replication verify results 0 outcome)" failed "status knows, too"
finds 2 "a node that is away" a
says "node b is not heard" "is not compared"
start_node b || bail "node b does not start"
ok "both are in sync" wait_until 30 in_sync
begin
ok "one is running" wait_until 60 running
stop_node b || bail "b does not stop"
start_node b || bail "node b does not start"
wait "$verifier"
is $? 2 "the other node was restarted: it could not be done"
says "does not keep the state|has another store" "it says why"
ok "both are in sync" wait_until 30 in_sync
begin
ok "one is running" wait_until 60 running
ok "the primary changes" "$BATON" switchover --config "$CONFIG" --node a
wait "$verifier"
is $? 0 "which does not matter: both had that record"
b_works() { [ "$(status_of b replication link)" = working ]; }
ok "both are in sync" wait_until 30 b_works
finds 0 "asked on the standby" a
begin
ok "one is running" wait_until 60 running
ok "it can be stopped" "$BATON" verify --stop --config "$CONFIG" --node a
wait "$verifier"
is $? 2 "which is no result"
says "was stopped" "it says so"
begin
ok "one is running" wait_until 60 running
{ kill -KILL "$verifier" && wait "$verifier"; } 2>/dev/null
stopped_again() { [ "$(grep -c 'verify: stopped' "$T/a.log")" = 2 ]; }
ok "when who asked has gone, it ends" wait_until 60 stopped_again
nothing_kept() { [ "$(status_of b replication compares)" = "[]" ]; }
ok "and b keeps nothing for it" wait_until 60 nothing_kept
begin
ok "one is running" wait_until 60 running
kill_node a
wait "$verifier"
is $? 2 "this node is killed: it could not be done"
says "has stopped; nothing is known about the copies" "it says so"
start_node a || bail "node a does not start"

# ---- the journal no longer reaches back ----
stop_node a && stop_node b || bail "they do not stop"
volume_set journal history 0
volume_set journal size 1MiB
volume_set journal limit 2MiB
volume_set verify every 1d
start_node b || bail "node b does not start"
start_node a || bail "node a does not start"
ok "both are in sync" wait_until 30 b_works
by_itself() { [ "$(status_of b replication verify results 0 outcome)" = equal ]; }
ok "with [verify] every the primary does it by itself" wait_until 30 by_itself
begin
ok "one is running" wait_until 60 running
for i in $(seq 8); do head -c 2M /dev/zero | tr '\0' "$i" >"$(mount_of b)/load/much-$((i % 3))"; done # before it is done
wait "$verifier"
is $? 2 "much is written, more than the journal may keep: it could not be done"
says "no longer there|was given up meanwhile" "it says why"
finds 0 "afterwards it can" a
