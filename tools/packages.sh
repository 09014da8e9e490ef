# shellcheck shell=bash disable=SC2034
# The Debian packages that Baton needs; sourced by quickstart and run-tests.
build_packages=(gcc libc6-dev make autoconf automake pkg-config libfuse3-dev libzmq3-dev liblmdb-dev libxxhash-dev
    libinih-dev libjansson-dev libsystemd-dev liburing-dev libcurl4-openssl-dev)
# For configure --enable-fuzzing CC=clang, or CC=afl-clang-fast; nothing here installs them by itself.
fuzz_packages=(clang libclang-rt-14-dev afl++)
run_packages=(fuse3 iproute2 util-linux)
test_packages=(acl attr etcd-server git iputils-ping libacl1-dev libxml2-utils openssl perl python3 resource-agents rsync spin sqlite3 xz-utils
    zstd)

# install_packages NAME…: those that are missing.
install_packages() {
    local name missing=()
    command -v apt-get >/dev/null || { echo "no apt-get here; make sure that these are installed: $*" >&2; return 0; }
    for name in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "installing ${missing[*]}"
    # The lists may be there already and be good enough.
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 && return 0
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" \
        >/dev/null || { echo "packages could not be installed; try: apt-get install ${missing[*]}" >&2; return 1; }
}
