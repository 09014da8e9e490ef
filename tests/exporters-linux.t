#!/bin/bash
# Clients with a Linux kernel on the shares of two nodes: NFSv4.2, 4.1, 4.0 and SMB mounts on which programs write and fsync every
# 10 ms, and hold locks, through switchovers, killed daemons and cut links. They see a pause; a lock is held by whom it was held
# by, and got by who waited for it when it is released, not before; nothing that fsync acknowledged is lost.
# With BATON_LINUX_CLIENTS=1 only: it boots two kernels in qemu. BATON_LINUX_ROUNDS: how often each fault comes (1).
[ -n "${BATON_TEST_REAPS:-}" ] || BATON_TEST_REAPS=1 exec python3 -c 'import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)
os.execvp("bash", ["bash"] + sys.argv[1:])' "$0" "$@"
. "${BATON_SRC:-$(dirname "$0")/..}/tests/lib.sh"
. "$BATON_SRC/tests/sharing.sh"
. "$BATON_SRC/tests/linux-client.sh"
linux_client_needs
shared_needs
for tool in smbd smbpasswd; do
    command -v $tool >/dev/null || skip_all "needs samba"
done
user=games # of every Debian
rounds=${BATON_LINUX_ROUNDS:-1}
shared_names=(nfs smb vip)
shared_sections() {
    cat <<END
[export nfs]
address = $service/24
path = /share
squash = none
[export smb]
shares = work:/work
END
}
chmod 711 "$T" # Samba works as the user
linux_client_image || bail "the clients' file system could not be made"
shared_up
addresses_watch
mkdir -m 777 "$(mount_of a)/work"
printf 'word\nword\n' | in_node a smbpasswd -c "/run/baton/$ID/a/smb/smb.conf" -s -a $user >/dev/null
linux_client_boot one 10.77.0.51 && linux_client_boot two 10.77.0.52 || bail "qemu does not start"
for client in one two; do
    ok "client $client boots" linux_client_ready $client || bail "$(tail -n 5 "$T/$client.console" "$T/$client.qemu")"
done

# ---- mounts, writers, locks ----
mount_nfs() { # CLIENT VERSION
    guest "$1" "mkdir -p /mnt/$2 && mount -t nfs4 -o vers=$2,addr=$service,clientaddr=${client_ip[$1]} $service:/share /mnt/$2"
}
mount_smb() {
    guest "$1" "mkdir -p /mnt/smb && mount -t cifs -o vers=3.1.1,username=$user,password=word,hard //$service/work /mnt/smb"
}
ok "one mounts NFSv4.1" mount_nfs one 4.1 || bail "$(guest one dmesg | tail)"
ok "one mounts NFSv4.2" mount_nfs one 4.2
ok "two mounts NFSv4.1" mount_nfs two 4.1
ok "one mounts SMB" mount_smb one || bail "$(guest one dmesg | tail)"
ok "two mounts SMB" mount_smb two

lines_of() { grep -c '^ack' "$T/$1"; }
wrote_more() { [ "$(lines_of "$1")" -ge $(($2 + 20)) ]; } # JOB THAN
writers=()
writer_on() { # MOUNT
    writers+=("write.$1")
    guest_run one "write.$1" mount-client write "/mnt/$1/written.$1" 10
    ok "a program writes on $1" wait_until 60 wrote_more "write.$1" 0 || bail "$(cat "$T/write.$1")"
}
for kind in 4.1 4.2 smb; do writer_on $kind; done
# new files, which have to wait for the end of grace
guest one "mkdir /mnt/4.2/new"
writers+=(write.new)
guest_run one write.new mount-client files /mnt/4.2/new 20
ok "a program makes files" wait_until 60 wrote_more write.new 0 || bail "$(cat "$T/write.new")"
locker() { # CLIENT JOB FILE
    guest_run "$1" "$2" mount-client lock "/mnt/$3"
    ok "$1 opens $3" wait_until 60 grep -q ok "$T/$2" || bail "$(cat "$T/$2")"
}
refused() { # JOB LINE DESCRIPTION
    like "$(guest_ask "$1" "$2")" "^no: (Resource temporarily unavailable|Permission denied)" "$3"
}
held_on() { # MOUNT: by one, in two ways
    locker one "holds.$1" "$1/lock.$1"
    is "$(guest_ask "holds.$1" take)" ok "one locks it (fcntl)"
    locker one "flocks.$1" "$1/flock.$1"
    is "$(guest_ask "flocks.$1" flock)" ok "one locks it (flock)"
}
held_on 4.1
for kind in 4.1 4.2; do
    is "$(guest one "stat -c %u:%g /mnt/$kind/written.$kind")" 0:0 "the owner is who it is, on $kind"
done
locker two wants 4.1/lock.4.1
refused wants take "two does not get the lock"
locker two flock 4.1/flock.4.1
refused flock flock "nor by flock"
guest_tell wants wait # from now on

# ---- faults ----
mended() { network_mend a && network_mend b; }
all_wrote_more() {
    local job
    for job in "${writers[@]}"; do wrote_more "$job" "${before[$job]}" || return 1; done
}
pause_of() { # JOB: the longest, in ms, since `before`
    awk -v from="${before[$1]}" '$1 == "ack" { n++; if (n > from && last && $4 - last > most) most = $4 - last; last = $4 }
        END { printf "%d\n", most / 1000000 }' "$T/$1"
}
# What a program on the mount saw, without what the manual says of it. SMB's fsync fails with EAGAIN when the connection breaks under it,
# and works when tried again; a new file that the server had made and not answered for when it died is there (`made_before`).
wrong() { # JOB
    case $1 in
    write.smb) grep -E '^(error|wrong)' "$T/$1" | grep -vE '^error [0-9]+ fsync Resource temporarily unavailable$' ;;
    write.new) grep -E '^(error|wrong)' "$T/$1" | grep -vE '^error [0-9]+ open File exists$' ;;
    *) grep -E '^(error|wrong)' "$T/$1" ;;
    esac
}
exist() { awk '/^error [0-9]+ open File exists$/ { print $2 }' "$T/write.new"; }
# made_before WHAT MOST NUMBER…: files whose making the client asked for again. Ganesha makes a file, then gives it the times by which it
# knows the client's second request; whose server died in between is empty, has today's time, and there is one at most.
made_before() {
    local what=$1 most=$2 number made odd=''
    shift 2
    ok "$what: $# files had been made and not answered for, of $most at most" [ $# -le "$most" ]
    for number; do
        made=$(stat -c '%s %Y' "$(mount_of "$(primary_now)")/new/$number")
        [ "${made% *}" = 0 ] && [ $((EPOCHSECONDS - ${made#* })) -lt 600 ] || odd+=" $number: $made"
    done
    is "$odd" "" "... by a server that died then"
}
sees_no_error() {
    local job
    for job in "${writers[@]}"; do is "$(wrong "$job" | head -n 5)" "" "$1: no error on ${job#write.}"; done
}
declare -A before=()
# goes_on WHAT COMMAND…: the command is done; the writers go on, and so does who holds a lock.
goes_on() {
    local job most limit what=$1 begin existed dies=1
    shift
    case $what in "a switchover"*) dies=0 ;; esac
    existed=$(exist | wc -l)
    for job in "${writers[@]}"; do before[$job]=$(lines_of "$job"); done
    begin=$SECONDS
    "$@" >"$T/.fault" 2>&1 || diag "$what: $* has failed: $(cat "$T/.fault")"
    ok "$what: the writers go on" wait_until 90 all_wrote_more || bail "$what: they do not: $(guest one dmesg | tail)"
    for job in "${writers[@]}"; do
        most=$(pause_of "$job")
        echo "$most" >>"$T/pauses.$what.$job"
        limit=20000 # generous, for a machine that does other things
        [ "$job" != write.new ] || limit=40000
        ok "$what: on ${job#write.} a pause of $most ms" [ "$most" -lt $limit ]
    done
    is "$(guest_ask holds.4.1 "put $what")" ok "$what: one writes under its lock"
    is "$(guest_ask flocks.4.1 "put $what")" ok "... and under the other"
    refused flock flock "... which two does not get"
    diag "$what: $((SECONDS - begin)) s until here"
    sees_no_error "$what"
    # shellcheck disable=SC2046 # numbers
    made_before "$what" $dies $(exist | tail -n +$((existed + 1)))
}
two_waits() { is "$(wc -l <"$T/wants")" 2 "two has not got the lock that it waits for"; }
grace_log() { grep -hE 'GRACE|check grace' "/run/baton/$ID/$(primary_now)/nfs/ganesha.log"; }
grace_over() { grace_log | grep -q 'NOT IN GRACE'; }
for ((round = 1; round <= rounds; round++)); do
    settled
    goes_on "a switchover" hand_over "$now"
    ok "grace is over" wait_until 30 grace_over
    like "$(grace_log | tail -n 2 | head -n 1)" 'reclaim complete.3. clid count.3.' \
        "... because the last known client has reclaimed"
    two_waits
    settled
    goes_on "the daemon killed" crash_node "$now"
    ok "grace is over" wait_until 30 grace_over
    two_waits
    settled
    goes_on "the link cut" network_cut "$now"
    mended
    ok "grace is over" wait_until 30 grace_over
    two_waits
    settled
    stopped=$(daemon_pid "$now")
    goes_on "the daemon stands still" kill -STOP "$stopped"
    kill -CONT "$stopped" 2>/dev/null
    ok "grace is over" wait_until 30 grace_over
    two_waits
    settled
    goes_on "batond's processes are killed" kill_node_runner_last "$now"
    start_node "$now"
    ok "grace is over" wait_until 30 grace_over
    two_waits
done
settled
is "$(guest_ask holds.4.1 drop)" ok "one releases its lock"
got() { [ "$(tail -n 1 "$T/wants")" = ok ] && [ "$(wc -l <"$T/wants")" = 3 ]; }
ok "two, which has waited all the time, gets it" wait_until 60 got
refused holds.4.1 take "... and one does not"
is "$(guest_ask wants drop)" ok "two releases it"
is "$(guest_ask holds.4.1 take)" ok "... and one gets it again"

# ---- NFSv4.0: clients of it do not say that they are done, so grace is whole ----
ok "one mounts NFSv4.0" mount_nfs one 4.0
writer_on 4.0
locker one old 4.0/lock.4.0
is "$(guest_ask old take)" ok "one locks"
locker two wants.4.0 4.1/lock.4.0
refused wants.4.0 take "two does not get it"
goes_on "a switchover with NFSv4.0" hand_over "$now"
is "$(guest_ask old "put again")" ok "one writes under its lock of NFSv4.0"
ok "grace is over" wait_until 40 grace_over
refused wants.4.0 take "two does not get it, when grace is over either"
is "$(guest_ask old drop)" ok "one releases it"
is "$(guest_ask wants.4.0 take)" ok "... and two gets it"
settled

# ---- SMB: no time of grace (baton-exporters(7)) ----
locker one holds.smb smb/lock.smb
is "$(guest_ask holds.smb take)" ok "one locks on SMB"
is "$(guest_ask holds.smb "put one")" ok "... and writes"
locker two wants.smb smb/lock.smb
locker two idle.smb smb/idle.smb
refused wants.smb take "two does not get it"
goes_on "a switchover with locks of SMB" hand_over "$now"
is "$(guest_ask holds.smb "put two")" ok "one, which uses the file first, goes on"
like "$(guest_ask wants.smb get)" "^no: Permission denied" "two is told that the file is locked"
refused wants.smb take "... and does not get the lock, which one has taken again"
idle=$(guest_ask idle.smb take)
like "$idle" "^(ok|no: Bad file descriptor)$" "a lock on a file that was open before, and not used: $idle"
if [ "$idle" != ok ]; then
    is "$(guest_ask idle.smb get)" ok "... until it is read"
    is "$(guest_ask idle.smb take)" ok "... when it is"
fi
settled
goes_on "another switchover" hand_over "$now"
# Whoever comes first: the client that uses the file again, or opens it newly.
locker two first.smb smb/lock.smb
first=$(guest_ask first.smb take)
put=$(guest_ask holds.smb "put three")
diag "two, with a file newly opened: $first; one, which held the lock: $put"
like "$first, $put" "^(ok, no: Permission denied|no: Permission denied, ok)$" \
    "the lock is one's or two's, not both's, and who has lost it is told"
guest_ask first.smb drop >/dev/null
is "$(guest_ask holds.smb "put three")" ok "when two has released it, one can write"
settled

# ---- the end ----
for job in "${writers[@]}"; do
    guest_end "$job"
    ended() { tail -n 1 "$T/$job" | grep -q '^end'; }
    ok "the program on ${job#write.} ends" wait_until 120 ended
    is "$(wrong "$job" | head -n 5)" "" "... without an error, having read everything again"
done
is "$(guest one dmesg | grep -E 'lost [0-9]+ locks|NFS: .*(error|fail)')" "" "one's kernel has lost no lock"
holds() { # NODE JOB FILE: everything acknowledged
    python3 - "$T/$2" "$(mount_of "$1")/$3" <<'PYTHON'
import os, sys
numbers = [int(line.split()[1]) for line in open(sys.argv[1]) if line.startswith("ack")]
if os.path.isdir(sys.argv[2]):
    data = lambda n: open(f"{sys.argv[2]}/{n}", "rb").read()
else:
    file = open(sys.argv[2], "rb").read()
    data = lambda n: file[n * 64:n * 64 + 64]
missing = [n for n in numbers if data(n) != b"%-63d\n" % n]
print(f"{len(missing)} of {len(numbers)} are missing: {missing[:20]}")
sys.exit(bool(missing) or len(numbers) < 200)
PYTHON
}
for job in "${writers[@]}"; do
    file=written.${job#write.}
    case $job in
    write.smb) file=work/$file ;;
    write.new) file=new ;;
    esac
    for node in a b; do
        ok "what fsync acknowledged on ${job#write.} is in the file on $node" wait_until 10 holds $node "$job" "$file"
    done
done
diag "fsync on SMB failed with EAGAIN $(grep -c '^error.*fsync Resource' "$T/write.smb") times"
ok "the address was never on both nodes" addresses_overlap 5
for what in "a switchover" "the daemon killed" "the link cut" "the daemon stands still" \
    "batond's processes are killed"; do
    for job in write.4.1 write.4.2 write.smb write.new; do
        diag "$what, ${job#write.}: $(sort -n "$T/pauses.$what.$job" | awk '{ v[NR] = $1 }
            END { printf "median %d ms, worst %d ms, of %d", v[int((NR + 1) / 2)], v[NR], NR }')"
    done
done
stop_node a
stop_node b
