# transport = clear: frames that are malformed, of another volume, or lie about LSNs and sessions, sent over real ZeroMQ
# sockets to all four ports: dropped and logged, the volume goes on.
. "$(dirname "$0")/lib.sh"

network_up
volume_create
volume_set volume transport clear
volume_format
start_node a || bail "node a does not start"
start_node b || bail "node b does not start"
a=$(mount_of a)
link_is() { [ "$(status_of "$1" replication link)" = "$2" ]; }
ok "in sync" wait_until 60 link_is a working

cat >"$T/hostile.py" <<'END'
import ctypes, os, random, sys, time
zmq = ctypes.CDLL("libzmq.so.5")
zmq.zmq_ctx_new.restype = zmq.zmq_socket.restype = ctypes.c_void_p
zmq.zmq_socket.argtypes = [ctypes.c_void_p, ctypes.c_int]
zmq.zmq_connect.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
zmq.zmq_send.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
host, port, volume, node = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3]), int(sys.argv[4])
random.seed(int(sys.argv[5]))
xxh = ctypes.CDLL("libxxhash.so.0")
xxh.XXH3_64bits.restype = xxh.XXH3_64bits_withSeed.restype = ctypes.c_uint64
xxh.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
xxh.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]

def frame(kind, body, volume=volume):
    # a sound head with a right checksum, so that what stands in the body is reached
    head = (b"BATW" + bytes([1, 1, kind, random.randrange(2)]) + (64 + len(body)).to_bytes(4, "little") + b"\0" * 4 +
            node.to_bytes(2, "little") + b"\0" * 6 + volume + random.randrange(3).to_bytes(8, "little") +
            random.choice([0, 1 << 16 | node]).to_bytes(8, "little"))
    rest = body[:20] if kind == 4 else body
    seed = xxh.XXH3_64bits(head + b"\0" * 8, 64)
    return head + xxh.XXH3_64bits_withSeed(rest, len(rest), seed).to_bytes(8, "little") + body

def word():
    return random.choice([0, 1, 2, 5, 64, 255, 4096, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 64) - 1])

def body():
    kind = random.randrange(3)
    if kind == 0:
        return os.urandom(random.randrange(600))
    size = random.choice([4, 8])
    return b"".join((word() & ((1 << 8 * size) - 1)).to_bytes(size, "little") for _ in range(random.randrange(60)))

context = zmq.zmq_ctx_new()
for port in range(port, port + 4):
    socket = zmq.zmq_socket(context, 5)
    zmq.zmq_connect(socket, b"tcp://%s:%d" % (host.encode(), port))
    for i in range(3000):
        data = frame(random.randrange(1, 11), body(), volume if random.randrange(4) else os.urandom(16))
        if random.randrange(8) == 0:
            data = data[:random.randrange(len(data))]
        zmq.zmq_send(socket, data, len(data), 1)
        if i % 100 == 0:
            time.sleep(0.01)
    time.sleep(0.3)
END
id=$(awk '$1 == "id" { print $3 }' "$CONFIG")
number=$(python3 -c '
import ctypes
xxh = ctypes.CDLL("libxxhash.so.0")
xxh.XXH32.restype = ctypes.c_uint32
print(xxh.XXH32(b"b", 1, 0) & 0xffff)')
ok "somebody with an address of no node's sends to a" \
    in_node witness timeout 120 python3 "$T/hostile.py" 10.77.0.1 7400 "$id" "$number" $RANDOM
ok "and is refused" grep -q "refused a connection from 10.77.0.3: that is no address" "$T/a.log"
fails "with all its frames" grep -q "dropped a frame" "$T/a.log"
ok "hostile frames are sent to a" in_node b timeout 120 python3 "$T/hostile.py" 10.77.0.1 7400 "$id" "$number" $RANDOM
ok "and to b" in_node a timeout 120 python3 "$T/hostile.py" 10.77.0.2 7400 "$id" "$number" $RANDOM
ok "they are logged" grep -q "dropped a frame from" "$T/a.log"
is "$(grep -c 'dropped a frame' "$T/a.log" | awk '{ print ($1 < 20) }')" 1 "but not each of them"
ok "a still serves" timeout 60 sh -c "echo x >$a/after && cat $a/after"
ok "in sync" wait_until 60 link_is a working
is "$(status_of a role)" primary "a is primary"
ok "the standby has it" wait_until 60 cmp "$a/after" "$(mount_of b)/after"
stop_node a
stop_node b
ok "nothing crashed" sh -c "! grep -E 'internal error|AddressSanitizer|Segmentation' $T/a.log $T/b.log"
