#!/bin/bash
# share.sh [-r repeats] [-s MiB] [-n files] [-p nfs|smb] [SYSTEM…] — measures shares side by side: a client of NFS version 3 (libnfs)
# and one of SMB (libsmbclient) on the same bridge, against nfs-ganesha and Samba with one configuration, as the exporters make it,
# on ext4, on a Baton volume alone and on one with a standby. Prints medians, and what they are of ext4's in brackets.
# `make bench-share` runs it. Root; the figures are worth something on an otherwise idle machine only.
#
# SYSTEM: ext4 baton-alone baton-close-clear baton-close-curve baton-write-clear baton-never-clear (systems.sh). Default: the first
# four. In each repeat every system is set up afresh, measured and taken down, one after the other.
# BENCH_DIR: where all of them keep their data (default: TMPDIR or /tmp).
[ -n "${BATON_TEST_REAPS:-}" ] || BATON_TEST_REAPS=1 exec python3 -c 'import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)
os.execvp("bash", ["bash"] + sys.argv[1:])' "$0" "$@"
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"
. "$here/../exporting.sh"
. "$here/../suites/shares.sh"
. "$here/systems.sh"
need_root
tap_ended=1 # this is no test: no plan at the end
set +u

repeats=3 size=1024 files=3000 protocols=()
while getopts r:s:n:p: option; do
    case $option in
    r) repeats=$OPTARG ;;
    s) size=$OPTARG ;;
    n) files=$OPTARG ;;
    p) protocols+=("$OPTARG") ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
systems=("$@")
[ ${#systems[@]} -gt 0 ] || systems=(ext4 baton-alone baton-close-clear baton-close-curve)
[ ${#protocols[@]} -gt 0 ] || protocols=(nfs smb)
BENCH=$BATON_BUILD/tests/bench/share
[ -x "$BENCH" ] || { echo "share.sh: $BENCH is not there; \"make bench-share\" builds it (it needs libnfs)" >&2; exit 1; }
WORK=${BENCH_DIR:-${TMPDIR:-/tmp}}/$ID.work
mkdir -p "$WORK" || exit 1
cleanup_hooks+=('rm -rf --one-file-system "$WORK"')
FIGURES=$T/figures
: >"$FIGURES"
user=games # of every Debian
printf '[global]\n    client max protocol = SMB3\n' >"$T/client.conf"

# Each side's servers in a mount namespace of their own; what is mounted later is seen there.
sides_namespaces() {
    mount --bind "$T" "$T" && mount --make-shared "$T" || bail "no shared mount"
    chmod 711 "$T"
    cleanup_hooks+=(sides_end)
    network_up
    client_up
    plain_network
    mkdir -p "$T/a"
    side_hold a
    side_hold plain
}
side_of() { if [ "$1" = ext4 ]; then echo plain; else echo a; fi; }
side_up() { # SYSTEM
    if [ "$1" = ext4 ]; then
        up_ext4 && mount --bind "$DIR" "$(mount_of plain)"
    else
        up_baton "$1"
    fi
}
side_down() {
    rm -rf "$T/$(side_of "$1")/run"
    if [ "$1" = ext4 ]; then
        umount "$(mount_of plain)"
        down_ext4
    else
        down_baton
    fi
}
share_options() { # PROTOCOL
    case $1 in
    nfs) options=(BATON_OPTION_SQUASH=none BATON_OPTION_PROTOCOLS=3) ;;
    smb) options=(BATON_OPTION_SHARES=work:/work) ;;
    esac
}
measure() { # SYSTEM PROTOCOL
    local node share
    node=$(side_of "$1")
    share_options "$2"
    side_serve "$node" "$2" || { echo "share.sh: $2 on $1 does not start; left out" >&2; return; }
    case $2 in
    nfs) share=/$ID/work ;;
    smb)
        share=work
        printf 'one\none\n' | in_node "$node" smbpasswd -c "$T/$node/run/smb/smb.conf" -s -a $user >/dev/null
        ;;
    esac
    client env SMB_CONF_PATH="$T/client.conf" BENCH_USER=$user BENCH_PASSWORD=one timeout 900 "$BENCH" -s "$size" -n "$files" "$2" \
        "${share_address[$node]}" "$share" >"$T/bench.out" 2>"$T/bench.err" || cat "$T/bench.err" >&2
    sed "s/^/$1\t/" "$T/bench.out" >>"$FIGURES"
    side_stop "$node" "$2"
}

sides_namespaces
for ((repeat = 1; repeat <= repeats; repeat++)); do
    for system in "${systems[@]}"; do
        echo "# $(date +%T) $system, repeat $repeat" >&2
        side_up "$system" || { echo "share.sh: $system does not start; left out" >&2; show_logs >&2; continue; }
        mkdir "$DIR/work" && chmod 777 "$DIR/work"
        for protocol in "${protocols[@]}"; do
            measure "$system" "$protocol"
        done
        side_down "$system"
    done
done
python3 "$here/ratios.py" "$FIGURES" ext4
[ -z "${BATON_BENCH_ROWS:-}" ] || sed 's/^/# /' "$FIGURES"
