#!/usr/bin/env bash
# PostgreSQL's own regression suite, straight at a server and through Bulkhead in transaction pooling: every test must
# give the same output both ways. libpq's pipeline tests, likewise.
#
#   scripts/conformance.sh                all tests
#   scripts/conformance.sh --churn        the same while 8 other sessions change settings, roles and the like
#   scripts/conformance.sh --through      only through Bulkhead, compared with what came straight from a server last time
#   scripts/conformance.sh temp guc       only these tests, in the order of the schedule, after those that set up tables
#
# The suite comes from Debian's source package of the installed major version, at run time; it is built once, under
# target/conformance. Results are left there too: direct/, through/, and their differences in differences.diff.
# Exits with 0 if the two are the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Backends that all sessions share.
pool=4
churners=8
# Tests that create what others use.
set_up=(test_setup create_index create_misc create_type)

churn=
direct=yes
only=()
for argument in "$@"; do
    case $argument in
    --churn) churn=yes ;;
    --through) direct= ;;
    -*) echo "conformance: unknown option $argument" >&2; exit 64 ;;
    *) only+=("$argument") ;;
    esac
done

say() { echo "conformance: $*" >&2; }
fail() { say "$*"; exit 1; }

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[[ -x $bin/initdb ]] || fail "no PostgreSQL under /usr/lib/postgresql; run scripts/setup.sh test"
version=$("$bin/postgres" --version | grep -oE '[0-9]+\.[0-9]+' | head -1)
major=${version%%.*}

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/conformance"
target=$(cd "$target" && pwd)
folder=$target/conformance
source=$folder/postgresql-$major

# === the suite ===

# The source package, by an apt of its own: the machine's sources and lists stay as they are. Of the installed minor
# version if the mirror has it, else the newest of the same major version.
fetch_source() {
    local work=$folder/fetch versions keys=/usr/share/keyrings/debian-archive-keyring.gpg
    rm -rf "$work"
    mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
    [[ -f $keys ]] || fail "$keys is missing; install debian-archive-keyring"
    apt() {
        apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
            -o Dir::State="$work/state" -o Dir::Cache="$work/cache" -o Dir::State::status=/var/lib/dpkg/status \
            -o APT::Sandbox::User=root "$@"
    }
    # The mirrors that this machine uses anyway.
    apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' | grep -E 'debian(-security)?/? ' |
        sort -u | while read -r mirror suite; do
        echo "deb-src [signed-by=$keys] $mirror $suite main"
    done >"$work/sources.list"
    apt update
    cd "$work"
    versions=$(apt-cache -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State="$work/state" -o Dir::Cache="$work/cache" showsrc "postgresql-$major" 2>/dev/null |
        sed -n 's/^Version: //p' | sort -rV)
    for candidate in $versions; do
        if apt source --download-only "postgresql-$major=$candidate" 2>/dev/null; then
            say "the suite is that of PostgreSQL $candidate"
            mkdir -p "$source"
            tar xf postgresql-*.orig.tar.* -C "$source" --strip-components 1
            cd "$OLDPWD"
            rm -rf "$work"
            return
        fi
    done
    fail "no mirror of this machine has the source of postgresql-$major"
}

build_suite() {
    [[ -f $folder/built-$major ]] && return
    rm -rf "$source"
    fetch_source
    say "building pg_regress and its libraries"
    (
        cd "$source"
        ./configure --without-readline --without-zlib
        make -C src/backend generated-headers
        make -C src/port
        make -C src/common
        make -C src/interfaces/libpq
        make -C src/fe_utils
        # The suite's own psql: some of its output is the doing of psql, which changes with minor versions.
        make -C src/bin/psql psql
        make -C src/test/regress pg_regress regress.so
        make -C contrib/spi refint.so autoinc.so
        make -C src/test/modules/libpq_pipeline
    ) >"$folder/build.log" 2>&1 || { tail -20 "$folder/build.log" >&2; fail "the build failed"; }
    touch "$folder/built-$major"
}

# === servers ===

# The server and the tests run as another user than root, in a folder that this user can reach.
as_user=()
((EUID)) || as_user=(setpriv --reuid=postgres --regid=postgres --clear-groups --no-new-privs)
run=
pids=()

# Whatever was started here ends here.
clean_up() {
    stop_churn
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    stop_server
    [[ -z $run ]] || rm -rf "$run"
}

user() { "${as_user[@]}" env HOME="$run" LC_ALL=C LD_LIBRARY_PATH="$run" PGHOST=127.0.0.1 PGUSER=postgres "$@"; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

prepare_run() {
    run=$(mktemp -d "${TMPDIR:-/tmp}/bulkhead-conformance.XXXXXX")
    chmod 755 "$run"
    cp -r "$source/src/test/regress" "$run/regress"
    cp "$source"/contrib/spi/*.so "$run/regress"
    cp "$source"/src/interfaces/libpq/libpq.so.5 "$run"
    cp "$source"/src/bin/psql/psql "$source"/src/test/modules/libpq_pipeline/libpq_pipeline "$run"
    ((EUID)) || chown -R postgres:postgres "$run"
    server_port=$(free_port)
    user "$bin/initdb" -D "$run/data.new" -U postgres --no-locale --encoding=UTF8 --no-sync --auth=trust >"$folder/initdb.log"
    cat >>"$run/data.new/postgresql.conf" <<CONF
port = $server_port
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
max_prepared_transactions = 2
CONF
}

# A new server with the database of the tests, as pg_regress itself makes it.
start_server() {
    stop_server
    user cp -a "$run/data.new" "$run/data"
    user "$bin/pg_ctl" -D "$run/data" -l "$run/server.log" -w start >/dev/null
    user "$bin/psql" -qX -p "$server_port" -d postgres <<'SQL'
CREATE DATABASE regression TEMPLATE = template0 LC_COLLATE = 'C' LC_CTYPE = 'C';
ALTER DATABASE regression SET lc_messages TO 'C';
ALTER DATABASE regression SET lc_monetary TO 'C';
ALTER DATABASE regression SET lc_numeric TO 'C';
ALTER DATABASE regression SET lc_time TO 'C';
ALTER DATABASE regression SET bytea_output TO 'hex';
ALTER DATABASE regression SET timezone_abbreviations TO 'Default';
CREATE DATABASE pipeline;
SQL
}

stop_server() {
    [[ -n $run && -d $run/data ]] || return 0
    user "$bin/pg_ctl" -D "$run/data" -m immediate -w stop >/dev/null || true
    rm -rf "$run/data"
}

start_bulkhead() {
    bulkhead_port=$(free_port)
    cat >"$run/bulkhead.toml" <<TOML
databases = ["*"]
[listen]
address = "127.0.0.1:$bulkhead_port"
http = "off"
[auth]
method = "trust"
users_file = "$run/users.txt"
[servers.primary]
url = "postgres://postgres@127.0.0.1:$server_port/postgres"
[pools.primary]
servers = ["primary"]
max_connections = $pool
wait_timeout = "60s"
TOML
    printf '"postgres" ""\n' >"$run/users.txt"
    RUST_LOG=${RUST_LOG:-info} "${BULKHEAD_PROGRAM:-$target/debug/bulkhead}" --config "$run/bulkhead.toml" >"$folder/bulkhead.log" 2>&1 &
    bulkhead=$!
    pids+=("$bulkhead")
    for _ in $(seq 100); do
        user "$bin/psql" -qX -p "$bulkhead_port" -d regression -c 'SELECT' >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "Bulkhead does not start: $(tail -3 "$folder/bulkhead.log")"
}

stop_bulkhead() {
    kill "$bulkhead"
    wait "$bulkhead" 2>/dev/null || true
}

# === tests ===

# run_suite NAME PORT: runs the tests, and leaves their results under $folder/NAME.
run_suite() {
    local name=$1 port=$2 tests
    rm -rf "${folder:?}/$name"
    mkdir -p "$folder/$name"
    user mkdir -p "$run/out"
    if ((${#only[@]})); then
        tests=("${set_up[@]}" "${only[@]}")
    else
        tests=("--schedule=$run/regress/parallel_schedule")
    fi
    (cd "$run" && user ./regress/pg_regress --inputdir="$run/regress" \
        --outputdir="$run/out" --dlpath="$run/regress" --bindir="$run" --use-existing --dbname=regression \
        --max-connections=1 --host=127.0.0.1 --port="$port" --user=postgres "${tests[@]}") \
        >"$folder/$name/summary" 2>&1 || true
    run_pipeline "$port"
    cp -r "$run/out/." "$folder/$name"
    rm -rf "$run/out"
}

# libpq's pipeline mode: each test's exit code, and the trace of its messages where that is always the same.
run_pipeline() {
    local port=$1 test out code trace
    local traced=" simple_pipeline nosync multi_pipelines prepared singlerow pipeline_abort pipeline_idle transaction \
disallowed_in_pipeline "
    ((${#only[@]})) && return
    user mkdir -p "$run/out/results"
    for test in $(user "$run/libpq_pipeline" tests); do
        out=$run/out/results/pipeline_$test.out code=0 trace=()
        [[ $traced != *" $test "* ]] || trace=(-t "$out")
        user PGOPTIONS='-c lc_messages=C -c force_parallel_mode=off' timeout 120 "$run/libpq_pipeline" -r 700 \
            "${trace[@]}" "$test" "host=127.0.0.1 port=$port user=postgres dbname=pipeline" \
            >"$folder/pipeline.log" 2>&1 || code=$?
        user sh -c 'echo "exit code $1" >>"$2"' sh "$code" "$out"
    done
}

# === other sessions ===

churn_sql() {
    cat <<SQL
SET work_mem = '$((64 + $1))kB';
SET search_path = churn_$1, public;
SET timezone = 'Etc/GMT+$1';
CREATE TEMP TABLE churn_$1 (id int);
INSERT INTO churn_$1 VALUES ($1);
PREPARE churn_$1 AS SELECT * FROM churn_$1;
EXECUTE churn_$1;
DEALLOCATE churn_$1;
SET ROLE regress_churn;
SELECT current_user;
RESET ROLE;
LISTEN churn_$1;
UNLISTEN churn_$1;
DROP TABLE churn_$1;
BEGIN;
SET LOCAL statement_timeout = 0;
SELECT set_config('churn.number', '$1', false);
ROLLBACK;
RESET ALL;
SQL
}

start_churn() {
    [[ -n $churn ]] || return 0
    local port=$1 number
    user "$bin/psql" -qX -p "$server_port" -d regression -c 'CREATE ROLE regress_churn'
    for number in $(seq "$churners"); do
        churn_sql "$number" >"$run/churn_$number.sql"
        touch "$run/churning"
        (
            while [[ -e $run/churning ]] && cat "$run/churn_$number.sql"; do sleep 0.5; done |
                user "$bin/psql" -qX -p "$port" -d regression >>"$folder/churn.log" 2>&1
        ) &
        pids+=($!)
    done
}

stop_churn() { [[ -z $run ]] || rm -f "$run/churning"; }

# === comparison ===

# Tests whose output is as expected, or the same both ways.
compare() {
    local name file different=() passed_direct passed_through
    : >"$folder/differences.diff"
    for file in "$folder"/direct/results/*.out; do
        name=$(basename "$file" .out)
        # Only some tests were run.
        [[ ${#only[@]} == 0 || -e $folder/through/results/$name.out ]] || continue
        cmp -s "$file" "$folder/through/results/$name.out" && continue
        # Output that may vary is what pg_regress has several expectations for.
        passed through "$name" && continue
        different+=("$name")
        diff -U3 "$file" "$folder/through/results/$name.out" >>"$folder/differences.diff" || true
    done
    passed_direct=$(grep -cE '\.\.\. +ok ' "$folder/direct/summary" || true)
    passed_through=$(grep -cE '\.\.\. +ok ' "$folder/through/summary" || true)
    echo "passed: direct $passed_direct, through Bulkhead $passed_through, of $(grep -cE '\.\.\. ' "$folder/direct/summary")"
    if ((${#different[@]})); then
        echo "different (see $folder/differences.diff): ${different[*]}"
        return 1
    fi
    echo "every test gives the same output through Bulkhead"
}

passed() { grep -qE "(^| )$2 +\.\.\. +ok " "$folder/$1/summary"; }

build_suite
if [[ -z ${BULKHEAD_BUILT:-} ]]; then cargo build --locked --quiet; fi
trap clean_up EXIT
prepare_run

: >"$folder/churn.log"
if [[ -n $direct ]]; then
    say "straight at the server"
    start_server
    start_churn "$server_port"
    run_suite direct "$server_port"
    stop_churn
fi

say "through Bulkhead: $pool backends"
start_server
start_bulkhead
start_churn "$bulkhead_port"
run_suite through "$bulkhead_port"
stop_churn
stop_bulkhead
compare
