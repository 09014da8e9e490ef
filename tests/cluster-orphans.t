#!/bin/bash
# A file that was unlinked while an NFS client had it open: the client knows its handle, and nobody has it open on the
# node that is promoted. There it is kept for the grace time, and the handle works; then it is freed, and the handle is
# stale.
. "$(dirname "$0")/lib.sh"

network_up
volume_create
volume_format
start_node a --orphan-grace 20s || bail "node a does not start"
start_node b --orphan-grace 20s || bail "node b does not start"
a=$(mount_of a) b=$(mount_of b)

# An NFS server's way to a file: take PATH prints its handle, read MOUNT TYPE HANDLE what is in it.
cat >"$T/handle.py" <<'PY'
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint), ("type", ctypes.c_int), ("bytes", ctypes.c_ubyte * 128)]
handle = Handle(size=128)
if sys.argv[1] == "take":
    mount = ctypes.c_int()
    if libc.name_to_handle_at(-100, sys.argv[2].encode(), ctypes.byref(handle), ctypes.byref(mount), 0) < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    print(handle.type, bytes(handle.bytes[:handle.size]).hex())
else:
    raw = bytes.fromhex(sys.argv[4])
    handle.size, handle.type = len(raw), int(sys.argv[3])
    handle.bytes[:len(raw)] = raw
    mount = os.open(sys.argv[2], os.O_RDONLY)
    fd = libc.open_by_handle_at(mount, ctypes.byref(handle), os.O_RDONLY)
    print(os.read(fd, 100).decode().strip() if fd >= 0 else os.strerror(ctypes.get_errno()))
PY
read_handle() { python3 "$T/handle.py" read "$@"; }
inodes_used() { df --output=iused "$1" | tail -n 1 | tr -d ' '; }
in_sync() { [ "$(status_of a replication link)" = working ]; }

ok "in sync" wait_until 60 in_sync
before=$(inodes_used "$a")
echo precious >"$a/file"
exec 7<"$a/file"
read -r type handle < <(python3 "$T/handle.py" take "$a/file")
rm "$a/file"
sync "$a"
is "$(read_handle "$a" "$type" "$handle")" precious "an unlinked file that is open is read by its handle"
kill_node a
exec 7<&-
ok "b is promoted" wait_until 60 "$BATON" promote --config "$CONFIG" --node b
is_free() { [ "$(inodes_used "$b")" = "$before" ]; }
fails "b does not free the file at once, though nobody has it open there" wait_until 2 is_free
is "$(inodes_used "$b")" $((before + 1)) "it keeps it"
is "$(read_handle "$b" "$type" "$handle")" precious "and its handle works there"
ok "when the grace time is over it is freed" wait_until 30 is_free
echo 2 >/proc/sys/vm/drop_caches
is "$(read_handle "$b" "$type" "$handle")" "Stale file handle" "and its handle is stale"
stop_node b
