# shellcheck shell=bash
# What the exporters share (the contract is in baton-exporter(7)). An exporter is a script that begins with
#     . "${BATON_LIBEXEC:-$(dirname "$0")}/lib.sh"
# defines verb_check, verb_start, verb_stop, verb_monitor and verb_status, and ends with   exporter_run "$@"
#
# Nothing here touches the mount: it may be dead, and whoever touches a dead mount waits for it.

set -u
export LC_ALL=C
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin${BATON_LIBEXEC:+:$BATON_LIBEXEC}
umask 077

exporter_name=${BATON_EXPORT:-${0##*/}}
faults=0

# ---- sentences for people ----
# say SENTENCE: goes to batond's log. The runner writes the exporter's name before each line.
say() { printf '%s\n' "$*" >&2; }
# die SENTENCE: the verb has failed.
die() { say "$*"; exit 1; }
# fault SENTENCE: one of perhaps several; no_faults ends the verb if there was any.
fault() { say "$*"; faults=$((faults + 1)); }
no_faults() { [ $faults = 0 ] || exit 1; }

# ---- the section's keys ----
option_variable() { # KEY; sets $variable
    variable=${1^^}
    variable=BATON_OPTION_${variable//-/_}
}
# option KEY DEFAULT: prints the value.
option() {
    local variable
    option_variable "$1"
    printf '%s\n' "${!variable-${2-}}"
}
# option_to NAME KEY DEFAULT: the same into the shell variable NAME, without a process.
option_to() {
    local variable
    option_variable "$2"
    printf -v "$1" '%s' "${!variable-${3-}}"
}
# option_yes KEY DEFAULT: is it yes? Anything but yes and no (true, on, 1; false, off, 0) is a fault.
option_yes() {
    local value
    option_to value "$1" "$2"
    case ${value,,} in
        yes | true | on | 1) return 0 ;;
        no | false | off | 0) return 1 ;;
        *) fault "$1 in [export $exporter_name] must be yes or no, not '$value'"; return 1 ;;
    esac
}
# known_options KEY…: a fault for each key that is set and not among them. The runner's own are always known.
known_options() {
    local name key variable known=" BATON_OPTION_ADDRESS BATON_OPTION_TYPE "
    for key in "$@"; do
        option_variable "$key"
        known+="$variable "
    done
    for name in "${!BATON_OPTION_@}"; do
        [[ $known == *" $name "* ]] && continue
        key=${name#BATON_OPTION_}
        key=${key,,}
        fault "there is no key '${key//_/-}' in [export $exporter_name]; the keys are: address type $*"
    done
}
# need_environment NAME…: what the runner must have given.
need_environment() {
    local name
    for name in "$@"; do
        [ -n "${!name:-}" ] || fault "$name is not set: exporters are called by batond, or by 'baton exporter test'"
    done
}
# need_program PROGRAM PACKAGE
need_program() {
    command -v "$1" >/dev/null || fault "$1 is not installed; it is in the package $2 (apt-get install $2)"
}

# ---- addresses ----
# addresses_read "10.0.0.100/24 fd00::1/64@eth0": into the arrays address_ip, address_prefix, address_if (empty if it is not
# given). A fault for each that is none.
addresses_read() {
    local one rest
    # shellcheck disable=SC2034 # for the caller
    address_ip=() address_prefix=() address_if=()
    for one in $1; do
        rest=${one%%@*}
        if ! [[ $one =~ ^[^/@]+/[^/@]+(@[^/@]{1,15})?$ ]] || ! address_right "${rest%/*}" "${rest#*/}"; then
            fault "'$one' is not an address with a prefix length, such as 10.0.0.100/24 or fd00::64/64@eth0"
            continue
        fi
        address_ip+=("${rest%/*}") address_prefix+=("${rest#*/}")
        if [[ $one == *@* ]]; then address_if+=("${one#*@}"); else address_if+=(""); fi
    done
}
address_right() { # IP PREFIX
    local number='(0|[1-9][0-9]{0,2})' part parts expanded
    [[ $2 =~ ^[1-9][0-9]{0,2}$ ]] || return 1
    if [[ $1 == *:* ]]; then
        address_expand "$1" && [ "$2" -le 128 ]
        return
    fi
    [[ $1 =~ ^$number\.$number\.$number\.$number$ ]] && [ "$2" -le 32 ] || return 1
    IFS=. read -ra parts <<<"$1"
    for part in "${parts[@]}"; do
        [ "$part" -le 255 ] || return 1
    done
}
# address_expand IP: sets $expanded, which is equal for equal addresses, however they are written. False: it is none.
address_expand() {
    local head tail groups group zeros colons=0:0:0:0:0:0:0:0:
    expanded=$1
    [[ $1 == *:* ]] || return 0
    head=$1 tail=''
    [[ $1 != *::*::* && $1 != *:::* ]] || return 1
    if [[ $1 == *::* ]]; then head=${1%%::*} tail=${1#*::}; fi
    IFS=: read -ra groups <<<"$head${head:+${tail:+:}}$tail"
    if [[ $1 == *::* ]]; then
        zeros=$((8 - ${#groups[@]}))
        [ $zeros -ge 1 ] || return 1
        IFS=: read -ra groups <<<"$head${head:+:}${colons:0:2*zeros}$tail"
    fi
    [ ${#groups[@]} = 8 ] || return 1
    expanded=
    for group in "${groups[@]}"; do
        [[ $group =~ ^[0-9a-fA-F]{1,4}$ ]] || return 1
        printf -v expanded '%s%x:' "$expanded" "0x$group"
    done
}

# number_of TEXT: sets $number, 32 bits that are the same on every node (FNV-1a).
number_of() {
    local i code
    number=2166136261
    for ((i = 0; i < ${#1}; i++)); do
        printf -v code %d "'${1:i:1}"
        number=$((((number ^ code) * 16777619) & 0xffffffff))
    done
}
# inside_address: sets $inside, a loopback address that is this export's own. Servers listen on it too: start and monitor ask
# there, also while the volume's addresses are not up (they come last and go first), and nobody outside can.
inside_address() {
    local number
    number_of "$BATON_VOLUME_ID $exporter_name"
    # not 127.0.0.x, which others use
    # shellcheck disable=SC2034 # for the caller
    inside=127.$((number >> 16 & 127 | 128)).$((number >> 8 & 255)).$(((number & 255) % 254 + 1))
}
# allow_absent_addresses: servers start before the addresses are up, and listen on them all the same. A switch of the
# kernel for the whole network namespace; it stays on.
allow_absent_addresses() {
    local family file value
    for family in ipv4 ipv6; do
        file=/proc/sys/net/$family/ip_nonlocal_bind
        { read -r value <"$file"; } 2>/dev/null || continue # no IPv6 here
        [ "$value" = 1 ] || echo 1 2>/dev/null >"$file" ||
            die "servers cannot listen on addresses that are not up yet: $file could not be set to 1; set sysctl net.$family.ip_nonlocal_bind = 1"
    done
}
# port_is_taken PORT: some program listens there on every address; servers of ours cannot then.
port_is_taken() { ss -Hltn "sport = :$1" 2>/dev/null | grep -qE '[[:space:]](0\.0\.0\.0|\*|\[::\]):[0-9]+[[:space:]]'; }

# ---- time ----
now_ms() { # sets $now; no process
    local text=$EPOCHREALTIME
    now=$((${text/[.,]/} / 1000))
}
# pause SECONDS, without a process for each.
pause() {
    [ -n "${pause_fd:-}" ] || exec {pause_fd}<> <(:)
    read -rt "$1" -u "$pause_fd" || true
}
# wait_for MILLISECONDS COMMAND…: true as soon as the command (a function, usually) is, false after so long.
wait_for() {
    local now deadline each=1
    now_ms
    deadline=$((now + $1))
    shift
    while ! "$@"; do
        now_ms
        [ "$now" -lt "$deadline" ] || return 1
        pause "0.00$each"
        each=$((each < 8 ? each * 2 : 8))
    done
}
# tcp_answers ADDRESS PORT [SECONDS]: somebody accepts there.
tcp_answers() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    timeout -s KILL "${3:-1}" bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null
}

# ---- servers ----
# A server is known by its pid and its start time in $BATON_LOCAL/NAME.pid, so that no stranger is ever killed for it. It leads
# a session and process group of its own; what it forks and leaves in that group ends with it.

process_read() { # PID; sets $state, $parent, $start, $threads; false: there is none
    local line fields
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    read -ra fields <<<"${line##*) }"
    # shellcheck disable=SC2034 # for the caller
    state=${fields[0]} parent=${fields[1]} threads=${fields[17]} start=${fields[19]}
}
server_read() { # NAME; sets $pid and $born; false: none was started here, or since the boot
    pid='' born=''
    { read -r pid born <"$BATON_LOCAL/$1.pid"; } 2>/dev/null
    [[ $pid =~ ^[0-9]+$ && $born =~ ^[0-9]+$ ]]
}

# server_start NAME COMMAND…: in the background, detached, its output to $BATON_LOCAL/NAME.log. The process writes its own pid
# file before it becomes the server: a caller killed at any moment leaves no server that nobody knows.
#
# It becomes the runner's child, which takes processes whose parent has ended, and asks the kernel for SIGKILL when that one dies
# too: with all of batond's processes killed, nobody is left to stop a server, which would tell clients of its dead mount.
server_start() {
    local name=$1 launched
    shift
    launched=$(
        launcher=$BASHPID
        server_become "$@" </dev/null >>"$BATON_LOCAL/$name.log" 2>&1 &
        echo $!
    )
    # until the file names this process: server_alive right afterwards must not see the one before it
    wait_for 2000 server_is_or_ended "$name" "$launched"
    server_is "$name" "$launched"
}
# It ends at once where its file cannot be written (no space).
server_is_or_ended() { # NAME PID
    local state parent start threads
    server_is "$1" "$2" || ! process_read "$2" || [[ $state = [ZX] ]]
}
# In the process to be; its signal at a parent's death must not be for the launcher's.
server_become() {
    local pid state threads start parent fd
    read -r pid _ </proc/self/stat # not BASHPID, which is 1 in a PID namespace of its own
    process_read "$pid" && printf '%s %s\n' "$pid" "$start" >"$BATON_LOCAL/$name.pid" || exit 1
    wait_for 2000 launcher_gone
    for fd in /proc/self/fd/*; do
        fd=${fd##*/}
        [ "$fd" -le 2 ] || exec {fd}>&-
    done
    exec setsid setpriv --pdeathsig KILL "$@"
}
launcher_gone() { process_read "$pid" && [ "$parent" != "$launcher" ]; }

# server_start_family NAME COMMAND…: the same for a server whose children serve clients. A signal at a parent's death is not handed on
# to children, and is gone when a process changes its user; so these live in a PID namespace, whose first process has asked for it, and
# with which the kernel kills them all.
server_start_family() {
    local name=$1 launched
    # shellcheck disable=SC2016 # expanded by the inner shell
    launched=$(
        exec unshare --pid bash -c '. "$0"
            name=$1 launcher=$BASHPID
            shift
            server_become bash -c '\''"$@" & wait $!'\'' "$name" "$@" </dev/null >>"$BATON_LOCAL/$name.log" 2>&1 &
            echo $!' "${BASH_SOURCE[0]}" "$@"
    )
    wait_for 2000 server_is_or_ended "$name" "$launched"
    server_is "$name" "$launched"
}
# server_start_in FAMILY NAME COMMAND…: the same for one that works with such a server, in its namespace, and ends with it.
server_start_in() {
    local pid born
    server_read "$1" && server_start "$2" nsenter "--pid=/proc/$pid/ns/pid" -- "${@:3}"
}
server_is() { # NAME PID
    local pid born
    server_read "$1" && [ "$pid" = "$2" ]
}
# server_alive NAME: the process that was started is there. A zombie is dead, unless threads of it still hang in the kernel.
server_alive() {
    local pid born state threads start parent
    server_read "$1" && process_read "$pid" && [ "$start" = "$born" ] || return 1
    [[ $state != [ZX] ]] || [ "$threads" -gt 1 ]
}
# server_signal NAME SIGNAL: to exactly that process.
server_signal() {
    local pid born
    server_alive "$1" && server_read "$1" && kill "-$2" "$pid" 2>/dev/null
}
# server_kill NAME: SIGKILL to it and to its process group. Never waits: a process that hangs in the mount dies only when
# batond has answered it.
server_kill() {
    local pid born state threads start parent
    server_read "$1" || return 0
    # The number of a group is not given away while the group has members: another start time means that it has none.
    process_read "$pid" && [ "$start" != "$born" ] && return 0
    kill -KILL -- "-$pid" 2>/dev/null
    [ -n "${start:-}" ] && kill -KILL "$pid" 2>/dev/null # it may not have come to setsid yet
    return 0
}
# server_gone NAME: neither it nor anything of its process group is left.
server_gone() {
    local pid born state threads start parent file line fields
    server_read "$1" || return 0
    server_alive "$1" && return 1
    process_read "$pid" && [ "$start" != "$born" ] && return 0
    kill -0 -- "-$pid" 2>/dev/null || return 0
    for file in /proc/[0-9]*/stat; do
        { read -r line <"$file"; } 2>/dev/null || continue
        read -ra fields <<<"${line##*) }"
        [ "${fields[2]}" = "$pid" ] || continue
        [[ ${fields[0]} != [ZX] ]] || [ "${fields[17]}" -gt 1 ] && return 1
    done
    return 0
}
# server_said NAME: the end of its log, in a line.
server_said() {
    local text
    text=$(tail -n 3 "$BATON_LOCAL/$1.log" 2>/dev/null | tr '\n' ' ')
    printf '%s' "${text:-nothing}"
}
# Logs are opened for appending, so they can be cut while a server writes: at each monitor, when one is over 1 MiB.
logs_bound() {
    local log
    for log in "$BATON_LOCAL"/*.log; do
        [ -f "$log" ] || continue
        [ "$(stat -c %s "$log" 2>/dev/null || echo 0)" -gt 1048576 ] || continue
        tail -c 131072 "$log" >"$log.old"
        : >"$log"
    done
}

# path_straight PATH: no link is on the way from the mount to it, which whoever may write there could have put, and a server of root's
# would follow. This touches the mount: at start only.
path_straight() {
    local top
    top=$(realpath -e -- "$BATON_MOUNT") || return 1
    [ "$(realpath -m -- "$top$1")" = "$(realpath -ms -- "$top$1")" ]
}

# write_file PATH: standard input becomes the file, at once or not at all.
write_file() {
    { cat >"$1.new" && mv -f "$1.new" "$1"; } || die "$1 could not be written"
}

# ---- the verb ----
exporter_run() {
    case ${1:-} in
        check | start | stop | monitor | status) ;;
        *) echo "usage: ${0##*/} check|start|stop|monitor|status (called by batond; see baton-exporter(7))" >&2; exit 2 ;;
    esac
    # A person's current directory, or the mount: neither is to be held or waited for.
    cd / || exit 1
    need_environment BATON_VOLUME BATON_LOCAL
    no_faults
    if [ "$1" = monitor ]; then logs_bound; fi
    "verb_$1"
}
