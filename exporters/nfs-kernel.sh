# shellcheck shell=bash disable=SC2154
# The exporter nfs with `server = kernel`: the kernel's nfsd, where the kernel has one. Part of the script nfs.
#
# The kernel has one server per network namespace, so port, lease and grace are shared by all volumes of a node, nfsd keeps
# running when a volume leaves, and its record of NFSv4 clients is the node's: put nfsdcld's folder on the volume by hand, or
# use ganesha, if locks of version 4 are to be claimed after a failover. A thread of nfsd that waits in a dead mount cannot be
# killed; it answers nobody once the address is off.

nfsd=${BATON_NFSD:-/proc/fs/nfsd} # tests have another
etab=${BATON_ETAB:-/var/lib/nfs/etab}

kernel_there() { [ -e "$nfsd/threads" ] || grep -qw nfsd /proc/filesystems || modinfo nfsd >/dev/null 2>&1; }

kernel_check() {
    need_program exportfs nfs-kernel-server
    need_program rpc.nfsd nfs-kernel-server
    need_program rpc.mountd nfs-kernel-server
    kernel_there || fault "this kernel has no NFS server (no module nfsd); take server = ganesha"
}

# What exportfs is to know: one word "CLIENT:PATH" and its options. Sets arrays kernel_what and kernel_how.
kernel_exports() {
    local id=${BATON_VOLUME_ID,,} common word squashes='root:root_squash all:all_squash none:no_root_squash'
    squashes=${squashes#*"$squash":}
    common="fsid=${id:0:8}-${id:8:4}-${id:12:4}-${id:16:4}-${id:20:12},sync,no_subtree_check,${squashes%% *}"
    common+=",anonuid=${anonymous%:*},anongid=${anonymous#*:},sec=$(printf '%s' "${sec//[, ]/:}")"
    kernel_what=() kernel_how=()
    set -f
    for word in ${readers//,/ }; do
        kernel_what+=("$word:$BATON_MOUNT") kernel_how+=("ro,$common")
    done
    for word in ${clients//,/ }; do
        kernel_what+=("$word:$BATON_MOUNT") kernel_how+=("$access,$common")
    done
    set +f
}

kernel_start() {
    local i versions=(-N 3 -N 4) word
    kernel_there || die "this kernel has no NFS server (no module nfsd); take server = ganesha"
    [ -e "$nfsd/threads" ] || { modprobe nfsd && mount -t nfsd nfsd /proc/fs/nfsd; } >/dev/null 2>&1
    if $v3; then rpcbind_up; versions=(-V 3); else versions=(-N 3); fi
    if [ -n "$minors" ]; then versions+=(-V 4); else versions+=(-N 4); fi
    for word in 0 1 2; do
        [ -z "$minors" ] || if [[ " $minors " == *" $word "* ]]; then versions+=(-V "4.$word"); else versions+=(-N "4.$word"); fi
    done
    kernel_exports
    for i in "${!kernel_what[@]}"; do
        timeout -s KILL 5 exportfs -o "${kernel_how[$i]}" "${kernel_what[$i]}" ||
            die "${kernel_what[$i]} could not be exported (exportfs has said why)"
    done
    if [ "$(kernel_threads)" = 0 ]; then
        { echo "$lease" >"$nfsd/nfsv4leasetime" && echo "$grace" >"$nfsd/nfsv4gracetime"; } 2>/dev/null
        rpc.nfsd --port "$port" "${versions[@]}" 8 || die "the kernel's NFS server does not start (rpc.nfsd has said why)"
    fi
    if ! pidof rpc.mountd >/dev/null; then
        rpc.mountd --port "$mountd_port" || die "rpc.mountd does not start: nobody could look up the export"
    fi
    wait_for 3000 kernel_serves || die "the kernel's NFS server does not answer on port $port"
}
kernel_threads() {
    local threads=0
    { read -r threads <"$nfsd/threads"; } 2>/dev/null
    echo "$threads"
}
kernel_serves() { null_call 127.0.0.1; }

# exportfs may look at the path, and hang there: nobody waits for it.
kernel_stop() {
    options_read 2>/dev/null
    kernel_exports
    # shellcheck disable=SC2016 # expanded by the inner shell
    server_start unexport timeout -s KILL 10 bash -c 'for what in "$@"; do exportfs -u "$what"; done; exportfs -f' unexport \
        "${kernel_what[@]}"
    wait_for 150 server_gone unexport || true
}
kernel_monitor() {
    kernel_exported || die "$BATON_MOUNT is not exported by the kernel any more"
    kernel_serves || die "the kernel's NFS server does not answer a NULL call on port $port within $ask_seconds s"
}
kernel_exported() { grep -qsF "$BATON_MOUNT"$'\t' "$etab"; }
kernel_status() {
    if kernel_exported; then echo "exported by the kernel"; return; fi
    echo "not exported by the kernel"
    exit 3
}
