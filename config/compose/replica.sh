#!/bin/sh
# The replica's start: copies the primary into an empty data folder, then streams from it.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    PGPASSWORD=$REPLICATION_PASSWORD pg_basebackup --host primary --username replication --pgdata "$PGDATA" \
        --wal-method stream --write-recovery-conf
    chmod 0700 "$PGDATA"
fi
exec postgres
