#!/bin/bash
# The exporter smb without Samba: its verbs, what it says of wrong keys, the smb.conf it makes, on a stub of smbd. Needs no
# root: it runs in a network namespace of its own.
[ -n "${STUBBED:-}" ] || STUBBED=1 exec unshare --net $([ "$(id -u)" = 0 ] || echo --map-root-user) "$BASH" "$0"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/exporting.sh"
ip link set lo up || skip_all "no network namespace can be made"
stubs_up smb
chmod 711 "$T"
conf=$run/smb.conf

cat >"$T/bin/smbd" <<'PY'
#!/usr/bin/python3
import os, re, socket, sys
stub = os.environ["STUB"]
open(stub + "/calls", "a").write(" ".join(sys.argv[1:]) + "\n")
if os.path.exists(stub + "/die"):
    sys.exit("no memory for shares")
text = open(sys.argv[sys.argv.index("-s") + 1]).read()
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((re.search("interfaces = (127[0-9.]*)/8", text).group(1), int(re.search("smb ports = (.*)", text).group(1))))
listener.listen()
while True:
    connection = listener.accept()[0]
    child = os.fork()
    if child == 0:
        asked = connection.recv(1000)
        if len(asked) == 110 and asked[:9] == b"\0\0\0\x6a\xfeSMB\x40" and not os.path.exists(stub + "/mute"):
            connection.send(b"\0\0\0\x40\xfeSMB" + bytes(60))
        open(stub + "/child", "w").write(open("/proc/self/stat").read().split()[0]) # not as its own namespace numbers it
        connection.recv(1000) # as smbd, it stays until the client goes; here for ever
        os.kill(os.getpid(), 19)
    connection.close()
PY
printf '#!/bin/bash\necho "$@" >>"$STUB/dcerpcd-calls"\nexec tail -f /dev/null\n' >"$T/bin/dcerpcd"
printf '#!/bin/bash\ncat "$STUB/users" 2>/dev/null\n' >"$T/bin/pdbedit"
printf '#!/bin/bash\n' >"$T/bin/smbpasswd"
chmod +x "$T/bin/"*
export BATON_SAMBA_DCERPCD=$T/bin/dcerpcd
base=(BATON_OPTION_PORT=4450)
shares() { options=("${base[@]}" "BATON_OPTION_SHARES=$1" "${@:2}"); }

# ---- check ----
shares "projects:/work scans:/scans:read-only,guest archive:/old:posix-locking=no,users=anna+bert,encrypt=required all:/:hidden"
ok "a right section passes" verb check
is "$(cat "$T/.out")" "" "and nothing is said"
ok "check touches nothing" test ! -e "$conf"
wrong() { # DESCRIPTION EXPECTED SHARES [VARIABLE=VALUE…]
    shares "${@:3}"
    fails "$1 is refused" verb check && like "$(cat "$T/.out")" "$2" "$1: a sentence says so"
}
wrong "an unknown key" "no key 'shraes'" "x:/work" BATON_OPTION_SHRAES=y
wrong "no share" "shares = NAME:/PATH" ""
wrong "a share without a path" "does not look like NAME:/PATH" "projects"
wrong "a path that leaves the volume" "no path from the volume's root" "x:/work/../../etc"
wrong "a path with a variable of Samba's" "no path from the volume's root" "x:/%u"
wrong "a path that goes on in the next line of smb.conf" "no path from the volume's root" 'x:/work\'
wrong "an unknown option" "'posix-locks=no' is no option of a share" "x:/work:posix-locks=no"
wrong "a name that Samba keeps" "cannot be called global" "global:/work"
wrong "the same name twice" "two shares called X" "x:/work X:/old"
wrong "an impossible netbios name" "no name of up to 15" "x:/work" BATON_OPTION_NETBIOS_NAME=a.name.much.too.long
wrong "an unknown kind of encryption" "must be off, desired or required, not 'yes'" "x:/work" BATON_OPTION_ENCRYPT=yes
wrong "an include that is not there" "no full path of a file" "x:/work" BATON_OPTION_INCLUDE=/nowhere/smb.conf
wrong "a volume without an address" "has no address" "x:/work" BATON_ADDRESSES=
wrong "a mount that Samba would read as something else" "Samba takes the % in /100%S" "x:/work" BATON_MOUNT=/100%S
wrong "two faults" "port = '0'.*is no option" "x:/work:nothing" BATON_OPTION_PORT=0

# ---- start ----
shares "projects:/work old:/old:posix-locking=no,users=anna+@staff,encrypt=required,sync=always all:/:read-only,guest,hidden cad:/work:oplocks=kernel" \
    "BATON_ADDRESSES=10.77.0.100/24 fd00::64/64@eth0" BATON_OPTION_ENCRYPT=desired
ok "it starts" verb start
like "$(cat "$T/.out")" "share old cannot be used: there is no directory /old" "a share without a directory is told, and is no failure"
is "$(cat "$T/calls")" "-F --no-process-group -s $conf -l $run" "smbd was called"
wait_until 10 [ -s "$T/dcerpcd-calls" ]
like "$(cat "$T/dcerpcd-calls")" "--option=interfaces=127\.[0-9.]+/8" "and its helper, for nobody outside"
is "$(stat -c %a "$conf")" 600 "smb.conf is root's"
is "$(stat -c %a "$run")" 701 "but processes of Samba's, which are users', get to its locks"
value() { # SHARE KEY
    awk -v section="[$1]" -v key="$2" '/^\[/ { inside = ($0 == section) }
        inside && index($0, "    " key " = ") == 1 { sub(/^[^=]*= /, ""); print }' "$conf"
}
state=$(mount_of a)/.baton/smb
is "$(value global 'private dir')|$(value global 'state directory')" "$state/private|$state/state" "identity is on the volume"
is "$(value global 'lock directory')|$(value global 'cache directory')|$(value global 'pid directory')" "$run/lock|$run/cache|$run/pid" \
    "what ends with the server is here"
like "$(value global interfaces)" "^127\.[0-9.]+/8 10.77.0.100/24 fd00::64/64$" "it listens on the volume's addresses"
is "$(value global 'bind interfaces only')$(value global 'disable netbios')" yesyes "and on no other, and without netbios"
is "$(value global 'netbios name')" "${ID^^}" "the name comes from the volume's"
is "$(value global 'server smb encrypt')|$(value old 'server smb encrypt')|$(value projects 'server smb encrypt')" "desired|required|" \
    "encryption for all, and for a share"
is "$(value projects path)|$(value all path)|$(value all 'veto files')" "$(mount_of a)/work|$(mount_of a)|/.baton/" \
    "paths, and the volume's own folder is not shared"
is "$(value projects 'posix locking')$(value projects 'durable handles')$(value old 'posix locking')$(value old 'durable handles')" yesnonoyes \
    "posix locking costs durable handles"
is "$(value cad 'kernel oplocks')|$(value projects 'kernel oplocks')|$(value old 'sync always')" "yes|no|yes" "oplocks and sync"
is "$(value all 'read only')$(value all 'guest ok')$(value all browseable)$(value global 'map to guest')" "yesyesnoBad User" "read-only, guest, hidden"
is "$(value old 'valid users')" "anna @staff" "users"
first=$(cat "$conf")

ok "started again" verb start
is "$(wc -l <"$T/calls")" 1 "nothing happens"
ok "it serves" verb monitor
exporter a smb status >"$T/.out"
is "$?" 0 "status says that it runs"

echo "    # nothing" >"$T/include.conf"
shares "projects:/work" "BATON_OPTION_INCLUDE=$T/include.conf"
verb stop
wait_until 10 status_is a smb 3
ok "start with a file of a person's" verb start
rm "$T/include.conf"
ok "it serves, though the file is being written anew" verb monitor
fails "which the next start needs" verb check
verb stop
wait_until 10 status_is a smb 3
shares "projects:/work old:/old:posix-locking=no,users=anna+@staff,encrypt=required,sync=always all:/:read-only,guest,hidden cad:/work:oplocks=kernel" \
    "BATON_ADDRESSES=10.77.0.100/24 fd00::64/64@eth0" BATON_OPTION_ENCRYPT=desired

# ---- users ----
printf 'anna:1001:\nbert:4294967295:\n' >"$T/users"
restart() { verb stop && verb start; }
told() { verb monitor 2>&1 | grep -q "$1"; }
ok "start with users" restart
ok "a user who does not exist here is told" wait_until 10 told "user bert of the shares does not exist on node a"
ok "once" eval '! told bert'
wait_until 10 [ -s "$state/accounts" ]
is "$(cat "$state/accounts")" "anna 1001" "numbers are kept on the volume"
printf 'anna:1002:\n' >"$T/users"
ok "start with another number" restart
ok "a user who has another number is told" wait_until 10 told "anna of the shares has the number 1002 on node a and 1001 on another"
is "$(cat "$conf")" "$first" "the configuration is the same each time"
chmod 700 "$T"
if setpriv --reuid 65534 --regid 65534 --clear-groups true 2>/dev/null; then
    fails "it does not start where they do not" restart && like "$(cat "$T/.out")" "do not get to $run/lock.*chmod o.x" "and a sentence says so"
else
    skip 2 "nobody can be made a user of here"
fi
chmod 711 "$T"
ok "it starts again" verb start

# ---- a server that fails ----
touch "$T/mute"
fails "smbd that accepts and says nothing does not serve" verb monitor && like "$(cat "$T/.out")" "does not answer" "and a sentence says so"
rm "$T/mute"
read -r pid _ <"$run/smbd.pid"
child=$(cat "$T/child")
kill -KILL "$pid"
wait_until 10 process_gone "$pid"
fails "smbd that has died does not serve" verb monitor && like "$(cat "$T/.out")" "smbd does not run" "and a sentence says so"
ok "its children, who serve clients, die with it" wait_until 10 process_gone "$child"
ok "stop" verb stop
ok "nothing is left" wait_until 10 status_is a smb 3
ok "start" verb start
child=$(cat "$T/child")
ok "stop" verb stop
ok "nothing is left" wait_until 10 status_is a smb 3
ok "also not of its children" process_gone "$child"
mkdir "$(mount_of a)/free"
ln -s /etc "$(mount_of a)/free/mine"
shares "projects:/work mine:/free/mine"
ok "start, with a link in place of a share" verb start
like "$(cat "$T/.out")" "share mine is left out: a link is on the way to /free/mine" "it is told"
is "$(value projects path)|$(value mine path)" "$(mount_of a)/work|" "... and not shared"
verb stop
wait_until 10 status_is a smb 3
shares "projects:/work"
touch "$T/die"
fails "smbd that ends at once does not start" verb start && like "$(cat "$T/.out")" "ended at once; it said:.*no memory for shares" "it is told what it said"
rm "$T/die"
everywhere 4450
fails "another program on all addresses" verb start && like "$(cat "$T/.out")" "another program listens on port 4450.*disable --now smbd" "is told"

# ---- stop, whatever the state ----
ok "stop of nothing" verb stop
ok "again" verb stop
sleep 60 &
test_pids+=($!)
disown $!
printf '%s 12345\n' $! >"$run/smbd.pid"
ok "stop with the number of a stranger" verb stop
ok "the stranger lives" kill -0 $!
ok "with a mount that is not there, and without keys" exporter a smb stop BATON_MOUNT=/nowhere BATON_STATE=/nowhere/.baton/smb BATON_ADDRESSES= BATON_OPTION_SHARES=
