#!/bin/bash
# The exporter nfs. First against stubs of the servers: options, the configuration it makes, half-done states. Then (as root)
# nfs-ganesha on the mounts of two nodes: a client's file handle and place in a directory work after a change of nodes, and
# stop is quick though the server hangs in the mount.
# Servers are nobody's children: this process becomes their parent, so that none stays a zombie where init reaps nothing.
[ -n "${BATON_TEST_REAPS:-}" ] || BATON_TEST_REAPS=1 exec python3 -c 'import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)
os.execvp("bash", ["bash"] + sys.argv[1:])' "$0" "$@"
. "$(dirname "$0")/lib.sh"

mkdir -p "$T/a.run" "$T/b.run" "$T/a.vip" "$T/b.vip" "$T/state" "$T/stubs"
volume=projects id=00000000000000ff00000000000003e8
declare -A holder=() # of a node's own mount namespace: rpcbind's socket lies at a fixed path
stubs=$T/stubs state=$T/state mount=$T options=()

# exporter_on NODE EXPORTER VERB: as the runner calls it
exporter_on() {
    local node=$1 name=$2 run=${other_run:-$T/$1.run} at=() set=(${options[@]+"${options[@]}"})
    [ "$name" = vip ] && run=${other_run:-$T/$node.vip} set=()
    if [ -n "${holder[$node]:-}" ]; then
        at=(nsenter -t "${holder[$node]}" -m -n --)
    elif [ "$(id -u)" = 0 ]; then
        at=(unshare -n --) # a sysctl that it sets is not to be the machine's
    fi
    ${at[@]+"${at[@]}"} env BATON_VOLUME="$volume" BATON_VOLUME_ID="$id" BATON_NODE="$node" BATON_LOCAL="$run" BATON_STATE="$state" \
        BATON_EXPORT="$name" BATON_ADDRESSES="${addresses-10.77.0.100/24}" BATON_MOUNT="$mount" BATON_LEASE_MS=0 \
        BATON_LIBEXEC="$BATON_SRC/exporters" ${stubs:+BATON_FSAL=/dev/null BATON_NFSD="$T/nfsd" BATON_ETAB="$T/etab"} \
        PATH="${stubs:+$stubs:}$BATON_BUILD/exporters:$PATH" ${set[@]+"${set[@]}"} \
        bash "$BATON_SRC/exporters/$name" "$3"
}
nfs() { exporter_on a nfs "$1"; }
says() { # VERB REGEX DESCRIPTION
    fails "$3" nfs "$1" && like "$(cat "$T/.out")" "$2" "... and says so"
}
exit_of() { "$@" >/dev/null 2>&1; echo $?; }

# ---- stubs ----
for name in ganesha.nfsd rpc.statd; do
    cat >"$stubs/$name" <<EOF
#!/bin/bash
echo "$name \$*" >>"$T/log"
[ ! -e "$T/dies" ] || { echo "no luck today"; exit 1; }
while [ \$# -gt 0 ]; do
    [ "\$1" = -L ] && [ -n "\${2:-}" ] && echo "x :             NFS SERVER INITIALIZED" >>"\$2"
    shift
done
exec sleep 1000
EOF
done
for name in rpcbind sm-notify exportfs rpc.nfsd rpc.mountd modprobe mount; do
    printf '#!/bin/bash\necho "%s $*" >>"%s"\n' "$name" "$T/log" >"$stubs/$name"
done
cat >>"$stubs/rpc.nfsd" <<EOF
echo 8 >"$T/nfsd/threads"
EOF
cat >>"$stubs/exportfs" <<EOF
case \$1 in -o) printf '$T\t%s\n' "\$3" >>"$T/etab" ;; -u) : >"$T/etab"; [ ! -e "$T/hangs" ] || exec sleep 1000 ;; esac
EOF
cat >"$stubs/rpcinfo" <<EOF
#!/bin/bash
echo "rpcinfo \$*" >>"$T/log"
[[ "\$*" != *100024* ]] || grep -qs "rpc.statd" "$T/log" || [ -e "$T/statd" ]  || exit 1
[ ! -e "$T/silent" ]
EOF
printf '#!/bin/bash\nexit 1\n' >"$stubs/modinfo"
printf '#!/bin/bash\nexit 1\n' >"$stubs/pidof"
printf '#!/bin/bash\n[ -e "%s/named" ]\n' "$T" >"$stubs/getent"
cat >"$stubs/ip" <<EOF
#!/bin/bash
[ ! -e "$T/here" ] || echo '2: eth0    inet 10.77.0.100/24 scope global'
EOF
printf '#!/bin/bash\necho "LISTEN 0 0 *:2049"\n' >"$stubs/ss"
chmod +x "$stubs"/?*
logged() { grep -q -- "$1" "$T/log"; }
said_in_conf() { [[ $(conf) == *"$1"* ]]; }
conf() { tr -s ' \n' ' ' <"$T/a.run/ganesha.conf"; }
: >"$T/log"

ok "check" nfs check
options=(BATON_OPTION_PROTOCOLS="3 5" BATON_OPTION_ACCESS=all BATON_OPTION_PORT=99999 BATON_OPTION_GRACE=4 BATON_OPTION_LOCK=x
    BATON_OPTION_CLIENTS="10.0.0.0/24 ;}" BATON_OPTION_SQUASH=maybe BATON_OPTION_SEC=ntlm BATON_OPTION_NFS3_LOCKS=perhaps
    BATON_OPTION_ANONYMOUS=nobody BATON_OPTION_PATH=relative BATON_OPTION_SERVER=samba)
fails "wrong options" nfs check
for text in "protocols in .* is made of 3, 4, 4.0, 4.1 and 4.2, not '5'" "access in .* is rw or ro, not 'all'" \
    "port in .* must be a number from 1 to 65535, not '99999'" "grace in .* from 5 to 180, not '4'" "there is no key 'lock'" \
    "';}' in .* is no client" "squash in .* not 'maybe'" "sec in .* not 'ntlm'" "nfs3-locks in .* must be yes or no" \
    "anonymous in .* is UID:GID" "'relative' cannot be exported" "server in .* is ganesha or kernel, not 'samba'"; do
    like "$(cat "$T/.out")" "$text" "... are all named: ${text%% *}"
done
options=(BATON_OPTION_PROTOCOLS=4 BATON_OPTION_NFS3_LOCKS=yes)
says check "nfs3-locks = yes in \[export nfs\] needs protocol 3" "locks of a version that is not served"
options=(BATON_OPTION_SEC=krb5 BATON_OPTION_KEYTAB=/nowhere)
says check "needs a keytab, and /nowhere is not there" "Kerberos without a key"
options=()
is "$(exit_of nfs status)" 3 "nothing is left before"
ok "stop before any start" nfs stop

ok "start" nfs start
ok "... with a configuration of its own, in the foreground, with a boot number" \
    logged "ganesha.nfsd -F -f $T/a.run/ganesha.conf -p $T/a.run/ganesha-own.pid -L $T/a.run/ganesha.log -E [0-9]"
for text in "Bind_addr = 10.77.0.100;" "Protocols = 3, 4;" "Export_Id = 1001;" "Filesystem_Id = 255.1000;" "Path = \"$T\";" \
    "Pseudo = \"/projects\";" "fsid_type = Major64;" "Server_Scope = \"baton-$id\";" "Server_Owner = \"baton-$id\";" \
    "RecoveryBackend = fs;" "RecoveryRoot = \"$state/recovery\";" "Lease_Lifetime = 10;" "Grace_Period = 15;" \
    "Minor_Versions = 0,1,2;" "Squash = Root_Squash;" "Enable_NLM = false;" "Clients = *; Access_Type = RW;" "SecType = sys;" "Only_Numeric_Owners = true;"; do
    ok "configuration: $text" said_in_conf "$text"
done
is "$(stat -c %a "$state/recovery/v4recov")" 700 "the record of clients has a place on the volume"
first=$(cat "$state/boot")
ok "monitor, before the address is there" nfs monitor
touch "$T/here"
ok "monitor" nfs monitor
ok "... asks the address" logged "rpcinfo -a 10.77.0.100.8.1 -T tcp 100003 4"
is "$(exit_of nfs status)" 0 "status"
ok "start again" nfs start
is "$(grep -c '^ganesha.nfsd' "$T/log")" 1 "... starts nothing"
touch "$T/silent"
says monitor "does not answer a NULL call on 10.77.0.100 port 2049" "a server that does not answer"
rm "$T/silent"
server=$(cut -d ' ' -f 1 "$T/a.run/ganesha.pid")
ok "stop" nfs stop
ok "... ends the server" wait_until 5 process_gone "$server"
is "$(exit_of nfs status)" 3 "nothing is left"
says monitor "the NFS server has ended" "monitor after it"
ok "stop again" nfs stop
ok "start after that" nfs start
ok "... with a larger boot number" [ "$(cat "$state/boot")" -gt "$first" ]
echo 4000000000 >"$state/boot"
kill -KILL "$(cut -d ' ' -f 1 "$T/a.run/ganesha.pid")"
says monitor "the NFS server has ended" "a server that was killed"
ok "start after a kill" nfs start
is "$(cat "$state/boot")" 4000000001 "... whatever the clock of the node before said"
nfs stop
echo "$$ 1" >"$T/a.run/ganesha.pid" # as after a reboot: the number is another process's
ok "stop kills no stranger" nfs stop
is "$(exit_of nfs status)" 3 "... and knows that nothing is left"
rm -f "$T/a.run/ganesha.pid"
if [ "$(id -u)" = 0 ]; then
    mkdir "$T/full"
    mount -t tmpfs -o size=64k none "$T/full"
    mkdir -p "$T/full/recovery/v4recov" "$T/full/recovery/v4old"
    echo 4000000007 >"$T/full/boot"
    head -c 100000 /dev/zero >"$T/full/fills" 2>/dev/null
    state=$T/full
    ok "start on a full volume" nfs start
    like "$(cat "$T/.out")" "boot could not be written; is the volume full" "... which is told"
    is "$(cat "$state/boot")" 4000000007 "... the number is what it was"
    ok "... and it serves" nfs monitor
    nfs stop
    state=$T/state
    umount "$T/full"
    mount -t tmpfs -o size=64k none "$T/full"
    head -c 100000 /dev/zero >"$T/full/fills" 2>/dev/null
    begin=$(date +%s%N)
    other_run=$T/full fails "start where /run is full" nfs start
    spent=$((($(date +%s%N) - begin) / 1000000))
    ok "... is told at once ($spent ms)" [ $spent -lt 1500 ]
    umount "$T/full"
fi
touch "$T/dies"
says start "has ended at once .is port 2049 of 10.77.0.100 taken.*no luck today" "a server that does not start"
rm "$T/dies"

options=(BATON_OPTION_PROTOCOLS="4.1 4.2" BATON_OPTION_CLIENTS="10.0.0.0/24, @staff" BATON_OPTION_READ_ONLY_CLIENTS=10.1.1.1
    BATON_OPTION_ACCESS=ro BATON_OPTION_SQUASH=all BATON_OPTION_ANONYMOUS=5:6 BATON_OPTION_SEC="krb5 krb5p" BATON_OPTION_PORT=2050
    BATON_OPTION_LEASE=20 BATON_OPTION_KEYTAB=/etc/hostname BATON_OPTION_PATH=/p)
: >"$T/log"
addresses="10.77.0.100/24 fd77::1/64"
ok "start with other options" nfs start
for text in "Protocols = 4;" "Minor_Versions = 1,2;" "NFS_Port = 2050;" "Bind_addr = ::;" "CLIENT { Clients = 10.1.1.1; Access_Type = RO; }" \
    "Clients = 10.0.0.0/24,@staff; Access_Type = RO;" "Squash = All_Squash;" "Anonymous_uid = 5; Anonymous_gid = 6;" \
    "SecType = krb5,krb5p;" "Only_Numeric_Owners = false;" "Active_krb5 = true;" "Lease_Lifetime = 20; Grace_Period = 30;" "Pseudo = \"/p\";"; do
    ok "configuration: $text" said_in_conf "$text"
done
fails "... without rpcbind" logged 100000
nfs stop
unset addresses
options=(BATON_OPTION_NFS3_LOCKS=yes)
says check "10.77.0.100 has no name" "an address without a name"
touch "$T/named"
ok "... and with one" nfs check
touch "$T/statd"
says start "rpc.statd runs on this node already" "another rpc.statd"
rm "$T/statd" "$T/here"
echo client >"$state/statd/sm/10.77.0.3"
ok "start with locks of version 3" nfs start
ok "... notes them on the volume" logged "rpc.statd -F -L -p 4047 -P $state/statd"
like "$(conf)" "Enable_NLM = true" "... and has NLM"
fails "clients are not told yet" logged sm-notify
ok "... they are on a list of their own" [ -e "$state/notify/sm/10.77.0.3" ]
touch "$T/here"
ok "... but when the address is there" wait_until 5 logged "sm-notify -d -f -m 2 -P $state/notify -v 10.77.0.100"
kill -KILL "$(cut -d ' ' -f 1 "$T/a.run/statd.pid")"
says monitor "rpc.statd has ended" "monitor sees that rpc.statd is missing"
ok "stop" nfs stop

# the kernel's server
options=(BATON_OPTION_SERVER=kernel BATON_OPTION_CLIENTS="10.0.0.0/24 @staff" BATON_OPTION_PROTOCOLS="3 4.1")
grep -qw nfsd /proc/filesystems || says check "this kernel has no NFS server" "a kernel without a server"
mkdir "$T/nfsd"
echo 0 >"$T/nfsd/threads"
: >"$T/log"
: >"$T/etab"
ok "check with the kernel's server" nfs check
ok "start" nfs start
ok "... exports with the volume's id" logged "exportfs -o rw,fsid=00000000-0000-00ff-0000-0000000003e8,sync,.* @staff:$T"
ok "... and starts nfsd" logged "rpc.nfsd --port 2049 -V 3 -V 4 -N 4.0 -V 4.1 -N 4.2 8"
ok "monitor" nfs monitor
ok "start again" nfs start
is "$(grep -c '^rpc.nfsd' "$T/log")" 1 "... starts no second one"
is "$(exit_of nfs status)" 0 "status"
touch "$T/hangs"
begin=$(date +%s%N)
ok "stop, though exportfs hangs" nfs stop
ok "... is quick" [ $((($(date +%s%N) - begin) / 1000000)) -lt 1000 ]
is "$(exit_of nfs status)" 3 "... and the export is gone"
says monitor "is not exported by the kernel any more" "monitor sees it"
kill -KILL -- "-$(cut -d ' ' -f 1 "$T/a.run/unexport.pid")"

# ---- nfs-ganesha ----
stubs='' options=()
client=$BATON_BUILD/tests/nfs-client
[ "$(id -u)" = 0 ] || { skip 1 "the rest needs root"; exit 0; }
if ! command -v ganesha.nfsd >/dev/null || ! command -v rpcbind >/dev/null || [ ! -x "$client" ]; then
    skip 1 "the rest needs nfs-ganesha, rpcbind and libnfs"
    exit 0
fi
rm -rf "$T/a.run" "$T/state"
mkdir "$T/a.run"
mount --bind "$T" "$T" && mount --make-shared "$T" || bail "no shared mount" # nodes' mounts are to be seen in their namespaces
nodes=(a b)
volume_up
in_sync() { [ "$(status_of a replication link)" = working ]; }
ok "in sync" wait_until 60 in_sync
hold() { # its pid goes into the file; it must not be this test's own namespace that servers run in
    in_node "$1" unshare -m --propagation slave bash -c 'mount -t tmpfs none /run && mkdir /run/rpcbind && chown _rpc: /run/rpcbind &&
        mount --bind "${0%/*}/hosts" /etc/hosts && echo $$ >"$0.new" && mv "$0.new" "$0" && exec sleep 100000' "$T/held.$1"
}
printf '%s\n' '127.0.0.1 localhost' '10.77.0.100 share' '10.77.0.3 client' >"$T/hosts"
for node in a b; do
    hold $node &
    wait_until 10 [ -e "$T/held.$node" ] || bail "no mount namespace for $node"
    holder[$node]=$(cat "$T/held.$node")
    [ "$(readlink "/proc/${holder[$node]}/ns/net")" != "$(readlink /proc/self/ns/net)" ] || bail "$node has no network of its own"
done
# servers and rpcbind outlive the exporter; they end with the test
end_servers() {
    local node pid run file
    for run in "$T"/*.run "$T"/*.vip "$T"/second/run.*; do
        for file in "$run"/*.pid; do
            [ -e "$file" ] || continue
            BATON_LOCAL=$run bash -c '. "$0"; server_kill "$1"' "$BATON_SRC/exporters/lib.sh" "$(basename "$file" .pid)"
        done
    done
    for node in "${!holder[@]}"; do
        for pid in $(rpcbind_of "$node") "${holder[$node]}"; do
            kill -KILL "$pid" 2>/dev/null
        done
    done
}
rpcbind_of() {
    local pid
    for pid in $(pidof rpcbind); do
        [ "$(readlink "/proc/$pid/ns/net")" = "$(readlink "/proc/${holder[$1]}/ns/net")" ] && echo "$pid"
    done
}
cleanup_hooks+=(end_servers)
on() { # NODE EXPORTER VERB, with the volume as it is there
    mount=$(mount_of "$1")
    state=$mount/.baton/$2
    [ "$3" != start ] || mkdir -p "$state"
    exporter_on "$@"
}
took() { # NAME NODE EXPORTER VERB: true and a line of how long it took
    local begin
    begin=$(date +%s%N)
    on "$2" "$3" "$4" || return 1
    echo "$1 $((($(date +%s%N) - begin) / 1000000))" >>"$T/took"
}
chmod 700 "$(mkdir -p "$(mount_of a)/.baton" && mount_of a)/.baton"

coproc nfs_client { in_node witness "$client" 10.77.0.100 2>"$T/client.err"; }
test_pids+=("$nfs_client_PID")
ask() { # COMMAND…: prints its answer
    local line
    echo "$*" >&"${nfs_client[1]}"
    read -rt 60 line <&"${nfs_client[0]}" && echo "$line"
}

options=(BATON_OPTION_PROTOCOLS=4)
version_4() { on a nfs start && on a vip start && on a nfs monitor; }
ok "version 4 alone, on a node without rpcbind" version_4
version_4_gone() { on a vip stop && on a nfs stop && wait_until 10 eval '[ "$(exit_of on a nfs status)" = 3 ]'; }
ok "... stops" version_4_gone
is "$(rpcbind_of a)" "" "... and has started none"
options=()

ok "check on b" on b nfs check
options=(BATON_OPTION_SQUASH=none)
ok "nfs on a" took start a nfs start
ok "vip on a" on a vip start
ok "monitor of nfs" on a nfs monitor
like "$(ask mount /projects)" "^ok" "a client mounts" || bail "without a client nothing can be tried"
for i in $(seq 40); do
    echo >"$(mount_of a)/entry-$i"
done
is "$(ask create file)" ok "... creates a file"
is "$(ask write one.)" ok "... writes"
is "$(ask commit)" ok "... commits"
handle=$(ask handle)
attributes=$(ask getattr)
names=$(ask list 700)
like "$names" "^ok .*entry-" "... lists the first entries"
is "$(ask write two.)" ok "... writes without commit"

change() { # FROM TO
    took stop "$1" vip stop && took stop-nfs "$1" nfs stop && "$BATON" switchover --config "$CONFIG" --node "$1" &&
        wait_until 20 primary_is "$2" && took start "$2" nfs start && took start-vip "$2" vip start
}
primary_is() { [ "$(status_of "$1" role)" = primary ]; }
begin=$(date +%s%N)
ok "a change to b" change a b
is "$(on a nfs status)" "no NFS server of the volume runs" "nothing is left on a"
for node in a b; do # the numbers that kernels gave these mounts are the node's own
    diag "device of the mount on $node: $(stat -c %d "$(mount_of $node)")"
done
is "$(ask getattr)" "${attributes/ 4 / 8 }" "the file's handle works on b, size and number are the same"
diag "$((($(date +%s%N) - begin) / 1000000)) ms from the beginning of the stop on a to the first answer of b"
is "$(ask write three.)" again "... and the write verifier says that the server is another"
is "$(ask commit)" ok "... commits"
is "$(ask read)" "ok one.two.three." "... and reads what was written on both"
while [[ $names != *end ]]; do
    more=$(ask list 700)
    [[ $more == ok\ ?* ]] || break
    names+=" ${more#ok }"
done
is "$(tr ' ' '\n' <<<"$names" | grep -c '^entry-')" 40 "the listing goes on where it was: all entries"
is "$(tr ' ' '\n' <<<"$names" | grep '^entry-' | sort | uniq -d)" "" "... each once"
echo 3 >/proc/sys/vm/drop_caches
is "$(ask lookup file)" ok "it is found"
is "$(ask handle)" "$handle" "... with the same handle"
ok "monitor on b" on b nfs monitor

# a server that hangs in the mount
both_ways() { [ "$(status_of b replication link)" = working ]; }
ok "in sync" wait_until 60 both_ways
daemon=$(daemon_pid b)
kill -STOP "$daemon"
stands() { ! cat "/proc/$daemon/task/"*/status | grep '^State:' | grep -qv 'T (stopped)'; } # every thread of it
ok "batond stands still" wait_until 10 stands
echo "getattr" >&"${nfs_client[1]}"
echo "create another" >&"${nfs_client[1]}"
hangs() { grep -q fuse "/proc/$(cut -d ' ' -f 1 "$T/b.run/ganesha.pid")/task/"*/stack; }
ok "the server hangs in the mount" wait_until 10 hangs ||
    diag "$(cat "/proc/$(cut -d ' ' -f 1 "$T/b.run/ganesha.pid")/task/"*/stack)"
begin=$(date +%s%N)
BATON_HURRY=1 ok "vip stops" on b vip stop
BATON_HURRY=1 ok "nfs stops" on b nfs stop
spent=$((($(date +%s%N) - begin) / 1000000))
ok "... at once ($spent ms)" [ $spent -lt 1500 ]
is "$(exit_of on b nfs status)" 0 "status knows that the server is not gone yet"
kill -CONT "$daemon"
gone() { [ "$(exit_of on b nfs status)" = 3 ]; }
ok "... and that it is, when it was answered" wait_until 20 gone
ok "nfs starts again" on b nfs start
ok "vip too" on b vip start
read -rt 60 line <&"${nfs_client[0]}"
like "$line" "^ok 14 " "the client's question of before is answered"
read -rt 60 line <&"${nfs_client[0]}"
is "$line" ok "... and the next one too"

# a second volume on b, on an address of its own (IPv6; a folder stands for its mount)
second() { # EXPORTER VERB
    local addresses=fd77:0:0:0::200/64@eth0 volume=other id=0123456789abcdef0123456789abcdef state=$T/second/state \
        mount=$T/second/files other_run=$T/second/run.$1
    mkdir -p "$state" "$mount" "$other_run"
    exporter_on b "$@"
}
for node in b witness; do
    ip -n "$ID-$node" address add "fd77::${address[$node]##*.}/64" dev eth0 nodad
done
asks() { # ADDRESS VERSION
    local net=tcp
    [[ $1 != *:* ]] || net=tcp6
    in_node witness timeout 5 rpcinfo -a "$1.8.1" -T $net 100003 "$2"
}
second_starts() { second nfs start && second vip start && second nfs monitor; }
ok "a second volume on the same node" second_starts
ok "... answers on its address" asks fd77::200 4
ok "... and the first on its own" asks 10.77.0.100 3
second_server=$(cut -d ' ' -f 1 "$T/second/run.nfs/ganesha.pid")
kill -STOP "$second_server"
fails "monitor asks it, however its address is written" second nfs monitor
kill -CONT "$second_server"
ok "... and is content again" second nfs monitor
ok "... and by rpcbind" in_node witness timeout 5 rpcinfo -T tcp 10.77.0.100 100005 3
ok "the second stops" eval 'second vip stop && second nfs stop'
ok "... the first goes on" on b nfs monitor
like "$(ask getattr)" "^ok 0 " "... for its client"
ok "... and can be mounted" in_node witness timeout 5 rpcinfo -T tcp 10.77.0.100 100005 3

stopped() { on b vip stop && on b nfs stop; }
ok "stop on b" stopped
fails "monitor says that it does not serve" on b nfs monitor
for i in 1 2 3 4 5; do
    took start b nfs start && took stop-nfs b nfs stop && wait_until 10 gone || break
done

# locks of version 3: noted on the volume, claimed again on the other node
options=(BATON_OPTION_SQUASH=none BATON_OPTION_NFS3_LOCKS=yes BATON_OPTION_PROTOCOLS=3 BATON_OPTION_GRACE=5)
change_back() { on b vip stop && on b nfs stop && "$BATON" switchover --config "$CONFIG" --node b && wait_until 20 primary_is a; }
start_a() { on a nfs start && on a vip start; }
hold witness &
wait_until 10 [ -e "$T/held.witness" ] || bail "no mount namespace for the client"
holder[witness]=$(cat "$T/held.witness")
mkdir -p "$T/client-statd/sm" "$T/client-statd/sm.bak"
: >"$T/client-statd/state"
in_client() { nsenter -t "${holder[witness]}" -m -n -- "$@"; }
in_client rpcbind
nsenter -t "${holder[witness]}" -m -n -- rpc.statd -F -d -L -P "$T/client-statd" >"$T/client-statd.out" 2>&1 &
test_pids+=($!)
ok "the client has an rpc.statd" wait_until 10 in_client timeout 1 rpcinfo -T tcp 127.0.0.1 100024 1
start_b() { on b nfs start && on b vip start && on b nfs monitor; }
ok "start with locks on b" start_b
is "$(ask lookup file)" ok "the client finds the file"
granted() { [ "$(ask lock 1)" = ok ]; }
ok "its lock is granted, when the time of grace is over" wait_until 30 granted
is "$(ask lock 2)" "failed 1" "... and nobody else gets it"
noted() { [ -n "$(ls "$(mount_of b)/.baton/nfs/statd/sm")" ]; }
ok "the volume notes who has it" wait_until 5 noted
ok "a is in sync" wait_until 60 both_ways
ok "back to a" change_back
ok "start with locks on a" start_a
told() { grep -qi 'notify' "$T/client-statd.out"; }
ok "the client's rpc.statd is told" wait_until 10 told || diag "$(tail -n 20 "$T/client-statd.out" "$T/a.run/"*.log)"
is "$(ask lock 2)" "failed 4" "nobody gets the lock in the time of grace"
is "$(ask reclaim 1)" ok "... but who had it"
is "$(ask lock 2)" "failed 4" "... whatever others try"
gets_refusal() { [ "$(ask lock 2)" = "failed 1" ]; }
ok "afterwards it is the holder's still" wait_until 30 gets_refusal
ok "it is noted again" eval '[ -n "$(ls "$(mount_of a)/.baton/nfs/statd/sm")" ]'
ok "stop" eval 'on a vip stop && on a nfs stop'
median() { awk -v name="$1" '$1 == name { print $2 }' "$T/took" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] " of " NR }'; }
for name in start stop-nfs start-vip stop; do
    diag "median of $name: $(median $name) (ms)"
done

# the mount is dead
ok "start on a once more" start_a
kill_node a
begin=$(date +%s%N)
BATON_HURRY=1 ok "vip stops, though the mount is dead" on a vip stop
BATON_HURRY=1 ok "nfs too" on a nfs stop
spent=$((($(date +%s%N) - begin) / 1000000))
ok "... at once ($spent ms)" [ $spent -lt 1500 ]
nothing_left() { [ "$(exit_of on a nfs status)$(exit_of on a vip status)" = 33 ]; }
ok "... and nothing is left" wait_until 10 nothing_left
umount -l "$(mount_of a)"
stop_node b
