# Sourced by cluster-faults-*.t, each of which is about one phase of a volume's life: every fault that there is, before, in
# the middle of and after that phase, under a writer that knows what was acknowledged. After each fault the nodes get in
# sync by themselves, nothing acknowledged is lost, both mounts are equal; in the end both stores are whole.
#
# cluster-upgrade.t uses the cluster alone. The others define  prepare  (makes the phase begin, without waiting for its end),  in_phase  (true while it goes on),
# finished  (true when its work is done), and calls  scenarios WHAT.
#
# BATON_FAULTS: how many faults, chosen at random (3), or "all". BATON_SEED: repeats a run.
. "$(dirname "$0")/lib.sh"
here=$BATON_SRC/tests
need_root
seed=${BATON_SEED:-$RANDOM$RANDOM}
RANDOM=$((seed % 32768))
where=$T/where
primary=a
standby=b
LEASE_MS=1000

declare -A fault_says=(
    [none]="nothing happens"
    [kill_standby]="the standby is killed"
    [kill_standby_twice]="the standby is killed, and again as soon as it is back"
    [kill_primary]="the primary is killed, and goes on"
    [kill_both]="both are killed"
    [stop_standby]="the standby stands still (SIGSTOP) for longer than the lease"
    [stop_primary]="the primary stands still (SIGSTOP) for longer than the lease"
    [stop_standby_briefly]="the standby stands still for a moment"
    [cut]="the link is cut for longer than the lease"
    [cut_briefly]="the link is cut for a moment"
    [cut_to_standby]="nothing reaches the standby, its own words arrive"
    [cut_to_primary]="nothing reaches the primary, its own words arrive"
    [flap]="the link flaps"
)

serve() { mount_of "$1" >"$where.new" && mv "$where.new" "$where"; }
pause_writer() { echo pause >"$where.new" && mv "$where.new" "$where"; }
# Pauses it and waits for the operation that had begun.
writer_rests() {
    rm -f "$where.writer.rests"
    pause_writer
    wait_until 30 test -e "$where.writer.rests"
}
in_sync() { [ "$(status_of "$primary" replication link 2>&1)" = working ]; }
same_position() { [ "$(status_of a state lsn)" = "$(status_of b state lsn)" ]; }
longer_than_the_lease() { sleep 2.5; } # how long a fault lasts
a_moment() { sleep "0.$((RANDOM % 4 + 1))"; }

# What FROM sends to TO goes nowhere: to a hardware address that nobody has.
network_cut_from() {
    ip -n "$ID-$1" neighbour replace "${address[$2]}" lladdr 02:00:00:00:00:fe nud permanent dev eth0
}
network_mend_from() { ip -n "$ID-$1" neighbour delete "${address[$2]}" dev eth0; }
# The link as slow as its phases need to be met: megabits a second, or 0 for its full speed.
network_speed() {
    local node
    for node in a b; do
        tc -n "$ID-$node" qdisc del dev eth0 root 2>/dev/null
        [ "$1" = 0 ] || tc -n "$ID-$node" qdisc add dev eth0 root tbf rate "$1mbit" burst 64k latency 200ms || bail "no tbf"
    done
}

fault_none() { :; }
fault_kill_standby() { kill_node $standby; a_moment; start_node $standby; }
fault_kill_standby_twice() { fault_kill_standby && a_moment && fault_kill_standby; }
fault_kill_primary() { pause_writer; kill_node $primary; start_node $primary; serve $primary; }
fault_kill_both() {
    pause_writer
    kill_node $primary
    kill_node $standby
    start_node $primary && start_node $standby
    serve $primary
}
stand_still() { # NODE WAIT
    kill -STOP "${node_pid[$1]}"
    $2
    kill -CONT "${node_pid[$1]}"
}
fault_stop_standby() { stand_still $standby longer_than_the_lease; }
fault_stop_standby_briefly() { stand_still $standby a_moment; }
fault_stop_primary() { stand_still $primary longer_than_the_lease; }
fault_cut() { network_cut $standby; longer_than_the_lease; network_mend $standby; }
fault_cut_briefly() { network_cut $standby; a_moment; network_mend $standby; }
fault_cut_to_standby() { network_cut_from $primary $standby; longer_than_the_lease; network_mend_from $primary $standby; }
fault_cut_to_primary() { network_cut_from $standby $primary; longer_than_the_lease; network_mend_from $standby $primary; }
fault_flap() {
    local i
    for i in 1 2 3 4 5; do
        network_cut $standby
        a_moment
        network_mend $standby
        a_moment
    done
}

cluster_begin() {
    network_up
    volume_create
    volume_set lease duration "${LEASE_MS}ms"
    volume_set journal history 0
    volume_set journal size 1MiB
    volume_set journal limit "${JOURNAL_LIMIT:-8GiB}"
    volume_format
    start_node a || bail "node a does not start"
    start_node b || bail "node b does not start"
    wait_until 90 in_sync || bail "the nodes do not get in sync"
    serve $primary
    python3 "$here/chaos-writer.py" "$where" writer "$seed" "${WRITER_PAUSE:-0}" >"$T/writer.log" 2>&1 &
    writer=$!
    test_pids+=($writer)
}

equal() { # The writer rests: a pause of it, and everything is at both.
    pause_writer
    wait_until 60 same_position
    "$here/treecmp" --same --settle 60 "$(mount_of a)" "$(mount_of b)"
    local status=$?
    serve $primary
    return $status
}

scenario() { # FAULT MOMENT
    local met status
    prepare || { tap_report 1 "$what does not begin: $(tail -n 3 "$T/.out")"; return 1; }
    case $2 in
    "in the middle of")
        wait_until 60 in_phase
        met=$?
        a_moment
        ;;
    after) wait_until 120 finished; met=$? ;;
    *) met=0 ;;
    esac
    "fault_$1"
    status=$?
    network_speed 0
    wait_until 180 finished || status=1
    wait_until 90 in_sync || status=1
    [ $met = 0 ] && [ $status = 0 ]
    tap_report $? "${fault_says[$1]} $2 $what: in sync again" || diag "met: $met, status: $status, primary: $primary"
    ok "... and both mounts are equal" equal
}

scenarios() { # WHAT
    local faults=("${!fault_says[@]}") count=${BATON_FAULTS:-3} fault moments moment i
    what=$1
    mapfile -t faults < <(printf '%s\n' "${faults[@]}" | sort)
    [ "$count" != all ] || count=${#faults[@]}
    diag "BATON_SEED=$seed, $count of ${#faults[@]} faults"
    for ((i = 0; i < ${#faults[@]}; i++)); do # shuffled
        local other=$((RANDOM % ${#faults[@]}))
        fault=${faults[i]} faults[i]=${faults[other]} faults[other]=$fault
    done
    moments=("at the beginning of" "in the middle of" "in the middle of" after)
    for ((i = 0; i < count; i++)); do
        moment=${moments[RANDOM % 4]}
        scenario "${faults[i]}" "$moment" || break
    done
    network_speed 0
    cluster_end
}

cluster_end() {
    local node
    echo stop >"$where.new" && mv "$where.new" "$where"
    wait "$writer"
    is "$?" 0 "everything acknowledged was there each time: $(tail -n 1 "$T/writer.log")" ||
        diag "$(grep violation "$T/writer.log" | head -n 5)"
    for node in a b; do
        ok "the journal of $node is whole" "$BATON" journal verify --config "$CONFIG" --node $node
        stop_node $node
        ok "the store of $node is whole" "$BATON" check --data --config "$CONFIG" --node $node
    done
}
