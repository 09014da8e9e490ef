#!/bin/bash
# The exporter iscsi without tgt: its verbs, what it says of wrong keys, what it tells tgtd, on stubs of tgtd and tgtadm. Needs
# no root: it runs in a network namespace of its own.
[ -n "${STUBBED:-}" ] || STUBBED=1 exec unshare --net $([ "$(id -u)" = 0 ] || echo --map-root-user) "$BASH" "$0"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/exporting.sh"
ip link set lo up || skip_all "no network namespace can be made"
stubs_up iscsi

cat >"$T/bin/tgtd" <<'PY'
#!/usr/bin/python3
import os, re, socket, sys
stub = os.environ["STUB"]
open(stub + "/calls", "a").write(os.environ["TGT_IPC_SOCKET"] + " " + " ".join(sys.argv[1:]) + "\n")
if os.path.exists(stub + "/die"):
    sys.exit("no portal for anybody")
address, port = re.search(r"portal=(127[0-9.]*):(\d+)", " ".join(sys.argv)).groups()
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((address, int(port)))
listener.listen()
open(stub + "/listens", "w")
while True:
    connection = listener.accept()[0]
    asked = connection.recv(1000)
    if asked[48:118].split(b"\0")[:2] == [b"InitiatorName=iqn.2026-01.invalid.baton:monitor", b"SessionType=Discovery"] \
            and len(asked) == 120 and asked[:2] == b"\x43\x87" and asked[7] == 70 and not os.path.exists(stub + "/mute"):
        connection.send(b"\x23\x87" + bytes(46))
    connection.close()
PY
cat >"$T/bin/tgtadm" <<'SH'
#!/bin/bash
[[ $* == *"--op show"* ]] && { [ -e "$STUB/listens" ]; exit; }
echo "$*" >>"$STUB/told"
if [ -e "$STUB/refuse" ] && [[ $* == *"$(cat "$STUB/refuse")"* ]]; then echo "tgtadm: this is in use" >&2; exit 22; fi
SH
chmod +x "$T/bin/"*
base=(BATON_OPTION_PORT=32600)
luns() { options=("${base[@]}" "BATON_OPTION_LUNS=$1" "${@:2}"); }
all=BATON_OPTION_INITIATORS=ALL
secret() { # NAME MODE TEXT
    echo "$3" >"$T/$1"
    chmod "$2" "$T/$1"
}
secret good 600 open-sesame-1234
secret open 644 open-sesame-1234
secret short 600 open

# ---- check ----
luns "/images/disk1.img,20G /images/disk2.img,lun=5,read-only" $all
ok "a right section passes" verb check
is "$(cat "$T/.out")" "" "and nothing is said"
wrong() { # DESCRIPTION EXPECTED LUNS [VARIABLE=VALUE…]
    luns "${@:3}"
    fails "$1 is refused" verb check && like "$(cat "$T/.out")" "$2" "$1: a sentence says so"
}
wrong "an unknown key" "no key 'lun'" "/d" $all BATON_OPTION_LUN=y
wrong "no disk" "luns = /PATH,SIZE" "" $all
wrong "a path that leaves the volume" "no path of a file" "/images/../../dev/sda" $all
wrong "a relative path" "no path of a file" "images/d" $all
wrong "an unknown option" "'readonly' is no option of a disk" "/d,readonly" $all
wrong "an impossible size" "no size, such as" "/d,10GB" $all
wrong "a number twice" "two disks with the number 1" "/d,lun=1 /e,lun=1" $all
wrong "the number of another disk" "two disks with the number 2" "/d,lun=2 /e" $all
wrong "number 0, which is the target's own" "numbers from 1 to 255" "/d,lun=0" $all
wrong "nobody who may log in" "nobody may log in" "/d"
wrong "an initiator that is none" "neither an address" "/d" BATON_OPTION_INITIATORS=anybody
wrong "a user without a secret" "chap-secret-file has to say" "/d" BATON_OPTION_CHAP_USER=u
wrong "a secret that others can read" "others than root can read" "/d" BATON_OPTION_CHAP_USER=u "BATON_OPTION_CHAP_SECRET_FILE=$T/open"
wrong "a short secret" "12 to 64" "/d" BATON_OPTION_CHAP_USER=u "BATON_OPTION_CHAP_SECRET_FILE=$T/short"
wrong "a secret that is not there" "cannot be read" "/d" BATON_OPTION_CHAP_USER=u "BATON_OPTION_CHAP_SECRET_FILE=$T/none"
wrong "only the target's proof" "chap-out-user needs chap-user" "/d" $all BATON_OPTION_CHAP_OUT_USER=u "BATON_OPTION_CHAP_OUT_SECRET_FILE=$T/good"
wrong "an impossible cache" "write-cache must be" "/d" $all BATON_OPTION_WRITE_CACHE=maybe
wrong "an impossible name" "no name of an iSCSI target" "/d" $all BATON_OPTION_TARGET=disks
wrong "a volume without an address" "has no address" "/d" $all BATON_ADDRESSES=
luns "/d" BATON_OPTION_CHAP_USER=u "BATON_OPTION_CHAP_SECRET_FILE=$T/good"
ok "with a secret no list of initiators is needed" verb check
luns "/d" BATON_OPTION_CHAP_USER=u BATON_OPTION_CHAP_SECRET_FILE=chap.secret
ok "a secret on the volume is not looked for before there is a mount" verb check

# ---- start ----
luns "/images/disk1.img,2M /work/old.img,lun=5,read-only" BATON_OPTION_INITIATORS="10.77.0.0/24 iqn.2026-01.invalid.test:client" \
    BATON_OPTION_CHAP_USER=u BATON_OPTION_CHAP_SECRET_FILE=chap.secret "BATON_ADDRESSES=10.77.0.100/24 fd00::64/64@eth0"
fails "without the secret it does not start" verb start && like "$(cat "$T/.out")" "the secret of u: .* cannot be read" "and says why"
fails "and does not serve, half set up" verb monitor
verb stop
cp "$T/good" "$(mount_of a)/.baton/iscsi/chap.secret"
rm -f "$T/calls" "$T/told" "$T/listens"
ok "it starts" verb start
like "$(cat "$T/.out")" "disk 5 cannot be used: there is no file /work/old.img" "a disk that is not there is told, and is no failure"
like "$(cat "$T/calls")" "^$run/tgt -f -C 1 .* --iscsi portal=127\.[0-9.]+:32600,portal=10.77.0.100:32600,portal=\[fd00::64\]:32600$" \
    "tgtd has its own control socket and listens on the volume's addresses"
is "$(stat -c '%s %a' "$(mount_of a)/images/disk1.img")" "2097152 600" "the image is made"
told() { grep -c -e "$1" "$T/told"; }
is "$(told "--mode target --tid [0-9]* -T iqn.2026-01.invalid.baton:$VOLUME_ID$")" 1 "the target's name comes from the volume's id"
is "$(told "--lun 1 --bstype rdwr -b $(mount_of a)/images/disk1.img")$(told '--lun 5 ')" 10 "one disk"
like "$(grep -e --params "$T/told")" "vendor_id=BATON,product_id=disk1.img,scsi_id=0123456789ab[0-9a-f]{8}-1,scsi_sn=0123456789ab[0-9a-f]{8}-1," \
    "its serial number comes from the volume's id"
like "$(grep -e --params "$T/told")" "mode_page=8:0:18:0x10:" "every write reaches the disks"
is "$(told '--mode account --user u --password open-sesame-1234')$(told '--op bind --mode account --tid [0-9]* --user u')" 11 "the secret"
like "$(tail -n 2 "$T/told")" "initiator-name iqn.2026-01.invalid.test:client.*initiator-address 10.77.0.0/24" "initiators are let in last"
first=$(cat "$T/told")
ok "started again" verb start
is "$(wc -l <"$T/calls")" 1 "nothing happens"
ok "it serves" verb monitor
verb status >"$T/.out"
is $? 0 "status says that it runs"
rm "$T/told"
ok "stop" verb stop
ok "nothing is left" wait_until 10 status_is a iscsi 3
ok "start" verb start
is "$(cat "$T/told")" "$first" "the same is set up each time"

verb stop
wait_until 10 status_is a iscsi 3
secret mine 600 open-sesame-1234
luns "/images/disk1.img" BATON_OPTION_CHAP_USER=u "BATON_OPTION_CHAP_SECRET_FILE=$T/mine"
ok "start with a secret of the node's" verb start
rm "$T/mine"
ok "it serves, though the file is being written anew" verb monitor
fails "which the next start needs" verb check

# ---- the write cache ----
cache() { # VALUE ACKNOWLEDGE
    verb stop
    wait_until 10 status_is a iscsi 3
    printf '[volume]\nacknowledge = write\n' >"$CONFIG" # a person has changed it since: batond does not know
    rm -f "$T/told"
    luns "/images/disk1.img" $all ${1:+BATON_OPTION_WRITE_CACHE=$1} "BATON_ACKNOWLEDGE=$2"
    verb start || return
    if grep -q mode_page= "$T/told"; then echo off; else echo on; fi
}
is "$(cache '' write)$(cache '' close)$(cache off write)$(cache on close)" onoffoffon "on where the volume keeps what it has acknowledged, or as told"

# ---- images ----
verb stop
wait_until 10 status_is a iscsi 3
luns "/images/disk1.img,1M" $all
ok "start with a smaller size" verb start
is "$(stat -c %s "$(mount_of a)/images/disk1.img")" 2097152 "an image never becomes smaller"
verb stop
wait_until 10 status_is a iscsi 3
luns "/images/disk1.img,3M" $all
ok "start with a larger size" verb start
is "$(stat -c %s "$(mount_of a)/images/disk1.img")" 3145728 "it grows"

verb stop
wait_until 10 status_is a iscsi 3
mkdir "$(mount_of a)/free"
echo "the host's" >"$T/of-the-host"
ln -s "$T/of-the-host" "$(mount_of a)/free/disk.img"
ln -s "$T" "$(mount_of a)/free/folder"
rm -f "$T/told"
luns "/images/disk1.img /free/disk.img /free/folder/new.img,1M" $all
ok "start, with links in place of images" verb start
like "$(cat "$T/.out")" "disk 2 cannot be used: a link is on the way to /free/disk.img.*disk 3 cannot be used: a link is on the way to /free/folder/new.img" "they are told"
is "$(grep -c 'mode logicalunit.* -b ' "$T/told")" 1 "... and no initiator gets them"
ok "... nothing is made outside" [ ! -e "$T/new.img" ]
luns "/images/disk1.img,3M" $all
verb stop
wait_until 10 status_is a iscsi 3
ok "start again" verb start

# ---- a server that fails ----
touch "$T/mute"
fails "tgtd that accepts and says nothing does not serve" verb monitor && like "$(cat "$T/.out")" "does not answer a login" "and a sentence says so"
rm "$T/mute"
read -r pid _ <"$run/tgtd.pid"
kill -KILL "$pid"
wait_until 10 process_gone "$pid"
fails "tgtd that has died does not serve" verb monitor && like "$(cat "$T/.out")" "tgtd does not run" "and a sentence says so"
echo "--mode logicalunit" >"$T/refuse"
fails "tgtd that refuses a disk" verb start && like "$(cat "$T/.out")" "tgtd refused .*this is in use" "is told"
rm "$T/refuse"
ok "the next start finds it half done, and does it" verb start
ok "and it serves" verb monitor
verb stop
wait_until 10 status_is a iscsi 3
rm "$T/listens"
touch "$T/die"
fails "tgtd that ends at once does not start" verb start && like "$(cat "$T/.out")" "ended at once; it said:.*no portal" "it is told what it said"

rm "$T/die"
everywhere 32600
fails "another program on all addresses" verb start && like "$(cat "$T/.out")" "another program listens on port 32600.*disable --now tgt" "is told"

# ---- stop, whatever the state ----
ok "stop of nothing" verb stop
ok "with a mount that is not there, and without keys" exporter a iscsi stop BATON_MOUNT=/nowhere BATON_STATE=/nowhere/.baton/iscsi BATON_ADDRESSES= BATON_OPTION_LUNS=
