#!/bin/bash
# SMB shares of a volume by a real Samba: a client puts and gets files at the volume's address; the volume is handed over, and
# user, password, SID, ACLs, streams and attributes are what they were. stop does not wait for a Samba that hangs in the mount.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/exporting.sh"
need_root
for tool in smbd smbclient smbcacls smbpasswd net; do
    command -v $tool >/dev/null || skip_all "needs $tool; tools/run-tests installs it"
done
user=games # of every Debian
id $user >/dev/null 2>&1 || skip_all "needs a user $user"
chmod 711 "$T" # Samba works as the user
cleanup_hooks+=("exporters_end smb")
volume_up
client_up
ok "in sync" wait_until 60 in_sync
state_make a smb
mkdir "$(mount_of a)/work" "$(mount_of a)/secret"
chmod 777 "$(mount_of a)/work" "$(mount_of a)/secret"
options=("BATON_OPTION_SHARES=projects:/work all:/:read-only,hidden safe:/secret:encrypt=required,posix-locking=no")
: >"$T/client.conf"
head -c 3000000 /dev/urandom >"$T/content"
smbclient() { client timeout -s KILL 20 smbclient -s "$T/client.conf" -U "$user%$password" "$@"; }
smbcacls() { client timeout -s KILL 20 smbcacls -s "$T/client.conf" -U "$user%$password" "//$service/projects" "$@"; }
sid() { in_node "$1" net -s "$T/$1/run/smb/smb.conf" getlocalsid | sed 's/.*: //'; }
passwd_set() { printf '%s\n%s\n' "$2" "$2" | in_node "$1" smbpasswd -c "$T/$1/run/smb/smb.conf" -s -a $user >/dev/null; }

# ---- the first start ----
ok "check" exporter a smb check
ok "first start" serve_at a smb
diag "the first start took $took ms"
ok "it serves" timed exporter a smb monitor
diag "monitor took $took ms"
password=one
ok "a user" passwd_set a $password
listening() { in_node "$1" ss -Hltn "sport = :445" | awk '{ print $4 }' | sort; }
like "$(listening a | tr '\n' ' ')" "^10\.77\.0\.100:445 127\.[0-9.]+:445 $" "it listens at the volume's address, not at the node's"

ok "put" smbclient "//$service/projects" -c "put $T/content file; put $CONFIG file:notes; setmode file +h"
ok "get" smbclient "//$service/projects" -c "get file $T/back"
ok "the same content" cmp "$T/content" "$T/back"
ok "it is the user's at the mount" test "$(stat -c %U "$(mount_of a)/work/file")" = $user
ok "an ACL" smbcacls file -a "ACL:S-1-5-32-545:ALLOWED/0x0/READ"
acl=$(smbcacls file)
like "$acl" 'BUILTIN.Users:ALLOWED' "is there"
fails "a read-only share is" smbclient "//$service/all" -c "put $T/content other"
# what a client has open is seen by the server's process for another
mkfifo "$T/one"
smbclient "//$service/projects" <"$T/one" >"$T/one.out" 2>&1 &
test_pids+=($!)
disown $!
exec {one}>"$T/one"
echo "open file" >&"$one"
is_open() { # Samba's processes have numbers of their own
    in_node a nsenter --pid="/proc/$(cut -d ' ' -f 1 "$T/a/run/smb/smbd.pid")/ns/pid" smbstatus -s "$T/a/run/smb/smb.conf" -L | grep -qw file
}
ok "a client opens the file" wait_until 15 is_open || diag "$(cat "$T/one.out")"
smbclient "//$service/projects" -c "del file" >"$T/.out" 2>&1
like "$(cat "$T/.out")" NT_STATUS_SHARING_VIOLATION "another cannot delete it meanwhile"
exec {one}>&-
smbclient "//$service/all" -c "ls .baton" >"$T/.out" 2>&1
like "$(cat "$T/.out")" "NT_STATUS_(NO_SUCH_FILE|OBJECT_NAME_NOT_FOUND)" "the volume's own folder cannot be seen"
ok "shares are listed" eval 'smbclient -L //$service | tee $T/list | grep -q projects'
fails "but not the hidden one" grep -w all "$T/list"
ok "an encrypted share" smbclient "//$service/safe" -c "put $T/content file"
fails "is refused to a client that cannot encrypt" smbclient --option=clientmaxprotocol=SMB2_10 "//$service/safe" -c ls
password=wrong
fails "a wrong password is refused" smbclient "//$service/projects" -c ls
password=one
opens() { client timeout -s KILL 30 /usr/bin/python3 "$BATON_SRC/tests/smb-opens.py" $service projects $user $password alone; }
is "$(opens)" "A file cannot be opened because the share access flags are incompatible.
opened" "a file that one client has open for itself alone is refused to another, until it is closed"
before=$(sid a)
like "$before" "^S-1-5-21-" "a SID"

# ---- the handover ----
ok "handed over to b" hand_over a b smb
diag "stop took $stop_ms ms, start $serve_ms ms"
is "$(sid b)" "$before" "the same SID"
ok "the same user and password, the file is there" smbclient "//$service/projects" -c "get file $T/back"
ok "the same content" cmp "$T/content" "$T/back"
ok "the stream" smbclient "//$service/projects" -c "get file:notes $T/back"
ok "is the same" cmp "$CONFIG" "$T/back"
is "$(smbcacls file)" "$acl" "the same ACL"
smbclient "//$service/projects" -c "ls file" >"$T/.out"
like "$(cat "$T/.out")" "file +AH +3000000" "still hidden"
ok "stop on a, where nothing is" exporter a smb stop
status_is a smb 3
is $? 0 "a says so"
password=two
ok "another password" passwd_set b $password
ok "write at b" smbclient "//$service/projects" -c "put $CONFIG new"

starts=() stops=()
from=b to=a
for round in 1 2 3 4; do
    ok "handed over to $to" hand_over $from $to smb
    starts+=("$serve_ms") stops+=("$stop_ms")
    was=$from from=$to to=$was
done
median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }
diag "start until it answers: median $(median "${starts[@]}") ms of ${starts[*]}; stop: median $(median "${stops[@]}") ms of ${stops[*]}"
ok "stop is quick" test "$(median "${stops[@]}")" -lt 1000
ok "b serves: the new password, the new file" smbclient "//$service/projects" -c "get new $T/back"
ok "the same content" cmp "$CONFIG" "$T/back"

# ---- a server that hangs in the mount ----
ok "in sync before the cut" wait_until 60 in_sync
network_cut a # so that b, the primary, waits with answers that its daemon has taken already
smbclient "//$service/projects" -c "put $T/content hangs" >/dev/null 2>&1 &
test_pids+=($!)
disown $! # its end is nobody's news
hanging() {
    local pid born process
    read -r pid born <"$T/b/run/smb/smbd.pid"
    for process in $(pgrep -g "$pid"); do
        grep -q -e fuse -e request_wait "/proc/$process/wchan" && return
    done
    return 1
}
ok "a Samba hangs in the mount" wait_until 20 hanging
kill -STOP "${node_pid[b]}"
timed exporter b smb monitor 2>"$T/.out"
ok "monitor does not hang" test "$took" -lt 5000
ok "stop returns" timed unserve_at b smb
diag "stop with a server that hangs: $took ms"
ok "at once" test "$took" -lt 1500
status_is b smb 0
is $? 0 "status says that it is not gone yet"
kill -CONT "${node_pid[b]}"
network_mend a
ok "gone as soon as the daemon answers" wait_until 60 status_is b smb 3
ok "it can be started again" serve_at b smb
ok "and serves" smbclient "//$service/projects" -c "get new $T/back"

# ---- its first process dies ----
mkfifo "$T/open"
smbclient "//$service/projects" <"$T/open" >"$T/session" 2>&1 &
test_pids+=($!)
exec 9>"$T/open"
connected() { [ -n "$(in_node b ss -Hnt state established "( src $service and sport = :445 )")" ]; }
ok "a client has a session" wait_until 20 connected
read -r pid _ <"$T/b/run/smb/smbd.pid"
ok "a process of its own serves it" [ "$(pgrep -c -P "$pid" smbd)" -ge 1 ]
kill -KILL "$pid"
smbd_gone() { [ -z "$(pgrep -g "$pid")" ]; }
ok "the first process is killed: nothing of the server goes on, though nobody stops it" wait_until 5 smbd_gone
exec 9>&-
ok "it can be started again" serve_at b smb

# ---- another volume on the same node ----
other_volume b smb
ok "another volume's starts beside it" exporter b smb start "${other[@]}"
ok "and serves" exporter b smb monitor "${other[@]}"
like "$(listening b | tr '\n' ' ')" '10\.77\.0\.100:445 10\.77\.0\.101:445 127\..* 127\..* \[fd00:77::101\]:445 ' "each listens on its own addresses"
ok "it is stopped" exporter b smb stop "${other[@]}"
other_gone() { ! exporter b smb status "${other[@]}"; }
ok "it is gone" wait_until 10 other_gone
ok "this one serves" exporter b smb monitor
like "$(listening b | tr '\n' ' ')" '^10\.77\.0\.100:445 127\.[0-9.]*:445 $' "alone"

# ---- the daemon dies ----
ok "in sync again" wait_until 60 in_sync
ok "written" smbclient "//$service/projects" -c "put $T/content synced"
ok "b's daemon is killed, a serves" crash_over b a smb
diag "stop with a dead mount took $stop_ms ms, start $serve_ms ms"
ok "at once" test "$stop_ms" -lt 1500
ok "what was put is there" smbclient "//$service/projects" -c "get synced $T/back"
ok "the same content" cmp "$T/content" "$T/back"
is "$(sid a)" "$before" "the same SID"
ok "stop" unserve_at a smb
ok "nothing is left" wait_until 10 status_is a smb 3
is "$(listening a)" "" "nothing listens"
