#!/bin/bash
# The exporter vip. First against stubs of ip, ss and the announcer, then (as root) on real interfaces: the address is taken,
# announced, kept, refused when somebody else has it, given back, and clients of the node before notice at once.
# Servers are nobody's children: this process becomes their parent, so that none stays a zombie where init reaps nothing.
[ -n "${BATON_TEST_REAPS:-}" ] || BATON_TEST_REAPS=1 exec python3 -c 'import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)
os.execvp("bash", ["bash"] + sys.argv[1:])' "$0" "$@"
. "$(dirname "$0")/lib.sh"

vip=$BATON_SRC/exporters/vip
mkdir -p "$T/a.run" "$T/b.run" "$T/state"
addresses="10.77.0.100/24 fd77::100/64"
lease=0

# vip_on NODE VERB: as the runner calls it; $on_node is how a command runs on that node.
vip_on() {
    local node=$1
    shift
    $on_node env BATON_VOLUME="$ID" BATON_NODE="$node" BATON_LOCAL="$T/$node.run" BATON_STATE="$T/state" BATON_EXPORT=vip \
        BATON_ADDRESSES="$addresses" BATON_LEASE_MS="$lease" BATON_LIBEXEC="$BATON_SRC/exporters" \
        PATH="${stubs:+$stubs:}$BATON_BUILD/exporters:$PATH" bash "$vip" "$@"
}
# says NODE VERB REGEX DESCRIPTION: the verb fails with such a sentence.
says() {
    fails "$4" vip_on "$1" "$2" && like "$(cat "$T/.out")" "$3" "... and says so"
}
exit_of() { "$@" >/dev/null 2>&1; echo $?; }

# ---- stubs ----
stubs=$T/stubs on_node=
mkdir "$stubs"
: >"$T/has"
cat >"$stubs/ip" <<EOF
#!/bin/bash
# addresses live in $T/has, a line "IF FAMILY IP/PREFIX FLAGS"
one() {
    case "\$*" in
        "address replace "*) grep -qs deaf "$T/how" && exit 1
            grep -v " \$3 " "$T/has" >"$T/has.new"; f=inet; [[ \$3 == *:* ]] && f=inet6
            echo "\$5 \$f \$3 scope global \${*:6}" >>"$T/has.new"; mv "$T/has.new" "$T/has" ;;
        "address del "*) grep -qs sticky "$T/how" || { grep -v " \$3 " "$T/has" >"$T/has.new"; mv "$T/has.new" "$T/has"; } ;;
    esac
}
echo "ip \$*" >>"$T/log"
case "\$*" in
    "address show") awk '{ print "1: " \$1 ": <UP,LOWER_UP> mtu"; \$1 = ""; print "   " \$0 }' "$T/has" ;;
    *"route show to match 10.77.0.100 proto kernel") printf '%s\n' '10.0.0.0/8 dev wide scope link' '10.77.0.0/24 dev eth7 scope link' ;;
    *"route show to match fd77::100 proto kernel"*) echo 'fd77::/64 dev eth7 metric 256' ;;
    *"route show"*) ;;
    "link show dev eth7") ;;
    "link show"*) exit 1 ;;
    *"-batch -") while read -r line; do echo "> \$line" >>"$T/log"; one \$line; done ;;
    *) one "\$@" ;;
esac
EOF
cat >"$stubs/ss" <<EOF
#!/bin/bash
echo "ss \$*" >>"$T/log"
if [[ \$1 == *K* ]]; then cat "$T/ended" 2>/dev/null; else cat "$T/connected"; fi
EOF
cat >"$stubs/baton-announce" <<EOF
#!/bin/bash
echo "announce \$*" >>"$T/log"
case \$1 in
    probe | await) [ -e "$T/mac" ] && { cat "$T/mac"; exit 1; } ;;
    tickle) sed 's/^/tickled /' >>"$T/log" ;;
esac
exit 0
EOF
chmod +x "$stubs/ip" "$stubs/ss" "$stubs/baton-announce"
: >"$T/connected"
logged() { grep -q -- "$1" "$T/log"; }

ok "the configuration is right" vip_on a check
addresses=""
says a check "BATON_ADDRESSES is not set" "no address is a fault"
addresses="10.77.0.300/24 10.77.0.100/24 192.168.9.9/24 10.77.0.101/24@nosuch"
says a check "'10.77.0.300/24' is not an address" "faults are found"
like "$(cat "$T/.out")" "no interface has an address in the subnet of 192.168.9.9; say which" "... a subnet that is nowhere"
like "$(cat "$T/.out")" "there is no interface nosuch" "... an interface that is not there"
addresses="10.77.0.100/24 fd77::100/64"
BATON_OPTION_ADRESS=x says a check "there is no key 'adress' in \[export vip\]; the keys are: address type" "an unknown key is refused"
is "$(exit_of vip_on a nonsense)" 2 "an unknown verb is refused"
is "$(exit_of vip_on a status)" 3 "nothing is left before"

lease=1500
: >"$T/log"
ok "start" vip_on a start
like "$(cat "$T/has")" "eth7 inet 10.77.0.100/24 [^$'\n']*valid_lft 2 preferred_lft 2" "the interface is the nearest subnet's, the lifetime the lease's"
like "$(cat "$T/has")" "eth7 inet6 fd77::100/64 [^$'\n']*preferred_lft 0 nodad noprefixroute" "IPv6 without its own wait, never a source, no second route"
ok "it looked for others first" logged "announce probe eth7 fd77::100"
ok "it is announced" logged "announce claim eth7 10.77.0.100 1 "
ok "... and again and again" wait_until 5 logged "announce claim eth7 fd77::100 8 400"
is "$(exit_of vip_on a status)" 0 "status"
: >"$T/log"
ok "start again" vip_on a start
fails "... which does not look for itself" logged "announce probe"
is "$(grep -c . "$T/has")" 2 "... nor doubles anything"

printf '%s\n' '0 0 10.77.0.100:2049 10.77.0.9:700' '0 0 [::ffff:10.77.0.100]:445 [::ffff:10.77.0.8]:800' \
    '0 0 [fd77::100]:2049 [fd77::9]:900' >"$T/connected"
: >"$T/log"
ok "monitor" vip_on a monitor
ok "... renews the lifetime" logged "> address replace fd77::100/64 dev eth7 valid_lft 2 preferred_lft 0 nodad noprefixroute"
ok "... and notes who is connected" wait_until 5 [ -s "$T/state/connections" ]
is "$(cat "$T/state/connections")" "10.77.0.100 2049 10.77.0.9 700
10.77.0.100 445 10.77.0.8 800
fd77::100 2049 fd77::9 900" "... each with both ends"
sed -i 's/preferred_lft 0/dadfailed/' "$T/has"
says a monitor "fd77::100 is used by another machine" "monitor sees a duplicate"
sed -i '/fd77/d' "$T/has"
says a monitor "fd77::100 is gone from this node" "monitor sees that one is missing"
mv "$T/has" "$T/had"
: >"$T/has"
sleep 1000 & # as if the volume hung
test_pids+=($!)
echo "$! $(awk '{ print $22 }' "/proc/$!/stat")" >"$T/a.run/remember.pid"
is "$(exit_of vip_on a status)" 0 "status waits for what may hang in the mount"
kill -KILL $!
is "$(exit_of vip_on a status)" 3 "... and no longer"
mv "$T/had" "$T/has"
: >"$T/log"
ok "start puts it back" vip_on a start
is "$(grep -c 'announce probe' "$T/log")" 1 "... only that one is looked for"
ok "... and clients of before are told" logged "tickled 10.77.0.100 445 10.77.0.8 800"

sed -i 's/eth7 inet /eth8 inet /' "$T/has"
says a start "10.77.0.100 is on eth8 already, and should be on eth7" "an address on another interface is not taken over"
: >"$T/log"
ok "stop takes it from wherever it is" vip_on a stop
is "$(cat "$T/has")" "" "nothing is left"
like "$(cat "$T/log")" "rule add from 10.77.0.100 blackhole.*address del 10.77.0.100/24 dev eth8.*ss -HnKt state all .*> rule del from fd77::100 blackhole" \
    "... in silence, with the connections"
is "$(exit_of vip_on a status)" 3 "status"
: >"$T/log"
ok "stop again" vip_on a stop
is "$(grep -cv '^ip address show' "$T/log")" 0 "... has nothing to do"
# whom it has cut off, it tells when another has claimed the addresses
printf '%s\n' 'eth7 inet 10.77.0.100/24 scope global' 'eth7 inet6 fd77::100/64 scope global' >"$T/has"
printf '%s\n' 'ESTAB 0 0 [fd77::100]:2049 [fd77::9]:901 x' 'LISTEN 0 0 [fd77::100]:2049 *:* x' >"$T/ended"
: >"$T/log"
touch "$T/mac" # it is claimed
ok "stop with a client" vip_on a stop
ok "the client is told" wait_until 10 logged "tickled fd77::100 2049 fd77::9 901"
is "$(grep tickled "$T/log" | sort -u)" "tickled fd77::100 2049 fd77::9 901" "... who was connected, nobody else"
like "$(grep announce "$T/log")" "^announce await eth7 fd77::100 [0-9]+"$'\n'"announce tickle" "... when another has claimed the last address"
: >"$T/log"
rm "$T/mac"
echo 'eth7 inet 10.77.0.100/24 scope global' >"$T/has"
ok "stop, and nobody claims it" vip_on a stop
ok "it has waited" wait_until 10 logged "announce await"
fails "... and told nobody" logged tickle
rm "$T/ended"
rm -rf "$T/a.run"/*
echo "eth7 inet 10.77.0.100/24 scope global" >"$T/has" # half a start
BATON_HURRY=1 ok "stop of half a start" vip_on a stop
echo "eth7 inet 10.77.0.100/24 scope global" >"$T/has"
echo sticky >"$T/how"
says a stop "10.77.0.100 could not be taken from eth7" "a stop that fails"
: >"$T/has"
echo deaf >"$T/how"
says a start "10.77.0.100 could not be put on eth7" "a start that fails"
rm "$T/how"
echo 02:00:00:00:00:99 >"$T/mac"
lease=0
says a start "10.77.0.100 is not taken: 02:00:00:00:00:99 answers for it on eth7" "an address of somebody else is refused"
is "$(cat "$T/has")" "" "... and not taken"
echo "eth7 inet 10.77.0.100/24 scope global" >"$T/has"
echo 'ESTAB 0 0 10.77.0.100:445 10.77.0.7:600' >"$T/ended"
: >"$T/log"
ok "stop of an address with a client" vip_on a stop
ok "who was left is told by this node" wait_until 5 logged "tickled 10.77.0.100 445 10.77.0.7 600"
like "$(grep announce "$T/log")" "^announce await eth7 10.77.0.100 [0-9]+"$'\n'"announce tickle" "... when another has claimed it; nobody is asked before"
rm -rf "$stubs" "$T/state/connections"
stubs=

# ---- real interfaces ----
[ "$(id -u)" = 0 ] || { skip 1 "the rest needs root"; exit 0; }
nodes=(a b)
network_up
for node in a b witness; do
    ip -n "$ID-$node" address add "fd77::${address[$node]##*.}/64" dev eth0 nodad
done
mac_of() { ip -n "$ID-$1" -br link show dev eth0 | awk '{ print $3 }'; }
knows() { in_node witness ip neighbour show "$2" | grep -q "$(mac_of "$1")"; }
pings() { in_node witness ping -n -c 1 -w 2 "$1"; }
has() { ip -n "$ID-$1" -o address show | grep -q " $2/"; }
routes() { ip -n "$ID-$1" route; ip -n "$ID-$1" -6 route; }
routes_a=$(routes a)
on_a="in_node a" on_b="in_node b"
lease=0

on_node=$on_a
ok "check" vip_on a check
ok "a takes the addresses" vip_on a start
for ip in 10.77.0.100 fd77::100; do
    ok "$ip answers" pings $ip
    ok "... from a" knows a $ip
done
ok "monitor on a" vip_on a monitor
on_node=$on_b
says b start "10.77.0.100 is not taken: $(mac_of a) answers for it on eth0" "b may not take what a has"
addresses="fd77::100/64@eth0"
says b start "fd77::100 is not taken: $(mac_of a) answers for it on eth0" "... nor the IPv6 address"
addresses="10.77.0.100/24 fd77::100/64"
is "$(exit_of vip_on b status)" 3 "b has nothing"

# clients' connections, with a request that is never answered, through a change of nodes
cat >"$T/peer.py" <<'EOF'
import socket, sys, time
if sys.argv[1] == "serve":
    s = socket.create_server(("::", 5000), family=socket.AF_INET6, dualstack_ipv6=True)
    held = []
    while True:
        held.append(s.accept()[0])
c = socket.create_connection((sys.argv[2], 5000))
c.send(b"a request that is never answered")
print("connected", flush=True)
try:
    c.recv(1)
    print("closed", time.time())
except OSError as e:
    print(e.strerror, time.time())
EOF
for node in a b; do
    nsenter --net="/run/netns/$ID-$node" -- python3 "$T/peer.py" serve &
    test_pids+=($!)
done
serving() { in_node "$1" ss -Hltn 'sport = :5000' | grep -q LISTEN; }
ok "a server on a" wait_until 10 serving a
ok "a server on b" wait_until 10 serving b
for ip in 10.77.0.100 fd77::100; do
    nsenter --net="/run/netns/$ID-witness" -- python3 "$T/peer.py" ask $ip >"$T/asked.$ip" 2>&1 &
    test_pids+=($!)
    ok "a client of $ip" wait_until 10 grep -q connected "$T/asked.$ip"
done
on_node=$on_a
noted() { vip_on a monitor; grep -q "10.77.0.100 5000" "$T/state/connections" && grep -q fd77::100 "$T/state/connections"; }
ok "a notes its clients" wait_until 5 noted
begin=$(date +%s%N)
ok "a gives the addresses back" vip_on a stop
diag "stop took $((($(date +%s%N) - begin) / 1000000)) ms"
is "$(routes a)" "$routes_a" "its routes are as before"
ok "its own address is there" has a 10.77.0.1
is "$(in_node a ip rule | grep -c blackhole)" 0 "no rule is left"
is "$(in_node a ss -Htn '( src 10.77.0.100 or src [fd77::100] )' | grep -c .)" 0 "no connection is left on a"
is "$(exit_of vip_on a status)" 3 "a has nothing"
is "$(cat "$T"/asked.*)" connected$'\n'connected "clients are not told before there is another node"
on_node=$on_b
begin=$(date +%s%N)
ok "b takes them" vip_on b start
diag "start took $((($(date +%s%N) - begin) / 1000000)) ms"
for ip in 10.77.0.100 fd77::100; do
    ok "the client of $ip is told" wait_until 3 grep -q reset "$T/asked.$ip"
    diag "$(awk -v begin="$begin" '/reset/ { printf "%.0f ms after the start began", $NF * 1000 - begin / 1e6 }' "$T/asked.$ip")"
    ok "$ip answers" pings $ip
    ok "... from b" knows b $ip
done

# a claim is heard, and nothing else: before it clients do not know whose the address is
in_node witness ip address add 10.77.0.102/24 dev eth0
nsenter --net="/run/netns/$ID-a" -- "$BATON_BUILD/exporters/baton-announce" await eth0 10.77.0.102 20000 >"$T/heard" &
awaits=$!
test_pids+=($awaits)
ok "another answers for an address" wait_until 10 in_node b ping -n -c 1 -w 2 10.77.0.102
is "$(cat "$T/heard")$(process_gone $awaits && echo ended)" "" "who waits for a claim has heard none"
ok "it claims it" wait_until 10 eval 'in_node witness "$BATON_BUILD/exporters/baton-announce" claim eth0 10.77.0.102 1 0 && process_gone $awaits'
is "$(cat "$T/heard")" "$(mac_of witness)" "that is heard"

# One that had connected since the list was written: the next node does not know of it, and the node that ceased tells it.
for ip in 10.77.0.100 fd77::100; do
    nsenter --net="/run/netns/$ID-witness" -- python3 "$T/peer.py" ask $ip >"$T/late.$ip" 2>&1 &
    test_pids+=($!)
    ok "a late client of $ip" wait_until 10 grep -q connected "$T/late.$ip"
done
rm -f "$T/state/connections"
ok "b gives the addresses back" vip_on b stop
teller=$(cut -d ' ' -f 1 "$T/b.run/tickle.pid")
fails "... and somebody waits there until another has them" process_gone "$teller"
is "$(exit_of vip_on b status)" 3 "... which is no reason to wait for"
is "$(cat "$T"/late.*)" connected$'\n'connected "clients hear nothing before"
is "$(cut -d ' ' -f 1,2 "$T/b.run/ended" | sort -u | tr '\n' ' ')" "10.77.0.100 5000 fd77::100 5000 " "b knows whom it left"
on_node=$on_a
ok "a takes them" vip_on a start
for ip in 10.77.0.100 fd77::100; do
    ok "the late client of $ip is told" wait_until 5 grep -q reset "$T/late.$ip"
done
ok "... and nobody waits any more" wait_until 10 process_gone "$teller"
ok "a gives them back" vip_on a stop
on_node=$on_b
ok "b takes them again" vip_on b start
# nobody takes them: whoever waits ends in time
nsenter --net="/run/netns/$ID-witness" -- python3 "$T/peer.py" ask 10.77.0.100 >"$T/lost" 2>&1 &
test_pids+=($!)
wait_until 10 grep -q connected "$T/lost"
ok "b gives them back, and there is no other node" vip_on b stop
teller=$(cut -d ' ' -f 1 "$T/b.run/tickle.pid")
ok "who waits ends" wait_until 20 process_gone "$teller"
is "$(cat "$T/lost")" connected "... and has told nobody"
ok "b takes them once more" vip_on b start
ok "... and tells who has waited" wait_until 5 grep -q reset "$T/lost"

# a person removes one; the cable
ip -n "$ID-b" address del 10.77.0.100/24 dev eth0
says b monitor "10.77.0.100 is gone" "monitor misses an address"
ok "start puts it back" vip_on b start
ok "... and monitor is content" vip_on b monitor
network_cut b
link_gone() { ! vip_on b monitor >"$T/.monitor" 2>&1 && grep -q "eth0, which has 10.77.0.100, has no link" "$T/.monitor"; }
ok "monitor sees that the cable is out" wait_until 5 link_gone
network_mend b

# an address ends with its lease, whatever hangs
lease=2000
ok "with a lease" vip_on b start
ok "the address" has b 10.77.0.100
gone() { ! has b 10.77.0.100 && ! has b fd77::100; }
begin=$(date +%s%N)
ok "... goes by itself when nobody renews it" wait_until 5 gone
diag "after $((($(date +%s%N) - begin) / 1000000)) ms of a lease of 2000"
ok "the node's own stay" has b 10.77.0.2
like "$(routes b)" "fd77::/64 dev eth0" "... and the route"
ok "start" vip_on b start
for i in 1 2 3; do # longer than a lease, as the runner does it; not a wait for anything
    sleep 0.8
    vip_on b monitor || break
done
is $i 3 "... and stays when it is renewed"
# the node's own address came second: it must not go with the volume's
ip -n "$ID-b" address del 10.77.0.2/24 dev eth0
ip -n "$ID-b" address add 10.77.0.2/24 dev eth0
ok "stop" vip_on b stop
ok "the node's own address is there, though it came second" has b 10.77.0.2

ok "b has it, and is never stopped" vip_on b start
on_node=$on_a
ok "a waits until b's lifetime is over" vip_on a start
ok "... when b has it no more" gone
ok "a stops" vip_on a stop
