# shellcheck shell=bash disable=SC2034
# The Debian packages that Baton needs; sourced by quickstart and run-tests.
build_packages=(gcc libc6-dev make autoconf automake pkg-config libfuse3-dev libzmq3-dev liblmdb-dev libxxhash-dev
    libinih-dev libjansson-dev libsystemd-dev liburing-dev libnl-route-3-dev libcurl4-openssl-dev)
# For configure --enable-fuzzing CC=clang, or CC=afl-clang-fast; nothing here installs them by itself.
fuzz_packages=(clang libclang-rt-14-dev afl++)
run_packages=(fuse3 iproute2 util-linux)
# What the exporters drive, each needed only where its section stands in a volume's config. Their own services are to be off on
# a node, or they serve on every address (rpcbind may run): systemctl disable --now nfs-ganesha rpc-statd nfs-server smbd nmbd
# samba-ad-dc tgt
export_packages=(nfs-ganesha nfs-ganesha-vfs nfs-common rpcbind samba samba-vfs-modules tgt)
# The shares of the quickstart, and its clients.
share_packages=(nfs-ganesha nfs-ganesha-vfs rpcbind samba samba-vfs-modules smbclient libnfs-utils)
test_packages=(acl attr busybox etcd-server git iputils-ping libacl1-dev libiscsi-bin libiscsi-dev libnfs-dev libnfs-utils libsmbclient-dev libxml2-utils openssl
    perl procps python3 resource-agents rsync smbclient spin sqlite3 xz-utils zstd)

# install_packages NAME…: those that are missing.
install_packages() {
    local name missing=()
    command -v apt-get >/dev/null || { echo "no apt-get here; make sure that these are installed: $*" >&2; return 0; }
    for name in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "installing ${missing[*]}"
    # The lists may be there already and be good enough.
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 && return 0
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" \
        >/dev/null || { echo "packages could not be installed; try: apt-get install ${missing[*]}" >&2; return 1; }
}

# install_idle NAME…: the same; services that come with them do not start, now or at a boot.
install_idle() {
    local policy=/usr/sbin/policy-rc.d units=/lib/systemd/system before unit status
    before=$(ls $units 2>/dev/null)
    (
        if [ ! -e $policy ]; then
            trap 'rm -f $policy' EXIT
            printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
        fi
        install_packages "$@"
    )
    status=$?
    while read -r unit; do
        [[ $unit != *.service && $unit != *.socket ]] || systemctl disable --quiet "$unit" >/dev/null 2>&1
    done < <(comm -13 <(sort <<<"$before") <(ls $units 2>/dev/null | sort))
    return $status
}
