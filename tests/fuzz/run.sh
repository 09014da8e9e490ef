#!/bin/bash
# make fuzz: each harness in turn, for so many seconds, one process. New inputs that reach more go into fuzz-corpus/NAME in the
# build directory; what was found is in fuzz-findings/.
#
#   run.sh SECONDS HARNESS…
set -u
seconds=$1
shift
# Memory, where it can be: a store is written for each input.
[ -n "${TMPDIR:-}" ] || { [ -w /dev/shm ] && export TMPDIR=/dev/shm; }
work=$(mktemp -d "${TMPDIR:-/tmp}/baton-fuzz.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work
export ASAN_OPTIONS="allocator_may_return_null=1:quarantine_size_mb=16:malloc_context_size=6:${ASAN_OPTIONS:-}"
status=0
for name; do
    own=$BATON_BUILD/fuzz-corpus/$name findings=$BATON_BUILD/fuzz-findings
    mkdir -p "$own" "$findings"
    tests/fuzz-corpus-test --seeds "$name" "$own" || exit 1
    options=()
    case $name in
    config) options=(-dict="$BATON_SRC/tests/fuzz/config.dict") ;;
    control) options=(-dict="$BATON_SRC/tests/fuzz/json.dict") ;;
    apply | store | import | compare | peer) # scripts: any bytes are one
        options=(-len_control=0 -max_len=600)
        for i in {1..20}; do head -c $((i * 8)) /dev/urandom >"$own/random-$i"; done
        ;;
    esac
    echo "$name: $seconds s"
    # -timeout and the limits make a hang and memory without a bound findings
    # shellcheck disable=SC2086
    nice -n 19 "tests/fuzz/fuzz-$name" -max_total_time="$seconds" -timeout=240 -rss_limit_mb=2048 -malloc_limit_mb=256 \
        -max_len=65536 -artifact_prefix="$findings/$name-" -print_final_stats=1 "${options[@]}" ${FUZZ_OPTIONS:-} \
        "$own" "$BATON_SRC/tests/fuzz/corpus/$name" >"$findings/$name.log" 2>&1 || status=1
    grep -E '^(stat::|SUMMARY|==.*ERROR|#[0-9]+.*DONE)' "$findings/$name.log"
    rm -rf "${work:?}"/*
done
[ $status = 0 ] || echo "something was found: see $BATON_BUILD/fuzz-findings" >&2
exit $status
