# What the suites share; sourced after tests/lib.sh.

lsn_of() { status_of "$1" state lsn; }
standby_caught_up() { [ "$(lsn_of a)" = "$(lsn_of b)" ]; }

# The copies are compared when the standby has all and nothing is reclaimed any more.
caught_up_and_equal() {
    local before=
    for _ in $(seq 300); do
        sync
        [ "$(lsn_of a)" = "$before" ] && standby_caught_up && break
        before=$(lsn_of a)
        sleep 0.5
    done
    standby_caught_up || { echo "the standby is at $(lsn_of b), the primary at $(lsn_of a)"; return 1; }
    # Access times are compared too: reading the primary's tree first would change them.
    python3 "$BATON_SRC/tests/suites/compare.py" "$(mount_of b)" "$(mount_of a)"
}
