#!/bin/bash
# share-smb.sh [SUITE…] — runs smbtorture (Debian: samba-testsuite) against Samba on a Baton volume with a standby, and against the
# same server with the same configuration on ext4, at the same time; prints the cases that do not pass on both, and fails if one
# passes on ext4 alone. Both copies of the volume are compared afterwards. Default: what there is of smb2, raw and base for one share,
# without what only measures, scans or waits for a person; durable handles and leases on a share with posix-locking=no.
# For developers, by hand; root; some half an hour. Results are left in RESULT_BASE (default /tmp/baton-share-smb).
[ -n "${BATON_TEST_REAPS:-}" ] || BATON_TEST_REAPS=1 exec python3 -c 'import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)
os.execvp("bash", ["bash"] + sys.argv[1:])' "$0" "$@"
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"
. "$here/../exporting.sh"
. "$here/common.sh"
. "$here/shares.sh"
command -v smbtorture >/dev/null || { echo "share-smb.sh: smbtorture is not there (Debian: samba-testsuite)"; tap_ended=1; exit 2; }
users=(games news) # of every Debian
suites=("$@")
if [ $# = 0 ]; then
    # Those that measure, scan or go on for ever; that wait a second at each of hundreds of steps (base.deny); that want other servers,
    # shares or settings.
    mapfile -t suites < <(smbtorture --list-suites | grep -E '^(base|raw|smb2)\.' | grep -vE \
        -e 'bench|scan|ping-pong|hold-|iometer|maxfid|raw.offline|base.(nttrans|smb|deny[12]|casetable|utable|fdpass|xcopy)$' \
        -e 'durable-open-disconnect|durable-v2-delay|aio_delay|async_dosmode|create_no_streams|change_notify_disabled' \
        -e 'samba3badpath|multichannel|twrp')
fi
results=${RESULT_BASE:-/tmp/baton-share-smb}
limit=${SUITE_SECONDS:-150}
rm -rf "$results"
mkdir -p "$results"

sides_up
plain_ext4 4096
echo "    server min protocol = NT1" >"$T/include.conf" # base and raw speak the protocol of before
printf '[global]\n    client min protocol = NT1\n    client max protocol = SMB3\n' >"$T/client.conf"
shares='' lanes=${SUITE_LANES:-4} # suites at a time, each with shares of its own
for ((lane = 0; lane < lanes; lane++)); do
    shares+=" work$lane:/work$lane durable$lane:/durable$lane:posix-locking=no"
done
options=("BATON_OPTION_SHARES=$shares" "BATON_OPTION_INCLUDE=$T/include.conf")
for node in plain a; do
    for share in $shares; do
        mkdir "$(mount_of $node)/${share%%:*}" && chmod 777 "$(mount_of $node)/${share%%:*}"
    done
    side_hold $node
    side_serve $node smb || bail "no Samba on $node"
    for user in "${users[@]}"; do
        printf 'one\none\n' | in_node $node smbpasswd -c "$T/$node/run/smb/smb.conf" -s -a "$user" >/dev/null || bail "no user"
    done
done

run() { # NODE SUITE LANE [SUFFIX]
    local share=work$3
    [[ $2 != *durable* && $2 != *lease* && $2 != *replay* ]] || share=durable$3
    mkdir -p "$T/client.$1.$3"
    cd "$T/client.$1.$3" && client timeout -s KILL "$limit" smbtorture -s "$T/client.conf" --fullname --seed=1 --target=samba3 \
        -U "${users[0]}%one" --extra-user="${users[1]}%one" "//${share_address[$1]}/$share" "$2" >"$results/$1.$2${4:-}.out" 2>&1
    # what it left, for the next one
    find "$(mount_of "$1")"/{work,durable}"$3" -mindepth 1 -delete 2>/dev/null
}
both() { # SUITE LANE [SUFFIX]
    local node running=()
    [ -z "${SUITE_SAYS:-}" ] || diag "$(date +%T) $1"
    for node in plain a; do
        run $node "$@" 2>/dev/null &
        running+=($!)
    done
    wait "${running[@]}"
}
lane() { # LANE
    local i
    for ((i = $1; i < ${#suites[@]}; i += lanes)); do
        both "${suites[i]}" "$1"
    done
}
running=()
for ((i = 0; i < lanes; i++)); do
    lane $i &
    running+=($!)
done
wait "${running[@]}"
again() { # SUFFIX SUITE…
    local suite suffix=$1
    shift
    for suite in "$@"; do
        both "$suite" 0 "$suffix"
    done
}
limit=$((limit * 3))
settle smbtorture "$results/plain." "$results/a."
ok "no case passes on ext4 alone" python3 "$here/share-compare.py" smbtorture "$results/plain." "$results/a."
diag "$(cat "$T/.out")"
for node in plain a; do
    ok "the server on $node is there" side $node smb monitor
    cp "$T/$node/run/smb/"{smb.conf,samba.log} "$results/" 2>/dev/null
    ok "stop on $node" side_stop $node smb
done
ok "both copies are equal" caught_up_and_equal
