# shellcheck shell=bash disable=SC2034
# Two shares that differ in the file system alone, for what compares them (share-nfs.sh, share-smb.sh, ../bench/share.sh),
# after lib.sh and exporting.sh: the same exporter with the same options shares the mount of node a of a Baton volume, and, from
# a namespace `plain`, an ext4. Each at an address of its own on one bridge, where the client is too (`client COMMAND…`).
#
# Servers are nobody's children: whoever sources this begins with the lines that make it their parent (see share-nfs.sh).
declare -A share_address=([a]=10.77.0.100 [plain]=10.77.0.101)
declare -A holder=() # a process that keeps the side's mount namespace: rpcbind has its socket at a fixed path

in_node() {
    local at=(--net="/run/netns/$ID-$1")
    [ -z "${holder[$1]:-}" ] || at=(-t "${holder[$1]}" -m -n)
    shift
    nsenter "${at[@]}" -- "$@"
}
side_hold() { # NODE
    nsenter --net="/run/netns/$ID-$1" -- unshare -m --propagation slave bash -c '
        mount -t tmpfs none /run && mkdir /run/rpcbind && chown _rpc: /run/rpcbind && echo $$ >"$0.new" &&
            mv "$0.new" "$0" && exec sleep 100000' "$T/held.$1" &
    disown $!
    wait_until 10 [ -e "$T/held.$1" ] || bail "no mount namespace for $1"
    holder[$1]=$(cat "$T/held.$1")
}
# plain_network, then $T/plain/mount is an ext4 of so many MiB in a file, or a folder of the disk that $WORK is on.
plain_network() {
    namespaces+=("$ID-plain")
    ip netns add "$ID-plain" && ip -n "$ID-plain" link set lo up &&
        ip -n "$ID-hub" link add to-plain type veth peer name eth0 netns "$ID-plain" &&
        ip -n "$ID-hub" link set to-plain master bridge up && ip -n "$ID-plain" address add 10.77.0.9/24 dev eth0 &&
        ip -n "$ID-plain" link set eth0 up || bail "no network for the other side"
    mkdir -p "$T/plain/mount"
}
plain_ext4() { # MIB
    truncate -s "$1M" "$T/plain/image" && mkfs.ext4 -q "$T/plain/image" &&
        mount -o loop "$T/plain/image" "$T/plain/mount" || bail "no ext4 could be made"
}

# The exporter's verbs on a side: at its own address.
side() { # NODE NAME VERB
    local service=${share_address[$1]}
    exporter "$@"
}
side_serve() { # NODE NAME
    local service=${share_address[$1]}
    state_make "$1" "$2"
    exporter "$1" "$2" check && exporter "$1" "$2" start || return 1
    ip -n "$ID-$1" -o address show | grep -q " $service/" || address_on "$1"
    exporter "$1" "$2" monitor
}
side_stop() { # NODE NAME
    local service=${share_address[$1]}
    exporter "$1" "$2" stop && wait_until 20 status_is "$1" "$2" 3
}
sides_end() { # for cleanup_hooks
    local node name pid
    for node in "${!holder[@]}"; do
        for name in nfs smb; do
            side "$node" $name stop >/dev/null 2>&1
        done
        for pid in $(pidof rpcbind); do
            [ "$(readlink "/proc/$pid/ns/mnt")" = "$(readlink "/proc/${holder[$node]}/ns/mnt")" ] && kill -KILL "$pid"
        done
        kill -KILL "${holder[$node]}" 2>/dev/null
    done
}
# Both sides, on a volume that volume_up has made.
sides_up() {
    mount --bind "$T" "$T" && mount --make-shared "$T" || bail "no shared mount" # what is mounted is seen in the namespaces
    chmod 711 "$T"
    cleanup_hooks+=(sides_end)
    volume_up
    client_up
    plain_network
}

# Many cases measure time, and long ones may not have come to their end: what differs is run once more, with nothing beside it, and up to
# three times while a case passes on ext4 alone. `again SUFFIX CASE-OR-SUITE…` runs them.
settle() { # SUITE-OF-CASES EXT4 BATON, as for share-compare.py
    local round differing compare=(python3 "$BATON_SRC/tests/suites/share-compare.py")
    for round in 1 2 3; do
        mapfile -t differing < <("${compare[@]}" --again "$@")
        [ ${#differing[@]} -gt 0 ] || return
        again ".again-$round" "${differing[@]}"
        "${compare[@]}" "$@" >/dev/null && return
    done
}
