#!/bin/bash
# smb-accounts.sh SMB-CONF KNOWN NODE: users of the shares whom this node lacks, or has with another number than the node that
# served before, a sentence each: they would be refused, or get at another's files. KNOWN, a file on the volume, keeps the
# numbers. exporters/smb runs it beside the server at each start.
set -u
config=$1 known=$2 node=$3

declare -A before=()
while read -r user number; do
    before[$user]=$number
done < <(cat "$known" 2>/dev/null)

changed=
while IFS=: read -r user number _; do
    [ -n "$user" ] || continue
    was=${before[$user]:-}
    if [ "$number" = 4294967295 ]; then
        echo "user $user of the shares does not exist on node $node and cannot log in there; make it:" \
            "useradd ${was:+--uid $was }--no-create-home --shell /usr/sbin/nologin $user"
    elif [ -z "$was" ]; then
        before[$user]=$number
        changed=yes
    elif [ "$number" != "$was" ]; then
        echo "user $user of the shares has the number $number on node $node and $was on another: files seem to be somebody else's;" \
            "give it the same number (usermod --uid), or if $number is right, remove $known"
    fi
done < <(pdbedit -s "$config" -L 2>/dev/null)
[ -n "$changed" ] || exit 0
for user in "${!before[@]}"; do
    echo "$user ${before[$user]}"
done | sort >"$known.new" && mv "$known.new" "$known"
