#!/bin/bash
# pjdfstest.sh CHECKOUT [TEST…] — runs a built checkout of pjdfstest (github.com/pjd/pjdfstest) on a Baton mount with a
# standby attached, says what failed, and compares both copies. TEST: directories or files of its tests/ (default: all).
# For developers, by hand; root; some five minutes.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/common.sh"
[ $# -ge 1 ] && [ -x "$1/pjdfstest" ] || { echo "usage: pjdfstest.sh CHECKOUT [TEST…] (built: CHECKOUT/pjdfstest)"; tap_ended=1; exit 2; }
checkout=$(cd "$1" && pwd)
shift
tests=("${@/#/$checkout/tests/}")
[ $# -gt 0 ] || tests=("$checkout/tests")

volume_up
mkdir "$(mount_of a)/work"
cd "$(mount_of a)/work" || bail "no mount"
prove -r "${tests[@]}" >"$T/prove.out" 2>&1
failed=$?
cd /
diag "$(sed -n '/^Test Summary Report/,$p' "$T/prove.out" | tail -n 200)"
[ $failed = 0 ] || diag "$(tail -n 3 "$T/prove.out")"
is "$failed" 0 "pjdfstest passes: $(grep '^Files=' "$T/prove.out")"
ok "both copies are equal" caught_up_and_equal
