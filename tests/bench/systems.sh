# The file systems that `run.sh` measures: for each, up_NAME sets DIR (where to work) and PIDS (whose memory counts), and
# down_NAME takes it away. Sourced by run.sh after tests/lib.sh. Whatever a system needs that is not here: missing_NAME
# prints what.

# One more network namespace, for the daemons of other systems: nobody else sees their ports.
other_network() {
    [ -e "/run/netns/$ID-other" ] && return
    namespaces+=("$ID-other")
    ip netns add "$ID-other" && ip -n "$ID-other" link set lo up && ip -n "$ID-other" address add 10.78.0.1/32 dev lo
}
in_other() { nsenter --net="/run/netns/$ID-other" -- "$@"; }

# ---- the disk itself ----
up_ext4() {
    DIR=$WORK/ext4
    PIDS=
    mkdir -p "$DIR"
}
down_ext4() { rm -rf "$WORK/ext4"; }

# ---- libfuse's example, as published: PASSTHROUGH=its passthrough_hp ----
missing_passthrough() { [ -x "${PASSTHROUGH:-}" ] || echo "PASSTHROUGH (libfuse's example/passthrough_hp, built)"; }
up_passthrough() {
    mkdir -p "$WORK/passthrough" "$T/passthrough"
    DIR=$T/passthrough
    "$PASSTHROUGH" --foreground "$WORK/passthrough" "$DIR" &
    PIDS=$!
    test_pids+=("$PIDS")
    wait_until 10 mountpoint -q "$DIR"
}
down_passthrough() {
    umount "$T/passthrough"
    rm -rf "$WORK/passthrough"
}

# ---- GlusterFS: two bricks on this disk, one client ----
missing_gluster() { command -v glusterd >/dev/null || echo "glusterd (Debian: glusterfs-server)"; }
gluster_gone() { [ -z "$(gluster_pids)" ]; }
gluster_pids() { pgrep -f "$T/gluster" | tr '\n' ' '; }
up_gluster() {
    local base=$T/gluster command
    other_network
    mkdir -p "$base"/{work,run,mount} "$WORK"/gluster/{1,2}
    cat >"$base/glusterd.vol" <<END
volume management
    type mgmt/glusterd
    option working-directory $base/work
    option run-directory $base/run
    option transport-type socket
    option transport.socket.bind-address 10.78.0.1
    option transport.address-family inet
    option glusterd-sockfile $base/socket
end-volume
END
    in_other glusterd -f "$base/glusterd.vol" -l "$base/glusterd.messages" -p "$base/glusterd.pid" -N >/dev/null 2>&1 &
    test_pids+=($!)
    wait_until 20 test -S "$base/socket" || return 1
    command=(in_other gluster --mode=script "--glusterd-sock=$base/socket")
    wait_until 20 "${command[@]}" volume create bench replica 2 "10.78.0.1:$WORK/gluster/1" "10.78.0.1:$WORK/gluster/2" \
        force || return 1
    "${command[@]}" volume set bench storage.reserve 0 >/dev/null
    "${command[@]}" volume start bench >/dev/null || return 1
    in_other mount -t glusterfs 10.78.0.1:/bench "$base/mount" || return 1
    DIR=$base/mount
    PIDS=$(gluster_pids)
}
down_gluster() {
    umount "$T/gluster/mount"
    local pid
    for pid in $(gluster_pids); do
        kill "$pid" 2>/dev/null
    done
    wait_until 20 gluster_gone
    rm -rf "$T/gluster" "$WORK/gluster"
}

# ---- MooseFS: a master, two chunk servers, goal 2 ----
missing_moosefs() { command -v mfsmaster >/dev/null || echo "mfsmaster (Debian: moosefs-master moosefs-chunkserver moosefs-client)"; }
up_moosefs() {
    local base=$T/moosefs i
    other_network
    mkdir -p "$base"/{master,1,2,mount} "$WORK"/moosefs/{1,2}
    cp /var/lib/mfs/metadata.mfs.empty "$base/master/metadata.mfs" || return 1
    echo '* / rw,alldirs,admin,maproot=0:0' >"$base/exports"
    : >"$base/topology"
    cat >"$base/master.cfg" <<END
WORKING_USER = root
WORKING_GROUP = root
DATA_PATH = $base/master
EXPORTS_FILENAME = $base/exports
TOPOLOGY_FILENAME = $base/topology
LOCK_MEMORY = 0
END
    in_other mfsmaster -c "$base/master.cfg" start >/dev/null 2>&1 || return 1
    for i in 1 2; do
        echo "$WORK/moosefs/$i" >"$base/disks.$i"
        cat >"$base/chunks.$i" <<END
WORKING_USER = root
WORKING_GROUP = root
DATA_PATH = $base/$i
HDD_CONF_FILENAME = $base/disks.$i
MASTER_HOST = 10.78.0.1
CSSERV_LISTEN_HOST = 10.78.0.1
CSSERV_LISTEN_PORT = 943$i
HDD_LEAVE_SPACE_DEFAULT = 1GiB
END
        in_other mfschunkserver -c "$base/chunks.$i" start >/dev/null 2>&1 || return 1
    done
    wait_until 20 in_other mfsmount -H 10.78.0.1 "$base/mount" || return 1
    DIR=$base/mount
    mfssetgoal -r 2 "$DIR" >/dev/null
    wait_until 20 touch "$DIR/probe" && rm -f "$DIR/probe"
    PIDS="$(pgrep -f "$base/master.cfg") $(pgrep -f "$base/chunks") $(pgrep -f "$base/mount")"
    cleanup_hooks+=("kill -KILL ${PIDS//$'\n'/ } 2>/dev/null") # daemons, no children of the shell
}
down_moosefs() {
    local i
    umount "$T/moosefs/mount"
    for i in 1 2; do in_other mfschunkserver -c "$T/moosefs/chunks.$i" stop >/dev/null 2>&1; done
    in_other mfsmaster -c "$T/moosefs/master.cfg" stop >/dev/null 2>&1
    rm -rf "$T/moosefs" "$WORK/moosefs"
}

# ---- Baton: NAME is baton-alone or baton-ACKNOWLEDGE-TRANSPORT, with -million behind it: on a volume that holds that
# many files already ----
store_of() { echo "$WORK/baton/$1/store"; }
up_baton() {
    local name=$1 acknowledge=close transport=clear
    IFS=- read -r _ acknowledge transport _ <<<"$name"
    [ "$acknowledge" = alone ] && acknowledge=close transport=clear
    [ -e "/run/netns/$ID-a" ] || network_up
    mkdir -p "$WORK"/baton/{a,b}
    rm -f "$CONFIG"*
    volume_create
    volume_set volume acknowledge "$acknowledge"
    volume_set volume transport "$transport"
    volume_format
    start_node a || return 1
    PIDS=${node_pid[a]}
    DIR=$(mount_of a)
    if [[ $name != *alone* ]]; then
        start_node b || return 1
        PIDS+=" ${node_pid[b]}"
        wait_until 60 peer_in_sync || { diag "the standby does not get in sync: $("$BATON" status --config "$CONFIG" --node a)"; return 1; }
    fi
    if [[ $name == *-million ]]; then
        "$BENCH" -n 1000000 "$DIR" fill >/dev/null || return 1
    fi
}
peer_in_sync() { [ "$(status_of a replication link)" = working ]; }
down_baton() {
    stop_node a
    [ -z "${node_pid[b]:-}" ] || stop_node b
    rm -rf "$WORK/baton" "$T/a" "$T/b"
}
