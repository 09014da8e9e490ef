#!/bin/bash
# Files as they were: baton journal restore on the primary while it is written to, on the standby, and on a store at rest,
# at LSNs and times, against copies that were taken then. The volume is not touched. A damaged block costs its file alone.
. "$(dirname "$0")/lib.sh"
need_root
for program in setfattr setfacl; do
    command -v $program >/dev/null || skip_all "needs $program"
done

restore() { "$BATON" journal restore --config "$CONFIG" "$@"; }
last_lsn() { "$BATON" journal stat --json --config "$CONFIG" --node a | python3 -c 'import json,sys; print(json.load(sys.stdin)["to"])'; }
treecmp() { "$BATON_SRC/tests/treecmp" "$@"; }
# What the volume shows now is kept: $T/copy.N, ${lsn[N]}, ${time[N]}.
declare -a lsn time
remember() {
    lsn[$1]=$(last_lsn) || bail "no journal stat"
    time[$1]=$(date +%Y-%m-%dT%H:%M:%S.%N%:z)
    cp -a --sparse=always "$a/." "$T/copy.$1" || bail "cp"
    sleep 0.01
}

volume_up
a=$(mount_of a)
in_sync() { [ "$(status_of a replication link)" = working ]; }
ok "in sync" wait_until 60 in_sync

mkdir -p "$a/dir/sub" "$a/gone"
echo "version one" >"$a/dir/file"
echo "a version that will be damaged" >"$a/dir/bad"
head -c 300000 /dev/urandom >"$a/dir/big"
truncate -s 5M "$a/dir/sparse"
printf middle | dd of="$a/dir/sparse" bs=1 seek=2000000 conv=notrunc status=none
ln "$a/dir/file" "$a/gone/link"
ln -s ../dir/file "$a/gone/symlink"
mkfifo "$a/gone/fifo"
mknod "$a/gone/null" c 1 3
setfattr -n user.colour -v red "$a/dir/file"
setfattr -n user.long -v "$(head -c 3000 /dev/zero | tr '\0' x)" "$a/dir/sub"
setfacl -m u:1234:rw "$a/dir/big"
setfacl -d -m g:99:r "$a/dir/sub"
chown 12:34 "$a/dir/big"
touch -d "2001-02-03 04:05:06.7" "$a/dir/big"
for i in $(seq 300); do echo "small $i" >"$a/dir/sub/$i"; done
printf 'name\tof\nbytes\377' >"$a/dir/sub/$(printf 'a\tb\n\377')"
remember 1

echo "version two, longer" >"$a/dir/file"
truncate -s 100000 "$a/dir/big"
chmod 4711 "$a/dir/big"
setfattr -x user.colour "$a/dir/file"
setfattr -n user.shape -v round "$a/dir/file"
rm "$a"/dir/sub/1*
echo "replaces bad" >"$a/dir/new" && mv "$a/dir/new" "$a/dir/bad"
remember 2

rm -r "$a/gone"
mv "$a/dir" "$a/moved"
mkdir "$a/dir" && echo another >"$a/dir/file"
rm -r "$a/moved/sub"
printf overwritten | dd of="$a/moved/big" bs=1 seek=5000 conv=notrunc status=none
remember 3

before=$(last_lsn)
ok "as it was first, by LSN" restore --node a --at "${lsn[1]}" "$T/r1"
ok "... to the byte" treecmp "$T/copy.1" "$T/r1"
ok "as it was second, by time" restore --node a --at "${time[2]}" "$T/r2"
ok "... to the byte" treecmp "$T/copy.2" "$T/r2"
ok "as it is now" restore --node a --at "${lsn[3]}" "$T/r3"
ok "... to the byte" treecmp "$T/copy.3" "$T/r3"
is "$(last_lsn)" "$before" "the volume was not touched"
ok "at record 0" restore --node a --at 0 "$T/r0"
is "$(find "$T/r0" | wc -l)" 1 "... there was nothing"

# ---- on the standby, while the primary is written to ----
churning() {
    local i=0
    while :; do
        echo $((i++)) >"$a/churn.$((i % 50))"
        head -c 50000 /dev/zero >"$a/moved/big.$((i % 5))"
        rm -f "$a/churn.$(((i + 25) % 50))"
    done
}
churning &
test_pids+=($!)
churner=$!
ok "on the standby, under load" restore --node b --at "${lsn[1]}" "$T/b1"
ok "... to the byte" treecmp "$T/copy.1" "$T/b1"
utc=$(date -u -d "${time[2]}" +%Y-%m-%dT%H:%M:%S.%NZ)
ok "on the primary, under load, by a time in UTC, from far away" \
    env TZ=XYZ-9 "$BATON" journal restore --config "$CONFIG" --node a --at "$utc" "$T/a2"
ok "... to the byte" treecmp "$T/copy.2" "$T/a2"
kill $churner && wait $churner 2>/dev/null

# ---- paths ----
ok "two paths, one of them below the mount point" restore --node a --at "${lsn[1]}" gone/link "$a/dir/sub/" dir/sub/7 "$T/p1"
ok "... the directory" treecmp "$T/copy.1/dir/sub" "$T/p1/dir/sub"
is "$(cat "$T/p1/gone/link")" "version one" "... and the file, in its place"
is "$(stat -c '%a %Y' "$T/p1/gone")" "$(stat -c '%a %Y' "$T/copy.1/gone")" "... below a directory as it was"
is "$(cd "$T/p1" && echo * dir/* gone/*)" "dir gone dir/sub gone/link" "... and nothing else"
fails "a path that there was not" restore --node a --at "${lsn[1]}" moved/big gone/fifo "$T/p2"
like "$(cat "$T/.out")" "moved/big in the volume: No such file" "... says so"
ok "... and the other is there" test -p "$T/p2/gone/fifo"
restore --node a --at "${lsn[2]}" --json dir "$T/p3" >"$T/.out"
like "$(cat "$T/.out")" "^\{\"lsn\":${lsn[2]}.*\"problems\":0\}$" "--json"

# ---- refusals ----
fails "no time" restore --node a "$T/x"
fails "a filter" restore --node a --at "${lsn[1]}" --type write "$T/x"
fails "--path, which is of list" restore --node a --at "${lsn[1]}" --path dir "$T/x"
like "$(cat "$T/.out")" "name paths without --path" "... says what to do"
fails "--at for another action" "$BATON" journal list --config "$CONFIG" --node a --at 5
fails "no directory" restore --node a --at "${lsn[1]}"
fails "what is no time" restore --node a --at yesterday "$T/x"
like "$(cat "$T/.out")" "neither an LSN nor a time" "... says so"
fails "the future" restore --node a --at 2999-01-01 "$T/x"
fails "a record that there is not" restore --node a --at 99999999 "$T/x"
like "$(cat "$T/.out")" "the last one is" "... says which is the last"
fails "a time before the history" restore --node a --at "2001-01-01 00:00" "$T/x"
like "$(cat "$T/.out")" "reaches back to 2" "... says how far it reaches"
fails "a directory that is not empty" restore --node a --at "${lsn[1]}" "$T/r1"
like "$(cat "$T/.out")" "is not empty" "... says so"
ok "2h ago and such are times" bash -c "'$BATON' journal restore --config '$CONFIG' --node a --at 1ms '$T/ago'"

ok "into the volume itself" restore --node a --at "${lsn[1]}" dir/sub "$a/back"
ok "... the same" treecmp "$T/copy.1/dir/sub" "$a/back/dir/sub"
restore --node a --at "${lsn[1]}" dir/sub/7 "$T/quiet" 2>"$T/.err" >/dev/null
is "$(cat "$T/.err")" "" "nothing of the progress goes into a pipe"
python3 - "$BATON" "$CONFIG" "${lsn[1]}" "$T/shown" >"$T/.out" <<'END'
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn([sys.argv[1], "journal", "restore", "--config", sys.argv[2], "--node", "a",
                                              "--at", sys.argv[3], sys.argv[4]])))
END
like "$(cat "$T/.out")" "counting" "on a terminal there is some"
ok "... and the same files" treecmp "$T/copy.1" "$T/shown"

# ---- whoever asks badly, or stays ----
cat >"$T/ask.py" <<'END'
import json, os, socket, struct, sys
def ask(lsn):
    connection = socket.socket(socket.AF_UNIX)
    os.chdir(sys.argv[1])
    connection.connect("control")
    connection.settimeout(20)
    connection.sendall(json.dumps({"command": "history", "lsn": lsn}).encode() + b"\n")
    return connection, json.loads(connection.makefile("rb", buffering=0).readline())
def question(connection, kind, length=0, ino=1, at=0, name=b""):
    connection.sendall(struct.pack("<QQII", ino, at, kind, length) + name)
    head = b""
    while len(head) < 32:
        more = connection.recv(32 - len(head))
        if not more:
            return None
        head += more
    return struct.unpack("<QiIIIII", head)
lsn = int(sys.argv[2])
connection, ready = ask(lsn)
assert ready["ready"], ready
assert question(connection, 99)[1] < 0
assert question(connection, 2, ino=1 << 63)[1] < 0
assert question(connection, 3, ino=1)[1] < 0  # data of a directory
assert question(connection, 3, ino=1 << 40, at=(1 << 64) - 1)[1] <= 0
assert question(connection, 1, length=1 << 30) is None  # ends the connection
assert ask("x")[1]["errno"] and ask(-1)[1]["errno"]
held = [ask(lsn) for _ in range(4)]
assert all(ready.get("ready") for _, ready in held), held
refused = ask(lsn)[1]
assert "wait for one to end" in refused["error"], refused
print("good", flush=True)
held[0][0].settimeout(60)
assert held[0][0].recv(1) == b""  # batond ends it
END
python3 "$T/ask.py" "$(store_of b)" "${lsn[1]}" >"$T/asker.log" 2>&1 &
asker=$!
test_pids+=("$asker")
answered() { [ -s "$T/asker.log" ]; }
wait_until 30 answered
is "$(cat "$T/asker.log")" good "questions that make no sense are refused, and more than four at a time"

# ---- at rest, with a damaged block of a kept version ----
begin=$(date +%s)
ok "b stops while four read its history" stop_node b
ok "... in time" [ $(($(date +%s) - begin)) -lt 10 ]
ok "... and they are told" wait "$asker"
ok "at rest" restore --node b --at "${lsn[1]}" "$T/rest1"
ok "... to the byte" treecmp "$T/copy.1" "$T/rest1"
# A nearly full disk makes batond give up history. A look at a store at rest must not.
mkdir "$T/small" && mount -t tmpfs -o size=300M none "$T/small" || bail "no tmpfs"
cp -a --sparse=always "$(store_of b)" "$T/small/store" || bail "cp"
fallocate -l $(($(stat -f -c '%a * %S' "$T/small") - (90 << 20))) "$T/small/filler" || bail "no filler"
for look in first second; do
    ok "from a nearly full disk, $look look" "$BATON" journal restore --store "$T/small/store" --at "${lsn[1]}" "$T/full.$look"
    ok "... to the byte" treecmp "$T/copy.1" "$T/full.$look"
done
umount "$T/small"
python3 - "$(store_of b)" <<'END' || bail "no block to damage"
import glob, sys
for name in glob.glob(sys.argv[1] + "/data/*.seg"):
    with open(name, "r+b") as file:
        at = file.read().find(b"a version that will be damaged")
        if at >= 0:
            file.seek(at)
            file.write(b"A")
            sys.exit(0)
sys.exit(1)
END
fails "a damaged block of then" restore --node b --at "${lsn[1]}" "$T/bad1"
like "$(cat "$T/.out")" "dir/bad: bytes 0 and following are damaged" "... is told with its file"
rm "$T/copy.1/dir/bad" "$T/bad1/dir/bad"
touch -d "2001-01-01" "$T/copy.1/dir" "$T/bad1/dir"
ok "... and all others are restored" treecmp "$T/copy.1" "$T/bad1"
ok "a later version of that file is whole" restore --node b --at "${lsn[2]}" "$T/rest2"
ok "... to the byte" treecmp "$T/copy.2" "$T/rest2"
is "$(find "$(store_of a)" "$(store_of b)" -name 'history-*' | wc -l)" 0 "nothing is left in the stores"
ok "a stops" stop_node a
ok "baton check finds nothing in a" "$BATON" check --config "$CONFIG" --node a --data
