# shellcheck shell=bash disable=SC2034
# A volume that batond itself shares, on an address that moves, and a client in a namespace of its own: for the test
# exporters-failover.t and the measurement bench/share-failover.sh, after lib.sh.
#
# Each node's servers live in a mount namespace of the node's: rpcbind has its socket at a fixed path.
service=10.77.0.100
client_address=10.77.0.50
declare -A holder=() # a process that keeps the node's mount namespace
protocols=(nfs)      # what is shared, of nfs, smb and iscsi; the client writes over each. A caller may set it first.
shared_names=()      # the exporters that are to be found; usual: these, and vip

shared_sections() { # of the config file: what is shared
    local protocol
    for protocol in "${protocols[@]}"; do
        printf '\n[export %s]\naddress = %s/24\n' "$protocol" "$service"
        case $protocol in
        nfs) printf 'protocols = 3\npath = /share\nsquash = none\n' ;;
        smb) printf 'shares = share:/smb:guest safe:/smb:guest,sync=always\n' ;;
        iscsi) printf 'luns = /disk.img,%s\ninitiators = 10.77.0.0/24\ntarget = %s\n' "$disk_size" "$disk_target" ;;
        esac
    done
}
disk_size=1G # a block for each record
disk_target=iqn.2026-01.invalid.test:$ID

other() { [ "$1" = a ] && echo b || echo a; }
in_sync() { [ "$(status_of "$(primary_now)" replication link 2>/dev/null)" = working ]; }
serves_all() { # NODE: its exports and the address are on
    status_of "$1" exports 2>/dev/null | python3 -c '
import json, sys
states = [one["state"] for one in json.load(sys.stdin)]
sys.exit(not states or any(state != "on" for state in states))'
}

# lacks PROTOCOL: prints what is missing for it; false if nothing is.
lacks() {
    local program
    local -A programs=([nfs]="ganesha.nfsd rpcbind rpcinfo" [smb]=smbd [iscsi]="tgtd tgtadm")
    for program in ${programs[$1]} "$BATON_BUILD/tests/$1-writer"; do
        command -v "$program" >/dev/null || { echo "$program"; return; }
    done
    return 1
}
shared_needs() { # protocols: those that can be here; a line for each other
    need_root
    local protocol missing here=()
    for protocol in "${protocols[@]}"; do
        if missing=$(lacks "$protocol"); then skip 1 "$protocol: needs $missing"; else here+=("$protocol"); fi
    done
    [ ${#here[@]} -gt 0 ] || skip_all "needs servers and clients of ${protocols[*]}"
    protocols=("${here[@]}")
}
shares() { [[ " ${protocols[*]} " == *" $1 "* ]]; }

# The exporters as batond finds them. What runs them is the real script, in the node's mount namespace; $T/hosts, if it is there, is
# what that one knows of names.
shared_exporters() {
    local node name
    mount --bind "$T" "$T" && mount --make-shared "$T" || bail "no shared mount" # nodes' mounts are to be seen in their namespaces
    [ ${#shared_names[@]} -gt 0 ] || shared_names=("${protocols[@]}" vip)
    chmod 711 "$T" # Samba works as the user
    mkdir -p /run/baton "$T/exporters"
    for node in "${nodes[@]}"; do
        nsenter --net="/run/netns/$ID-$node" -- unshare -m --propagation slave bash -c '
            mkdir "$0.run" && mount --bind /run/baton "$0.run" && mount -t tmpfs none /run && mkdir /run/rpcbind /run/baton &&
                mount --move "$0.run" /run/baton && { [ ! -e "$1" ] || mount --bind "$1" /etc/hosts; } && chown _rpc: /run/rpcbind && echo $$ >"$0.new" && mv "$0.new" "$0" &&
                exec sleep 100000' "$T/held.$node" "$T/hosts" &
        disown $!
        wait_until 10 [ -e "$T/held.$node" ] || bail "no mount namespace for $node"
        holder[$node]=$(cat "$T/held.$node")
    done
    for name in "${shared_names[@]}"; do
        cat >"$T/exporters/$name" <<END
#!/bin/bash
read -r holder <"$T/held.\$BATON_NODE"
export BATON_LIBEXEC="$BATON_SRC/exporters"
exec nsenter -t "\$holder" -m -- "$BATON_SRC/exporters/$name" "\$@"
END
        chmod +x "$T/exporters/$name"
    done
    export BATON_EXPORTERS=$T/exporters PATH=$BATON_BUILD/exporters:$PATH
    cleanup_hooks+=(shared_end)
}
# Servers that nobody is there for, rpcbind and the namespaces' holders.
shared_end() {
    local node pid name
    for node in ${node_parent[@]+"${!node_parent[@]}"}; do
        kill_node "$node"
    done
    for node in "${!holder[@]}"; do
        for name in nfs/ganesha nfs/statd nfs/notify smb/smbd smb/dcerpcd smb/accounts iscsi/tgtd vip/remember vip/announce-0 vip/tickle; do
            BATON_LOCAL=/run/baton/$ID/$node/${name%/*} bash -c '. "$0"; server_kill "$1"' "$BATON_SRC/exporters/lib.sh" "${name#*/}"
        done
        for pid in $(pidof rpcbind); do
            [ "$(readlink "/proc/$pid/ns/mnt")" = "$(readlink "/proc/${holder[$node]}/ns/mnt")" ] && kill -KILL "$pid"
        done
        kill -KILL "${holder[$node]}" 2>/dev/null
    done
}

# Network, volume, witness, daemons, client. a is primary.
shared_up() {
    network_up
    ip netns add "$ID-client" || bail "no network namespace could be made"
    namespaces+=("$ID-client")
    ip -n "$ID-client" link set lo up
    ip -n "$ID-hub" link add to-client type veth peer name eth0 netns "$ID-client" || bail "no veth could be made"
    ip -n "$ID-hub" link set to-client master bridge up
    ip -n "$ID-client" address add "$client_address/24" dev eth0
    ip -n "$ID-client" link set eth0 up
    shared_exporters
    volume_create --witness "tcp://${address[witness]}:7400"
    { echo; shared_sections; } >>"$CONFIG"
    [ -z "${VOLUME_LEASE:-}" ] || volume_set lease duration "$VOLUME_LEASE"
    [ -z "${VOLUME_ACKNOWLEDGE:-}" ] || volume_set volume acknowledge "$VOLUME_ACKNOWLEDGE"
    volume_format
    start_witness || bail "the witness does not start"
    start_node a && start_node b || bail "a node does not start"
    wait_until 30 serves_all a || bail "the volume is not exported: $("$BATON" status --config "$CONFIG" --node a)"
    wait_until 60 in_sync || bail "the nodes do not get in sync"
    ! shares smb || { mkdir "$(mount_of a)/smb" && chmod 777 "$(mount_of a)/smb"; } || bail "the shared directory cannot be made"
}

# kill_node, with the order that is hardest for clients: the runner of the exports, with whom the servers end, dies after all others.
kill_node_runner_last() { # NODE
    local parent=${node_parent[$1]} child runner='' others=()
    kill -STOP "$parent"
    for child in $(cat "/proc/$parent/task/$parent/children"); do
        kill -STOP "$child"
        if [ "$(cat "/proc/$child/comm")" = batond-exports ]; then runner=$child; else others+=("$child"); fi
    done
    [ -n "$runner" ] || return
    unset "node_pid[$1]" "node_parent[$1]"
    kill -KILL "${others[@]}" "$parent"
    wait "$parent" 2>/dev/null
    wait_until 30 process_gone "${others[0]}" || return
    sleep 0.2 # so much later
    kill -KILL "$runner"
}

# Every coming and going of the address, as the kernels tell it, with its time, into $T/NODE.addresses.
addresses_watch() {
    local node
    for node in "${nodes[@]}"; do
        nsenter --net="/run/netns/$ID-$node" -- ip -o -ts monitor address >"$T/$node.addresses" & # no shell between, to be ended by its pid
        test_pids+=($!)
        disown $!
    done
}
# When the address was on more than one node; nothing: never. Ends with 0 if it was seen to come at all so many times.
addresses_overlap() { # COMINGS
    python3 - "$service" "$1" "$T"/*.addresses <<'END'
import datetime, re, sys
service, least = sys.argv[1], int(sys.argv[2])
spans, comings = [], 0
for log in sys.argv[3:]:
    since = None
    for line in open(log):
        if f"inet {service}/" not in line:
            continue
        now = datetime.datetime.fromisoformat(re.match(r"\[([^\]]*)\]", line)[1]).timestamp()
        if "Deleted" in line:
            spans.append((since if since is not None else 0, now, log))
            since = None
        elif since is None:
            since, comings = now, comings + 1
    if since is not None:
        spans.append((since, float("inf"), log))
spans.sort()
bad = 0
for first, second in zip(spans, spans[1:]):
    if second[0] < first[1]:
        bad = 1
        print(f"{second[2]} had it {first[1] - second[0]:.6f} s before {first[2]} had lost it")
if comings < least:
    print(f"it came {comings} times")
sys.exit(bad or comings < least)
END
}

# The client's writers, one for each protocol (their lines are explained in share_writer.h), into $T/writer.PROTOCOL.
declare -A writer_pid=()
writer_start() { # [MILLISECONDS]
    local protocol every=${1:-10} command
    mkdir -p "$T/client.samba"
    printf '[global]\n%s = %s\n' "private dir" "$T/client.samba" "lock directory" "$T/client.samba" "state directory" "$T/client.samba" \
        "cache directory" "$T/client.samba" >"$T/client.conf"
    for protocol in "${protocols[@]}"; do
        case $protocol in
        nfs) command=(nfs-writer "$service" /share written) ;;
        smb) command=(smb-writer "$service" share safe written) ;;
        iscsi) command=(iscsi-writer "iscsi://$service/$disk_target/1") ;;
        esac
        nsenter --net="/run/netns/$ID-client" -- env SMB_CONF_PATH="$T/client.conf" "$BATON_BUILD/tests/${command[@]}" "$every" \
            >"$T/writer.$protocol" 2>"$T/writer.$protocol.err" &
        writer_pid[$protocol]=$!
        test_pids+=($!)
    done
    for protocol in "${protocols[@]}"; do
        wait_until 20 acknowledged_more_than "$protocol" 20 ||
            bail "the client cannot write over $protocol: $(tail -n 3 "$T/writer.$protocol" "$T/writer.$protocol.err")"
    done
}
writers_end() { # all end, and end well
    local protocol status=0
    kill -TERM "${writer_pid[@]}"
    for protocol in "${protocols[@]}"; do
        wait "${writer_pid[$protocol]}" || { echo "$protocol: exit status $?"; status=1; }
    done
    return $status
}
written_to() { # PROTOCOL NODE: the file that the records are in
    case $1 in
    nfs) echo "$(mount_of "$2")/written" ;;
    smb) echo "$(mount_of "$2")/smb/written" ;;
    iscsi) echo "$(mount_of "$2")/disk.img" ;;
    esac
}
# Everything acknowledged over PROTOCOL is in the file on NODE.
holds() { # PROTOCOL NODE
    python3 - "$T/writer.$1" "$(written_to "$1" "$2")" <<'END'
import sys
data = open(sys.argv[2], "rb")
numbers = [int(line.split()[1]) for line in open(sys.argv[1]) if line.startswith("ack")]
def record(n):
    data.seek(n * 512)
    return data.read(512)
missing = [n for n in numbers if record(n) != b"%-511d\n" % n]
print(f"{len(missing)} of {len(numbers)} are missing: {missing[:20]}")
sys.exit(bool(missing) or len(numbers) < 200)
END
}
acknowledged() { grep -c '^ack' "$T/writer.$1"; }                       # PROTOCOL
acknowledged_more_than() { [ "$(acknowledged "$1")" -gt "$2" ]; }       # PROTOCOL COUNT
noticed() { grep -vH '^ack' "$T"/writer.{nfs,smb,iscsi} 2>/dev/null; }  # what a program of the client's would have seen; false: nothing
# The longest time between two acknowledgements, in µs, of those that came after NANOSECONDS (and of the last one before), and when
# it was over.
pause_since() { # PROTOCOL NANOSECONDS
    awk -v since="$2" '$1 == "ack" { if ($4 >= since && last && $4 - last > most) { most = $4 - last; end = $4 } last = $4 }
        END { printf "%d %.0f\n", most / 1000, end }' "$T/writer.$1"
}
now_ns() { # CLOCK_BOOTTIME, to a hundredth of a second
    local now
    read -r now _ </proc/uptime
    echo "${now/./}0000000"
}
