#!/bin/bash
# The models of membership (tests/model/*.pml) in all states of their sizes: no property is broken. Then each with one of its
# rules taken out: something is. Larger sizes with BATON_MODEL=large: minutes, and gigabytes of memory.
. "$(dirname "$0")/lib.sh"

command -v spin >/dev/null || skip_all "needs spin"
command -v "${CC:-gcc}" >/dev/null || skip_all "needs a C compiler"

# build MODEL DIRECTORY -DSIZE=…: the checker, in $T/DIRECTORY/pan
build() {
    local model=$1 directory=$T/$2
    shift 2
    mkdir -p "$directory" && cd "$directory" || return 1
    spin -a "$@" "$BATON_SRC/tests/model/$model.pml" && ${CC:-gcc} -O1 -w -DSAFETY -DNOREDUCE -o pan pan.c
}

# Every state was looked at, and no property was broken.
intact() { # DIRECTORY NAME=value…
    cd "$T/$1" || return 1
    shift
    env "$@" ./pan -m1000000 -w24 >out 2>&1
    cat out
    grep -q 'errors: 0$' out && grep -q 'states, stored' out &&
        ! grep -qE 'Search not completed|too small|out of memory|hash conflict' <(grep -v '^hash conflicts' out)
}

# A property is broken when the rule of that number is taken out.
broken() { # DIRECTORY NUMBER NAME=value…
    cd "$T/$1" || return 1
    local number=$2
    shift 2
    rm -f ./*.trail
    env WITHOUT="$number" "$@" ./pan -m1000000 -w18 >out 2>&1
    cat out
    grep -q 'assertion violated' out && grep -qE 'errors: [1-9]' out
}

states() { diag "$(grep -oE '[0-9.e+]+ states, stored|elapsed time [0-9.e+-]+ seconds' "$T/$1/out" | paste -sd,)"; }

rules_of() { sed -nE 's/^#define (NO_[A-Z_]+) ([0-9]+).*/\1 \2/p' "$BATON_SRC/tests/model/$1.pml"; }

# check_rules MODEL DIRECTORY: each
check_rules() {
    local name number
    while read -r name number; do
        ok "$1: found with ${name}" broken "$2" "$number"
    done < <(rules_of "$1")
}

ok "lease: the model builds" build lease lease || bail "no checker"
ok "lease: all states, node 0 first" intact lease FIRST=0
states lease
ok "lease: all states, node 1 first" intact lease FIRST=1
states lease
check_rules lease lease

ok "set: the model builds" build set set || bail "no checker"
ok "set: all states" intact set
states set
check_rules set set

if [ "${BATON_MODEL:-}" = large ]; then
    ok "lease: the larger model builds" build lease lease-large -DBALLOTS=4
    ok "lease: all states of four ballots" intact lease-large FIRST=0
    states lease-large
    ok "set: two records" build set set-records -DLENGTH=2
    ok "set: all states of two records" intact set-records
    states set-records
    ok "set: more versions, more power cuts" build set set-versions -DVERSIONS=5 -DCUTS=2
    ok "set: all states of five versions and two power cuts" intact set-versions
    states set-versions
fi
