#!/bin/bash
# A block is bad in what a primary that was lost had alone, so that it cannot be taken back and kept in a file: the node is
# built anew from the new primary, and its old store is kept whole, for a person to get out what can be read.
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
ok "both are in sync" wait_until 60 link_is a working
mkdir "$a/shared" && echo common >"$a/shared/file"
head -c 1M /dev/urandom >"$a/shared/large" && cp "$a/shared/large" "$T/large"
sync "$a/shared/large"

network_cut b
ok "a goes on alone" wait_until 60 link_is a failed
mkdir "$a/alone"
for i in $(seq 20); do echo "only here $i" >"$a/alone/$i"; done
for name in bad good; do
    head -c 256K /dev/urandom >"$T/$name"
    cp "$T/$name" "$a/alone/$name" && sync "$a/alone/$name"
done
echo changed by a >"$a/shared/file"
sync "$a/shared/file"
stop_node a # all of it is in a checkpoint then
ok "b, which cannot know, is promoted" wait_until 60 "$BATON" promote --config "$CONFIG" --node b
network_mend b
echo changed by b >"$b/shared/file"

cat >"$T/damage.py" <<'END'
import glob, sys
store, name = sys.argv[1:]
wanted = open(name, "rb").read()[5 * 4096:6 * 4096]
found = 0
for path in glob.glob(store + "/data/*.seg") + glob.glob(store + "/generation.*/data/*.seg"):
    with open(path, "r+b") as segment:
        at = segment.read().find(wanted)
        if at >= 0:
            segment.seek(at + 10)
            segment.write(b"damaged")
            found += 1
sys.exit(found != 1)
END
python3 "$T/damage.py" "$(store_of a)" "$T/bad" || bail "the block is not found on node a"

ok "a comes back" start_node a
ok "and becomes a standby in sync" wait_until 90 link_is b working
same() { diff -r --no-dereference "$a" "$b"; }
ok "both mounts are equal" wait_until 60 same
is "$(cat "$a/shared/file")" "changed by b" "a shows b's file"
ok "a file of both is whole" cmp "$a/shared/large" "$T/large"
like "$(cat "$T/a.log")" "not all can be read here" "the log says why nothing was taken back"
like "$(cat "$T/a.log")" "the old store is kept whole in" "and that the old store is kept"
aside=$(status_of a state aside 0)
ok "status names it ($aside)" test -n "$aside" -a -d "$(store_of a)/$aside"
fails "no file holds a part of what was only there" ls "$(store_of a)"/undone/*.records
mkdir "$T/got"
"$BATON" extract --store "$(store_of a)/$aside" "$T/got" >"$T/extract.txt" 2>&1
find "$T/got" -type f >"$T/found.txt"
good=$(grep '/good$' "$T/found.txt")
ok "what can be read is got out of it" cmp "$good" "$T/good"
is "$(cat "${good%/good}/7")" "only here 7" "the small files, too"

ok "every row is equal on both" "$BATON" verify --config "$CONFIG" --node a
stop_node a
stop_node b
for node in a b; do
    ok "the store of $node is whole" "$BATON" check --data --config "$CONFIG" --node $node
done
