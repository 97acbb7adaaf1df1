-- What a writer needs beside grants.sql on a cluster of replicas: to see the cluster, to make databases on all of its
-- hosts, to wait for replicas, and to make replicated tables. Run it ON CLUSTER, or keep users in Keeper.
GRANT SELECT ON system.clusters TO factory_writer;
GRANT SELECT ON system.macros TO factory_writer;
GRANT CLUSTER ON *.* TO factory_writer;
GRANT SYSTEM SYNC REPLICA ON *.* TO factory_writer;
GRANT TABLE ENGINE ON ReplicatedMergeTree TO factory_writer;
GRANT TABLE ENGINE ON ReplicatedReplacingMergeTree TO factory_writer;

-- For each dataset: replicated tables cannot be made read-only, so nobody may change the rows of versions. Staging
-- tables, in which versions are built, are called _stage_….
-- REVOKE ALTER UPDATE, ALTER DELETE ON laion.v* FROM factory_writer;
