# A standby that is far behind is proposed for the in-sync set, and dies before it has caught up: the register must not
# name it, or it could be promoted without what was acknowledged meanwhile.
. "$(dirname "$0")/lib.sh"
need_root
network_up
in_node a tc qdisc add dev lo root tbf rate 1gbit burst 64k latency 2s 2>/dev/null || skip_all "needs tc with tbf"
volume_create
volume_set lease duration 1s
volume_format
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
a=$(mount_of a)
link_is() { [ "$(status_of "$1" replication link 2>&1)" = "$2" ]; }
ok "both are in sync" wait_until 60 link_is a working
stop_node b
ok "a goes on alone" wait_until 60 link_is a failed
for i in $(seq 24); do
    dd if=/dev/urandom of="$a/acked$i" bs=1M count=1 conv=fsync status=none || bail "write"
done
in_node a tc qdisc add dev eth0 root tbf rate 30mbit burst 64k latency 2s || bail "no tbf"

start_node b
ok "b is being fed" wait_until 60 link_is a synchronizing
kill_node b
all=$(status_of a replication lsn)
start_node b # its login ends the session in which it was proposed
lacking_in_register() {
    [[ "$(status_of a replication register members)" = *b* ]] && [ "$(status_of b replication lsn)" -lt "$all" ]
}
if wait_until 3 lacking_in_register; then
    tap_report 1 "the register does not name b while it lacks records"
else
    tap_report 0 "the register does not name b while it lacks records"
fi
ok "a takes changes while b is fed" timeout 60 touch "$a/more"
caught_up() { link_is a working && link_is b working; }
ok "b comes into the set when it has everything" wait_until 90 caught_up
has_all() { [ "$(status_of b replication lsn)" = "$(status_of a replication lsn)" ]; }
ok "and has it" wait_until 30 has_all
kill_node a
ok "then it may be promoted" "$BATON" promote --config "$CONFIG" --node b
is "$(find "$(mount_of b)" -name 'acked*' -size 2048 | wc -l)" 24 "all acknowledged files are there"
