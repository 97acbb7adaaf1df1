-- What a user of Dataset Factory needs on any ClickHouse server; users.xml holds the same for the one of compose.yaml.
-- Then: CREATE USER factory IDENTIFIED BY '…'; GRANT factory_writer TO factory;

-- Makes and drops versions. A dataset is a database of any name, so the grants are for all but the system's.
CREATE ROLE IF NOT EXISTS factory_writer;
GRANT SHOW DATABASES, SHOW TABLES, SHOW COLUMNS, SELECT, INSERT, ALTER TABLE, CREATE DATABASE, CREATE TABLE, DROP TABLE,
    OPTIMIZE ON *.* TO factory_writer;
REVOKE SELECT, INSERT, ALTER TABLE, CREATE TABLE, DROP TABLE, OPTIMIZE ON system.* FROM factory_writer;
GRANT SELECT ON system.parts TO factory_writer;
GRANT SELECT ON system.parts_columns TO factory_writer;
GRANT SELECT ON system.mutations TO factory_writer;
GRANT SELECT ON system.merges TO factory_writer;
GRANT SELECT ON system.disks TO factory_writer;
GRANT SELECT ON system.storage_policies TO factory_writer;
GRANT SELECT ON system.data_skipping_indices TO factory_writer;
GRANT SELECT ON system.detached_tables TO factory_writer;
GRANT TABLE ENGINE ON MergeTree TO factory_writer;
GRANT TABLE ENGINE ON ReplacingMergeTree TO factory_writer;
GRANT TABLE ENGINE ON Memory TO factory_writer;

-- Reads every version: queries, `factory sql`, training. Give single datasets by `SELECT ON laion.*` instead of `*.*`,
-- together with `SELECT ON factory.*`, which holds provenance.
CREATE ROLE IF NOT EXISTS factory_reader;
GRANT SHOW DATABASES, SHOW TABLES, SHOW COLUMNS, SELECT ON *.* TO factory_reader;
REVOKE SELECT ON system.* FROM factory_reader;
GRANT SELECT ON system.parts TO factory_reader;
GRANT SELECT ON system.parts_columns TO factory_reader;
