# shellcheck shell=bash disable=SC2034
# Exporters called as the runner will: for tests of theirs, after lib.sh. A client is in the hub's namespace.
service=10.77.0.100 # the volume's address
VOLUME_ID=${VOLUME_ID:-0123456789abcdef0123456789abcdef}

# exporter NODE NAME VERB [VARIABLE=VALUE…]: in the node's namespace. Section's keys: BATON_OPTION_…, or in the array options.
options=()
exporter() {
    local node=$1 name=$2 verb=$3 run=$T/$1/run/$2
    shift 3
    [ -d "$run" ] || { mkdir -p "$run" && chmod 700 "$run"; }
    in_node "$node" env BATON_VOLUME="$ID" BATON_VOLUME_ID="$VOLUME_ID" BATON_NODE="$node" BATON_NODES="a b" \
        BATON_MOUNT="$(mount_of "$node")" BATON_CONFIG="$CONFIG" BATON_EXPORT="$name" BATON_EXPORT_TYPE="$name" BATON_EPOCH=1 \
        BATON_LEASE_MS=2000 BATON_ADDRESSES="$service/24" BATON_LOCAL="$run" BATON_STATE="$(mount_of "$node")/.baton/$name" \
        BATON_LIBEXEC="$BATON_SRC/exporters" ${options[@]+"${options[@]}"} "$@" "$BATON_SRC/exporters/$name" "$verb"
}
# How long a verb takes, in ms, in $took; its exit status.
timed() {
    local begin status
    begin=$(date +%s%N)
    "$@"
    status=$?
    took=$((($(date +%s%N) - begin) / 1000000))
    return $status
}
status_is() { # NODE NAME STATUS
    exporter "$1" "$2" status >/dev/null
    [ $? = "$3" ]
}

client() { nsenter --net="/run/netns/$ID-hub" -- "$@"; }
client_up() { ip -n "$ID-hub" address add 10.77.0.50/24 dev bridge; }
address_on() {
    ip -n "$ID-$1" address add "$service/24" dev eth0
    ip -n "$ID-hub" neigh flush all
}
address_off() { ip -n "$ID-$1" address del "$service/24" dev eth0 2>/dev/null; }

state_make() { # NODE NAME: what the runner makes
    mkdir -p "$(mount_of "$1")/.baton/$2" && chmod 700 "$(mount_of "$1")/.baton" "$(mount_of "$1")/.baton/$2"
}
in_sync() { [ "$(status_of a replication link)$(status_of b replication link)" = workingworking ]; }
is_primary() { [ "$(status_of "$1" role)" = primary ]; }
# serve_at NODE NAME: start, then the address, as the runner does. unserve_at: the reverse.
serve_at() {
    timed exporter "$1" "$2" start || return 1
    address_on "$1"
}
unserve_at() {
    address_off "$1"
    timed exporter "$1" "$2" stop
}
# A planned handover: serve_ms and stop_ms say how long start and stop took.
hand_over() { # FROM TO NAME
    unserve_at "$1" "$3" || return 1
    stop_ms=$took
    wait_until 20 status_is "$1" "$3" 3 || return 1
    "$BATON" switchover --config "$CONFIG" --node "$1" && wait_until 30 is_primary "$2" || return 1
    serve_at "$2" "$3" || return 1
    serve_ms=$took
}
# The daemon of FROM is killed, its mount is dead; TO is promoted and serves. stop_ms and serve_ms as above.
crash_over() { # FROM TO NAME
    kill_node "$1" && address_off "$1"
    timed exporter "$1" "$3" stop BATON_HURRY=1 || return 1
    stop_ms=$took
    wait_until 20 status_is "$1" "$3" 3 || return 1
    wait_until 60 "$BATON" promote --config "$CONFIG" --node "$2" && serve_at "$2" "$3" || return 1
    serve_ms=$took
}
# Another volume beside it on the same node, with IPv6 too: what `exporter` takes after the verb.
other_volume() { # NODE NAME
    mkdir -p "$T/$1/run/other" "$(mount_of "$1")/.baton/other"
    other=(BATON_VOLUME=other BATON_VOLUME_ID=fedcba9876543210fedcba9876543210 BATON_LOCAL="$T/$1/run/other"
        BATON_STATE="$(mount_of "$1")/.baton/other" "BATON_ADDRESSES=10.77.0.101/24 fd00:77::101/64")
}
# For cleanup_hooks: nothing is left running, whatever the test had come to.
exporters_end() {
    local node name
    for node in a b; do
        for name in "$@"; do
            exporter "$node" "$name" stop >/dev/null 2>&1
            ! [ -d "$T/$node/run/other" ] || exporter "$node" "$name" stop BATON_LOCAL="$T/$node/run/other" >/dev/null 2>&1
        done
    done
}

# ---- on stubs: tests that need neither root nor servers ----
# stubs_up NAME: `verb VERB` calls this exporter without namespaces. Stubs of servers go to $T/bin; they find $STUB for notes.
stubs_up() {
    stubbed=$1
    run=$T/a/run/$1
    in_node() { shift && "$@"; }
    verb() { exporter a "$stubbed" "$@"; }
    cleanup_hooks+=("exporters_end $1")
    mkdir -p "$T/bin" "$(mount_of a)/work" "$(mount_of a)/.baton/$1"
    : >"$CONFIG"
    PATH=$T/bin:$PATH
    export STUB=$T
}
# everywhere PORT: a program that listens there on all addresses.
everywhere() {
    python3 -c '
import socket, sys
with socket.create_server(("", int(sys.argv[1]))) as listener:
    while True:
        listener.accept()' "$1" &
    test_pids+=($!)
    disown $!
    wait_until 10 bash -c ">/dev/tcp/127.0.0.1/$1"
}
