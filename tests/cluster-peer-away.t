# A standby that goes away, by a signal, by SIGKILL, or with its network: the primary goes on and says so; the standby
# takes up where it was.
. "$(dirname "$0")/lib.sh"

volume_up
a=$(mount_of a) b=$(mount_of b)

set_is() { [ "$(status_of a replication register members)" = "$1" ]; }
link_is() { [ "$(status_of "$1" replication link)" = "$2" ]; }
same() { diff -r "$a" "$b"; }
both_working() { link_is a working && link_is b working; }
ok "in sync" wait_until 60 both_working

work() { # some changes, each has to be answered
    local i
    for i in $(seq 50); do
        echo "$1 $i" >"$a/$1-$i" || return 1
    done
    head -c 3000000 /dev/urandom >"$a/$1-large"
}

for way in stops "is killed" "is cut off"; do
    name=${way// /-}
    case $way in
    stops) ok "b $way" stop_node b ;;
    "is killed") kill_node b ;;
    "is cut off") network_cut b ;;
    esac
    ok "b $way: a goes on" timeout 60 bash -c "$(declare -f work); a=$a; work $name"
    ok "b $way: status says failed" wait_until 60 link_is a failed
    like "$(status_of a replication peers 0 why)" "." "and why: $(status_of a replication peers 0 why)"
    ok "the set is a alone" wait_until 60 set_is '["a"]'
    case $way in
    "is cut off") network_mend b ;;
    *) ok "b starts" start_node b ;;
    esac
    ok "b is back in sync" wait_until 60 both_working
    ok "and has the same" wait_until 60 same
done

stop_node b
stop_node a
ok "no full turn: the primary never changed" test "$(grep -c 'primary in epoch' "$T/a.log")" = 1
