#!/bin/bash
# What the tests of the mount test, once more with requests that come through /dev/fuse, which kernels without FUSE over
# io_uring use.
. "$(dirname "$0")/lib.sh"
need_root
export RIG_REQUEST_LOOP=device
for program in mount-files-test mount-direct-test mount-handles-test mount-orphans-test; do
    "$BATON_BUILD/tests/$program" >"$T/$program.out" 2>&1
    status=$?
    if grep -q '^1\.\.0' "$T/$program.out"; then
        skip 1 "$program: $(grep '^1\.\.0' "$T/$program.out")"
        continue
    fi
    failed=$(grep -c '^not ok' "$T/$program.out") passed=$(grep -c '^ok' "$T/$program.out")
    planned=$(sed -n 's/^1\.\.//p' "$T/$program.out")
    is "$status $failed $passed" "0 0 ${planned:-no plan}" "$program through /dev/fuse: exit status, failed, passed" ||
        diag "$(grep -v '^ok' "$T/$program.out" | tail -n 30)"
done
