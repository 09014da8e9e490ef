# shellcheck shell=bash disable=SC2034
# Clients with a Linux kernel of their own, its NFS and SMB clients and little else, beside the nodes of a test; after lib.sh.
# qemu without KVM boots Debian's kernel with busybox and what linux_client_image puts beside it; the network is a tap on the
# hub's bridge. Commands go over TCP to a shell in the client. A caller has $service, as tests/sharing.sh.
#
# The kernel's package and busybox-static are fetched by apt-get and unpacked, not installed: they lie, with the unpacked kernel,
# in $BATON_LINUX_FILES ($BATON_BUILD/tests/linux-files), and are used again.
declare -A client_ip=() # of those that have been booted
linux_files=${BATON_LINUX_FILES:-$BATON_BUILD/tests/linux-files}
hub_ip=10.77.0.60
agent_port=7

# Ends the test where such clients are not wanted, or cannot be had.
linux_client_needs() {
    local file
    [ "${BATON_LINUX_CLIENTS:-}" = 1 ] || skip_all "boots Linux kernels in qemu, with BATON_LINUX_CLIENTS=1 only"
    need_root
    . "$BATON_SRC/tools/packages.sh"
    for file in qemu-system-x86_64 rpcbind rpc.statd; do
        command -v $file >/dev/null || skip_all "needs ${linux_client_packages[*]}; tools/run-tests installs them"
    done
    linux_client_fetch >&2 || skip_all "needs the packages of Debian's kernel and of busybox-static, which could not be fetched"
    kernel_version=$(ls "$linux_files/kernel/lib/modules")
    busybox=$linux_files/busybox/bin/busybox
}

linux_client_fetch() {
    local kernel
    [ -e "$linux_files/vmlinux" ] && return
    kernel=$(apt-cache depends linux-image-amd64 | awk '$1 == "Depends:" { print $2; exit }')
    [ -n "$kernel" ] || return
    rm -rf "$linux_files" && mkdir -p "$linux_files/kernel" "$linux_files/busybox" && chmod 755 "$linux_files" || return
    (cd "$linux_files" && apt-get -qq -o APT::Sandbox::User=root download "$kernel" "${linux_client_downloads[@]}") &&
        dpkg-deb -x "$linux_files/$kernel"_*.deb "$linux_files/kernel" &&
        dpkg-deb -x "$linux_files"/busybox-static_*.deb "$linux_files/busybox" && rm "$linux_files"/*.deb &&
        kernel_unpack "$linux_files"/kernel/boot/vmlinuz-* "$linux_files/vmlinux.new" &&
        "$linux_files/busybox/bin/busybox" depmod -b "$linux_files/kernel" "$(ls "$linux_files/kernel/lib/modules")" &&
        mv "$linux_files/vmlinux.new" "$linux_files/vmlinux"
}
# The ELF file in a compressed kernel, so that the emulated processor need not unpack it.
kernel_unpack() { # FROM TO
    python3 - "$@" <<'PYTHON'
import lzma, sys, zlib
image = open(sys.argv[1], "rb").read()
for magic, unpack in ((b"\xfd7zXZ\0", lambda data: lzma.LZMADecompressor().decompress(data)),
                      (b"\x1f\x8b\x08", lambda data: zlib.decompressobj(31).decompress(data))):
    at = image.find(magic)
    while at >= 0:
        try:
            kernel = unpack(image[at:])
        except (lzma.LZMAError, zlib.error):
            kernel = b""
        if kernel.startswith(b"\x7fELF"):
            open(sys.argv[2], "wb").write(kernel)
            sys.exit()
        at = image.find(magic, at + 1)
sys.exit("no kernel found in " + sys.argv[1])
PYTHON
}

# $T/initramfs: modules for the network and the file systems, programs, the init below. Files named are put in too, with the
# libraries that they need.
linux_client_image() { # [PROGRAM…]
    local root=$T/root modules=$linux_files/kernel/lib/modules program name
    mkdir -p "$root"/{bin,dev,proc,sys,etc,tmp,mnt,run,var/lib,lib64,usr/lib,usr/sbin,usr/bin} || return
    ln -s bin "$root/sbin"
    cp "$busybox" "$root/bin/busybox" || return
    modules_of virtio_pci virtio_net nfsv3 nfsv4 nfs_layout_nfsv41_files cifs nls_utf8 \
        ecb cbc ctr md4 md5 hmac sha256_generic sha512_generic cmac ccm gcm \
        aes_generic des_generic crc32c_generic crc32c_intel ghash-generic seqiv | sort -u >"$T/modules"
    (cd "$modules/$kernel_version" && xargs "$busybox" tar c <"$T/modules") |
        (mkdir -p "$root/lib/modules/$kernel_version" && cd "$root/lib/modules/$kernel_version" && "$busybox" tar x) || return
    cp "$modules/$kernel_version"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$kernel_version/"
    "$busybox" depmod -b "$root" "$kernel_version" || return
    for program in "$BATON_BUILD/tests/mount-client" "$@"; do
        program_in "$program" || return
    done
    # for programs that speak RPC
    for name in netconfig protocols services rpc; do
        cp "/etc/$name" "$root/etc/" 2>/dev/null
    done
    echo 'hosts: files' >"$root/etc/nsswitch.conf"
    printf 'root:x:0:0::/:/bin/sh\n_rpc:x:101:65534::/:/bin/sh\nstatd:x:102:65534::/:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    { echo "127.0.0.1 localhost"; echo "$service share"; } >"$root/etc/hosts"
    cat >"$root/init" <<'INIT'
#!/bin/busybox sh
export PATH=/bin:/usr/sbin:/usr/bin
busybox mount -t proc none /proc
busybox --install -s /bin
mount -t sysfs none /sys
mount -t devtmpfs none /dev
for word in $(cat /proc/cmdline); do
    case $word in ip=*) ip=${word#ip=} ;; name=*) hostname "${word#name=}" ;; esac
done
echo "$ip $(hostname)" >>/etc/hosts
modprobe virtio_pci && modprobe virtio_net
ip link set lo up
ip address add "$ip/24" dev eth0
ip link set eth0 up
echo "ready" >/dev/ttyS0
while :; do nc -ll -p 7 -e /agent; sleep 1; done
INIT
    printf '#!/bin/sh\nread -r command\neval "$command"\necho "status $?"\n' >"$root/agent"
    chmod 755 "$root/init" "$root/agent"
    (cd "$root" && find . | "$busybox" cpio -o -H newc 2>/dev/null) >"$T/initramfs" && rm -rf "$root"
}
# The files of modules and of what they need, as modules.dep has them.
modules_of() {
    python3 - "$linux_files/kernel/lib/modules/$kernel_version" "$@" <<'PYTHON'
import os, sys
needs = {}
for line in open(sys.argv[1] + "/modules.dep"):
    path, _, rest = line.partition(":")
    needs[os.path.basename(path).split(".")[0].replace("-", "_")] = [path] + rest.split()
builtin = {os.path.basename(line.strip()).split(".")[0].replace("-", "_") for line in open(sys.argv[1] + "/modules.builtin")}
for name in sys.argv[2:]:
    name = name.replace("-", "_")
    for path in needs.get(name, []):
        print(path)
    if name not in needs and name not in builtin:
        print("no module " + name, file=sys.stderr)
PYTHON
}
program_in() { # PROGRAM, with its libraries
    local path library
    path=$(command -v "$1") && path=$(readlink -f "$path") || return
    cp "$path" "$T/root/bin/${1##*/}" || return
    for library in $(ldd "$path" | grep -o '/[^ ]*'); do
        mkdir -p "$T/root/${library%/*}" && cp -L "$library" "$T/root/$library" || return
    done
}

# linux_client_boot NAME IP: its console's text is in $T/NAME.console. Boots in the background; linux_client_ready waits.
linux_client_boot() {
    local number=${#client_ip[@]}
    if [ "$number" = 0 ]; then
        ip -n "$ID-hub" address add "$hub_ip/24" dev bridge
        cleanup_hooks+=(linux_clients_end)
    fi
    client_ip[$1]=$2
    ip -n "$ID-hub" tuntap add "vm-$1" mode tap && ip -n "$ID-hub" link set "vm-$1" master bridge up || return
    nsenter --net="/run/netns/$ID-hub" -- qemu-system-x86_64 -nodefaults -no-user-config -nographic -no-reboot \
        -machine pc -accel tcg -cpu qemu64,+rdrand -m 320 -smp 1 -kernel "$linux_files/vmlinux" -initrd "$T/initramfs" \
        -append "console=ttyS0 quiet loglevel=6 nokaslr mitigations=off panic=-1 ip=$2 name=$1 random.trust_cpu=on" \
        -netdev "tap,id=n,ifname=vm-$1,script=no,downscript=no" \
        -device "virtio-net-pci,netdev=n,mac=52:54:00:00:00:0$((number + 1)),romfile=" \
        -chardev "file,id=c,path=$T/$1.console" -serial chardev:c </dev/null >"$T/$1.qemu" 2>&1 &
    test_pids+=($!)
    client_qemu[number]=$!
    disown $!
}
client_qemu=()
linux_clients_end() {
    local pid
    for pid in "${client_qemu[@]}"; do
        is_child "$pid" && kill -KILL "$pid"
    done
}
linux_client_ready() { wait_until "${2:-120}" guest "$1" true; } # NAME [SECONDS]

# guest NAME COMMAND: one line for the client's shell; prints what it prints, ends with its status (111: nobody answers).
guest() {
    local text status
    text=$(nsenter --net="/run/netns/$ID-hub" -- timeout "${GUEST_SECONDS:-60}" bash -c '
        exec 3<>"/dev/tcp/$0/$1" && printf "%s\n" "$2" >&3 && cat <&3' "${client_ip[$1]}" $agent_port "${*:2}" 2>/dev/null)
    status=${text##*status }
    text=${text%status *}
    [ -z "$text" ] || printf '%s' "$text"
    [[ $status =~ ^[0-9]+$ ]] || status=111
    return "$status"
}
# guest_run NAME JOB COMMAND: it goes on in the background; what it prints goes to $T/JOB, and guest_tell gives it lines.
declare -A job_input=() job_client=()
guest_run() {
    local fd
    mkfifo "$T/$2.in" || return
    nsenter --net="/run/netns/$ID-hub" -- "$busybox" nc "${client_ip[$1]}" $agent_port <"$T/$2.in" >"$T/$2" 2>"$T/$2.err" &
    test_pids+=($!)
    disown $!
    exec {fd}>"$T/$2.in"
    job_input[$2]=$fd
    job_client[$2]=$1
    printf '%s\n' "echo \$\$ >/tmp/$2.pid; exec ${*:3}" >&"$fd"
}
guest_end() { guest "${job_client[$1]}" "kill -TERM \$(cat /tmp/$1.pid)"; } # JOB
guest_tell() { printf '%s\n' "${*:2}" >&"${job_input[$1]}"; } # JOB LINE
# guest_ask JOB LINE: the same, and prints the answer, the next line. False: none within a minute.
guest_ask() {
    local lines
    lines=$(wc -l <"$T/$1")
    guest_tell "$@"
    wait_until 60 more_lines "$1" "$lines" || return
    sed -n "$((lines + 1))p" "$T/$1"
}
more_lines() { [ "$(wc -l <"$T/$1")" -gt "$2" ]; }

# ---- what such a test does to the volume of sharing.sh ----
hand_over() { "$BATON" switchover --config "$CONFIG" --node "$1"; }
all_in_sync() { now=$(primary_now) && serves_all "$now" && in_sync && restarted_all; }
restarted_all() {
    local node
    for node in a b; do
        node_pid[$node]=$(daemon_pid $node) || return 1
    done
}
settled() { wait_until 90 all_in_sync || bail "not in sync"; all_in_sync; }
