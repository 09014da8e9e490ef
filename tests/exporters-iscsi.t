#!/bin/bash
# Image files of a volume as iSCSI disks, by a real tgtd: what an initiator has synchronized is on the other node's disk; after
# a handover the disk has the same name, serial number, identifiers and content. stop does not wait for a tgtd that hangs.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/exporting.sh"
need_root
for tool in tgtd tgtadm iscsi-ls; do
    command -v $tool >/dev/null || skip_all "needs $tool; tools/run-tests installs it"
done
initiator=$BATON_BUILD/tests/iscsi-client
[ -x "$initiator" ] || skip_all "needs tests/iscsi-client; with libiscsi-dev configure makes it"
cleanup_hooks+=("exporters_end iscsi")
volume_up
client_up
ok "in sync" wait_until 60 in_sync
state_make a iscsi
echo the-secret-of-this >"$(mount_of a)/.baton/iscsi/secret"
chmod 600 "$(mount_of a)/.baton/iscsi/secret"
target=iqn.2026-01.invalid.baton:$VOLUME_ID
# One session; the steps are explained in iscsi-client.c.
steps() { client timeout -s KILL 20 "$initiator" "iscsi://$service/$target/$lun" "$@"; }
lun=1
common=("BATON_OPTION_LUNS=/images/disk1.img,64M /images/disk7.img,8M,lun=7" BATON_OPTION_INITIATORS=10.77.0.0/24)
options=("${common[@]}")

# ---- the first start ----
ok "check" exporter a iscsi check
ok "first start" serve_at a iscsi
diag "the first start took $took ms"
ok "it serves" timed exporter a iscsi monitor
diag "monitor took $took ms"
listening() { in_node "$1" ss -Hltn "sport = :3260" | awk '{ print $4 }' | sort; }
like "$(listening a | tr '\n' ' ')" "^10\.77\.0\.100:3260 127\.[0-9.]+:3260 $" "it listens at the volume's address, not at the node's"
client timeout -s KILL 20 iscsi-ls "iscsi://$service" >"$T/list"
is "$(cat "$T/list")" "Target:$target Portal:$service:3260,1" "the target is found, at its address alone"
ok "write, synchronize, read" steps write:1:0:4096 sync verify:1:0:4096
identity=$(steps identity)
like "$identity" "^BATON +disk1.img .*$(printf %s "${VOLUME_ID:0:12}" | od -An -tx1 -v | tr -d ' \n')" "the serial number comes from the volume's id"
is "$(lun=7 && steps size | head -n 1)" 16384 "the other disk, with its own number and size"
isnt_same() { [ "$(lun=7 && steps identity)" != "$identity" ]; }
ok "the other disk says that it is another" isnt_same
ok "discarding makes a hole" eval 'before=$(stat -c %b "$(mount_of a)/images/disk1.img") && steps unmap:0:2048 && [ "$(stat -c %b "$(mount_of a)/images/disk1.img")" -lt "$before" ]'

# ---- what a write and a SYNCHRONIZE CACHE wait for ----
restart() { # at a, with VARIABLE=VALUE…
    unserve_at a iscsi && wait_until 10 status_is a iscsi 3 && options=("${common[@]}" "$@") && serve_at a iscsi
}
is "$(steps cache | head -n 1)" off "acknowledge = close: no write cache"
synced() { # on b's disk is what a had
    local lsn
    lsn=$(status_of a replication lsn) && steps sync && [ "$(status_of b replication durable)" -ge "$lsn" ]
}
waits_for_the_other() { # STEP: unanswered while the nodes do not reach each other (the primary goes on alone after two seconds)
    local status
    : >"$T/step.out"
    network_cut b
    steps "$@" >"$T/step.out" 2>&1 &
    test_pids+=($!)
    wait_until 1 grep -q "${*: -1} done" "$T/step.out"
    status=$?
    network_mend b
    wait $!
    grep -q "${*: -1} done" "$T/step.out" && wait_until 60 in_sync && [ $status != 0 ]
}
ok "a write waits for the other node's disk" waits_for_the_other write:2:0:8
ok "start with a write cache" restart BATON_OPTION_WRITE_CACHE=on
is "$(steps cache | head -n 1)" on "the initiator sees it"
ok "write" steps write:3:0:4096
ok "after SYNCHRONIZE CACHE it is on the other node's disk" synced
ok "which it waits for" waits_for_the_other write:4:0:8 sync
grep -q "write:4:0:8 done" "$T/step.out"
is $? 0 "the write before was answered"

# ---- who may log in ----
ok "start with a secret" restart BATON_OPTION_CHAP_USER=fox BATON_OPTION_CHAP_SECRET_FILE=secret
fails "who does not know it is refused" steps sync
export LIBISCSI_CHAP_USERNAME=fox LIBISCSI_CHAP_PASSWORD=the-secret-of-that
fails "who knows another one too" steps sync
export LIBISCSI_CHAP_PASSWORD=the-secret-of-this
ok "who knows it is let in" steps sync
ok "start for another initiator" restart BATON_OPTION_INITIATORS=iqn.2026-01.invalid.test:other
fails "one who is not named is refused" steps sync
ok "the one who is named is let in" env INITIATOR=iqn.2026-01.invalid.test:other bash -c "$(declare -f client steps); $(declare -p ID initiator service target lun); steps sync"

# ---- the handover ----
ok "start as in the beginning, with the secret" restart BATON_OPTION_CHAP_USER=fox BATON_OPTION_CHAP_SECRET_FILE=secret
ok "write and synchronize" steps write:5:0:8192 write:5:120000:8 sync
starts=() stops=()
from=a to=b
for round in 1 2 3 4 5; do
    ok "handed over to $to" hand_over $from $to iscsi
    starts+=("$serve_ms") stops+=("$stop_ms")
    is "$(steps identity)" "$identity" "the same disk"
    ok "the same content, same secret" steps verify:5:0:8192
    ok "what was written at the node before" steps "verify:$((round + 4)):120000:8" "write:$((round + 5)):120000:8" sync
    was=$from from=$to to=$was
done
median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }
diag "start until it answers: median $(median "${starts[@]}") ms of ${starts[*]}; stop: median $(median "${stops[@]}") ms of ${stops[*]}"
ok "stop is quick" test "$(median "${stops[@]}")" -lt 1000

# ---- a server that hangs in the mount ----
ok "in sync before the cut" wait_until 60 in_sync
network_cut a # so that b, the primary, waits with answers that its daemon has taken already
steps write:9:0:8 >/dev/null 2>&1 &
test_pids+=($!)
disown $! # its end is nobody's news
hanging() {
    local pid born
    read -r pid born <"$T/b/run/iscsi/tgtd.pid"
    grep -q -s -e fuse -e request_wait "/proc/$pid/task/"*/wchan
}
ok "tgtd hangs in the mount" wait_until 20 hanging
kill -STOP "${node_pid[b]}"
timed exporter b iscsi monitor 2>"$T/.out"
ok "monitor does not hang" test "$took" -lt 5000
ok "stop returns" timed unserve_at b iscsi
diag "stop with a server that hangs: $took ms"
ok "at once" test "$took" -lt 1500
status_is b iscsi 0
is $? 0 "status says that it is not gone yet"
kill -CONT "${node_pid[b]}"
network_mend a
ok "gone as soon as the daemon answers" wait_until 60 status_is b iscsi 3
ok "it can be started again" serve_at b iscsi
ok "and serves" steps verify:10:120000:8

# ---- another volume on the same node ----
other_volume b iscsi
cp -p "$(mount_of b)/.baton/"{iscsi,other}/secret
ok "another volume's starts beside it" exporter b iscsi start "${other[@]}"
ok "and serves" exporter b iscsi monitor "${other[@]}"
like "$(listening b | tr '\n' ' ')" '10\.77\.0\.100:3260 10\.77\.0\.101:3260 127\..* 127\..* \[fd00:77::101\]:3260 ' "each listens on its own addresses"
ok "it is stopped" exporter b iscsi stop "${other[@]}"
other_gone() { ! exporter b iscsi status "${other[@]}"; }
ok "it is gone" wait_until 10 other_gone
ok "this one serves" exporter b iscsi monitor
like "$(listening b | tr '\n' ' ')" '^10\.77\.0\.100:3260 127\.[0-9.]*:3260 $' "alone"

# ---- the daemon dies ----
ok "in sync again" wait_until 60 in_sync
ok "written" steps write:11:0:8192 sync
ok "b's daemon is killed, a serves" crash_over b a iscsi
diag "stop with a dead mount took $stop_ms ms, start $serve_ms ms"
ok "at once" test "$stop_ms" -lt 1500
ok "what was synchronized is there" steps verify:11:0:8192
is "$(steps identity)" "$identity" "the same disk"
ok "stop" unserve_at a iscsi
ok "nothing is left" wait_until 10 status_is a iscsi 3
is "$(listening a)" "" "nothing listens"
