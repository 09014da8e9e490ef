#!/bin/bash
# NFSv3 locks of clients with a Linux kernel (lockd, and rpc.statd beside it): what one of them has locked it has after a
# switchover and after the daemon was killed, and who waits for it gets it when it is released, not before.
# With BATON_LINUX_CLIENTS=1 only: it boots two kernels in qemu.
[ -n "${BATON_TEST_REAPS:-}" ] || BATON_TEST_REAPS=1 exec python3 -c 'import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)
os.execvp("bash", ["bash"] + sys.argv[1:])' "$0" "$@"
. "${BATON_SRC:-$(dirname "$0")/..}/tests/lib.sh"
. "$BATON_SRC/tests/sharing.sh"
. "$BATON_SRC/tests/linux-client.sh"
linux_client_needs
shared_needs
shared_sections() {
    cat <<END
[export nfs]
address = $service/24
path = /share
squash = none
protocols = 3
nfs3-locks = yes
grace = 10
END
}
printf '%s\n' "127.0.0.1 localhost" "$service share" "10.77.0.51 one" "10.77.0.52 two" >"$T/hosts"
linux_client_image rpcbind rpc.statd || bail "the clients' file system could not be made"
shared_up
linux_client_boot one 10.77.0.51 && linux_client_boot two 10.77.0.52 || bail "qemu does not start"
options=vers=3,addr=$service,proto=tcp,port=2049,mountaddr=$service,mountproto=tcp,mountport=20048
for client in one two; do
    ok "client $client boots" linux_client_ready $client || bail "$(tail -n 5 "$T/$client.console" "$T/$client.qemu")"
    guest $client "mkdir -p /run/rpcbind /var/lib/nfs/sm /var/lib/nfs/sm.bak /mnt/3; chown 101 /run/rpcbind; rpcbind"
    guest_run $client "statd.$client" rpc.statd -F -d -L
    ok "... with an rpc.statd" wait_until 30 guest $client "[ -e /run/rpc.statd.pid ]"
    ok "... and mounts" guest $client "mount -t nfs -o $options $service:/share /mnt/3 && grep -q ' /mnt/3 nfs ' /proc/mounts" ||
        bail "$(guest $client dmesg | tail -n 5; tail -n 5 "$T/statd.$client")"
done

locker() { # CLIENT JOB FILE
    guest_run "$1" "$2" mount-client lock "/mnt/3/$3"
    ok "$1 opens $3" wait_until 60 grep -q ok "$T/$2" || bail "$(cat "$T/$2")"
}
locker one holds lock
is "$(guest_ask holds wait)" ok "one locks it"
is "$(guest_ask holds "put first")" ok "... and writes"
locker two tries lock
is "$(guest_ask tries take)" "no: Resource temporarily unavailable" "two does not get it"
locker two waits lock
guest_tell waits wait
goes_on() { # WHAT COMMAND…
    local what=$1
    shift
    "$@" >"$T/.fault" 2>&1 || diag "$what: $* has failed: $(cat "$T/.fault")"
    is "$(guest_ask holds "put $what")" ok "$what: one writes"
    is "$(guest_ask tries take)" "no: Resource temporarily unavailable" "$what: two is refused, when the time of grace is over"
    is "$(wc -l <"$T/waits")" 1 "... and has not got what it waits for"
    is "$(guest one dmesg | grep -iE 'lockd.*(fail|lost)|lost .*lock')" "" "one's kernel has lost no lock"
}
settled
goes_on "a switchover" hand_over "$now"
settled
goes_on "the daemon killed" crash_node "$now"
settled
is "$(guest_ask holds "get")" "ok the daemon killed" "the file is one's"
is "$(guest_ask holds drop)" ok "one releases the lock"
got() { [ "$(tail -n 1 "$T/waits")" = ok ] && [ "$(wc -l <"$T/waits")" = 2 ]; }
ok "two, which has waited all the time, gets it" wait_until 90 got
is "$(guest_ask holds take)" "no: Resource temporarily unavailable" "... and one does not"
stop_node a
stop_node b
