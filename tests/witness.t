#!/bin/bash
# baton-witness as a program: it votes for several volumes, keeps what it promised over kill -9, takes new config files at
# SIGHUP and leaves what is served alone when one is bad; and says in a sentence what it cannot do.
. "$(dirname "$0")/lib.sh"
need_root

WITNESS=$BATON_BUILD/baton-witness
STATE=$T/state
CONFIGS=$T/configs
SECOND=$CONFIGS/second.conf
mkdir "$CONFIGS"
CONFIG=$CONFIGS/first.conf
ask() { # NODE CONFIG WHAT…
    local node=$1 config=$2
    shift 2
    in_node "$node" "$BATON_BUILD/tests/ask-voter" "$config" "$node" "$@"
}
witness_key() { awk '/^\[/ { section = $0 } section == "[witness]" && $1 == "public-key" { print $3 }' "$1"; }
# FILE KEY VALUE: in its [witness]
set_witness() {
    awk -v key="$2" -v value="$3" '/^\[/ { section = $0 } section == "[witness]" && $1 == key { print key " = " value; next } { print }' \
        "$1" >"$1.new" && mv "$1.new" "$1"
}
create_second() { # FILE VOLUME: with the first one's witness
    "$BATON" create --config "$1" --volume "$2" --node a=tcp://10.77.0.1:7500,store=/a/s --node b=tcp://10.77.0.2:7500,store=/b/s \
        --witness-of "$CONFIG" >"$T/.create"
}

witness_starts() { # OPTION…
    : >"$T/witness.out"
    NOTIFY_SOCKET=$T/notify nsenter --net="/run/netns/$ID-witness" -- "$WITNESS" --state "$STATE" "$@" >"$T/witness.out" 2>>"$T/witness.log" &
    node_pid[witness]=$! node_parent[witness]=$!
    wait_until 60 witness_ready_or_dead
    grep -q '^ready' "$T/witness.out"
}
witness_ready_or_dead() { grep -q "^ready" "$T/witness.out" || process_gone "${node_parent[witness]}"; }
hang_up() { # SIGHUP; until it says that it has read its files again
    local before
    before=$(grep -c 'config files again' "$T/witness.log")
    kill -HUP "${node_pid[witness]}"
    wait_until 30 reloaded "$before"
}
reloaded() { [ "$(grep -c 'config files again' "$T/witness.log")" -gt "$1" ]; }
status() { "$WITNESS" --status --state "$STATE" "$@"; }
refuses() { # DESCRIPTION SENTENCE OPTION…: it does not start
    local description=$1 sentence=$2
    shift 2
    fails "$description" in_node witness timeout 60 "$WITNESS" --state "$T/none" "$@"
    like "$(cat "$T/.out")" "$sentence" "... and says so"
}

network_up
volume_create --witness tcp://10.77.0.3:7400

# ---- what it cannot do ----
like "$("$WITNESS" --help)" "^usage: baton-witness" "--help"
ok "--version" "$WITNESS" --version
"$WITNESS" --dance >"$T/.out" 2>&1
is $? 2 "an unknown option is wrong usage"
"$WITNESS" --status --state "$STATE" >"$T/.out" 2>&1
is $? 3 "status of one that does not run: exit status 3"
refuses "no such file" "none.conf cannot be read" "$T/none.conf"
mkdir "$T/empty"
refuses "an empty directory" "there is no config file" "$T/empty"
"$BATON" create --config "$T/two.conf" --volume two --node a=tcp://10.77.0.1:7500,store=/a/s --node b=tcp://10.77.0.2:7500,store=/b/s >/dev/null
refuses "a volume without a witness" "there is no .witness." "$T/two.conf"
refuses "no secret key" "first.conf.witness.none cannot be read" --secret-key "$CONFIG.witness.none" "$CONFIG"
refuses "another one's secret key" "does not belong to the public-key" --secret-key "$CONFIG.a.key" "$CONFIG"
chmod 644 "$CONFIG.witness.key"
refuses "a secret key that others can read" "chmod 600" "$CONFIG"
chmod 600 "$CONFIG.witness.key"
sed 's/10.77.0.3:7400/10.77.0.9:7400/' "$CONFIG" >"$T/elsewhere.conf"
refuses "an address that is not this host's" "cannot listen on tcp://10.77.0.9:7400" --secret-key "$CONFIG.witness.key" "$T/elsewhere.conf"

# ---- it votes ----
python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
while True:
    print(s.recv(4096).decode(), flush=True)' "$T/notify" >"$T/notified" 2>/dev/null &
listener=$!
test_pids+=($listener)
wait_until 30 test -S "$T/notify"
ok "it starts" witness_starts "$CONFIGS"
notified() { grep -q '^READY=1' "$T/notified"; }
ok "and tells the service manager" wait_until 30 notified
kill $listener
wait $listener 2>/dev/null
like "$(ask a "$CONFIG" query)" "^yes id=[0-9a-f]{32} version=0 " "a node asks"
like "$(ask a "$CONFIG" prepare 3)" "^yes .*promised=3" "it promises"
like "$(ask a "$CONFIG" accept 3 1)" "^yes .*version=1 primary=a" "it accepts"
id=$(ask a "$CONFIG" query | sed 's/.*id=\([0-9a-f]*\).*/\1/')
volume_set lease duration 30s
hang_up
like "$(ask a "$CONFIG" renew 1)" "^yes" "it grants the lease"
like "$(ask b "$CONFIG" query)" "^held .*holder=a" "and holds the other one off"
like "$(status)" "volume|$ID +[0-9]+\.[0-9] s more held by a; primary a in epoch 1, version 1" "status says who holds it"
ok "--json is JSON" bash -c "'$WITNESS' --status --json --state '$STATE' | python3 -m json.tool"

# ---- killed ----
kill_node witness
like "$(BATON_ASK_MS=500 ask b "$CONFIG" query)" "^silence" "killed, it says nothing"
ok "it starts again" witness_starts "$CONFIGS"
like "$(ask b "$CONFIG" query)" "^quiet id=$id version=1 " "it is the same one, and silent towards others"
like "$(ask a "$CONFIG" renew 1)" "^yes" "but grants to the primary that it knows"
like "$(ask a "$CONFIG" release 1)" "^yes" "who gives it back"
like "$(ask b "$CONFIG" prepare 9)" "^yes" "now the other one may come"

# ---- more volumes, and bad files ----
create_second "$SECOND" second
like "$(cat "$T/.create")" "systemctl reload baton-witness" "another volume for the same witness"
is "$(witness_key "$SECOND")" "$(witness_key "$CONFIG")" "has its key in its config"
fails "and no secret of its own for it" test -e "$SECOND.witness.key"
fails "a config without a witness has none to share" "$BATON" create --config "$T/none.conf" --volume none \
    --node a=tcp://10.77.0.1:7500,store=/a/s --witness-of "$T/two.conf"
like "$(cat "$T/.out")" "two.conf has no .witness." "... and says so"
fails "of which nothing is left" test -e "$T/none.conf"
like "$(BATON_ASK_MS=1000 ask a "$SECOND" query)" "^silence" "another volume is not served"
hang_up
like "$(ask a "$SECOND" query)" "^yes" "after a SIGHUP it is"
like "$(ask b "$CONFIG" prepare 10)" "^yes .*version=1" "and the first one goes on"
like "$(status)" "second +has no value yet" "status shows it"
cp "$SECOND" "$T/second.good"
cp "$SECOND.a.key" "$T/second.good.a.key"
echo 'acknowlege = close' >>"$SECOND"
hang_up
like "$(tail -n 5 "$T/witness.log")" "second.conf:[0-9]+: unknown key .acknowlege.*served as before" "a bad file is logged"
like "$(ask a "$T/second.good" query)" "^yes" "and its volume served as before"
like "$(status)" "bad file, its volume is served as before: .*second.conf" "which status shows"
cp "$T/second.good" "$SECOND"
cp "$SECOND" "$CONFIGS/twice.conf"
create_second "$CONFIGS/third.conf" third
set_witness "$CONFIGS/third.conf" address tcp://10.77.0.3:7600
create_second "$CONFIGS/fourth.conf" fourth
set_witness "$CONFIGS/fourth.conf" public-key "$(witness_key "$T/two.conf")${id:0:32}01234567"
hang_up
bad=$(status)
like "$bad" "twice.conf: volume second has the same id as that of .*second.conf" "the same volume twice"
like "$bad" "third.conf: its .witness. is at tcp://10.77.0.3:7600" "a witness elsewhere"
like "$bad" "fourth.conf: the public-key of its .witness. is not this one's" "a witness with another key"
is "$(status --json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)["volumes"]))')" 2 "two volumes are served"
rm "$CONFIGS"/t*.conf "$CONFIGS/fourth.conf"
mv "$SECOND" "$CONFIGS/renamed.conf"
mv "$SECOND.a.key" "$CONFIGS/renamed.conf.a.key"
hang_up
like "$(status)" "second +has no value yet" "a file that has got another name is served on"
is "$(status | grep -c 'bad file')" 0 "nothing is bad any more"
mv "$CONFIGS/renamed.conf" "$T/renamed.conf"
mv "$CONFIGS/renamed.conf.a.key" "$T/renamed.conf.a.key"
hang_up
like "$(BATON_ASK_MS=1000 ask a "$T/renamed.conf" query)" "^silence" "a volume whose file is gone is not served any more"
like "$(ask b "$CONFIG" prepare 11)" "^yes" "the other one is"

# ---- who may not ask ----
sed -e "s/^id = .*/id = $(printf '%032d' 7)/" "$CONFIG" >"$T/other.conf"
cp "$CONFIG.a.key" "$T/other.conf.a.key"
like "$(ask a "$T/other.conf" query)" "^unknown" "a volume that it has never heard of"
cp "$CONFIG" "$T/liar.conf"
cp "$CONFIG.a.key" "$T/liar.conf.b.key"
python3 - "$T/liar.conf" <<'END2'
import re, sys
text = open(sys.argv[1]).read()
key = re.search(r"\[node a\].*?public-key = (\S+)", text, re.S).group(1)
text = re.sub(r"(\[node b\].*?public-key = )\S+", lambda m: m.group(1) + key, text, flags=re.S)
open(sys.argv[1], "w").write(text)
END2
like "$(ask b "$T/liar.conf" query)" "^unknown: that is no node" "node b with the key of a"

# ---- the end ----
nsenter --net="/run/netns/$ID-witness" -- timeout 60 "$WITNESS" --state "$T/another" "$CONFIG" >"$T/second.out" 2>&1 &
second=$!
nsenter --net="/run/netns/$ID-witness" -- timeout 60 "$WITNESS" --state "$STATE" "$CONFIG" >"$T/third.out" 2>&1 &
third=$!
test_pids+=($second $third)
wait $second
is $? 1 "a second one on the same port ends"
like "$(cat "$T/second.out")" "cannot listen on tcp://10.77.0.3:7400: Address already in use" "... and says why"
wait $third
is $? 1 "and one with the same state"
like "$(cat "$T/third.out")" "in use by another process" "... and says why"
ok "SIGTERM ends it" stop_node witness
"$WITNESS" --status --state "$STATE" >"$T/.out" 2>&1
is $? 3 "it does not run any more"
rm -r "$STATE"
ok "without its state it starts" witness_starts "$CONFIG"
like "$(ask a "$CONFIG" query)" "^yes id=.* version=0 " "with nothing"
other=$(ask a "$CONFIG" query | sed 's/.*id=\([0-9a-f]*\).*/\1/')
ok "as somebody else" [ "$id" != "$other" ]
ok "it ends again" stop_node witness
ok "nothing crashed" sh -c "! grep -E 'internal error|AddressSanitizer|ThreadSanitizer|Segmentation' $T/witness.log"
