#!/bin/bash
# Scrub reads the disk: what has rotted there is found and mended while the page cache still shows it right.
. "$(dirname "$0")/lib.sh"

need_root
image=$T/a.img
truncate -s 1G "$image"
mkfs.ext4 -q -F "$image" >"$T/.out" 2>&1 || skip_all "needs mkfs.ext4"
mkdir "$T/a"
mount -o loop "$image" "$T/a" 2>"$T/.out" || skip_all "needs loop devices"
volume_up
a=$(mount_of a)
peer_in_sync() { [ "$(status_of a replication link)" = working ]; }
ok "both are in sync" wait_until 30 peer_in_sync
dd if=/dev/urandom of="$T/file" bs=1M count=1 status=none
cp "$T/file" "$a/file" && sync "$a/file" || bail "no file could be written"
sync -f "$T/a"

# find.py FILE WHERE [damage]: is the second half of FILE's block 5 in WHERE, a disk or segments?
cat >"$T/find.py" <<'PY'
import glob, mmap, sys
wanted = open(sys.argv[1], "rb").read()[5 * 4096 + 2048:6 * 4096]
found = 0
for path in glob.glob(sys.argv[2]):
    with open(path, "r+b") as where:
        view = mmap.mmap(where.fileno(), 0, access=mmap.ACCESS_READ)
        at = view.find(wanted)
        if at >= 0:
            found += 1
            if sys.argv[3:]:
                where.seek(at + 10)
                where.write(b"damaged")
sys.exit(found != 1)
PY
on_disk() { python3 "$T/find.py" "$T/file" "$image" "$@"; }
in_cache() { python3 "$T/find.py" "$T/file" "$(store_of a)/data/*.seg"; }

ok "the block is on the disk" on_disk
on_disk damage
fails "it rots there" on_disk
ok "which the page cache hides" in_cache
ok "scrub" timeout 120 "$BATON" scrub --config "$CONFIG" --node a --wait
like "$(cat "$T/.out")" "1 bad block found, 1 mended" "finds and mends it"
sync -f "$T/a"
ok "the disk has it right again" on_disk
echo 3 >/proc/sys/vm/drop_caches
ok "and so a reader" cmp "$a/file" "$T/file"
