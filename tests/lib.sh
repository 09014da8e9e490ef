# shellcheck shell=bash
# TAP, namespaces and nodes for tests in bash. A test begins with:   . "$(dirname "$0")/lib.sh"
#
# Everything a test makes lies in $T or carries $ID in its name, and is removed at every exit, at INT, TERM and HUP too
# (kept, but for processes, if BATON_TEST_KEEP is set). Tests need root. Daemons are started and ended by pid.
# BATON_SRC and BATON_BUILD say where the sources and the programs are; they are found if not given.

set -u
export LC_ALL=C
# The system's programs first: a version manager's python3 takes ten times as long to begin, and tests begin it often.
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
BATON_SRC=${BATON_SRC:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
if [ -z "${BATON_BUILD:-}" ]; then
    BATON_BUILD=$BATON_SRC
    [ -x ./batond ] && BATON_BUILD=$PWD
fi
BATON=$BATON_BUILD/baton
BATOND=$BATON_BUILD/batond
ID=bt$$
T=$(mktemp -d "${TMPDIR:-/tmp}/$ID.XXXXXX") || exit 1
CONFIG=$T/volume.conf
export BATON_RUN=$T/.run # the marks of the stores in it (fs/mark.h)

# ---- TAP ----
tap_count=0
tap_failed=0
tap_ended=

diag() { printf '# %s\n' "${*//$'\n'/$'\n# '}"; }

tap_report() { # 0-or-1 description
    tap_count=$((tap_count + 1))
    local text=${2//#/ }
    if [ "$1" = 0 ]; then
        printf 'ok %d - %s\n' "$tap_count" "${text//$'\n'/ }"
    else
        tap_failed=$((tap_failed + 1))
        printf 'not ok %d - %s\n' "$tap_count" "${text//$'\n'/ }"
    fi
    return "$1"
}

# ok DESCRIPTION COMMAND…: the command succeeds. What it printed is shown if it does not.
ok() {
    local description=$1 status
    shift
    "$@" >"$T/.out" 2>&1
    status=$?
    if [ $status = 0 ]; then
        tap_report 0 "$description"
    else
        tap_report 1 "$description"
        diag "command: $*"
        diag "exit status $status, output: $(tail -c 2000 "$T/.out")"
        return 1
    fi
}

# fails DESCRIPTION COMMAND…: the command fails, and not by a signal. Its output is left in $T/.out.
fails() {
    local description=$1 status
    shift
    "$@" >"$T/.out" 2>&1
    status=$?
    if [ $status -gt 0 ] && [ $status -lt 124 ]; then
        tap_report 0 "$description"
    else
        tap_report 1 "$description"
        diag "command: $*"
        diag "exit status $status (a failure was expected), output: $(tail -c 2000 "$T/.out")"
        return 1
    fi
}

# is SEEN EXPECTED DESCRIPTION
is() {
    if [ "$1" = "$2" ]; then
        tap_report 0 "$3"
    else
        tap_report 1 "$3"
        diag "expected: $2"
        diag "    seen: $1"
        return 1
    fi
}

# like SEEN REGEX DESCRIPTION
like() {
    if [[ $1 =~ $2 ]]; then
        tap_report 0 "$3"
    else
        tap_report 1 "$3"
        diag "expected something like: $2"
        diag "                   seen: $1"
        return 1
    fi
}

# skip COUNT REASON: as many tests are skipped.
skip() {
    local i
    for ((i = 0; i < $1; i++)); do
        tap_count=$((tap_count + 1))
        printf 'ok %d # SKIP %s\n' "$tap_count" "$2"
    done
}

skip_all() {
    printf '1..0 # SKIP %s\n' "$*"
    tap_ended=1
    exit 0
}

bail() {
    printf 'Bail out! %s\n' "${*//$'\n'/ }"
    tap_ended=1
    show_logs
    exit 255
}

# wait_until SECONDS COMMAND…: true as soon as the command succeeds, false after so many seconds.
wait_until() {
    local deadline=$(($(date +%s%N) + $1 * 1000000000))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ "$(date +%s%N)" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

# ---- leaving nothing behind ----
declare -A node_pid=()    # of the process that serves; it changes when it dies and is started again: daemon_pid
declare -A node_parent=() # of its supervisor, which this shell has started
test_pids=()   # other processes that the test wants ended: test_pids+=($!)
namespaces=()
cleanup_hooks=() # commands to run first

show_logs() {
    local log
    for log in "$T"/*.log; do
        [ -e "$log" ] || continue
        diag "---- the end of $log"
        diag "$(tail -n 25 "$log")"
    done
}

mounts_below() { # newest first
    awk -v below="$1/" 'index($5 "/", below) == 1 { print $5 }' /proc/self/mountinfo | tac
}

# Of this shell: the number of one that has ended may be another process's by now.
is_child() { [ "$(awk '/^PPid:/ { print $2 }' "/proc/$1/status" 2>/dev/null)" = $$ ]; }

cleanup() {
    local status=$? node pid mount hook
    trap '' INT TERM HUP PIPE
    trap - EXIT
    cd /
    [ $tap_failed = 0 ] || show_logs
    [ -n "$tap_ended" ] || printf '1..%d\n' "$tap_count"
    for hook in ${cleanup_hooks[@]+"${cleanup_hooks[@]}"}; do
        eval "$hook"
    done
    for pid in ${test_pids[@]+"${test_pids[@]}"}; do
        is_child "$pid" && kill -KILL "$pid" 2>/dev/null
    done
    for node in ${node_parent[@]+"${!node_parent[@]}"}; do
        kill_node "$node"
    done
    for mount in $(mounts_below "$T"); do
        umount -l "$mount" 2>/dev/null
    done
    for node in ${namespaces[@]+"${namespaces[@]}"}; do
        ip netns delete "$node" 2>/dev/null
    done
    if [ -n "${BATON_TEST_KEEP:-}" ]; then
        diag "kept: $T"
    elif [ -z "$(mounts_below "$T")" ]; then
        rm -rf --one-file-system "$T" "/run/baton/$ID"
    else
        diag "still mounted below $T, left there: $(mounts_below "$T")"
    fi
    [ $tap_failed = 0 ] || diag "$tap_failed of $tap_count tests failed"
    exit $status
}
trap cleanup EXIT
# A plan would make what was interrupted look whole.
trap 'tap_ended=1; exit 141' PIPE # nobody reads what it prints
trap 'echo "Bail out! interrupted"; tap_ended=1; exit 129' HUP
trap 'echo "Bail out! interrupted"; tap_ended=1; exit 130' INT
trap 'echo "Bail out! interrupted, or out of time (BATON_TEST_TIMEOUT)"; tap_ended=1; exit 143' TERM

# ---- network: namespaces of the nodes and witness on one bridge ----
nodes=(a b) # a test of three sets nodes=(a b c) before anything else
declare -A address=([a]=10.77.0.1 [b]=10.77.0.2 [witness]=10.77.0.3 [c]=10.77.0.4)

need_root() {
    [ "$(id -u)" = 0 ] || skip_all "needs root"
    [ -e /dev/fuse ] || skip_all "needs /dev/fuse"
}

network_up() {
    need_root
    local node hub=$ID-hub
    namespaces=("$hub" "${nodes[@]/#/$ID-}" "$ID-witness")
    for node in "${namespaces[@]}"; do
        ip netns add "$node" || bail "no network namespace could be made"
        ip -n "$node" link set lo up
    done
    ip -n "$hub" link add bridge type bridge stp_state 0 forward_delay 0 || bail "no bridge could be made"
    ip -n "$hub" link set bridge up
    for node in "${nodes[@]}" witness; do
        ip -n "$hub" link add "to-$node" type veth peer name eth0 netns "$ID-$node" || bail "no veth could be made"
        ip -n "$hub" link set "to-$node" master bridge up
        ip -n "$ID-$node" address add "${address[$node]}/24" dev eth0
        ip -n "$ID-$node" link set eth0 up
    done
}

# in_node NODE COMMAND…: runs it in the node's network namespace; the mount namespace stays the test's own (`ip netns
# exec` would make a new one, and mounts made there would be seen by nobody else).
in_node() {
    local node=$1
    shift
    nsenter --net="/run/netns/$ID-$node" -- "$@"
}

# The whole network of a node goes, or comes back.
network_cut() { ip -n "$ID-hub" link set "to-$1" down; }
network_mend() { ip -n "$ID-hub" link set "to-$1" up; }
# Two nodes stop reaching each other; both still reach the third.
network_cut_between() {
    ip -n "$ID-$1" route add blackhole "${address[$2]}/32"
    ip -n "$ID-$2" route add blackhole "${address[$1]}/32"
}
network_mend_between() {
    ip -n "$ID-$1" route del blackhole "${address[$2]}/32"
    ip -n "$ID-$2" route del blackhole "${address[$1]}/32"
}

# ---- a volume on these nodes ----
store_of() { echo "$T/$1/store"; }
mount_of() { echo "$T/$1/mount"; }

# volume_create [OPTION…]: config and keys at $CONFIG; options go to `baton create`.
volume_create() {
    local node all=()
    for node in "${nodes[@]}"; do
        mkdir -p "$T/$node/mount"
        all+=(--node "$node=tcp://${address[$node]}:7400,store=$(store_of "$node"),mount=$(mount_of "$node")")
    done
    "$BATON" create --config "$CONFIG" --volume "$ID" "${all[@]}" "$@" >"$T/.out" 2>&1 ||
        bail "baton create failed: $(cat "$T/.out")"
}

# volume_set SECTION KEY VALUE: changes the config file.
volume_set() {
    awk -v section="[$1]" -v key="$2" -v value="$3" '
        function put() { if (inside && !done) { print key " = " value; done = 1 } }
        /^\[/ { put(); inside = ($0 == section) }
        inside && $1 == key { next }
        { print }
        END { put(); if (!done) print section "\n" key " = " value }' "$CONFIG" >"$CONFIG.new" &&
        cat "$CONFIG.new" >"$CONFIG" && rm "$CONFIG.new"
}

volume_format() {
    local node
    local first=--first # a starts as primary
    for node in "${nodes[@]}"; do
        "$BATON" format --config "$CONFIG" --node "$node" $first >"$T/.out" 2>&1 ||
            bail "baton format failed: $(cat "$T/.out")"
        first=
    done
}

# start_node NODE [OPTION…]: starts batond and waits until it says ready. Its log is $T/NODE.log.
start_node() {
    local node=$1
    shift
    : >"$T/$node.out"
    nsenter --net="/run/netns/$ID-$node" -- "$BATOND" --config "$CONFIG" --node "$node" "$@" \
        >"$T/$node.out" 2>>"$T/$node.log" &
    node_parent[$node]=$!
    wait_until "${START_SECONDS:-60}" node_ready_or_dead "$node"
    grep -q '^ready' "$T/$node.out" || { diag "batond on $node did not get ready: $(tail -n 5 "$T/$node.log")"; return 1; }
    node_pid[$node]=$(daemon_pid "$node") || diag "batond on $node has ended already"
}
node_ready_or_dead() { grep -q '^ready' "$T/$1.out" || process_gone "${node_parent[$1]}"; }

# daemon_pid NODE: the process that serves now; the supervisor itself if it does that alone (--no-supervisor). False: none
# does at the moment.
daemon_pid() {
    local parent=${node_parent[$1]} child
    [ "$(cat "/proc/$parent/comm" 2>/dev/null)" != batond-parent ] || {
        for child in $(cat "/proc/$parent/task/$parent/children" 2>/dev/null); do
            [ "$(cat "/proc/$child/comm" 2>/dev/null)" = batond ] && echo "$child" && return
        done
        return 1
    }
    process_gone "$parent" && return 1
    echo "$parent"
}

process_gone() { # ended, or a zombie that waits for its parent
    local state
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null)
    [ -z "$state" ] || [ "$state" = Z ]
}

# stop_node NODE: SIGTERM; SIGKILL and a false value if it does not end within a minute.
stop_node() {
    local pid=${node_parent[$1]:-}
    [ -n "$pid" ] || { diag "batond on $1 does not run"; return 1; }
    kill -TERM "$pid" 2>/dev/null
    wait_until "${STOP_SECONDS:-60}" process_gone "$pid" || {
        diag "batond on $1 did not end at SIGTERM"
        kill_node "$1"
        return 1
    }
    unset "node_pid[$1]" "node_parent[$1]"
    wait "$pid" 2>/dev/null
    return 0
}

# kill_node NODE: SIGKILL, of both processes, as if at one moment: the supervisor stands still before it can notice anything.
# The mount stays, dead, until the node is started again or the test ends.
kill_node() {
    local parent=${node_parent[$1]:-} child
    [ -n "$parent" ] || { diag "batond on $1 does not run"; return 1; }
    kill -STOP "$parent" 2>/dev/null
    for child in $(cat "/proc/$parent/task/$parent/children" 2>/dev/null); do
        kill -STOP "$child" && kill -KILL "$child"
    done 2>/dev/null
    unset "node_pid[$1]" "node_parent[$1]"
    kill -KILL "$parent" 2>/dev/null && wait "$parent" 2>/dev/null
    [ -z "${child:-}" ] || wait_until 30 process_gone "$child"
    return 0
}

# start_witness [OPTION…]: its state in $T/witness, its log in $T/witness.log. stop_node and kill_node know it as a node.
start_witness() {
    : >"$T/witness.out"
    mkdir -p "$T/witness"
    nsenter --net="/run/netns/$ID-witness" -- "$BATON_BUILD/baton-witness" --state "$T/witness/state" "$@" "$CONFIG" \
        >"$T/witness.out" 2>>"$T/witness.log" &
    node_parent[witness]=$!
    node_pid[witness]=$!
    wait_until "${START_SECONDS:-60}" node_ready_or_dead witness
    grep -q '^ready' "$T/witness.out" || { diag "the witness did not get ready: $(tail -n 5 "$T/witness.log")"; return 1; }
}

# The node that says it is primary and holds the lease; false and nothing printed if there is none.
primary_now() {
    local node
    for node in "${nodes[@]}"; do
        [ -n "${node_pid[$node]:-}" ] || continue
        [ "$(status_of "$node" role 2>/dev/null)" = primary ] && echo "$node" && return
    done
    return 1
}

# A volume that decides by itself: network, config with a witness, stores, daemons. Whichever node is primary then.
volume_up_with_witness() {
    local node
    network_up
    volume_create --witness "tcp://${address[witness]}:7400" "$@"
    for node in "${nodes[@]}"; do
        "$BATON" format --config "$CONFIG" --node "$node" >"$T/.out" 2>&1 || bail "baton format failed: $(cat "$T/.out")"
    done
    start_witness || bail "the witness does not start"
    for node in "${nodes[@]}"; do
        start_node "$node" || bail "node $node does not start"
    done
    wait_until 60 primary_now || bail "no node becomes primary"
}

# crash_node NODE: SIGKILL of the process that serves, alone. Its supervisor cleans up and starts it again.
crash_node() {
    local pid
    pid=$(daemon_pid "$1") && kill -KILL "$pid"
}
# restarted NODE: another process serves than the one that start_node or this has found, and answers. Sets node_pid.
restarted() {
    local pid
    pid=$(daemon_pid "$1") && [ "$pid" != "${node_pid[$1]}" ] && [ "$(status_of "$1" pid 2>/dev/null)" = "$pid" ] || return 1
    node_pid[$1]=$pid
}

# network, config, stores, daemons; a is primary
volume_up() {
    local node
    network_up
    volume_create "$@"
    volume_format
    for node in "${nodes[@]}"; do
        start_node "$node" || bail "node $node does not start"
    done
}

# status_of NODE KEY…: a value from `baton status --json`, e.g.  status_of a volume role
status_of() {
    local node=$1
    shift
    "$BATON" status --config "$CONFIG" --node "$node" --json | python3 -c '
import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1:]:
    value = value[int(key) if isinstance(value, list) else key]
print(value if isinstance(value, str) else json.dumps(value))' "$@"
}
