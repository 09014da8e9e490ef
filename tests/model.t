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
intact() { # DIRECTORY [NAME=value…]
    cd "$T/$1" || return 1
    shift
    env "$@" ./pan -m1000000 -w24 >out 2>&1
    cat out
    grep -q 'errors: 0$' out && grep -q 'states, stored' out &&
        ! grep -qE 'Search not completed|too small|out of memory|hash conflict' <(grep -v '^hash conflicts' out)
}

# A property is broken when the rule of that number is taken out.
broken() { # DIRECTORY NUMBER [NAME=value…]
    cd "$T/$1" || return 1
    local number=$2
    shift 2
    rm -f ./*.trail
    env WITHOUT="$number" "$@" ./pan -m1000000 -w18 >out 2>&1
    cat out
    ls -- *.trail >/dev/null 2>&1 || return 1
    grep -q 'assertion violated' out && grep -qE 'errors: [1-9]' out
}

rules_of() { sed -nE 's/^#define (NO_[A-Z_]+) ([0-9]+).*/\1 \2/p' "$BATON_SRC/tests/model/$1.pml"; }

# check_rules MODEL [NAME=value…] [-- RULE…]: each of these rules of the model, or all.
check_rules() {
    local model=$1 settings=() name number
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        settings+=("$1")
        shift
    done
    shift
    while read -r name number; do
        [ $# = 0 ] || [[ " $* " = *" $name "* ]] || continue
        ok "$model: found with $name" broken "$model" "$number" "${settings[@]}"
        checked=$((checked + 1))
    done < <(rules_of "$model")
}
checked=0

# search DIRECTORY DESCRIPTION NAME=value…
search() {
    local directory=$1 description=$2
    shift 2
    ok "$description" intact "$directory" "$@"
    diag "$(grep -oE '[0-9.e+]+ states, stored|elapsed time [0-9.e+-]+ seconds' "$T/$directory/out" | paste -sd,)"
}

ok "lease: the model builds" build lease lease || bail "no checker"
search lease "lease: all states, node 0 has the first ballot" FIRST=0
search lease "lease: all states, node 1 has it" FIRST=1
check_rules lease

ok "set: the model builds" build set set || bail "no checker"
search set "set: all states"
check_rules set

ok "voters: the model builds" build voters voters || bail "no checker"
search voters "voters: all states of the register" LEASES=0
search voters "voters: all states with leases, two ballots, node 0 has the first" BALLOTS=2 FIRST=0
search voters "voters: all states with leases, two ballots, node 1 has the first" BALLOTS=2 FIRST=1
register_rules=(NO_LIST_IN_THE_VALUE NO_MAJORITY_OF_THE_NEXT_LIST NO_CHOSEN_LIST_TO_BEGIN_WITH)
lease_rules=(NO_MAJORITY_OF_THE_OLD_LIST NO_OTHER_VOTER_AFTER_A_LOSS NO_LEASE_BY_THE_NEXT_LIST NO_GUARD_OF_THE_NEXT_LIST
    NO_LEASE_BY_BOTH_LISTS)
check_rules voters LEASES=0 -- "${register_rules[@]}"
check_rules voters BALLOTS=2 -- "${lease_rules[@]}"

is "$checked" "$(for model in lease set voters; do rules_of "$model"; done | wc -l)" "no rule was left out"

if [ "${BATON_MODEL:-}" = large ]; then
    ok "lease: the larger model builds" build lease lease-large -DBALLOTS=4
    search lease-large "lease: all states of four ballots" FIRST=0
    ok "set: two records" build set set-records -DLENGTH=2
    search set-records "set: all states of two records"
    ok "set: more versions, more power cuts" build set set-versions -DVERSIONS=5 -DCUTS=2
    search set-versions "set: all states of five versions and two power cuts of each node"
    search voters "voters: all states with leases, three ballots" BALLOTS=3 FIRST=0
fi
