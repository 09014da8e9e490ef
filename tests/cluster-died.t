#!/bin/bash
# The process that serves dies, or stands still, on the primary of a volume that decides by itself. Its supervisor gives the lease
# back, so the other node takes over; it is started again, and follows. A note says how it died. Nothing acknowledged is lost.
. "$(dirname "$0")/lib.sh"
need_root
volume_up_with_witness

other() { [ "$1" = a ] && echo b || echo a; }
is_primary() { [ "$(status_of "$1" role 2>/dev/null)" = primary ]; }
in_sync() { [ "$(status_of "$(primary_now)" replication link 2>/dev/null)" = working ]; }
takes_changes() { timeout 20 touch "$(mount_of "$1")/change"; }
note_of() { tail -n 1 "$(store_of "$1").died" 2>/dev/null; }
has_note() { [[ $(note_of "$1") =~ $2 ]]; }
logged() { grep -q "$2" "$T/$1.log"; }

ok "both are in sync" wait_until 60 in_sync

# ---- killed ----
p=$(primary_now)
o=$(other "$p")
for i in 1 2 3 4 5 6 7 8 9 10; do
    mkdir "$(mount_of "$p")/d$i" || bail "the primary takes no changes"
done
crash_node "$p"
ok "the primary's process killed, the other node takes over" wait_until 60 is_primary "$o"
ok "it takes changes" wait_until 60 takes_changes "$o"
is "$(ls "$(mount_of "$o")" | grep -c '^d')" 10 "and has what was acknowledged"
ok "the dead one's lease has been given back" wait_until 30 logged "$p" "its lease is given back"
ok "it is started again" wait_until 60 restarted "$p"
ok "as a standby, in sync" wait_until 60 in_sync
is "$(status_of "$p" role)" standby "which it says"
fails "and takes no changes" touch "$(mount_of "$p")/no"
ok "a note is left" wait_until 30 has_note "$p" "killed by signal 9"

# ---- it stands still for longer than the lease ----
p=$(primary_now)
o=$(other "$p")
stopped=$(daemon_pid "$p")
kill -STOP "$stopped"
ok "the primary's process stands still: the other node takes over" wait_until 60 is_primary "$o"
ok "it takes changes" wait_until 60 takes_changes "$o"
ok "the supervisor ends the one that stands still" wait_until 60 process_gone "$stopped"
ok "and starts another one" wait_until 60 restarted "$p"
ok "which follows" wait_until 60 in_sync
ok "a note is left" wait_until 30 has_note "$p" "stopped answering"

# ---- the parent is killed: that is an orderly end ----
p=$(primary_now)
o=$(other "$p")
child=$(daemon_pid "$p")
kill -KILL "${node_parent[$p]}" && wait "${node_parent[$p]}" 2>/dev/null
ok "the supervisor killed, the other node takes over" wait_until 60 is_primary "$o"
ok "the process that served ends" wait_until 60 process_gone "$child"
unset "node_pid[$p]" "node_parent[$p]"
is "$(ls "$(mount_of "$o")" | grep -c '^d')" 10 "nothing is lost"
