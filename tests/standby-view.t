#!/bin/bash
# The standby's mount shows what the primary does, although its kernel caches pages, missing names, attributes and ACLs;
# it takes no changes; promoted it is writable in place, with the files that were open, and forgets nothing stale; after
# a switchover back the old primary shows what the new one does.
. "$(dirname "$0")/lib.sh"

volume_up
a=$(mount_of a)
b=$(mount_of b)

content_is() { [ "$(cat "$1")" = "$2" ]; }
shows() { # FILE CONTENT DESCRIPTION
    wait_until 60 content_is "$1" "$2"
    is "$(cat "$1" 2>&1)" "$2" "$3"
}

echo one >"$a/file"
shows "$b/file" one "the standby shows a new file"
echo two, longer >"$a/file"
shows "$b/file" "two, longer" "and its new content"

# An open file, and a mapped page, see the change as well.
cat >"$T/reader.py" <<'PY'
import mmap, os, sys, time
path, deadline = sys.argv[1], time.time() + 10
fd = os.open(path, os.O_RDONLY)
page = mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ)
before = page[:3], os.pread(fd, 3, 0)
print("mapped", flush=True)
while (page[:3], os.pread(fd, 3, 0)) == before or page[:3] != os.pread(fd, 3, 0):
    if time.time() > deadline:
        sys.exit("still %r and %r" % (page[:3], os.pread(fd, 3, 0)))
    time.sleep(0.01)
print(page[:3].decode())
PY
head -c 4096 /dev/zero | tr '\0' x >"$a/mapped"
wait_until 60 test -s "$b/mapped"
python3 "$T/reader.py" "$b/mapped" >"$T/reader.out" 2>&1 &
reader=$!
test_pids+=("$reader")
wait_until 60 grep -q mapped "$T/reader.out"
printf new | dd of="$a/mapped" conv=notrunc status=none
wait "$reader"
is "$(tail -n 1 "$T/reader.out")" new "a page that is mapped there changes with it"

ls "$b/later" >/dev/null 2>&1
echo here >"$a/later"
shows "$b/later" here "a name that was missing before is found"
mv "$a/later" "$a/moved"
ok "a renamed file goes" wait_until 60 test ! -e "$b/later"
shows "$b/moved" here "and comes under its new name"
rm "$a/moved"
ok "a removed one goes" wait_until 60 test ! -e "$b/moved"
mkdir "$a/directory"
touch "$a/directory/"{1,2,3}
three() { [ "$(ls "$b/directory" | wc -l)" = "$1" ]; }
ok "a directory's list" wait_until 60 three 3
rm "$a/directory/2"
ok "changes with it" wait_until 60 three 2
chmod 640 "$a/file"
mode_is() { [ "$(stat -c %a "$1")" = "$2" ]; }
ok "a mode changes with it" wait_until 60 mode_is "$b/file" 640
getfacl -c "$b/file" >/dev/null 2>&1
setfacl -m u:1234:rw "$a/file"
acl_has() { getfacl -cn "$1" 2>/dev/null | grep -q "$2"; }
ok "an ACL, too" wait_until 60 acl_has "$b/file" user:1234:rw-

fails "nothing can be created on the standby" touch "$b/new"
like "$(cat "$T/.out")" "Read-only file system" "because it is read-only"
fails "nor removed" rm -f "$b/file"
fails "nor written" bash -c "echo x >>'$b/file'"
is "$(cat "$b/file")" "two, longer" "and nothing has changed"

# The primary dies; its last names are known as missing on b, and a file is open there.
ls "$b/after" "$b/directory/4" >/dev/null 2>&1
exec 7<"$b/file"
kill_node a
ok "b is promoted" "$BATON" promote --config "$CONFIG" --node b --force
is "$(cat <&7)" "two, longer" "a file that was open on the standby can still be read"
exec 7<&-
ok "the mount is writable" touch "$b/after" "$b/directory/4"
is "$(ls "$b/directory" | tr '\n' ' ')" "1 3 4 " "and its directories are right"
echo three >"$b/file"
is "$(cat "$b/file")" three "what is written is read"

ok "a comes back" start_node a
shows "$a/file" three "and shows what b did"
in_sync() { [ "$(status_of b replication link)" = working ]; }
wait_until 60 in_sync
ok "roles are changed back" "$BATON" switchover --config "$CONFIG" --node b --to a
# A directory that is opened by a while it is the primary, and stays open.
cat >"$T/lister.py" <<'PY'
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
for line in sys.stdin:
    names = [os.listdir(fd) for i in range(2)][1] # the second one out of the cache, if there is one
    print(" ".join(sorted(names)), flush=True)
PY
coproc lister { exec python3 "$T/lister.py" "$a/directory"; }
lister_pid=$lister_PID
test_pids+=("$lister_pid")
listed() { # into $names
    echo list >&"${lister[1]}"
    read -r -t 20 -u "${lister[0]}" names
}
listed_is() { listed && [ "$names" = "$1" ]; }
ok "an open directory is listed" listed_is "1 3 4"
wait_until 60 eval '[ "$(status_of a replication link)" = working ]'
ok "roles change" "$BATON" switchover --config "$CONFIG" --node a --to b
ok "it is listed on the standby" listed_is "1 3 4"
touch "$b/directory/5"
ok "where a name that came later is seen" wait_until 60 listed_is "1 3 4 5"
mv "$b/directory/1" "$b/one"
ok "and one that went is not" wait_until 60 listed_is "3 4 5"
eval "exec ${lister[1]}>&-" # it ends
wait "$lister_pid"
wait_until 60 eval '[ "$(status_of b replication link)" = working ]'
ok "roles change again" "$BATON" switchover --config "$CONFIG" --node b --to a

ok "a takes changes" bash -c "echo four >'$a/file'"
shows "$b/file" four "b, whose kernel had cached as a primary's, shows them"
rm "$a/after"
ok "names as well" wait_until 60 test ! -e "$b/after"
fails "b takes none" touch "$b/more"
stop_node b
stop_node a
is "$(mounts_below "$T" | wc -l)" 0 "both end and unmount"
