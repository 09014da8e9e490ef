#!/bin/bash
# What only a lost primary had comes back out of the file that its rollback left: made and changed files as they were at its
# end, from a store in use and at rest, and what can be had when the journal no longer reaches back. A damaged file ends
# with a sentence.
. "$(dirname "$0")/lib.sh"
need_root
for program in setfattr setfacl; do
    command -v $program >/dev/null || skip_all "needs $program"
done
network_up
volume_create
volume_set lease duration 500ms
volume_format
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
a=$(mount_of a) b=$(mount_of b)
link_is() { [ "$(status_of "$1" replication link 2>&1)" = "$2" ]; }
extract() { "$BATON" journal extract --config "$CONFIG" "$@"; }
treecmp() { "$BATON_SRC/tests/treecmp" "$@"; }
ok "both are in sync" wait_until 60 link_is a working

# ---- what both have ----
mkdir -p "$a/shared/dirA" "$a/shared/gonedir"
head -c 300000 /dev/urandom >"$a/shared/big"
head -c 300000 /dev/urandom >"$a/shared/shrunk"
for name in still replaced gone gonedir/inside dirA/x dirA/y linked attr mode; do
    echo "common $name" >"$a/shared/$name"
done
setfattr -n user.old -v common "$a/shared/attr"
sync "$a/shared/mode"

# ---- what only a has ----
network_cut b
ok "a goes on alone" wait_until 60 link_is a failed
mkdir "$a/alone"
for i in $(seq 20); do echo "only here $i" >"$a/alone/$i"; done
printf patched | dd of="$a/shared/big" bs=1 seek=100000 conv=notrunc status=none
truncate -s 50000 "$a/shared/shrunk"
echo new >"$a/shared/replaced.new" && mv "$a/shared/replaced.new" "$a/shared/replaced"
rm "$a/shared/gone"
rm -r "$a/shared/gonedir"
mv "$a/shared/dirA" "$a/shared/dirB"
echo more >>"$a/shared/dirB/y"
ln "$a/shared/linked" "$a/alone/link"
ln -s ../shared/still "$a/alone/symlink"
setfattr -n user.by -v a "$a/shared/attr"
chmod 2640 "$a/shared/mode" && setfacl -m u:77:rw "$a/shared/mode"
truncate -s 1M "$a/alone/sparse" && printf end | dd of="$a/alone/sparse" bs=1 seek=900000 conv=notrunc status=none
echo passing >"$a/alone/passing" && rm "$a/alone/passing"
cp -a --sparse=always "$a/." "$T/tail" || bail "cp"
kill_node a

# ---- and what b does instead ----
ok "b, which cannot know, is promoted" wait_until 60 "$BATON" promote --config "$CONFIG" --node b
network_mend b
echo "changed by b" >"$b/shared/big"
rm "$b/shared/shrunk" "$b/shared/attr"
mv "$b/shared/dirA" "$b/shared/dirC"
mkdir "$b/of-b" && echo b >"$b/of-b/file"
ok "a comes back" start_node a
ok "and becomes a standby in sync" wait_until 30 link_is b working
undone=$(status_of a state undone 0 path)

# ---- extracted from a store in use ----
# Expected: all of a's tree but for what its tail did not touch; the directories' times are the tail's.
cp -a "$T/tail" "$T/expected"
rm "$T/expected/shared/still" "$T/expected/shared/dirB/x"
for directory in . shared shared/dirB; do touch -r "$T/tail/$directory" "$T/expected/$directory"; done
before=$("$BATON" journal stat --json --config "$CONFIG" --node b)
ok "extract on the standby that rolled back" extract --node a --undone "$undone" "$T/x1"
like "$(cat "$T/.out")" "see $T/x1/report.txt" "... names its report"
ok "... gives what a alone had" treecmp "$T/expected" "$T/x1/files"
is "$("$BATON" journal stat --json --config "$CONFIG" --node b)" "$before" "... and touches nothing"
report=$(cat "$T/x1/report.txt")$'\n'
like "$report" "removed   [0-9: .-]*shared/gone"$'\n' "the report has a removed file"
like "$report" "removed   [0-9: .-]*shared/gonedir/inside"$'\n' "... one in a removed directory"
like "$report" "replaced  [0-9: .-]*shared/replaced"$'\n' "... a replaced one"
like "$report" "renamed   [0-9: .-]*shared/dirA -> shared/dirB"$'\n' "... a renamed directory"
fails "... and not what came and went" grep -q passing "$T/x1/report.txt"
fails "... and nothing is partial" grep -q "^partial" "$T/x1/report.txt"
ok "extract on the primary, which never had it" extract --node b --undone "$undone" "$T/x2"
ok "... gives the same" treecmp "$T/expected" "$T/x2/files"
ok "one path of it" extract --node a --undone "$undone" "$a/alone" "$T/x3"
rm "$T/expected/alone/link" # its other name lies outside
touch -r "$T/tail/alone" "$T/expected/alone"
is "$(cat "$T/x3/files/alone/link")" "common linked" "... a file with another name elsewhere, too"
rm "$T/x3/files/alone/link" && touch -r "$T/tail/alone" "$T/x3/files/alone"
ok "... all that is in it" treecmp "$T/expected/alone" "$T/x3/files/alone"
ln "$T/expected/shared/linked" "$T/expected/alone/link" && touch -r "$T/tail/alone" "$T/expected/alone"
is "$(ls "$T/x3/files")" alone "... alone"
fails "a path that the tail did not touch" extract --node a --undone "$undone" shared/still "$T/x4"
extract --node a --undone "$undone" --json "$T/x5" >"$T/.out"
is "$(python3 -c 'import json,sys; x=json.load(open(sys.argv[1])); print(x["partial"], x["problems"], x["blank"], x["reached"] == x["last"])' "$T/.out")" "0 0 False True" "--json"
fails "a directory that is not empty" extract --node a --undone "$undone" "$T/x1"
fails "no file" extract --node a "$T/x6"
fails "not such a file" extract --node a --undone "$CONFIG" "$T/x6"
like "$(cat "$T/.out")" "is not a file of undone records" "... says so"

# ---- damaged ----
python3 - "$undone" "$T" <<'END'
import random, sys
seed = random.randrange(1 << 32)
print(f"# seed {seed}")
random.seed(seed)
whole = open(sys.argv[1], "rb").read()
for number in range(24):
    data = bytearray(whole)
    for _ in range(random.choice((1, 1, 3, 20))):
        data[random.randrange(len(data))] ^= random.randrange(1, 256)
    if number % 4 == 3:
        del data[random.randrange(len(data)):]
    open(f"{sys.argv[2]}/damaged.{number}", "wb").write(data)
END
bad=0 first=
for i in $(seq 0 23); do
    extract --node a --undone "$T/damaged.$i" "$T/d$i" >"$T/.out" 2>&1
    status=$?
    [ $status = 1 ] && [ -s "$T/.out" ] || { bad=$((bad + 1)); first+="$i: $status: $(cat "$T/.out") "; }
done
is "$bad: $first" "0: " "a damaged file: each of 24 ends with a sentence"
ok "batond still answers" "$BATON" status --config "$CONFIG" --node a
same_prefix() { # what was extracted before the damage is right
    local file
    for file in "$T"/d*/files/alone/[0-9]*; do
        [ ! -s "$file" ] || cmp "$file" "$T/tail/alone/${file##*/}" || return 1
    done
}
ok "what was extracted before the damage is as it was" same_prefix

# ---- at rest ----
stop_node b
stop_node a
ok "at rest" extract --node a --undone "$undone" "$T/x7"
ok "... the same" treecmp "$T/expected" "$T/x7/files"
for i in 0 5 11; do
    fails "a damaged file at rest" extract --node a --undone "$T/damaged.$i" "$T/e$i"
done

# ---- when the journal no longer reaches back ----
volume_set journal history 0
start_node a && start_node b || bail "the nodes do not start again"
ok "in sync again" wait_until 30 link_is b working
fork=$(python3 -c 'import struct,sys; print(struct.unpack_from("<Q", open(sys.argv[1], "rb").read(), 24)[0] - 1)' "$undone")
trimmed() {
    date >"$b/of-b/file"
    [ "$("$BATON" journal stat --json --config "$CONFIG" --node a | python3 -c 'import json,sys; print(json.load(sys.stdin)["from"])')" -gt $((fork + 1)) ]
}
ok "the journal is trimmed" wait_until 30 trimmed
ok "extract with what the file alone has" extract --node a --undone "$undone" "$T/y1"
like "$(cat "$T/.out")" "files are partial" "... says that some are partial"
ok "what the tail had made is whole" diff -r --no-dereference "$T/tail/alone" "$T/y1/files/alone" --exclude link --exclude symlink
is "$(readlink "$T/y1/files/alone/symlink")" ../shared/still "... with its symlink"
is "$(cat "$T/y1/files/shared/replaced")" new "... also where it replaced another file"
is "$(tail -c +100001 "$T/y1/files/shared/big" | head -c 7)" patched "of a changed file, what was written"
is "$(head -c 4096 "$T/y1/files/shared/big" | tr -d '\0' | wc -c)" 0 "... and zeros elsewhere"
is "$(getfattr --only-values -n user.by "$T/y1"/files/inode-* 2>/dev/null)" a "a file whose name nobody knows has its number"
ok "a renamed directory has its name" test -d "$T/y1/files/shared/dirB"
report=$(cat "$T/y1/report.txt")$'\n'
like "$report" $'\n'"partial   shared/big"$'\n' "the report names partial files"
like "$report" "removed   [0-9: .-]*shared/gonedir/inside"$'\n' "... and what was removed"
like "$report" "renamed   [0-9: .-]*shared/dirA -> shared/dirB"$'\n' "... and renamed"
for i in $(seq 0 23); do
    extract --node a --undone "$T/damaged.$i" "$T/z$i" >"$T/.out" 2>&1
    [ $? = 1 ] || bad=$((bad + 1))
done
is "$bad" 0 "damaged files end with a sentence here, too"
ok "batond still answers" "$BATON" status --config "$CONFIG" --node a
stop_node a
stop_node b
for node in a b; do
    ok "the store of $node is whole" "$BATON" check --config "$CONFIG" --node $node
done
