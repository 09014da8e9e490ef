# shellcheck shell=bash disable=SC2034
# A volume that batond itself shares over NFS, on an address that moves, and a client in a namespace of its own: for the test
# exporters-failover.t and the measurement bench/share-failover.sh, after lib.sh.
#
# Each node's servers live in a mount namespace of the node's: rpcbind has its socket at a fixed path.
service=10.77.0.100
client_address=10.77.0.50
declare -A holder=() # a process that keeps the node's mount namespace

other() { [ "$1" = a ] && echo b || echo a; }
in_sync() { [ "$(status_of "$(primary_now)" replication link 2>/dev/null)" = working ]; }
serves_all() { # NODE: its exports and the address are on
    status_of "$1" exports 2>/dev/null | python3 -c '
import json, sys
states = [one["state"] for one in json.load(sys.stdin)]
sys.exit(not states or any(state != "on" for state in states))'
}

shared_needs() {
    need_root
    local program
    for program in ganesha.nfsd rpcbind rpcinfo "$BATON_BUILD/tests/nfs-writer"; do
        command -v "$program" >/dev/null || skip_all "needs nfs-ganesha, rpcbind and libnfs"
    done
}

# The exporters as batond finds them. What runs them is the real script, in the node's mount namespace.
shared_exporters() {
    local node name
    mount --bind "$T" "$T" && mount --make-shared "$T" || bail "no shared mount" # nodes' mounts are to be seen in their namespaces
    mkdir -p /run/baton "$T/exporters"
    for node in "${nodes[@]}"; do
        in_node "$node" unshare -m --propagation slave bash -c '
            mkdir "$0.run" && mount --bind /run/baton "$0.run" && mount -t tmpfs none /run && mkdir /run/rpcbind /run/baton &&
                mount --move "$0.run" /run/baton && chown _rpc: /run/rpcbind && echo $$ >"$0.new" && mv "$0.new" "$0" &&
                exec sleep 100000' "$T/held.$node" &
        wait_until 10 [ -e "$T/held.$node" ] || bail "no mount namespace for $node"
        holder[$node]=$(cat "$T/held.$node")
        disown "${holder[$node]}" 2>/dev/null
    done
    for name in nfs vip; do
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
        for name in nfs/ganesha vip/remember vip/announce-0; do
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
    cat >>"$CONFIG" <<END

[export nfs]
address = $service/24
protocols = 3
path = /share
squash = none
END
    [ -z "${VOLUME_LEASE:-}" ] || volume_set lease duration "$VOLUME_LEASE"
    volume_format
    start_witness || bail "the witness does not start"
    start_node a && start_node b || bail "a node does not start"
    wait_until 30 serves_all a || bail "the volume is not exported: $("$BATON" status --config "$CONFIG" --node a)"
    wait_until 60 in_sync || bail "the nodes do not get in sync"
}

# Every coming and going of the address, as the kernels tell it, with its time, into $T/NODE.addresses.
addresses_watch() {
    local node
    for node in "${nodes[@]}"; do
        # not by in_node: a function's process in the background is a shell, and what it calls would outlive it
        nsenter --net="/run/netns/$ID-$node" -- ip -o -ts monitor address >"$T/$node.addresses" &
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

# The client's writer; its lines in $T/writer.
writer_start() { # [MILLISECONDS]
    nsenter --net="/run/netns/$ID-client" -- "$BATON_BUILD/tests/nfs-writer" "$service" /share written "${1:-10}" \
        >"$T/writer" 2>"$T/writer.err" &
    writer_pid=$!
    test_pids+=($!)
    wait_until 20 acknowledged_more_than 20 || bail "the client cannot write: $(tail -n 3 "$T/writer" "$T/writer.err")"
}
acknowledged() { grep -c '^ack' "$T/writer"; }
acknowledged_more_than() { [ "$(acknowledged)" -gt "$1" ]; }
# The longest time between two acknowledgements, in µs, of those that came after NANOSECONDS (and of the last one before).
pause_since() {
    awk -v since="$1" '$1 == "ack" { if ($4 >= since && last && $4 - last > most) most = $4 - last; last = $4 } END { printf "%d\n", most / 1000 }' "$T/writer"
}
now_ns() { # CLOCK_BOOTTIME, to a hundredth of a second
    local now
    read -r now _ </proc/uptime
    echo "${now/./}0000000"
}
