#!/bin/bash
# What waits for the peer, for each setting of acknowledge: while the peer is stopped, each operation returns or waits as
# the manual says, and all that wait are answered when it goes on.
. "$(dirname "$0")/lib.sh"

network_up
volume_create
volume_set lease duration 60s # the primary does not go on alone meanwhile
volume_format
a=$(mount_of a)
peer_in_sync() { [ "$(status_of a replication link)" = working ]; }

cat >"$T/waits.py" <<'PY'
# waits.py DIRECTORY PID: each operation in a process of its own, all made ready first; then PID is stopped.
import os, select, signal, subprocess, sys, time

BODY = r"""
import os, sys
where, what = sys.argv[1:]
os.mkdir(where)
name = where + "/file"
flags = os.O_CREAT | os.O_RDWR
fd = os.open(name, flags, 0o600)
def old(): # a file whose maker has closed it
    global fd
    os.close(fd)
    fd = os.open(name, os.O_RDWR)
os.write(fd, b"first")
if not what.startswith("own-") and what != "chmod-of-open":
    old()
if what == "chmod-of-open":
    pid = os.fork()
    if pid:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
if what == "close":
    os.close(os.open(name, os.O_RDONLY))
operations = {
    "mkdir": lambda: os.mkdir(where + "/new"), "create": lambda: os.open(where + "/new", flags),
    "rename": lambda: os.rename(name, name + "2"), "unlink": lambda: os.unlink(name),
    "link": lambda: os.link(name, name + "2"), "symlink": lambda: os.symlink("x", where + "/new"),
    "chmod": lambda: os.chmod(name, 0o640), "fchmod": lambda: os.fchmod(fd, 0o640),
    "utimes": lambda: os.utime(name, (5, 5)), "setxattr": lambda: os.setxattr(name, "user.a", b"x"),
    "truncate": lambda: os.truncate(name, 3), "chmod-of-open": lambda: os.chmod(name, 0o640),
    "write": lambda: os.write(fd, b"second"), "fsync": lambda: os.fsync(fd), "read": lambda: os.pread(fd, 5, 0),
    "close": lambda: (os.write(fd, b"third"), os.close(fd)), "stat": lambda: os.stat(name),
    "own-chmod": lambda: os.fchmod(fd, 0o640), "own-chown": lambda: os.fchown(fd, 5, 5),
    "own-utimes": lambda: os.utime(fd, (5, 5)), "own-setxattr": lambda: os.setxattr(fd, "user.a", b"x"),
    "own-close": lambda: (os.fchmod(fd, 0o640), os.close(fd)),
    "own-after-close": lambda: (os.close(os.dup(fd)), os.fchmod(fd, 0o640)),
}
os.write(1, b"ready\n")
sys.stdin.readline()
operations[what]()
os.write(1, b"done\n")
if what != "own-close":
    sys.stdin.readline() # what is open stays so
"""
NAMES = ("mkdir create rename unlink link symlink chmod fchmod utimes setxattr truncate chmod-of-open write fsync read "
         "close stat own-chmod own-chown own-utimes own-setxattr own-close own-after-close").split()
where, peer = sys.argv[1], int(sys.argv[2])
os.mkdir(where)
ready = {}
for name in NAMES:
    process = subprocess.Popen([sys.executable, "-c", BODY, f"{where}/{name}", name], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n", name
    ready[name] = process
def stopped():
    tasks = [open(f"/proc/{peer}/task/{task}/stat").read().rsplit(") ", 1)[1][0] for task in os.listdir(f"/proc/{peer}/task")]
    return set(tasks) == {"T"}
os.kill(peer, signal.SIGSTOP)
while not stopped():
    time.sleep(0.01)
try:
    for process in ready.values():
        process.stdin.write("\n")
        process.stdin.flush()
    returned, until = set(), time.monotonic() + 2.5
    files = {process.stdout.fileno(): name for name, process in ready.items()}
    while time.monotonic() < until:
        for fd in select.select(list(files), [], [], 0.2)[0]:
            got = os.read(fd, 100)
            assert got == b"done\n", (files[fd], got)
            returned.add(files.pop(fd))
finally:
    os.kill(peer, signal.SIGCONT)
for fd, name in files.items():
    got = os.read(fd, 100)
    assert got == b"done\n", (name, got)
for process in ready.values():
    process.stdin.close()
    assert process.wait() == 0
print("waits:", " ".join(name for name in NAMES if name not in returned))
PY

check() { # ACKNOWLEDGE, operations that wait
    volume_set volume acknowledge "$1"
    start_node a || bail "node a does not start"
    start_node b || bail "node b does not start"
    ok "both are in sync, acknowledge = $1" wait_until 30 peer_in_sync
    is "$(timeout 60 python3 "$T/waits.py" "$a/$1" "${node_pid[b]}" 2>&1)" "waits: $2" "what waits, and all is answered"
    stop_node a
    stop_node b
}

names="mkdir create rename unlink link symlink chmod fchmod utimes setxattr truncate chmod-of-open"
check close "$names fsync close own-close own-after-close"
check write "$names write fsync close own-chmod own-chown own-utimes own-setxattr own-close own-after-close"
check never ""
