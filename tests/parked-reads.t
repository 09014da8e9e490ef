#!/bin/bash
# The peer is silent (stopped) and hundreds of changes wait for it: reading goes on, for each way that requests come in,
# and when the peer is back the changes are answered.
. "$(dirname "$0")/lib.sh"

WAITING=200
network_up
volume_create
volume_set lease duration 60s # the primary does not go on alone meanwhile
volume_format
a=$(mount_of a)

# Each waiting mkdir sleeps in the kernel, in a request.
last_arrived() { [ "$(cat /proc/[0-9]*/wchan 2>/dev/null | tr -c 'a-z_' '\n' | grep -c request_wait_answer)" -ge 1 ] && sleep 1; }
in_sync() { [ "$(status_of a replication link)" = working ]; }
no_connections() { [ -z "$(in_node a ss -Htn state established)" ]; }
waiting_is() { [ "$(jobs -pr | wc -l)" = "$1" ]; }

check_loop() { # REQUEST-LOOP
    local loop=$1 i jobs_before
    volume_set volume request-loop "$loop"
    start_node a || bail "node a does not start"
    start_node b || bail "node b does not start"
    # Each change in a directory of its own: the kernel keeps a directory locked while a change in it waits.
    ok "changes are answered, $loop" mkdir -p "$a/reads.$loop" $(eval "echo '$a/changes.$loop/'{1..$WAITING}")
    head -c 100000 /dev/urandom >"$a/reads.$loop/data"
    ok "in sync, $loop" wait_until 60 in_sync
    kill -STOP "${node_pid[b]}"
    jobs_before=$(jobs -pr | wc -l)
    for ((i = 1; i <= WAITING; i++)); do # on one processor, the worst case for queues that belong to processors
        taskset -c 0 mkdir "$a/changes.$loop/$i/new" &
    done
    ok "the changes arrive" wait_until 60 last_arrived "$a/changes.$loop"
    echo 3 >/proc/sys/vm/drop_caches
    ok "a file is read while changes wait" timeout 30 taskset -c 0 cat "$a/reads.$loop/data"
    ok "attributes are read" timeout 30 taskset -c 0 stat "$a/reads.$loop/data"
    ok "statfs answers" timeout 30 taskset -c 0 df "$a"
    ok "a directory is listed" timeout 30 taskset -c 0 ls -l "$a/changes.$loop"
    # The primary's side drops a connection that answers nothing, with what was on its way in it.
    network_cut b
    ok "the connections break" wait_until 40 no_connections
    network_mend b
    is "$(jobs -pr | wc -l)" $((jobs_before + WAITING)) "all the changes wait"
    kill -CONT "${node_pid[b]}"
    ok "the peer is back and they are answered" wait_until 60 waiting_is "$jobs_before"
    is "$(ls -d "$a/changes.$loop"/*/new | wc -l)" "$WAITING" "all were made"
    stop_node a
    stop_node b
}

check_loop device
if [ "$(cat /sys/module/fuse/parameters/enable_uring 2>/dev/null)" = Y ]; then
    check_loop io_uring
else
    skip 11 "FUSE over io_uring is not switched on in this kernel"
fi
