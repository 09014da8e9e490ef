#!/bin/bash
# share-nfs.sh CHECKOUT [-4 VERSION…] [CASE or FLAG…] — runs pynfs (github.com/kofemann/pynfs, built: setup.py build in xdr, rpc,
# nfs4.1 and nfs4.0) against nfs-ganesha on a Baton volume with a standby, and against the same server with the same
# configuration on ext4, at the same time; prints the cases that do not pass on both, and fails if one passes on ext4 alone. Both
# copies of the volume are compared afterwards. Default: versions 0, 1 and 2, cases "all". Needs python3-ply and python3-gssapi.
# For developers, by hand; root; some half an hour. Results are left in RESULT_BASE (default /tmp/baton-share-nfs).
[ -n "${BATON_TEST_REAPS:-}" ] || BATON_TEST_REAPS=1 exec python3 -c 'import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)
os.execvp("bash", ["bash"] + sys.argv[1:])' "$0" "$@"
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"
. "$here/../exporting.sh"
. "$here/common.sh"
. "$here/shares.sh"
usage() { echo "usage: share-nfs.sh CHECKOUT [-4 VERSION…] [CASE or FLAG…] (built)"; tap_ended=1; exit 2; }
[ $# -ge 1 ] && [ -e "$1/nfs4.0/testserver.py" ] || usage
checkout=$(cd "$1" && pwd)
shift
versions=()
while getopts 4: option; do
    case $option in
        4) versions+=("$OPTARG") ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ ${#versions[@]} -gt 0 ] || versions=(0 1 2)
cases=("$@")
[ ${#cases[@]} -gt 0 ] || cases=(all)
results=${RESULT_BASE:-/tmp/baton-share-nfs}
limit=${SUITE_SECONDS:-2400}
rm -rf "$results"
mkdir -p "$results"

sides_up
plain_ext4 2048
options=(BATON_OPTION_SQUASH=none BATON_OPTION_PROTOCOLS=4)
for node in plain a; do
    mkdir "$(mount_of $node)/work"
    side_hold $node
    side_serve $node nfs || bail "no NFS server on $node"
done

run() { # NODE VERSION NAME CASE…
    local directory=nfs4.1 version=(--minorversion="$2") name=$3 log=$results/$1.4.$2$3 address=${share_address[$1]}
    [ "$2" != 0 ] || directory=nfs4.0 version=()
    shift 3
    cd "$checkout/$directory" && client timeout -s KILL "$limit" /usr/bin/python3 -u ./testserver.py \
        "$address:/$ID/work" --maketree ${name:+--rundeps} -v "${version[@]}" "$@" >"$log.out" 2>&1
}
both() { # VERSION NAME CASE…
    local node running=()
    for node in plain a; do
        run $node "$@" &
        running+=($!)
    done
    wait "${running[@]}"
}
again() { both "$version" "$@"; } # SUFFIX CASE…
for version in "${versions[@]}"; do
    diag "$(date +%T) version 4.$version"
    both "$version" "" "${cases[@]}"
    settle pynfs "$results/plain.4.$version" "$results/a.4.$version"
    ok "4.$version: no case passes on ext4 alone" \
        python3 "$here/share-compare.py" pynfs "$results/plain.4.$version" "$results/a.4.$version"
    diag "$(cat "$T/.out")"
    for node in plain a; do
        ok "the server on $node is there" side $node nfs monitor
    done
done
for node in plain a; do
    cp "$T/$node/run/nfs/ganesha.log" "$results/$node.ganesha.log"
    ok "stop on $node" side_stop $node nfs
done
ok "both copies are equal" caught_up_and_equal
