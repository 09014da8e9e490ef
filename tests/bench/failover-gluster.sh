#!/bin/bash
# failover-gluster.sh [-r repeats] — the meter of failover.sh on GlusterFS, replica 2 with its own settings: how long its client
# waits when one of the two bricks is killed, and when one says no word any more (SIGSTOP; network.ping-timeout is 42 s).
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"
. "$here/systems.sh"
need_root
tap_ended=1 # this is no test: no plan at the end
set +u
repeats=3
while getopts r: option; do
    case $option in
    r) repeats=$OPTARG ;;
    *) exit 2 ;;
    esac
done
reason=$(missing_gluster)
[ -z "$reason" ] || { echo "failover-gluster.sh: $reason is missing" >&2; exit 1; }

WORK=$T/work
mkdir -p "$WORK"
up_gluster || bail "GlusterFS does not start"
cleanup_hooks+=("down_gluster >/dev/null 2>&1")
mkdir "$DIR/probes"
python3 "$here/../lease-probe.py" run "$DIR" gluster "$T/probe" 0.002 &
test_pids+=($!)
acknowledged() { grep -c '^ack' "$T/probe"; }
more_than() { [ "$(acknowledged)" -gt "$1" ]; }
wait_until 30 more_than 20 || bail "the writer does not work"
brick() { pgrep -f "glusterfsd.*$WORK/gluster/2" | head -n 1; }

gap() { # since BEGIN, in ms
    python3 - "$1" "$T/probe" <<'END'
import sys
begin = int(sys.argv[1])
acks = sorted(int(line.split()[3]) for line in open(sys.argv[2]) if line.startswith("ack"))
after = [time for time in acks if time > begin - 1000000000]
print(max(b - a for a, b in zip(after, after[1:])) // 1000000)
END
}
now() { local up; read -r up _ </proc/uptime && echo "${up/./}0000000"; } # nanoseconds

for kind in killed silent; do
    gaps=()
    for ((i = 0; i < repeats; i++)); do
        begin=$(now) before=$(acknowledged) pid=$(brick)
        [ -n "$pid" ] || bail "there is no brick"
        if [ $kind = killed ]; then kill -KILL "$pid"; else kill -STOP "$pid"; fi
        wait_until 120 more_than $((before + 200)) || bail "nobody is served"
        [ $kind = killed ] || kill -CONT "$pid"
        in_other gluster --mode=script "--glusterd-sock=$T/gluster/socket" volume start bench force >/dev/null 2>&1
        wait_until 20 brick
        sleep 3 # its client connects again
        gaps+=("$(gap "$begin")")
    done
    printf '| GlusterFS, a brick %s | %s | %s | %d |\n' $kind \
        "$(printf '%s\n' "${gaps[@]}" | sort -n | sed -n "$(((repeats + 1) / 2))p")" "$(printf '%s\n' "${gaps[@]}" | sort -n | tail -n 1)" "$repeats"
done
