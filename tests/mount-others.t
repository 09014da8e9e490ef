#!/bin/bash
# What suites by others found in the mount: a listing whose reader renames what it reads comes to an end, and shows what
# is new after a rewind; set-gid without group execution goes with a fallocate by one who is not in the group.
. "$(dirname "$0")/lib.sh"

network_up
volume_create
volume_format
start_node a || bail "node a does not start"
a=$(mount_of a)
chmod 755 "$T" "$T/a"

cat >"$T/rename.py" <<'PY'
import ctypes, os, sys
os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("length", ctypes.c_ushort),
                ("type", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.POINTER(Dirent)
libc.readdir.argtypes = libc.rewinddir.argtypes = [ctypes.c_void_p]
for number in range(2000):
    open(str(number), "w").close()
stream, seen = libc.opendir(b"."), 0
while entry := libc.readdir(stream):
    seen += 1
    name = entry.contents.name.decode()
    if name not in (".", ".."):
        os.rename(name, "temporary")
        os.rename("temporary", name)
    if seen > 6000:
        sys.exit("no end of it")
open("new", "w").close()
libc.rewinddir(stream)
names = []
while entry := libc.readdir(stream):
    names.append(entry.contents.name.decode())
if "new" not in names or len(names) != 2003 or len(set(names)) != 2003:
    sys.exit(f"after rewinding {len(names)} entries, new: {'new' in names}")
PY
mkdir "$a/listed"
ok "renaming what is read comes to an end, a rewind shows what is new" timeout 100 python3 "$T/rename.py" "$a/listed"

cat >"$T/allocate.py" <<'PY'
import os, sys
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(65534)
os.posix_fallocate(os.open(sys.argv[1], os.O_RDWR), 0, 8192)
PY
mode_after() { # GROUP
    : >"$a/file"
    chown 0:777 "$a/file"
    chmod 6666 "$a/file"
    python3 "$T/allocate.py" "$a/file" "$1" && stat -c %a "$a/file"
}
is "$(mode_after 65534)" 666 "a fallocate by a stranger takes set-user and set-group away"
is "$(mode_after 777)" 2666 "by a member of the group it leaves set-group without execution"
