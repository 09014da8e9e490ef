#!/bin/bash
# The main job on real input: a tree of more than 20,000 files comes into the primary's mount with cp -a, tar and rsync;
# git and SQLite work in it; both mounts are equal in content and all metadata. While writers work the primary is killed
# and the standby promoted: everything acknowledged is there. Work goes on at the other node, the first one comes back as
# standby and becomes equal.
#
# The tree is from Debian's package linux-source-6.1 (installed, or fetched with apt-get). BATON_TEST_TREE=DIR takes
# another one; BATON_TEST_FILES=N is content with fewer files.
. "$(dirname "$0")/lib.sh"
here=$BATON_SRC/tests
package=linux-source-6.1
need_root
for tool in git rsync sqlite3 setfacl python3 xz; do
    command -v "$tool" >/dev/null || skip_all "needs $tool; tools/run-tests installs it"
done

took() { # runs a command as a test, and says how long it took
    local begin
    begin=$(date +%s%N)
    ok "$@"
    diag "$((($(date +%s%N) - begin) / 1000000)) ms"
}

fetch_tree() {
    local archive=/usr/src/$package.tar.xz
    mkdir "$T/tree" "$T/package"
    if [ -n "${BATON_TEST_TREE:-}" ]; then
        cp -a "$BATON_TEST_TREE/." "$T/tree/"
        return
    fi
    if [ ! -e "$archive" ]; then
        (cd "$T/package" && apt-get -qq download "$package") >"$T/.out" 2>&1 || {
            apt-get -qq update && (cd "$T/package" && apt-get -qq download "$package")
        } >"$T/.out" 2>&1 || skip_all "$package cannot be fetched: $(tail -n 1 "$T/.out")"
        dpkg-deb --fsys-tarfile "$T/package/"*.deb | tar xO "./usr/src/$package.tar.xz" >"$T/package/source.tar.xz"
        archive=$T/package/source.tar.xz
    fi
    tar xJf "$archive" -C "$T/tree" --strip-components=1 --wildcards '*/arch' '*/Documentation' || bail "$archive: tar failed"
    rm -rf "$T/package"
}

# Names below both mounts. In the end `baton verify` compares every row of the volume.
both_equal() {
    local name
    for name; do
        "$here/treecmp" --same --settle 60 "$(mount_of a)/$name" "$(mount_of b)/$name" || return 1
    done
}
link_is() { [ "$(status_of "$1" replication link)" = "$2" ]; }
# tar keeps no sockets, and of times what fits into its headers, which is all here.
tar_equal() {
    local out
    out=$("$here/treecmp" "$T/tree" "$a/tar")
    [ "$(grep -vc -e "odd/socket'" -e "^b'./odd': mtime" -e differences -e 'names are equal' <<<"$out")" = 0 ] || { echo "$out"; return 1; }
}
rsync_idle() {
    local out
    out=$(rsync -aHAX --sparse --numeric-ids --itemize-changes "$T/tree/" "$a/rsync/") && [ -z "$out" ] || { echo "$out"; return 1; }
}

fetch_tree
files=$(find "$T/tree" -type f | wc -l)
ok "the tree has enough files ($files)" [ "$files" -ge "${BATON_TEST_FILES:-20000}" ]
"$here/main_job/decorate" "$T/tree" || bail "decorate failed"

volume_up
a=$(mount_of a)
b=$(mount_of b)
ok "in sync" wait_until 60 link_is a working

# ---- copies ----
took "cp -a" cp -a "$T/tree" "$a/cp"
took "tar" bash -c "mkdir '$a/tar' && tar c -C '$T/tree' --xattrs --xattrs-include='*' --acls --sparse . |
    tar x -C '$a/tar' --xattrs --xattrs-include='*' --acls --numeric-owner -p"
took "rsync" rsync -aHAX --sparse --numeric-ids "$T/tree/" "$a/rsync/"
took "the copy of cp is equal to the source" "$here/treecmp" "$T/tree" "$a/cp"
took "the copy of tar, too" tar_equal
took "the copy of rsync, too" "$here/treecmp" "$T/tree" "$a/rsync"
took "rsync finds nothing to do" rsync_idle
took "the copy of tar is equal on both mounts" both_equal tar

# ---- git and SQLite ----
export HOME=$T GIT_CONFIG_NOSYSTEM=1
git config --global user.name test && git config --global user.email test@localhost
git config --global gc.auto 0 && git config --global init.defaultBranch main
work_git() (
    set -e
    mkdir "$a/project" && cp -a "$directory/." "$a/project/" && cd "$a/project"
    git init -q
    git add -A .
    git commit -qm one
    git checkout -qb branch
    find . -name '*.c' -type f | head -n 300 | xargs -r -d '\n' sed -i '1i/* changed */'
    git commit -qam two --allow-empty
    mkdir moved
    git mv -k -- ./*/ moved/
    git commit -qm three --allow-empty
    git checkout -q main
    git merge -q --no-edit branch
    git gc -q
    git fsck --full --strict
    git clone -q . "$a/clone"
    [ -z "$(git status --porcelain)" ]
)
directory=$T/tree/arch/arm
[ -d "$directory" ] || directory=$T/tree
took "git: init, add, commit, branch, merge, gc, fsck, clone" work_git
work_sqlite() {
    local mode=$1 i
    { echo "pragma journal_mode = $mode; create table if not exists t (id integer primary key, text);"
      for ((i = 0; i < 100; i++)); do
          echo "begin; insert into t (text) select hex(randomblob(200)) from generate_series(1, 50); update t set text = text || $i where id % 7 = $i % 7; commit;"
      done
      echo "vacuum;"; } | sqlite3 "$a/$mode.db" && [ "$(sqlite3 "$a/$mode.db" 'pragma integrity_check')" = ok ]
}
took "SQLite with a rollback journal" work_sqlite delete
took "SQLite with a write-ahead log" work_sqlite wal
mkdir "$a/databases" && mv "$a"/*.db "$a/databases/"
took "both mounts are equal in it" both_equal project clone databases
is "$(cd "$b/clone" && git -c safe.directory='*' rev-parse HEAD)" "$(cd "$a/project" && git rev-parse HEAD)" "git reads the standby's mount"

# ---- the primary dies ----
for i in 1 2 3; do
    "$here/main_job/writer" work "$a/work$i" "$T/work$i.journal" 600 "$i" >"$T/work$i.out" 2>&1 &
    writers[i]=$!
    test_pids+=($!)
done
enough() { [ "$(cat "$T"/work?.journal | grep -c '"done"')" -ge "${BATON_TEST_OPERATIONS:-3000}" ]; }
ok "writers are at work" wait_until 120 enough
kill_node a
for i in 1 2 3; do
    wait "${writers[i]}"
done
like "$(cat "$T"/work?.out)" "ended by" "the primary is killed under them"
took "the standby is promoted" "$BATON" promote --config "$CONFIG" --node b
for i in 1 2 3; do
    ok "writer $i: everything acknowledged is there" "$here/main_job/writer" check "$b/work$i" "$T/work$i.journal"
    diag "$(cat "$T/.out")"
done

# ---- work goes on, the first node comes back ----
work_on() (
    set -e
    cd "$b/project"
    git checkout -q branch
    echo more >>Kconfig
    git add Kconfig
    git commit -qm four
    git fsck --full
    [ "$(sqlite3 "$b/databases/wal.db" 'insert into t (text) values (1); pragma integrity_check')" = ok ]
    rm -rf "$b/tar"
    cp -a "$b/cp" "$b/again"
    "$here/main_job/writer" work "$b/work4" "$T/work4.journal" 5 4
)
took "the same tree is worked on at the other node" work_on
ok "the first node starts again" start_node a
ok "... as standby" [ "$(status_of a role)" = standby ]
"$here/main_job/writer" work "$b/work5" "$T/work5.journal" 5 5 >"$T/work5.out" 2>&1 &
test_pids+=($!)
writers[5]=$!
ok "... and gets in sync, while work goes on" wait_until 120 link_is b working
wait "${writers[5]}"
took "both mounts are equal again" both_equal again project databases work1 work2 work3 work4 work5
for i in 4 5; do
    ok "writer $i: everything is there on the first node" "$here/main_job/writer" check "$a/work$i" "$T/work$i.journal"
done
took "... in every row" "$BATON" verify --config "$CONFIG" --node a
ok "the journal is good on a" "$BATON" journal verify --config "$CONFIG" --node a
ok "... and on b" "$BATON" journal verify --config "$CONFIG" --node b
ok "a stops" stop_node a
ok "b stops" stop_node b
took "the store of a is whole" "$BATON" check --config "$CONFIG" --node a --data
took "the store of b is whole" "$BATON" check --config "$CONFIG" --node b --data
