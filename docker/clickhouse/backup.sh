#!/usr/bin/env bash
# Backs up all datasets, or restores them into an empty server:
#   docker compose exec clickhouse bash /opt/factory/backup.sh save|restore NAME
# Files that versions share are stored once. Provenance is keyed by the UUIDs of tables, which RESTORE alone would
# change: they are kept beside the backup, in NAME.sql.
set -euo pipefail
verb=${1:-} name=${2:-}
folder=${BACKUPS:-/var/lib/clickhouse/backups}
if [[ ! $verb =~ ^(save|restore)$ || ! $name =~ ^[A-Za-z0-9_-]+$ ]]; then
    echo "usage: backup.sh save|restore NAME, of letters, digits, - and _" >&2
    exit 2
fi

# Statements that make all databases and tables, with their UUIDs; sorted, databases come first.
tables() {
    local where="database NOT IN ('system', 'default', 'INFORMATION_SCHEMA', 'information_schema')"
    clickhouse-client --show_table_uuid_in_table_create_query_if_not_nil=1 --format=TSVRaw --query "
        SELECT DISTINCT concat('CREATE DATABASE IF NOT EXISTS ', char(96), database, char(96), ';')
        FROM system.tables WHERE $where
        UNION ALL SELECT concat(create_table_query, ';') FROM system.tables WHERE $where" | LC_ALL=C sort
}

if [[ $verb == save ]]; then
    [[ ! -e $folder/$name.sql ]] || { echo "There is a backup $name already." >&2; exit 1; }
    before=$(tables)
    clickhouse-client --query "BACKUP ALL EXCEPT DATABASES system, default TO File('$folder/$name')"
    after=$(tables)
    # A table that came or went meanwhile may or may not be in the backup: its UUID is not kept.
    LC_ALL=C comm -12 <(printf '%s\n' "$before") <(printf '%s\n' "$after") > "$folder/$name.sql"
else
    [[ -s $folder/$name.sql ]] || { echo "There is no backup $name in $folder." >&2; exit 1; }
    present=$(tables)
    [[ -z $present ]] || { echo "There are tables already; restore into an empty server." >&2; exit 1; }
    # What was copied into the container belongs to root; the server is another user.
    [[ $(id -u) != 0 || -z $(getent passwd clickhouse) ]] || chown -R clickhouse:clickhouse "$folder"
    clickhouse-client --multiquery < "$folder/$name.sql"
    clickhouse-client --query "RESTORE ALL FROM File('$folder/$name')"
fi
