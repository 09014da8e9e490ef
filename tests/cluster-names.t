#!/bin/bash
# Names are looked up on both nodes without a pause, those that are there and those that are not, while the roles change:
# no kernel keeps an answer from before. What the new primary makes and removes, the other one shows.
. "$(dirname "$0")/lib.sh"

volume_up
NAMES=40
in_sync() { [ "$(status_of a replication link)$(status_of b replication link)" = workingworking ]; }
ok "in sync" wait_until 60 in_sync
mkdir "$(mount_of a)/d"

cat >"$T/looker.py" <<'PY'
import os, sys
names = [os.path.join(sys.argv[1], name) for name in sys.argv[2:]]
while True:
    for name in names:
        try:
            os.stat(name)
        except OSError:
            pass
PY
there() { # MOUNT WORD: how many of the names are there
    local i count=0
    for ((i = 0; i < NAMES; i++)); do
        [ -e "$1/d/$2$i" ] && count=$((count + 1))
    done
    echo $count
}
count_is() { [ "$(there "$1" "$2")" = "$3" ]; }

change_roles() { # FROM TO ROUND
    local from to node lookers=()
    from=$(mount_of "$1") to=$(mount_of "$2")
    (cd "$from/d" && for ((i = 0; i < NAMES; i++)); do : >"old$3.$i"; done)
    wait_until 60 count_is "$to" "old$3." $NAMES
    for node in a b; do
        python3 "$T/looker.py" "$(mount_of $node)/d" $(eval "echo old$3.{0..$((NAMES - 1))} new$3.{0..$((NAMES - 1))}") &
        lookers+=($!)
        test_pids+=($!)
    done
    is "$(there "$from" "old$3.") $(there "$from" "new$3.")" "$NAMES 0" "round $3: $1 looks names up"
    ok "round $3: roles change" "$BATON" switchover --config "$CONFIG" --node "$1" --to "$2"
    (cd "$to/d" && for ((i = 0; i < NAMES; i++)); do rm "old$3.$i"; : >"new$3.$i"; done)
    is "$(there "$to" "old$3.") $(there "$to" "new$3.")" "0 $NAMES" "round $3: $2, primary now, changes them"
    wait_until 60 count_is "$from" "new$3." $NAMES
    is "$(there "$from" "old$3.") $(there "$from" "new$3.")" "0 $NAMES" "round $3: $1 has forgotten what it knew"
    kill "${lookers[@]}"
    wait "${lookers[@]}" 2>/dev/null
    wait_until 60 in_sync
}

change_roles a b 1
change_roles b a 2
change_roles a b 3
stop_node a
stop_node b
