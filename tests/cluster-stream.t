# What is done at the primary's mount is seen at the standby's, in content and metadata; the standby takes no changes.
. "$(dirname "$0")/lib.sh"

volume_up
a=$(mount_of a) b=$(mount_of b)

in_sync() { [ "$(status_of a replication link)" = working ] && [ "$(status_of b replication link)" = working ]; }
ok "both nodes say working" wait_until 60 in_sync

# Names, types, modes, owners, sizes, times to the nanosecond (ctime too), inode numbers, links; then content.
describe() {
    (cd "$1" && find . -printf '%p %y %m %U:%G %s %T@ %C@ %i %n %l\n' | sort)
    (cd "$1" && find . -type f -print0 | sort -z | xargs -0 -r sha256sum)
    (cd "$1" && getfattr -R -d -m - --absolute-names . 2>/dev/null)
}
same() {
    describe "$a" >"$T/a.tree"
    describe "$b" >"$T/b.tree"
    cmp "$T/a.tree" "$T/b.tree" || { diff "$T/a.tree" "$T/b.tree" | head -20; return 1; }
}

make_tree() {
    mkdir -p "$a/d/e" &&
        for i in $(seq 300); do echo "file $i" >"$a/d/f$i"; done &&
        head -c 5000000 /dev/urandom >"$a/d/large" &&
        ln "$a/d/f1" "$a/d/e/link" && ln -s ../f2 "$a/d/e/symlink" && mkfifo "$a/d/fifo" &&
        truncate -s 1G "$a/d/sparse" && echo end >>"$a/d/sparse" &&
        chmod 4711 "$a/d/f3" && chown 12:34 "$a/d/f4" && touch -d '2001-02-03 04:05:06.789012345' "$a/d/f5" &&
        setfattr -n user.note -v "a note" "$a/d/f6" && mv "$a/d/f7" "$a/d/e/moved" && rm "$a/d/f8"
}
ok "a tree is made at the primary" make_tree
ok "the standby shows the same" wait_until 60 same

# Its kernel has cached all of that by now.
ok "changes are made" sh -c "echo more >>$a/d/f9; rm $a/d/f10; mv $a/d/f11 $a/d/f12; mkdir $a/d/f10; chmod 600 $a/d/f13"
ok "the standby shows them, whatever was cached" wait_until 60 same

fails "the standby takes no changes" touch "$b/no"
like "$(cat "$T/.out")" "Read-only file system" "and says that it is read-only"

ok "node b stops" stop_node b
ok "node a stops" stop_node a
