#!/bin/bash
# xfstests.sh CHECKOUT [ARGUMENT of ./check…] — runs a built checkout of xfstests (FSTYP=fuse) on two Baton volumes, each
# with a standby attached, summarizes, and compares both copies of the volume under test. Default: -g generic/quick.
# For developers, by hand; root. Leaves results in RESULT_BASE (default /tmp/baton-xfstests). It wants the users fsgqa,
# 123456-fsgqa and fsgqa2 and GNU awk as awk (062), and puts a helper in /sbin/mount.fuse.baton for as long as it runs.

# In a mount namespace of its own, without the FUSE mounts of others: one of those that hangs would stop every df.
if [ -z "${BATON_OWN_MOUNTS:-}" ]; then
    BATON_OWN_MOUNTS=1 exec unshare --mount --propagation private bash "$0" "$@"
fi
awk '{ print $5, $0 }' /proc/self/mountinfo | awk '/ - fuse/ { print $1 }' | xargs -r -n 1 umount -l

. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/common.sh"
[ $# -ge 1 ] && [ -x "$1/check" ] || { echo "usage: xfstests.sh CHECKOUT [ARGUMENT of ./check…]"; tap_ended=1; exit 2; }
checkout=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- -g generic/quick
results=${RESULT_BASE:-/tmp/baton-xfstests}
helper=/sbin/mount.fuse.baton
[ ! -e $helper ] || bail "$helper is there already: does another run go on?"

chmod 755 "$T" # other users work in the mounts
network_up
cleanup_hooks+=('for pid in $(pgrep -f -- "--config $T/"); do kill -KILL "$pid"; done' "rm -f $helper")

standby_start() { # NAME [OPTION…]
    local name=$1
    shift
    : >"$T/$name.b.out"
    nsenter --net="/run/netns/$ID-b" -- "$BATOND" --config "$T/$name.conf" --node b "$@" >"$T/$name.b.out" 2>>"$T/$name.b.log" &
    standby=$!
    test_pids+=($standby)
    wait_until 30 grep -q ^ready "$T/$name.b.out" || bail "the standby of $name does not start"
}
volume_make() { # NAME PORT
    mkdir -p "$T/$1/a" "$T/$1/b" "$T/$1/mount" "$T/$1/standby"
    "$BATON" create --config "$T/$1.conf" --volume "$1" \
        --node "a=tcp://${address[a]}:$2,store=$T/$1/a/store,mount=$T/$1/mount" \
        --node "b=tcp://${address[b]}:$2,store=$T/$1/b/store,mount=$T/$1/standby" >"$T/.out" 2>&1 || bail "$(cat "$T/.out")"
    "$BATON" format --config "$T/$1.conf" --node a --first >"$T/.out" && "$BATON" format --config "$T/$1.conf" --node b >"$T/.out" || bail "no stores"
    standby_start "$1" --mount none # xfstests wants to see each volume mounted once
}
volume_make tested 7400
test_standby=$standby
volume_make spare 7500

# mount -t fuse.baton VOLUME DIRECTORY -o …
sed "s|^batond=.*|batond=$BATOND|" "$BATON_SRC/tools/mount.baton" >"$T/mount.baton"
cat >$helper <<END
#!/bin/bash
# made by tests/suites/xfstests.sh
volume=\$1 directory=\$2
shift 2
exec nsenter --net=/run/netns/$ID-a -- sh "$T/mount.baton" "$T/\$volume.conf" "\$directory" "\$@" -o node=a 2>>"$T/\$volume.a.log"
END
chmod +x $helper

cat >"$T/local.config" <<END
export FSTYP=fuse
export FUSE_SUBTYP=.baton
export TEST_DEV=tested
export TEST_DIR=$T/tested/mount
export SCRATCH_DEV=spare
export SCRATCH_MNT=$T/spare/mount
export MOUNT_OPTIONS="-o dev,suid"
export TEST_FS_MOUNT_OPTS="-o dev,suid"
export RESULT_BASE=$results
END
# It takes "fuse.baton" for another type than "fuse".
mkdir -p "$results" "$T/bin"
printf '#!/bin/bash\n%s "$@" | sed "s/fuse\\.baton/fuse      /"\nexit ${PIPESTATUS[0]}\n' "$(command -v df)" >"$T/bin/df"
chmod +x "$T/bin/df"
PATH=$T/bin:$PATH
cd "$checkout" || exit 1
TMPDIR=/tmp HOST_OPTIONS=$T/local.config ./check "$@" 2>&1 | tee "$T/check.out"
cd /
failures=$(sed -n 's/^Failures: //p' "$T/check.out")
is "$failures" "" "xfstests without a failure"
diag "not run: $(sed -n 's/^Not run: //p' "$T/check.out" | wc -w)"

# The volume under test once more, to compare the copies.
if mount -t fuse.baton tested "$T/tested/mount" -o dev,suid; then
    CONFIG=$T/tested.conf
    mount_of() { [ "$1" = a ] && echo "$T/tested/mount" || echo "$T/tested/standby"; }
    kill -TERM "$test_standby" && wait "$test_standby"
    standby_start tested
    ok "both copies are equal" caught_up_and_equal
    umount "$T/tested/mount"
else
    ok "the volume mounts again" false
fi
