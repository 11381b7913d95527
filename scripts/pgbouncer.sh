#!/usr/bin/env bash
# Builds the newest PgBouncer that Debian's archive has the source of, for the benchmark, as target/pgbouncer/pgbouncer:
# before 1.21 it does no prepared statements in transaction pooling, and Debian 12 installs 1.18.
# Wants apt-get, a C compiler, pkg-config, and the headers of libevent and OpenSSL. Does nothing if it is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
folder=$(cd "$target" && pwd)/pgbouncer
[[ -x $folder/pgbouncer ]] && exit 0

# An apt of its own: the machine's sources and lists stay as they are.
work=$folder/work
rm -rf "$work"
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[[ -f $keys ]] || { echo "pgbouncer: $keys is missing; install debian-archive-keyring" >&2; exit 1; }
apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State="$work/state" -o Dir::Cache="$work/cache" -o Dir::State::status=/var/lib/dpkg/status \
        -o APT::Sandbox::User=root "$@"
}

# The mirror of Debian's archive that this machine uses anyway.
mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -E '/debian/?$' | head -1)
[[ -n $mirror ]] || { echo "pgbouncer: this machine has no mirror of Debian's archive" >&2; exit 1; }

cd "$work"
for suite in sid trixie-backports trixie; do
    echo "deb-src [signed-by=$keys] $mirror $suite main" >sources.list
    if apt update && apt source --download-only pgbouncer; then
        break
    fi >/dev/null 2>&1
done
compgen -G 'pgbouncer_*.orig.tar.gz' >/dev/null || { echo "pgbouncer: no suite has its source" >&2; exit 1; }
tar xf pgbouncer_*.orig.tar.gz
cd pgbouncer-*/
./configure --without-cares >configure.log 2>&1 || { tail -20 configure.log >&2; exit 1; }
make -j"$(nproc)" >make.log 2>&1 || { tail -20 make.log >&2; exit 1; }
cp pgbouncer "$folder/pgbouncer"
rm -rf "$work"
echo "pgbouncer: built $("$folder/pgbouncer" --version | head -1)" >&2
