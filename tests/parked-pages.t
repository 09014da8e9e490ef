#!/bin/bash
# acknowledge = write, and the peer is gone: pages that were written through mmap reach the primary's store without
# waiting for it, however many there are, and reading goes on. A create that waits keeps its directory locked; a change of
# role, which makes the kernel forget that directory, is not held up by it and answers it.
. "$(dirname "$0")/lib.sh"

network_up
volume_create
volume_set lease duration 60s # the primary does not go on alone meanwhile
volume_set volume acknowledge write
volume_format
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
a=$(mount_of a)
in_sync() { [ "$(status_of a replication link)" = working ]; }
role_is() { [ "$(status_of "$1" role)" = "$2" ]; }

cat >"$T/mapper.py" <<'PY'
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
WRITE_AND_WAIT = 1 | 2 | 4 # sync_file_range: of the pages; nothing is asked of the file system itself
pages = [] # closing a file waits for the peer
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDWR)
    size = os.fstat(fd).st_size
    page = mmap.mmap(fd, size)
    pages.append(page)
    for at in range(0, size, 8192): # not side by side: a request each
        page[at:at + 4] = b"page"
    if libc.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(size), WRITE_AND_WAIT) < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
print("written", flush=True)
sys.stdin.read()
PY
ok "in sync" wait_until 60 in_sync
mkdir "$a/d" "$a/locked"
for i in 1 2 3 4; do head -c 2M /dev/zero >"$a/d/mapped$i"; done
head -c 100000 /dev/urandom >"$a/d/data"
sum=$(sha1sum <"$a/d/data")

network_cut b
coproc mapper { exec python3 "$T/mapper.py" "$a/d/mapped"{1,2,3,4} 2>&1; }
mapper_pid=$mapper_PID
test_pids+=("$mapper_pid")
read -r -t 60 -u "${mapper[0]}" answer || answer="no answer"
is "$answer" written "1024 pages are written back while nobody acknowledges"
echo 3 >/proc/sys/vm/drop_caches
is "$(timeout -s KILL 30 sha1sum <"$a/d/data")" "$sum" "another file is read"
is "$(timeout -s KILL 30 head -c 4 "$a/d/mapped4")" page "and what was mapped"

timeout -s KILL 120 touch "$a/locked/new" &
toucher=$!
test_pids+=($toucher)
waits() { grep -q request_wait_answer /proc/[0-9]*/task/*/wchan 2>/dev/null; }
ok "a create waits" wait_until 60 waits
ok "b is promoted by force" "$BATON" promote --force --config "$CONFIG" --node b
network_mend b
ok "a becomes a standby" wait_until 30 role_is a standby
wait $toucher
is "$?" 1 "the create is answered: it failed"
ok "its directory is listed" timeout -s KILL 30 ls -l "$a/locked"
ok "in sync again" wait_until 30 in_sync
is "$(ls "$a/locked" "$(mount_of b)/locked" | grep -c new)" 0 "and it is on neither node"
ok "b's directory takes another" touch "$(mount_of b)/locked/new"
eval "exec ${mapper[1]}>&-" # it ends
wait "$mapper_pid"
stop_node a
stop_node b
