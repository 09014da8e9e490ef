# Roles change under load, forth and back: no operation fails while the roles change hands for another reason than the
# mount being a standby's, and none that was acknowledged is lost.
. "$(dirname "$0")/lib.sh"

volume_up
declare -A at=([a]=$(mount_of a) [b]=$(mount_of b))
link_is() { [ "$(status_of "$1" replication link)" = "$2" ]; }
both_working() { link_is a working && link_is b working; }
switchover() { "$BATON" switchover --config "$CONFIG" --node "$@"; }
ok "in sync" wait_until 60 both_working

mkdir "${at[a]}/work"
writer() { # at whichever mount takes it
    local i=0 here=a
    while [ ! -e "$T/enough" ]; do
        if (echo "content $i" >"${at[$here]}/work/$i") 2>>"$T/errors"; then
            echo "$i" >>"$T/acknowledged"
            i=$((i + 1))
        else
            [ $here = a ] && here=b || here=a
        fi
    done
}
: >"$T/acknowledged"
writer &
writer=$!
test_pids+=($writer)
more() { [ "$(wc -l <"$T/acknowledged")" -ge "$1" ]; }

roles_are() { [ "$(status_of "$1" role) $(status_of "$2" role)" = "primary standby" ]; } # PRIMARY STANDBY
from=a to=b
for round in 1 2 3 4 5; do
    wait_until 30 more $((round * 150))
    ok "switchover from $from to $to" switchover $from
    ok "roles have changed" wait_until 60 roles_are $to $from
    ok "in sync again" wait_until 60 both_working
    was=$from from=$to to=$was
done
wait_until 30 more 900
touch "$T/enough"
wait $writer
lost=0
while read -r i; do
    [ "$(cat "${at[$from]}/work/$i" 2>/dev/null)" = "content $i" ] || lost=$((lost + 1))
done <"$T/acknowledged"
is $lost 0 "of $(wc -l <"$T/acknowledged") acknowledged files none is lost"
is "$(grep -v 'Read-only file system' "$T/errors" | sort | uniq -c | head -5)" "" "no other error than that of a standby"
same() { diff -r "${at[a]}" "${at[b]}"; }
ok "both mounts are equal" wait_until 60 same
stop_node a
stop_node b
