#!/bin/bash
# catchup.sh [-r repeats] [-n files] [-s MiB] [-m megabits] — how fast a node gets what it missed. Two nodes in network namespaces; one of
# them misses MiB of large files and `files` small ones (and, for the catch-up, as many changes of them), then
#   catch-up   gets it from the journal, until it is in the in-sync set,
#   full       is built anew, empty, until then,
#   full again is built anew where it has most of it: a tenth of the small files has changed,
# beside `cp -a` and `rsync -a` of the same tree, from the primary's mount and from a plain directory, to another directory of
# the same disk, with its sync. -m limits the line between the nodes (tbf). Prints seconds and MiB a second, medians.
# `make bench-catchup` runs it. Root; the figures are worth something on an otherwise idle machine only.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"
need_root
tap_ended=1 # this is no test: no plan at the end
set +u

repeats=3 files=20000 size=1024 megabits=0
while getopts r:n:s:m: option; do
    case $option in
    r) repeats=$OPTARG ;;
    n) files=$OPTARG ;;
    s) size=$OPTARG ;;
    m) megabits=$OPTARG ;;
    *) exit 2 ;;
    esac
done
in_sync() { [ "$(status_of a replication link)" = working ]; }
trimmed() { [ "$(status_of a state journal_first)" -gt 2 ]; }
seconds() { date +%s.%N; }
note() { # NAME BEGIN MiB
    awk -v begin="$2" -v end="$(seconds)" -v mib="$3" -v name="$1" 'BEGIN {
        printf "%s\tseconds\t%.2f\ts\n%s\trate\t%.1f\tMiB/s\n", name, end - begin, name, mib / (end - begin) }' >>"$T/figures"
}
tree() { # DIRECTORY
    python3 - "$1" "$files" "$size" <<'PY'
import os, sys
top, files, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for i in range(files):
    if i % 500 == 0:
        os.makedirs(f"{top}/small/{i // 500}")
    with open(f"{top}/small/{i // 500}/{i}", "wb") as file:
        file.write(os.urandom(4096 if i % 4 else 20000))
os.mkdir(f"{top}/large")
for i in range(size // 64):
    with open(f"{top}/large/{i}", "wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))
PY
}
settle() { # what is still on its way to the disk is nobody's that is measured
    sync
    sleep 3
    echo 3 >/proc/sys/vm/drop_caches
}

for ((repeat = 1; repeat <= repeats; repeat++)); do
    echo "# $(date +%T) repeat $repeat" >&2
    network_up
    if [ "$megabits" != 0 ]; then
        for node in a b; do
            tc -n "$ID-$node" qdisc add dev eth0 root tbf rate "${megabits}mbit" burst 256k latency 50ms || bail "no tbf"
        done
    fi
    volume_create --transport clear
    volume_set journal history 0
    volume_set journal size 1MiB
    volume_set journal limit 64GiB
    volume_format
    start_node a || bail "node a does not start"
    start_node b || bail "node b does not start"
    wait_until 30 in_sync || bail "not in sync"
    stop_node b
    tree "$(mount_of a)"
    mib=$(du -sm --apparent-size "$(mount_of a)" | cut -f 1)
    settle
    begin=$(seconds)
    start_node b || bail "node b does not start"
    wait_until 600 in_sync || bail "no catch-up"
    note catch-up "$begin" "$mib"

    stop_node b
    stop_node a
    volume_set journal limit 1MiB
    rm -rf "$(store_of b)" "$(store_of b).register"
    "$BATON" format --config "$CONFIG" --node b >"$T/.out" || bail "$(cat "$T/.out")"
    start_node a || bail "node a does not start"
    touch "$(mount_of a)/more"
    wait_until 60 trimmed || bail "the journal is not trimmed"
    settle
    begin=$(seconds)
    start_node b || bail "node b does not start"
    wait_until 600 in_sync || bail "no full synchronization"
    note "full synchronization" "$begin" "$mib"
    grep -q "has taken the old one's place" "$T/b.log" || bail "b was not built anew"

    first=$(status_of b state lsn)
    stop_node b
    find "$(mount_of a)/small" -type f -name '*7' | while read -r file; do echo changed >"$file"; done
    head -c 8M /dev/urandom >"$(mount_of a)/more"
    trimmed_since() { touch "$(mount_of a)/more"; [ "$(status_of a state journal_first)" -gt $((first + 1)) ]; }
    wait_until 60 trimmed_since || bail "the journal is not trimmed"
    settle
    begin=$(seconds)
    start_node b || bail "node b does not start"
    wait_until 600 in_sync || bail "no full synchronization"
    note "full, most is there" "$begin" "$mib"
    stop_node b

    mkdir "$T/plain" "$T/copies"
    settle
    for from in mount plain; do
        source=$(mount_of a)
        [ $from = mount ] || source=$T/plain
        for tool in "cp -a" "rsync -a"; do
            settle
            begin=$(seconds)
            $tool "$source/." "$T/copies/" && sync -f "$T/copies" || bail "$tool failed"
            note "$tool of a $from" "$begin" "$mib"
            if [ $from = mount ] && [ "$tool" = "rsync -a" ]; then mv "$T/copies"/* "$T/plain/"; fi
            rm -rf "$T/copies" && mkdir "$T/copies"
        done
    done
    stop_node a
    for node in "${namespaces[@]}"; do ip netns delete "$node"; done
    namespaces=()
    rm -rf "$T/a" "$T/b" "$T/plain" "$T/copies" "$CONFIG" "$CONFIG".* "$T"/*.log
done
python3 "$here/ratios.py" "$T/figures" "rsync -a of a plain"
