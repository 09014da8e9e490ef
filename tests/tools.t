#!/bin/bash
# The baton command on a volume in use and at rest: status within a second whatever hangs, the journal live and followed,
# refusals with a sentence, JSON that is JSON.
. "$(dirname "$0")/lib.sh"
need_root

baton() { "$BATON" "$@" --config "$CONFIG"; }
is_json() { python3 -c 'import json, sys
lines = [json.loads(line) for line in sys.stdin]
sys.exit(not lines or not all(isinstance(line, dict) for line in lines))'; }

# ---- before there is anything ----
fails "no config file" "$BATON" status --config "$T/none.conf" --node a
like "$(cat "$T/.out")" "none.conf cannot be read" "... and a sentence"
fails "an unknown command" "$BATON" dance
fails "an unknown option" "$BATON" status --dance
fails "create without nodes" "$BATON" create --config "$CONFIG" --volume x
for command in create format status promote switchover journal check extract; do
    out=$("$BATON" $command --help)
    like "$out" "^usage: baton $command" "$command --help"
done

volume_create
is "$(stat -c %a "$CONFIG.a.key")" 600 "a secret key is root's alone"
fails "create does not overwrite" "$BATON" create --config "$CONFIG" --volume x --node a=tcp://10.0.0.1:1,store=/x
fails "a bad address leaves nothing" "$BATON" create --config "$T/y.conf" --volume x --node a=here,store=/x
is "$(echo "$T"/y.conf*)" "$T/y.conf*" "... indeed"
baton status --node a >"$T/.out"
is $? 3 "status without a store: exit status 3"
like "$(cat "$T/.out")" "baton format" "... and what to do"
volume_format
fails "format does not overwrite" baton format --node a
baton status --node a >"$T/.out"
is $? 3 "status without batond: exit status 3"
like "$(cat "$T/.out")" "batond --config" "... and what to do"
fails "promote without batond" baton promote --node a
like "$(cat "$T/.out")" "does not run" "... says so"

# ---- in use ----
network_up
ok "a starts" start_node a
ok "b starts" start_node b
a=$(mount_of a)
in_sync() { [ "$(status_of a replication link)" = working ]; }
ok "in sync" wait_until 60 in_sync
ok "status --json is JSON" bash -c "'$BATON' status --json --config '$CONFIG' --node a | python3 -m json.tool"
like "$(baton status --node b)" "node b: standby" "the standby says what it is"
mkdir "$a/dir" && echo one >"$a/dir/file" && mv "$a/dir/file" "$a/dir/other"
like "$(baton journal list --node a --path dir)" "created file dir/file .*renamed dir/file to dir/other" "the journal tells it"
followed() { grep -q "removed dir/other" "$T/follow.out"; }
"$BATON" journal follow --config "$CONFIG" --node b >"$T/follow.out" 2>&1 &
test_pids+=($!)
begun() { grep -q "renamed" "$T/follow.out"; }
ok "follow on the standby shows what was" wait_until 60 begun
rm "$a/dir/other"
ok "... and what comes" wait_until 60 followed
ok "journal verify on the standby" baton journal verify --node b
baton journal list --node a --json | is_json
is $? 0 "journal list --json is JSON, a line each"
fails "check refuses a store in use" baton check --node a
fails "extract refuses a store in use" baton extract --node a "$T/x"
fails "promote is refused while the primary answers" baton promote --node b
fails "switchover to nowhere" baton switchover --node a --to c

# ---- hanging ----
kill -STOP "${node_pid[a]}"
begin=$(date +%s%N)
fails "status of a stopped daemon fails" baton status --node a
took=$((($(date +%s%N) - begin) / 1000000))
kill -CONT "${node_pid[a]}"
like "$(cat "$T/.out")" "does not answer" "... and says why"
ok "... within a second or so ($took ms; this machine may be busy)" [ "$took" -lt 2500 ]
ok "afterwards it answers again" wait_until 60 baton status --node a

# ---- at rest ----
mkdir "$a/keep" && cp -a "$BATON_SRC/tests" "$a/keep/"
ok "b stops" stop_node b
ok "a stops" stop_node a
ok "extract" baton extract --node a "$T/extracted"
ok "... gives the same files" diff -r "$BATON_SRC/tests" "$T/extracted/keep/tests"
ok "check finds nothing" baton check --node a --data
like "$(baton journal list --node a --type epoch)" "node a became primary by epoch 1.a" "the journal at rest"
ok "journal stat" baton journal stat --node a
