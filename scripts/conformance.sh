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
# target/conformance. Results are left there too: direct/ and through/ (with --churn, direct-churn/ and
# through-churn/), and their differences in differences.diff.
# Exits with 0 if nothing differs but what is known to (below), and no session saw another's state.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Backends that all sessions share.
pool=4
churners=8
# Tests that create what others use.
set_up=(test_setup create_index create_misc create_type)

# Tests that cannot be the same, why, and what differs: the lines as diff gives them, as a regular expression.
declare -A known_lines known_reasons
known_reasons[guc]="an earlier session has loaded plpgsql on the same backend, and a library cannot be unloaded"
known_lines[guc]='> ERROR:  invalid configuration parameter name "plpgsql.extra_foo_warnings"
> DETAIL:  "plpgsql" is a reserved prefix.
< WARNING:  invalid configuration parameter name "plpgsql.extra_foo_warnings", removing it
< DETAIL:  "plpgsql" is now a reserved prefix.'
known_reasons[stats]="pg_stat_database.sessions counts the server's sessions: a client that comes again is not a new one"
known_lines[stats]='<  t
---
>  f'

# While other sessions use the same backends: a test may differ so or not, from run to run.
expect_churn() {
    local why rest="| [-+]+| \([0-9]+ rows?\)| )|---)"$'\n'"?)+"
    known_reasons[stats]="what a session counts on one backend is shown to it on another one only when it is flushed"
    known_lines[stats]="(([<>]( +[tf]( +\| [tf])*| +[0-9]+| +[a-z0-9_]+ +(\|[ 0-9]+)+$rest"
    known_reasons[temp]="an earlier session has used temporary tables on the same backend: its temporary schema is there"
    known_lines[temp]='< ERROR:  cannot PREPARE a transaction that has operated on temporary objects'
    why="only when it calls currval is a session known to need the backend of its nextval; a default may hide the call"
    known_reasons[sequence]=$why
    known_lines[sequence]="(([<>]( .*currval.*| +[0-9]+$rest"
    known_reasons[constraints]=$why
    known_lines[constraints]="(([<>]( .*(currval|insert_tbl|check failed|NULL).*| +[a-z0-9]+ \|.*$rest"
    known_reasons[triggers]="what a function in C keeps in its library is not known before the catalog is read again"
    known_lines[triggers]="(([<>]( .*ttdummy.*| +[0-9]+( +\| +-?[0-9]+)*$rest"
    why="other sessions' snapshots keep VACUUM from marking pages as visible to all; so straight at the server"
    known_reasons[create_index]=$why
    known_lines[create_index]="(([<>]( .*(QUERY PLAN|Scan|Cond:|Filter:|Sort).*$rest"
    known_reasons[maintain_every]="ANALYZE meets a temporary table that its session is dropping; so straight at the server"
    known_lines[maintain_every]="(([<>]( ERROR:  relation with OID [0-9]+ does not exist| +[0-9]+ \| [tf]$rest"
}

churn=
only_through=
only=()
for argument in "$@"; do
    case $argument in
    --churn) churn=yes ;;
    --through) only_through=yes ;;
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
    # The other sessions end with what they talk to.
    rm -f "$run/churning"
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
# The other sessions pin backends too, for moments: one waits for another instead of being refused.
max_pinned = $pool
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

# Every round prints the same, or the session has seen state that is not its own. It listens while it holds no
# backend: for the connection that listens for all, a place in the pool must come free.
churn_sql() {
    cat <<SQL
SET work_mem = '$((64 + $1))kB';
SET search_path = churn_$1, public;
SET timezone = 'Etc/GMT+$1';
SET datestyle = 'German';
SET intervalstyle = 'iso_8601';
SET extra_float_digits = -5;
SET bytea_output = 'escape';
SET client_encoding = 'LATIN1';
SET enable_seqscan = off;
SET default_transaction_isolation = 'repeatable read';
-- The event triggers of tests are not for these tables, or at least not their messages.
SET session_replication_role = replica;
SET client_min_messages = warning;
SELECT 'churn $1:', current_setting('work_mem'), current_setting('search_path'), current_setting('timezone'),
    '2000-01-31 12:00:00+00'::timestamptz, '1 day 2 hours'::interval, 1.0000000001::float8, '\x00ff'::bytea,
    current_setting('client_encoding'), current_setting('transaction_isolation');
CREATE TEMP TABLE churn_$1 (id int GENERATED ALWAYS AS IDENTITY, who int);
INSERT INTO churn_$1 (who) VALUES ($1);
PREPARE churn_$1 AS SELECT id, who FROM churn_$1;
EXECUTE churn_$1;
DEALLOCATE churn_$1;
SELECT name FROM pg_prepared_statements WHERE from_sql;
DECLARE churn_$1 CURSOR WITH HOLD FOR SELECT $1 FROM churn_$1;
FETCH churn_$1;
CLOSE churn_$1;
SELECT name FROM pg_cursors;
DROP TABLE churn_$1;
SET ROLE regress_churn;
SELECT current_user, session_user;
RESET ROLE;
SET SESSION AUTHORIZATION regress_churn;
SELECT current_user, session_user;
RESET SESSION AUTHORIZATION;
LISTEN churn_$1;
SELECT pg_listening_channels();
UNLISTEN churn_$1;
DO 'BEGIN PERFORM $1; END';
BEGIN;
SET LOCAL statement_timeout = 0;
SELECT set_config('churn.number', '$1', false);
SAVEPOINT churn_$1;
SET enable_hashjoin = off;
ROLLBACK TO churn_$1;
SET enable_mergejoin = off;
COMMIT;
BEGIN;
SET work_mem = '${1}MB';
SELECT 1 / 0;
ROLLBACK;
SELECT current_setting('enable_hashjoin'), current_setting('enable_mergejoin'), current_setting('churn.number'),
    current_setting('work_mem');
RESET ALL;
SELECT current_user, current_setting('work_mem'), current_setting('search_path'), current_setting('timezone'),
    current_setting('enable_mergejoin'), current_setting('statement_timeout'), current_setting('client_encoding'),
    coalesce(current_setting('churn.number', true), '');
\echo end of round
SQL
}

churn_pids=()

# start_churn NAME PORT
start_churn() {
    [[ -n $churn ]] || return 0
    local name=$1 port=$2 number psql=("$run/psql" -qXAt -d regression)
    user "${psql[@]}" -p "$server_port" -c 'CREATE ROLE regress_churn'
    touch "$run/churning"
    for number in $(seq "$churners"); do
        churn_sql "$number" >"$run/churn_$number.sql"
        # What a round gives when nobody else is there.
        user "${psql[@]}" -p "$server_port" <"$run/churn_$number.sql" 2>&1 | one_line_a_round >"$run/round_$number"
        (
            while [[ -e $run/churning ]] && cat "$run/churn_$number.sql"; do sleep 1; done |
                user "${psql[@]}" -p "$port" >"$run/$name.churn_$number" 2>&1
        ) &
        churn_pids+=($!)
    done
}

# Ends the other sessions after their rounds.
stop_churn() {
    local pid
    rm -f "$run/churning"
    for pid in "${churn_pids[@]}"; do
        timeout 60 tail --pid="$pid" -f /dev/null || say "another session does not end"
    done
    churn_pids=()
}

one_line_a_round() {
    awk '{ line = line $0 " / " } /^end of round/ { print line; line = "" } END { if (line) print line "(no end)" }'
}

# check_churn NAME: whether all rounds of the other sessions gave what they give alone.
check_churn() {
    [[ -n $churn ]] || return 0
    local name=$1 number rounds=0 odd=0
    for number in $(seq "$churners"); do
        one_line_a_round <"$run/$name.churn_$number" >"$run/rounds"
        rounds=$((rounds + $(wc -l <"$run/rounds")))
        grep -vxF -f "$run/round_$number" "$run/rounds" >"$run/odd" || continue
        odd=$((odd + $(wc -l <"$run/odd")))
        { echo "$name: session $number alone gives"; cat "$run/round_$number"; echo "but gave"; cat "$run/odd"; } \
            >>"$folder/other_sessions"
    done
    echo "other sessions, $name: $rounds rounds, $odd of them not as alone"
    ((odd == 0)) || { echo "(see $folder/other_sessions)"; return 1; }
}

# === comparison ===

tests_of() { grep -oE "[a-z0-9_.]+ +\.\.\. +$2" "$folder/$1/summary" | cut -d' ' -f1; }
passed() { tests_of "$1" ok | grep -x "$2" >/dev/null; }
pipeline_passed() { grep -lx 'exit code 0' "$folder/$1"/results/pipeline_*.out 2>/dev/null | wc -l; }

# Tests whose output is as expected, or the same both ways.
compare() {
    local name lines file different=() known=() now_same=() failed
    : >"$folder/differences.diff"
    for file in "$folder/$direct"/results/*.out; do
        name=$(basename "$file" .out)
        # Only some tests were run.
        [[ ${#only[@]} == 0 || -e $folder/$through/results/$name.out ]] || continue
        # Output that may vary is what pg_regress has several expectations for.
        if cmp -s "$file" "$folder/$through/results/$name.out" || passed "$through" "$name"; then
            # Other sessions make a difference only now and then; a test alone may, too.
            [[ -z ${known_lines[$name]:-} || -n $churn || ${#only[@]} != 0 ]] || now_same+=("$name")
            continue
        fi
        diff -U3 "$file" "$folder/$through/results/$name.out" >>"$folder/differences.diff" || true
        lines=$(diff "$file" "$folder/$through/results/$name.out" | grep -vE '^[0-9]' || true)
        if [[ -n ${known_lines[$name]:-} && $lines =~ ^(${known_lines[$name]})$ ]]; then
            known+=("$name")
        else
            different+=("$name")
        fi
    done
    echo "passed: direct $(tests_of "$direct" ok | wc -l), through Bulkhead $(tests_of "$through" ok | wc -l)," \
        "of $(tests_of "$direct" '' | wc -l)"
    ((${#only[@]})) || echo "passed of libpq's pipeline tests: direct $(pipeline_passed "$direct")," \
        "through Bulkhead $(pipeline_passed "$through"), of $(ls "$folder/$direct"/results/pipeline_*.out | wc -l)"
    failed=$(tests_of "$direct" FAILED | tr '\n' ' ')
    [[ -z $failed ]] || echo "fail straight at the server, too (the suite may be of another minor version): $failed"
    for name in "${known[@]}"; do echo "known difference: $name: ${known_reasons[$name]}"; done
    for name in "${now_same[@]}"; do echo "a known difference, but not this time: $name"; done
    if ((${#different[@]})); then
        echo "different (see $folder/differences.diff): ${different[*]}"
        return 1
    fi
    echo "every other test gives the same output through Bulkhead"
}

build_suite
if [[ -z ${BULKHEAD_BUILT:-} ]]; then cargo build --locked --quiet; fi
trap clean_up EXIT
prepare_run
rm -f "$folder/other_sessions"
failures=0
[[ -z $churn ]] || expect_churn

direct=direct${churn:+-churn} through=through${churn:+-churn}
if [[ -z $only_through ]]; then
    say "straight at the server"
    start_server
    start_churn "$direct" "$server_port"
    run_suite "$direct" "$server_port"
    stop_churn
    check_churn "$direct" || failures=1
fi

say "through Bulkhead: $pool backends"
start_server
start_bulkhead
start_churn "$through" "$bulkhead_port"
run_suite "$through" "$bulkhead_port"
stop_churn
check_churn "$through" || failures=1
stop_bulkhead
compare || failures=1
exit "$failures"
