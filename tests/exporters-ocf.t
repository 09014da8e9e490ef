# The resource agent ocf:baton:baton: on stubs of baton, batond and Pacemaker's tools, each state and action; as root with
# Debian's ocf-tester on a volume of one node, and between two nodes as Pacemaker calls it.
. "$(dirname "$0")/lib.sh"

agent=$BATON_SRC/exporters/ocf/baton
stub=$T/stub
mkdir -p "$stub" "$T/rsc" "$T/ocf"
export HA_RSCTMP=$T/rsc OCF_ROOT=$T/ocf OCF_FUNCTIONS_DIR=$T/nothing OCF_RESOURCE_INSTANCE=vol STUB=$stub HA_LOGFILE=$T/ocf-log
[ ! -d /usr/lib/ocf/lib/heartbeat ] || export OCF_ROOT=/usr/lib/ocf OCF_FUNCTIONS_DIR=/usr/lib/ocf/lib/heartbeat

# ---- Pacemaker's tools, which write down what they are told -------------------------------------------------------------
for tool in crm_attribute attrd_updater; do
    printf '#!/bin/bash\necho "%s $OCF_RESKEY_node $*" >>"$STUB/cluster"\n' $tool >"$stub/$tool"
    chmod 755 "$stub/$tool"
done
PATH=$stub:$PATH
score() { sed -n "s/^crm_attribute $1 -q --promotion //p" "$stub/cluster" | tail -n 1; }
attribute() { sed -n "s/^attrd_updater $1 -n //p" "$stub/cluster" | tail -n 1; }
: >"$stub/cluster"

# run NODE ACTION [VARIABLE=VALUE…]: as Pacemaker does; its exit status is printed, its output is in $T/said.
run() {
    local node=$1 action=$2
    shift 2
    timeout 60 env OCF_RESKEY_config="$CONFIG" OCF_RESKEY_node="$node" OCF_RESKEY_baton="$baton" OCF_RESKEY_batond="$batond" \
        OCF_RESKEY_CRM_meta_timeout="${limit:-20000}" OCF_RESKEY_CRM_meta_interval=10000 OCF_RESKEY_CRM_meta_on_node="$node" \
        "$@" $promotable $in_net "$agent" "$action" >"$T/said" 2>&1
    echo $?
}
in_net='' promotable=''
as_clone='OCF_RESKEY_CRM_meta_promotable=true OCF_RESKEY_CRM_meta_notify=true'

# ---- stubs of Baton, without root ----------------------------------------------------------------------------------------
cat >"$stub/baton" <<'END'
#!/bin/bash
echo "baton $*" >>"$STUB/log"
[ ! -e "$STUB/hangs" ] || exec sleep 30
case $1 in
status) cat "$STUB/status"; exit "$(cat "$STUB/rc")" ;;
*)
    if [ -s "$STUB/refusals" ]; then
        echo "baton $1: $(head -n 1 "$STUB/refusals")" >&2
        sed -i 1d "$STUB/refusals"
        exit 1
    fi
    cp "$STUB/$1" "$STUB/status"
    ;;
esac
END
cat >"$stub/batond" <<'END'
#!/bin/bash
echo "batond $*" >>"$STUB/log"
cp "$STUB/started" "$STUB/status" && echo 0 >"$STUB/rc"
END
cat >"$stub/batond-parent" <<'END'
#!/bin/bash
trap "${TERM_ACTION-exit}" TERM
while :; do sleep 0.1; done
END
chmod 755 "$stub"/*
baton=$stub/baton batond=$stub/batond
printf '[volume]\nname = projects ; ours\n\n[node a]\nstore = %s/store\n[node b]\n' "$T" >"$CONFIG"

json() { # ROLE IN-SET FOLLOWS [STATE]
    printf '{"volume":"projects","node":"a","role":"%s","store":"%s/store","stopping":false,"pid":1,"replication":' "$1" "$T"
    printf '{"link":"working","in_set":%s,"follows":"%s","why":"a \\"{[,:}\\" b","register":{"primary":"b","members":["a","b"]},' "$2" "$3"
    printf '"peers":[{"node":"b","connected":true,"in_set":true},{"node":"c","connected":true,"in_set":true},{"node":"d","connected":false,"in_set":false}]},"state":%s}\n' "${4-{\}}"
}
says() { json "$@" >"$stub/status"; echo "${status:-0}" >"$stub/rc"; }
stopped() { echo "{\"volume\":\"projects\",\"node\":\"a\",\"running\":false,\"store\":\"$T/store\",\"formatted\":${1:-true}}" >"$stub/status"; echo 3 >"$stub/rc"; }
fresh() { rm -f "$T"/rsc/* "$stub/refusals"; cat "$stub/log" >>"$stub/all" 2>/dev/null; : >"$stub/log"; }
json primary true none >"$stub/promote"
json standby true streaming >"$stub/switchover"
json standby true searching >"$stub/started"
stopped

"$agent" meta-data >"$T/meta" 2>&1
is $? 0 "meta-data succeeds, without any parameter"
like "$(cat "$T/meta")" '<version>1.1</version>.*name="promote".*role="Unpromoted"' "and is of OCF 1.1"
is "$(env -u OCF_RESKEY_config "$agent" monitor 2>/dev/null; echo $?)" 6 "without a config file given: configured badly"
is "$(run a frobnicate)" 3 "an unknown action is not implemented"
is "$(run a validate-all)" 0 "validate-all of a good config"
echo "baton status: $CONFIG:3: unknown key" >"$stub/status"; echo 1 >"$stub/rc"
is "$(run a validate-all) $(grep -c 'ocf-exit-reason:.*:3: unknown key' "$T/said")" "6 1" "of a bad one: configured badly, with baton's sentence"
stopped
is "$(run a monitor OCF_RESKEY_config="$T/none" OCF_RESKEY_CRM_meta_interval=0)" 7 "where no config file is, a probe finds nothing running"
is "$(run a start OCF_RESKEY_config="$T/none") $(run a stop OCF_RESKEY_config="$T/none")" "5 0" "start says not installed, stop works"
is "$(run a start OCF_RESKEY_batond="$T/none") $(run a monitor OCF_RESKEY_batond="$T/none" OCF_RESKEY_CRM_meta_interval=0)" "5 7" \
    "where batond is not installed: the same"
promotable=OCF_RESKEY_CRM_meta_promotable=true
is "$(run a validate-all) $(grep -c notify=true "$T/said")" "6 1" "a promotable clone without notify=true is told to have it"

for functions in "$OCF_FUNCTIONS_DIR" "$T/nothing"; do
    OCF_FUNCTIONS_DIR=$functions
    with=$([ -d "$functions" ] && echo with || echo without)
    fresh
    promotable=$as_clone
    stopped; is "$(run a monitor)" 7 "$with ocf-shellfuncs: monitor, stopped"
    says standby true streaming; is "$(run a monitor)" 0 "a standby is unpromoted"
    says primary true none; is "$(run a monitor)" 8 "a primary is promoted"
    status=1 says primary true none null; is "$(limit=4000 run a monitor)" 9 "a primary whose store hangs has failed as promoted"
    like "$(cat "$T/said")" "ocf-exit-reason:.*disk may hang" "with a sentence"
    promotable=
    says primary true none; is "$(run a monitor)" 0 "not promotable: a primary runs"
    is "$(run a promote) $(run a demote)" "3 3" "and its role is not the cluster's"
done
promotable=$as_clone
status=1 says standby true streaming null; is "$(limit=2000 run a monitor)" 1 "a standby whose store hangs has failed"
touch "$stub/hangs"
SECONDS=0
is "$(limit=2000 run a monitor)" 1 "baton that hangs is a failure"
ok "in good time: $SECONDS s" [ "$SECONDS" -le 10 ]
rm "$stub/hangs"

# what Pacemaker is told
: >"$stub/cluster"
says primary true none; run a monitor >/dev/null
is "$(score a) / $(attribute a)" "-v 100 / baton-projects -U 1" "a primary has the best score, and the node attribute"
is "$(grep -c -- "-D$" "$stub/cluster") $(grep -c -- '-N d -D$' "$stub/cluster")" "1 1" "and takes the score of a node that has left the set, and of no other"
fresh
says standby true searching; run a monitor >/dev/null
is "$(score a) / $(attribute a)" "-D / baton-projects -U 0" "a standby that has not heard a primary yet has no score"
says standby true streaming; run a monitor >/dev/null
is "$(score a)" "-v 50" "one that follows has one"
says standby true searching; : >"$stub/cluster"; run a monitor >/dev/null
is "$(score a) $(grep -c attrd "$stub/cluster")" " 1" "and keeps what it has when the primary is lost, as the cluster may know better by then"
says standby false streaming; run a monitor >/dev/null
is "$(score a)" -D "one out of sync has none"
says standby true streaming; : >"$stub/cluster"; run a monitor OCF_RESKEY_CRM_meta_interval=0 >/dev/null
is "$(cat "$stub/cluster")" "" "a probe tells Pacemaker nothing"

# primary before the cluster has promoted it
fresh; says primary true none
early() { run a monitor OCF_RESKEY_CRM_meta_role="$1"; }
is "$(early Promoted) $(early Unpromoted) $(early Slave) $(run a monitor OCF_RESKEY_CRM_meta_role=Unpromoted OCF_RESKEY_CRM_meta_interval=0)" "8 0 0 8" \
    "handed over to, and not promoted yet: the monitor of that role is content, a probe says what it is"
for note in "$T"/rsc/*.early; do echo $(($(cut -d. -f1 /proc/uptime) - 61)) >"$note"; done
is "$(early Unpromoted)" 8 "for a minute"
is "$(run a promote) $(early Unpromoted)" "0 0" "promote ends that"
is "$(promotable='OCF_RESKEY_CRM_meta_master_max=1 OCF_RESKEY_CRM_meta_promoted_max=1 OCF_RESKEY_CRM_meta_notify=true' run a monitor)" 8 "promotable, as Pacemaker 2.1 says it"

# start
fresh; stopped
is "$(run a start OCF_RESKEY_options='--verbose --orphan-grace 5s')" 0 "start"
is "$(grep ^batond "$stub/log")" "batond --config $CONFIG --node a --background --verbose --orphan-grace 5s" "runs batond in the background"
is "$(run a start) $(grep -c ^batond "$stub/log")" "0 1" "again: nothing is started"
stopped false
is "$(run a start) $(grep -c 'baton format' "$T/said")" "5 1" "without a store: it is told how to make one"
printf 'baton register 1\nversion 4\nepoch 2.1\nprimary a\n' >"$T/store.register"
fresh; stopped
is "$(run a start) $(run a monitor) $(grep -c ^batond "$stub/log")" "0 0 0" "the last primary is started without batond, until it is promoted"
is "$(score a)" "-v 100" "and goes first"
is "$(run a notify OCF_RESKEY_CRM_meta_notify_type=post OCF_RESKEY_CRM_meta_notify_operation=promote OCF_RESKEY_CRM_meta_notify_promote_uname=b) \
$(grep -c ^batond "$stub/log") $(run a monitor)" "0 1 0" "another node is promoted: batond follows it"
fresh; stopped
is "$(run a start OCF_RESKEY_CRM_meta_notify_promoted_uname=b) $(grep -c ^batond "$stub/log")" "0 1" "where another one is promoted it is started at once"
fresh; stopped
is "$(run a start OCF_RESKEY_CRM_meta_notify_promoted_uname='a b' OCF_RESKEY_CRM_meta_notify_demote_uname='b ') $(grep -c ^batond "$stub/log")" "0 0" \
    "but not where that one is demoted, nor for itself"
fresh; stopped; run a start >/dev/null
json primary true none >"$stub/started"
is "$(run a promote) $(run a monitor) $(grep -c ^batond "$stub/log")" "0 8 1" "promote starts it"
json standby true searching >"$stub/started"
fresh; stopped; run a start >/dev/null
is "$(run a stop) $(run a monitor) $(score a)" "0 7 -D" "stop"
rm "$T/store.register"

# promote
fresh; says standby true streaming
is "$(run a promote) $(run a monitor)" "0 8" "promote of a standby"
is "$(grep -c "^baton promote --config $CONFIG --node a$" "$stub/log")" 1 "asks baton once"
is "$(run a promote) $(grep -c '^baton promote' "$stub/log")" "0 1" "again: nothing is asked"
fresh; says standby true streaming; run a monitor >/dev/null
says standby true searching
printf 'node b is primary and answers; use "baton switchover", which loses nothing\n' >"$stub/refusals"
is "$(run a promote) $(grep -c '^baton promote' "$stub/log")" "0 2" "while the other one answers still it is asked again"
fresh; says standby true streaming; run a monitor >/dev/null
says standby true searching
printf 'this store is not in the in-sync set; promote a member\n' >"$stub/refusals"
is "$(run a promote) $(score a)" "1 -D" "a refusal is an error, and there is no score any more"
like "$(cat "$T/said")" "ocf-exit-reason:node a is not primary: this store is not in the in-sync set; promote a member" "with baton's sentence"
is "$(run a monitor) $(score a)" "0 -D" "nor after the next monitor"
says standby true streaming
is "$(run a monitor) $(score a)" "0 -v 50" "until it follows a primary"
printf '[witness]\n' >>"$CONFIG"
says standby true streaming
printf 'node b holds the lease\nno majority of the voters answers\n' >"$stub/refusals"
is "$(run a promote) $(grep -c '^baton promote' "$stub/log")" "0 4" "with a witness promote waits until the voters let it in"
sed -i '/witness/d' "$CONFIG"
stopped
is "$(run a promote)" 7 "promote where nothing runs"

# demote
fresh; says primary true none
is "$(run a demote OCF_RESKEY_CRM_meta_notify_promote_uname=c) $(run a monitor)" "0 0" "demote of a primary"
is "$(grep '^baton switchover' "$stub/log")" "baton switchover --config $CONFIG --node a --to c" "hands over to whom the cluster wants"
fresh; says primary true none
is "$(run a demote)" 0 "without a wish"
is "$(grep '^baton switchover' "$stub/log")" "baton switchover --config $CONFIG --node a --to b" "to the first that is connected"
is "$(run a demote) $(grep -c '^baton switchover' "$stub/log")" "0 1" "of a standby: nothing is asked"
stopped; is "$(run a demote)" 7 "demote where nothing runs"
fresh
is "$(grep -c '^baton promote' "$stub/all") $(grep -c -e --force "$stub/all")" "7 0" "of all that was asked nothing was forced"

# processes
fresh
TERM_ACTION='echo term >>"$STUB/log"; exit' "$stub/batond-parent" --config "$CONFIG" --node a &
test_pids+=($!)
"$stub/batond-parent" --config "$CONFIG" --node b &
other=$!
test_pids+=("$other")
named() { [ "$(cat "/proc/$1/comm" 2>/dev/null)" = batond-parent ]; }
wait_until 10 named "${test_pids[0]}" && wait_until 10 named "$other" || bail "the stub does not run"
stopped
is "$(limit=2000 run a monitor)" 1 "a supervisor without a server has failed"
is "$(run a stop) $(grep -c term "$stub/log")" "0 1" "stop ends it by SIGTERM"
ok "and not another node's" kill -0 "$other"
TERM_ACTION='' "$stub/batond-parent" --config "$CONFIG" --node a &
test_pids+=($!)
wait_until 10 named $! || bail "the stub does not run"
SECONDS=0
is "$(limit=2000 run a stop)" 0 "one that does not mind is killed"
ok "in good time: $SECONDS s" [ "$SECONDS" -le 10 ]
ok "it is gone" process_gone $!
kill -KILL "$other" && wait "$other" 2>/dev/null

# ---- the real ones -------------------------------------------------------------------------------------------------------
if [ "$(id -u)" != 0 ] || [ ! -e /dev/fuse ]; then
    skip 1 "the rest needs root and /dev/fuse"
    exit
fi
baton=$BATON batond=$BATOND
end_all() { # processes that the agent has started
    local name
    promotable='' in_net=''
    for CONFIG in "$T/one.conf" "$T/volume.conf" "$T/voted.conf"; do
        [ ! -e "$CONFIG" ] || for name in a b; do limit=8000 run $name stop >/dev/null; done
    done
}
cleanup_hooks+=(end_all)
fresh

if command -v ocf-tester >/dev/null && command -v xmllint >/dev/null; then
    CONFIG=$T/one.conf
    mkdir -p "$T/one"
    "$BATON" create --config "$CONFIG" --volume "$ID-one" --node "a=tcp://127.0.0.1:7463,store=$T/one/store,mount=$T/one/mount" \
        >"$T/.out" 2>&1 && mkdir -p "$T/one/mount" && "$BATON" format --config "$CONFIG" --node a --first >>"$T/.out" 2>&1 ||
        bail "no volume of one node: $(cat "$T/.out")"
    chmod 755 "$T" # it looks whether everybody can run the agent
    tester() {
        timeout 120 ocf-tester -n vol -o config="$CONFIG" -o node=a -o baton="$BATON" -o batond="$BATOND" "$@" "$agent" >"$T/tester" 2>&1 </dev/null
        local rc=$?
        cat "$T/tester"
        return $rc
    }
    ok "ocf-tester: a plain resource" tester
    diag "$(cat "$T/tester")"
    ok "ocf-tester: a promotable one" tester -o CRM_meta_promotable=true -o CRM_meta_notify=true
    diag "$(cat "$T/tester")"
    fails "ocf-tester is not content with anything: without its config file" tester -o config="$T/none"
else
    skip 3 "ocf-tester (package resource-agents) or xmllint (libxml2-utils) is not installed"
fi

# Two nodes, one after the other what Pacemaker does.
CONFIG=$T/volume.conf
rm "$CONFIG"
network_up
volume_create
volume_set lease duration 1s
volume_format
on() { # NODE ACTION…
    in_net="nsenter --net=/run/netns/$ID-$1 --"
    run "$@"
}
fresh; : >"$stub/cluster"
promotable=$as_clone
a=$(mount_of a) b=$(mount_of b)
is "$(on a start) $(on b start) $(on a monitor) $(on b monitor)" "0 0 0 0" "both are started, nobody is promoted"
fails "and nobody takes changes" sh -c "mountpoint -q $a || touch $b/nobody"
is "$(score a) / $(score b)" "-v 100 / -D" "the node that was primary goes first"
is "$(on a promote) $(on a monitor)" "0 8" "a is promoted"
reports() { [ "$(on "$1" monitor) $(score "$1")" = "$2" ]; }
ok "b follows, and may be promoted" wait_until 20 reports b "0 -v 50"
ok "a takes changes" sh -c "echo one >$a/file"
in_sync() { [ "$(status_of a replication link)" = working ]; }
wait_until 20 in_sync
is "$(on a demote OCF_RESKEY_CRM_meta_notify_promote_uname=b) $(on b monitor OCF_RESKEY_CRM_meta_role=Unpromoted) $(on b promote) \
$(on a monitor OCF_RESKEY_CRM_meta_role=Unpromoted) $(on b monitor OCF_RESKEY_CRM_meta_role=Promoted)" "0 0 0 0 8" "the cluster moves it: a is demoted, b promoted"
is "$(cat "$b/file" 2>&1)" one "b has what a had"
ok "and takes changes" sh -c "echo two >$b/file"
is "$(limit=4000 on a promote) $(grep -c 'ocf-exit-reason:.*switchover' "$T/said")" "1 1" "a is not promoted beside it, and says why"
in_sync() { [ "$(status_of b replication link)" = working ]; }
ok "in sync again" wait_until 20 in_sync
reports a "0 -v 50" || wait_until 10 reports a "0 -v 50"

# a node hangs, and is fenced
parent=$(status_of b supervisor pid) server=$(status_of b pid)
kill -STOP "$parent" "$server"
SECONDS=0
is "$(limit=4000 on b monitor)" 1 "batond on b stands still: monitor fails"
ok "in good time: $SECONDS s" [ "$SECONDS" -le 10 ]
kill -KILL "$server" "$parent"
is "$(on a promote) $(on a monitor) $(cat "$a/file" 2>&1)" "0 8 two" "b is fenced, a is promoted and has everything"
is "$(on b start OCF_RESKEY_CRM_meta_notify_promoted_uname=a) $(on b monitor)" "0 0" "b comes back as a standby"
in_sync() { [ "$(status_of a replication link)" = working ]; }
ok "in sync" wait_until 30 in_sync
network_cut b
: >"$stub/cluster"
alone() { on a monitor >/dev/null; grep -q '^crm_attribute a .*-N b -D$' "$stub/cluster"; }
ok "the line is cut: a goes on alone, and tells the cluster that b must not be promoted" wait_until 20 alone
is "$(on b monitor) $(grep -c '^crm_attribute b' "$stub/cluster")" "0 0" "b does not contradict"
network_mend b
ok "in sync again" wait_until 30 in_sync
ok "b may be promoted again" wait_until 20 reports b "0 -v 50"
is "$(on b stop) $(on b monitor) $(on b stop)" "0 7 0" "b is stopped"
is "$(on a demote) $(on a monitor)" "0 0" "a is demoted, with nobody to take over: it serves no longer"
fails "its mount is gone" mountpoint -q "$a"
is "$(on a promote) $(on a monitor) $(cat "$a/file" 2>&1)" "0 8 two" "promoted again it does"
is "$(on a demote) $(on a stop) $(on a monitor)" "0 0 7" "a is stopped"

# A volume that decides by itself, as a plain clone.
CONFIG=$T/voted.conf
rm -rf "$(store_of a)"* "$(store_of b)"*
volume_create --witness "tcp://${address[witness]}:7400"
volume_set lease duration 1s
for node in a b; do
    "$BATON" format --config "$CONFIG" --node "$node" >"$T/.out" 2>&1 || bail "baton format failed: $(cat "$T/.out")"
done
start_witness || bail "the witness does not start"
fresh; : >"$stub/cluster"
promotable=
is "$(on a start) $(on b start)" "0 0" "with a witness: both are started"
one_primary() { on a monitor >/dev/null; on b monitor >/dev/null; case $(attribute a)/$(attribute b) in *1/*0 | *0/*1) ;; *) false ;; esac }
ok "the node attribute says which of them is primary" wait_until 20 one_primary
p=a q=b
case $(attribute b) in *1) p=b q=a ;; esac
in_sync() { [ "$(status_of $p replication link)" = working ]; }
ok "in sync" wait_until 20 in_sync
promotable=$as_clone
is "$(on $p monitor) $(on $q monitor) $(on $p promote)" "8 0 0" "as a promotable clone: monitor says so, and promote is content"
is "$(on $p demote) $(on $q promote) $(on $p monitor) $(on $q monitor)" "0 0 0 8" "it can be moved"
in_sync() { [ "$(status_of $q replication link)" = working ]; }
ok "in sync" wait_until 20 in_sync
is "$(on $q stop) $(on $p promote) $(on $p monitor)" "0 0 8" "the primary is stopped: promote waits for the other one's election"
is "$(on $p stop) $(on $p monitor)" "0 7" "all stopped"
