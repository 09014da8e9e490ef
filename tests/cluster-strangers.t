# Who has no key of the volume's is refused and logged; what is no frame of Baton's does no harm on any port.
. "$(dirname "$0")/lib.sh"

volume_up
a=$(mount_of a)
link_is() { [ "$(status_of "$1" replication link)" = "$2" ]; }
ok "in sync" wait_until 60 link_is a working

# Node b's place, taken by somebody with another key.
stop_node b
cp "$CONFIG.b.key" "$T/b.key.good"
python3 - "$CONFIG.b.key" <<'END'
import ctypes, sys
zmq = ctypes.CDLL("libzmq.so.5")
public, secret = ctypes.create_string_buffer(41), ctypes.create_string_buffer(41)
assert zmq.zmq_curve_keypair(public, secret) == 0
# b's config still has its own public key; a stranger would use his own, so both are changed for him.
open(sys.argv[1], "wb").write(secret.value + b"\n")
open(sys.argv[1] + ".public", "wb").write(public.value)
END
awk -v key="$(cat "$CONFIG.b.key.public")" '/^\[/ { section = $0 } section == "[node b]" && $1 == "public-key" { print "public-key = " key; next } { print }' \
    "$CONFIG" >"$T/stranger.conf"
cp "$CONFIG.b.key" "$T/stranger.conf.b.key"
chmod 600 "$T/stranger.conf.b.key"
cp "$T/b.key.good" "$CONFIG.b.key"
nsenter --net="/run/netns/$ID-b" -- "$BATOND" --config "$T/stranger.conf" --node b >"$T/stranger.out" 2>"$T/stranger.log" &
stranger=$!
test_pids+=($stranger)
logged() { grep -q "refused a connection from 10.77.0.2: its key" "$T/a.log"; }
ok "a stranger's key is refused and logged" wait_until 60 logged
ok "with the key" grep -qF "$(cat "$CONFIG.b.key.public")" "$T/a.log"
wait_until 60 link_is a failed
is "$(status_of a replication link)" failed "and it is not fed"
kill -TERM $stranger
wait_until 60 process_gone $stranger
ok "the real b comes in" start_node b
ok "in sync again" wait_until 60 link_is a working

# Garbage by bare TCP: random bytes, a ZMTP greeting with garbage behind, long and short.
cat >"$T/garbage.py" <<'END'
import os, random, socket, sys
random.seed(int(sys.argv[3]))
greeting = b"\xff" + b"\0" * 8 + b"\x7f\x03\x00"
for mechanism in (b"NULL", b"CURVE"):
    for i in range(60):
        for port in range(int(sys.argv[2]), int(sys.argv[2]) + 3):
            try:
                with socket.create_connection((sys.argv[1], port), 1) as s:
                    s.settimeout(0.2)
                    kind = i % 4
                    if kind == 0:
                        s.sendall(os.urandom(random.randrange(1, 5000)))
                    elif kind == 1:
                        s.sendall(greeting + mechanism.ljust(20, b"\0") + b"\0" * 32)
                        s.sendall(bytes([random.randrange(8)]) + os.urandom(random.randrange(300)))
                    elif kind == 2:
                        s.sendall(greeting + mechanism.ljust(20, b"\0") + b"\0" * 32)
                        s.sendall(b"\x06" + random.randrange(1 << 63).to_bytes(8, "big") + os.urandom(100))
                    else:
                        s.sendall(greeting[:random.randrange(1, 12)])
            except OSError:
                pass
END
garbage() { in_node b timeout 120 python3 "$T/garbage.py" 10.77.0.1 7400 $RANDOM; }
ok "garbage is sent to all ports of a" garbage
ok "a still serves" sh -c "echo x >$a/after && cat $a/after"
ok "in sync" wait_until 60 link_is a working
stop_node a
stop_node b
ok "nothing crashed" sh -c "! grep -E 'internal error|AddressSanitizer|Segmentation' $T/a.log $T/b.log"
