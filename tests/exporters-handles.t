#!/bin/bash
# `baton exporter handles`, and the first step of `baton exporter test nfs`: file handles of the same files are equal on both
# nodes, and lead to the same files; a wrong one is found out.
. "${BATON_SRC:-$(dirname "$0")/..}/tests/lib.sh"
need_root

handles() { "$BATON" exporter handles --config "$CONFIG" --node "$1"; }
says() { # NODE REGEX DESCRIPTION
    ok "$3" handles "$1" && like "$(cat "$T/.out")" "$2" "... and says so"
}
finds() { # NODE REGEX DESCRIPTION
    fails "$3" handles "$1" && like "$(cat "$T/.out")" "$2" "... and says so"
}
in_sync() { [ "$(status_of a replication link)$(status_of b replication link)" = workingworking ]; }
note=.baton/handles.a
seen_at_b() { cmp -s "$(mount_of a)/$note" "$(mount_of b)/$note"; }

nodes=(a b)
network_up
volume_create
volume_format
finds a "is not mounted at .*: is batond running" "without the mount nothing is compared"
start_node a
start_node b
ok "in sync" wait_until 60 in_sync
mkdir -p "$(mount_of a)/folder/below/deep"
for i in $(seq 50); do
    echo "$i" >"$(mount_of a)/folder/file-$i"
done
echo x >"$(mount_of a)/folder/below/deep/a name with spaces, \$(words) and 'quotes'"
ln -s nowhere "$(mount_of a)/link"
says b "nobody has noted any: run this on the primary" "a standby alone knows nothing"
says a "of 5[0-9] files noted; now run this on b" "the primary notes them"
is "$(stat -c %a "$(mount_of a)/.baton") $(stat -c %a "$(mount_of a)/$note")" "700 600" "... for root alone"
ok "... for both" wait_until 10 seen_at_b
says b "of 5[5-9] files as on a; [01] have changed since" "the standby has the same ones"
echo more >>"$(mount_of a)/folder/file-1"
mv "$(mount_of a)/folder/file-2" "$(mount_of a)/folder/file-3"
changed() { handles b >"$T/.out" && grep -q "; [3-6] have changed since" "$T/.out"; }
ok "what has changed since is left out" wait_until 10 changed || diag "$(cat "$T/.out")"
ok "a switchover" "$BATON" switchover --config "$CONFIG" --node a
primary_is() { [ "$(status_of "$1" role)" = primary ]; }
wait_until 20 primary_is b
echo 3 >/proc/sys/vm/drop_caches
says b "files as on a" "as primary, too"
says a "files as on a b" "and the first one sees those of both"

cp "$(mount_of b)/$note" "$T/good"
write() { cat >"$(mount_of b)/$note"; }
# a file's number, and what the handle leads to
awk '/folder\/file-9$/ { sub(/^./, $2 ~ /^0/ ? "&" : "&"); n = substr($2, 1, 2) == "00" ? "01" : "00"; $2 = n substr($2, 3) } { print }' "$T/good" | write
finds b "folder/file-9 has another handle than on node a" "another handle is found out"
nine=$(awk '/folder\/file-9$/ { print $2 }' "$T/good")
awk -v nine="$nine" '/folder\/file-8$/ { $2 = nine } { print }' "$T/good" | write
finds b "folder/file-8 has another handle than on node a" "the handle of another file, too"
out=$("$BATON" exporter test nfs --config "$CONFIG" --node b 2>&1)
like "$out" "WRONG *file handles are the same on every node .*folder/file-8 has another handle" "baton exporter test nfs begins with that"
sed 's/major 0/major 8/' "$T/good" | write
finds b "major number 0 here and 8 on node a" "another kind of device, which ganesha's handles have in them"
printf 'baton handles 1, device major 0\n%s\n' "1 zz 1 1 1 x" | write
finds b "what node a has noted cannot be read; remove .baton/handles.a" "nonsense is told"
head -c 100000 /dev/urandom | write
finds b "what node a has noted cannot be read" "other nonsense, too"
head -c 300000 /dev/zero | tr '\0' 1 | write
finds b "what node a has noted cannot be read" "and endless nonsense"
write <"$T/good"
says b "files as on a b" "all is well with the right one"
