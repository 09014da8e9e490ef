#!/bin/bash
# Disks that run full, on small file systems of their own. The standby's: it leaves the set at once and says why, the primary
# works on, nobody promotes it; with room again it catches up by itself. The primary's: changes get ENOSPC, reads and deletes go
# on, what was acknowledged is there, the set still changes. The journal at its limit: what a node lacks that is away is given
# up, and said so; it is built anew.
. "$(dirname "$0")/lib.sh"
here=$BATON_SRC/tests
need_root

network_up
for node in a b; do
    mkdir -p "$T/$node"
    truncate -s 800M "$T/$node.image"
    mkfs.ext4 -q -m 0 "$T/$node.image" && mount -o loop "$T/$node.image" "$T/$node" || skip_all "needs ext4 on a loop device"
done
volume_create
volume_set journal history 0
volume_set journal size 1MiB
volume_set journal limit 64MiB
volume_format
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
a=$(mount_of a) b=$(mount_of b)
works() { [ "$(status_of a replication link)" = working ]; }
set_is() { [ "$(status_of a replication register members | tr -d '[] "')" = "$1" ]; }
equal() { "$here/treecmp" --same --settle 60 "$a" "$b"; }
fill() { # NODE BYTES: somebody else takes all but so many
    fallocate -l $(($(df --output=avail -B1 "$T/$1" | tail -1) - $2)) "$T/$1/ballast" && sync -f "$T/$1"
}
room() { rm "$T/$1/ballast"; }
status() { "$BATON" status --config "$CONFIG" --node "$1" >"$T/status"; }
says() { status "$1" && grep -q "$2" "$T/status"; }
work() { # NAME COUNT: files of 256 KiB; the longest time that one took, in ms, is in $longest
    local i begin took
    longest=0
    for i in $(seq "$2"); do
        begin=$(date +%s%N)
        head -c 256K /dev/urandom >"$a/$1-$i" || return 1
        took=$((($(date +%s%N) - begin) / 1000000))
        [ $took -le $longest ] || longest=$took
    done
}
ok "in sync" wait_until 60 works
ok "changes are made" work before 10
ok "both are equal" equal

# ---- the standby's disk ----
fill b 1000000
work_until_full() { # some room is allocated ahead
    local most=0
    for name in full-b-{1..20}; do
        work "$name" 20 || return 1
        [ $longest -le $most ] || most=$longest
        set_is a && break
    done
    longest=$most
    set_is a
}
ok "the standby's disk is full: it is out of the set, the primary works on" work_until_full
ok "a change waited for $longest ms" test "$longest" -lt 20000
ok "the primary says why" says a "it said: a record was not taken: the disk there is full; it goes on when there is room"
ok "the standby says so" says b "record .* of the primary was not taken: the disk of this store is full"
ok "and that it may not be promoted" wait_until 60 says b "this node may not be promoted, it is not in sync"
fails "nor is it, though the primary has gone on without it" "$BATON" promote --config "$CONFIG" --node b
kill_node a
fails "nor when the primary is dead" "$BATON" promote --config "$CONFIG" --node b
like "$(cat "$T/.out")" "not in the in-sync set" "for that reason"
start_node a || bail "node a does not start again"
begin=$(grep -c "is fed from" "$T/a.log")
ok "it works on" work still-full-b 40
ok "a change waited for $longest ms" test "$longest" -lt 20000
ok "the standby does not knock all the time" test $(($(grep -c "is fed from" "$T/a.log") - begin)) -lt 3
is "$(grep -c "disk of this store is full" "$T/b.log")" 1 "nor does it fill its log"
room b
ok "with room it is back in sync, without a restart" wait_until 40 works
ok "both are equal" equal
ok "nothing more is said of it" bash -c "! '$BATON' status --config '$CONFIG' --node a | grep -q 'disk there is full'"

# ---- the primary's disk ----
echo kept >"$a/kept" && sync -f "$a/kept"
fill a $((150 << 20))
fill_up() { # until there is no more room; it must end with ENOSPC
    local i
    for i in $(seq 600); do head -c 1M /dev/urandom >"$a/fill-$i" || return 0; done
    return 1
}
fill_up 2>"$T/said"
like "$(tail -n 1 "$T/said")" "No space left on device" "the primary's disk is full: changes get ENOSPC"
ok "status says so" wait_until 60 says a "full      new changes get \"no space left\""
ok "in sync all the time" wait_until 60 works
ok "reading goes on" cmp "$a/kept" <(echo kept)
kill_node b
ok "the set changes, full as the disk is" wait_until 60 set_is a
ok "deleting goes on" rm "$a/before-1"
start_node b || bail "node b does not start again"
ok "back in sync" wait_until 30 works
rm -f "$a"/fill-*
ok "who deletes has room, without a restart" wait_until 60 work again 3
room a
ok "status says no more of it" wait_until 60 bash -c "! '$BATON' status --config '$CONFIG' --node a | grep -q '^  full'"
ok "both are equal" equal

# ---- the journal ----
kill_node b
ok "changes are made without b" work away 4
ok "status says that the journal is kept" says a "journal   is kept for node b from record [0-9]"
for i in $(seq 90); do head -c 1M /dev/urandom >"$a/large"; done
sync -f "$a/large"
ok "at its limit it is given up, and status says so" wait_until 30 says a "journal   begins at record .*: what node b lacks from .* was given up"
start_node b || bail "node b does not start again"
ok "it is built anew and in sync" wait_until 90 works
like "$(cat "$T/b.log")" "has taken the old one's place" "from the primary"
ok "both are equal" equal
ok "nothing is said of it any more" bash -c "! '$BATON' status --config '$CONFIG' --node a | grep -q '^  journal'"
stop_node b
stop_node a
ok "a's store is in order" "$BATON" check --data --config "$CONFIG" --node a
ok "b's store is in order" "$BATON" check --data --config "$CONFIG" --node b
