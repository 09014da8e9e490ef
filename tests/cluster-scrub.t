#!/bin/bash
# Scrub: reads what nobody reads, on either node, whatever the page cache holds; mends it from the other node, and says of which
# files it cannot. Killed, it goes on where it was; a rate bounds it.
. "$(dirname "$0")/lib.sh"

network_up
volume_create
volume_set scrub every 7d
volume_format
for node in a b; do
    start_node $node || bail "node $node does not start"
done
a=$(mount_of a)
peer_in_sync() { [ "$(status_of a replication link)" = working ]; }
ok "both are in sync" wait_until 30 peer_in_sync
mkdir "$a/dir"
for name in first on-a on-b dir/both last; do
    dd if=/dev/urandom of="$T/$(basename $name)" bs=1M count=4 status=none
    cp "$T/$(basename $name)" "$a/$name" || bail "no file could be written"
done
sync "$a/last"
scrub() { # NODE OPTION…
    local node=$1
    shift
    timeout 120 "$BATON" scrub --config "$CONFIG" --node "$node" "$@"
}
of_scrub() { # NODE KEY…
    local node=$1
    shift
    scrub "$node" --status --json | python3 -c '
import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1:]:
    value = value.get(key) if isinstance(value, dict) else value[int(key)] if value else None
print(value if isinstance(value, str) else json.dumps(value))' "$@"
}
cat >"$T/damage.py" <<'PY'
import glob, sys
store, name = sys.argv[1:]
wanted = open(name, "rb").read()[5 * 4096 + 2048:6 * 4096]
found = 0
for path in glob.glob(store + "/data/*.seg"):
    with open(path, "r+b") as segment:
        at = segment.read().find(wanted)
        if at >= 0:
            segment.seek(at + 10)
            segment.write(b"damaged")
            found += 1
sys.exit(found != 1)
PY
damage() { python3 "$T/damage.py" "$(store_of "$1")" "$T/$2" || bail "the block of $2 is not found on node $1"; }

first_ended() { [ "$(of_scrub a last ended)" -gt 0 ]; }
ok "with [scrub] every the first one comes by itself" wait_until 60 first_ended
ok "nothing is bad at first" scrub a --wait
like "$(cat "$T/.out")" "20 MiB read.*no bad block found" "all of it was read"
damage a on-a
damage b on-b
damage a both
damage b both
fails "a finds what is bad there" scrub a --wait
like "$(cat "$T/.out")" "2 bad blocks found, 1 mended from another node, 1 not mended" "mends what the other node has"
like "$(cat "$T/.out")" "block 5 .* of \"dir/both\"" "and names the file with what it has not"
fails "b finds what is bad there" scrub b --wait
like "$(cat "$T/.out")" "2 bad blocks found, 1 mended from another node, 1 not mended" "and mends it from the primary"
damage a on-a # found: it is right on the disk
damage b on-b
scrub a --wait --json >/dev/null
scrub b --wait --json >/dev/null
is "$(of_scrub a last mended) $(of_scrub b last mended)" "1 1" "both were mended on the disk, and are again"
is "$(status_of a state bad_blocks mended) $(status_of a state bad_blocks unmended)" "2 1" "status counts them, what stays bad once"
for name in on-a on-b first last; do
    sync && echo 3 >/proc/sys/vm/drop_caches
    ok "$name is whole" cmp "$a/$name" "$T/$name"
done

# slowly; killed
cp "$T/both" "$a/dir/both"
sync "$a/dir/both"
began=$(date +%s%N)
ok "slowly" scrub a --rate 2MiB
half_done() { [ "$(of_scrub a now bytes)" -gt 6000000 ]; }
ok "it gets on" wait_until 60 half_done
ok "not faster than it may" test $(($(date +%s%N) - began)) -gt 2300000000
scrub a --rate 64KiB >/dev/null # so that it does not end before the kill
ok "a checkpoint has been made since" wait_until 60 test "$(store_of a)/checkpoint" -nt "$T/.out"
kill_node a
start_node a || bail "node a does not start"
like "$(cat "$T/a.log")" "scrub goes on where it was interrupted" "after a kill it goes on"
is "$(of_scrub a now resumed)" 1 "which is counted"
ok "not from the beginning" test "$(of_scrub a now bytes)" -gt 1000000
fails "only one runs" scrub a
scrub a --rate 1GiB >/dev/null
ended() { [ "$(of_scrub a running)" = false ]; }
ok "with another rate it comes to its end" wait_until 60 ended
like "$(of_scrub a last bytes)" "^2[0-9]{7}$" "about all was read once"
scrub a --rate 1MiB >/dev/null
ok "it can be stopped" scrub a --stop
is "$(of_scrub a last stopped)" true "and says so"
fails "then there is none to stop" scrub a --stop
scrub a --rate 1MiB >/dev/null
ok "one is stopped" scrub a --stop
ok "and the next begun at once" scrub a --wait --rate 1GiB
is "$(of_scrub a last bytes)" $((5 * 4 << 20)) "which reads all, from the beginning"
