#!/bin/bash
# run.sh [-r repeats] [-s MiB] [-n files] [-o FILE] [SYSTEM…] — measures file systems side by side and prints medians and
# ratios. `make bench` runs it. Root; the figures are worth something on an otherwise idle machine only.
#
# SYSTEM: ext4 passthrough gluster moosefs baton-alone baton-close-clear baton-close-curve baton-write-clear
# baton-never-clear, and each Baton one with -million behind it (a volume that holds a million files). Default: all
# that this machine has, without the -million ones. In each repeat every system is set up afresh, measured and taken
# down, one after the other.
#
# BENCH_DIR: where all of them keep their data (default: TMPDIR or /tmp). PASSTHROUGH: libfuse's passthrough_hp.
# BENCH_TREE: a directory with a source tree to unpack and to clone (default:
# 12,000 files of /usr: libfuse's passthrough needs a descriptor for each).
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"
. "$here/systems.sh"
need_root
tap_ended=1 # this is no test: no plan at the end
set +u

repeats=3 size=1024 files=10000 out=
while getopts r:s:n:o: option; do
    case $option in
    r) repeats=$OPTARG ;;
    s) size=$OPTARG ;;
    n) files=$OPTARG ;;
    o) out=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
systems=("$@")
[ ${#systems[@]} -gt 0 ] || systems=(ext4 passthrough gluster moosefs baton-alone baton-close-clear baton-close-curve
    baton-write-clear baton-never-clear)
BENCH=$BATON_BUILD/tests/bench/bench
[ -x "$BENCH" ] || { echo "run.sh: $BENCH is not there; \"make bench\" builds it" >&2; exit 1; }
WORK=${BENCH_DIR:-${TMPDIR:-/tmp}}/$ID.work
mkdir -p "$WORK" || exit 1
cleanup_hooks+=('rm -rf --one-file-system "$WORK"')
FIGURES=$T/figures
: >"$FIGURES"

kind() { case $1 in baton-*) echo baton ;; *) echo "$1" ;; esac; }
drop_caches() { sync; for _ in 1 2 3; do echo 3 >/proc/sys/vm/drop_caches; done; }
seconds() { # COMMAND…: how long it takes
    local begin=$EPOCHREALTIME
    "$@" >"$T/.out" 2>&1 || { echo "run.sh: $*: $(tail -n 3 "$T/.out")" >&2; return 1; }
    awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }'
}
figure() { printf '%s\t%s\t%s\t%s\n' "$system" "$@" >>"$FIGURES"; }
per_second() { awk -v n="$1" -v s="$2" 'BEGIN { printf "%.1f", n / s }'; }

# ---- a source tree, as an archive and as a git repository ----
tree_make() {
    local list=$T/tree.list
    mkdir -p "$WORK/tree"
    if [ -n "${BENCH_TREE:-}" ]; then
        cp -a "$BENCH_TREE/." "$WORK/tree"
    else
        (cd / && find usr -xdev -type f -size -64k 2>/dev/null | head -n 12000 >"$list" &&
            tar -cf - -T "$list" | tar -xf - -C "$WORK/tree")
    fi
    tree_files=$(find "$WORK/tree" -type f | wc -l)
    tar -cf "$WORK/tree.tar" -C "$WORK/tree" .
    git -c init.defaultBranch=main init -q "$WORK/tree" &&
        git -C "$WORK/tree" add -A &&
        git -C "$WORK/tree" -c user.name=bench -c user.email=bench@localhost commit -qm "the tree"
}
# libfuse's passthrough cannot set times of symlinks and of its root: that is no reason to leave the figure out.
unpack() {
    tar -xf "$WORK/tree.tar" -C "$1" 2>"$T/tar.err" || ! grep -v 'Cannot utime\|Exiting with failure' "$T/tar.err"
}
trees() {
    local time
    mkdir "$DIR/unpacked"
    drop_caches
    time=$(seconds unpack "$DIR/unpacked") && figure "unpack a tree" "$(per_second $tree_files "$time")" files/s
    drop_caches
    time=$(seconds git clone -q --no-local "$WORK/tree" "$DIR/clone") && figure "git clone" "$(per_second $tree_files "$time")" files/s
    drop_caches
    time=$(seconds git -C "$DIR/clone" status) && figure "git status, cold" "$(per_second $tree_files "$time")" files/s
    time=$(seconds rm -rf "$DIR/unpacked" "$DIR/clone") && figure "rm -rf" "$(per_second $((2 * tree_files)) "$time")" files/s
}

# ---- memory of the daemons: the highest sum seen, every 0.2 s ----
memory_watch() {
    local pid anonymous=0 file=0 a f
    while sleep 0.2; do
        a=0 f=0
        for pid in $PIDS; do
            while read -r key value _; do
                case $key in
                RssAnon:) a=$((a + value)) ;;
                RssFile:) f=$((f + value)) ;;
                esac
            done 2>/dev/null <"/proc/$pid/status"
        done
        [ $a -gt $anonymous ] && anonymous=$a
        [ $f -gt $file ] && file=$f
        echo "$anonymous $file" >"$T/memory"
    done
}

measure() {
    local kind
    system=$1
    kind=$(kind "$system")
    echo "# $(date +%T) $system, repeat $repeat" >&2
    if ! "up_$kind" "$system"; then
        echo "run.sh: $system does not start; left out" >&2
        show_logs >&2
        return
    fi
    memory_watch &
    local watcher=$!
    test_pids+=("$watcher")
    mkdir "$DIR/bench"
    "$BENCH" -s "$size" -n "$files" "$DIR/bench" >"$T/bench.out" 2>"$T/bench.err" || cat "$T/bench.err" >&2
    while IFS=$'\t' read -r name value unit; do
        figure "$name" "$value" "$unit"
    done <"$T/bench.out"
    trees
    kill "$watcher" 2>/dev/null
    wait "$watcher" 2>/dev/null
    if [ -n "$PIDS" ] && [ -s "$T/memory" ]; then
        read -r anonymous file <"$T/memory"
        figure "memory, RssAnon" $((anonymous / 1024)) MiB
        figure "memory, RssFile" $((file / 1024)) MiB
    fi
    rm -f "$T/memory"
    cd /
    "down_$kind"
}

present=()
for system in "${systems[@]}"; do
    what=
    declare -F "missing_$(kind "$system")" >/dev/null && what=$("missing_$(kind "$system")")
    if [ -n "$what" ]; then
        echo "# $system is left out: it needs $what" >&2
    else
        present+=("$system")
    fi
done
tree_make
for ((repeat = 1; repeat <= repeats; repeat++)); do
    for system in "${present[@]}"; do
        measure "$system"
    done
done
python3 "$here/table.py" "$FIGURES" "${present[@]}" | tee ${out:+"$out"}
[ -z "$out" ] || cp "$FIGURES" "$out.figures"
