"""Resources, read from the environment once when the code location loads."""

import dagster as dg

from factory_lib.orchestration.io_manager import VersionedTableIOManager
from factory_lib.orchestration.source.shards import ShardSource
from factory_lib.settings import settings


@dg.definitions
def resources() -> dg.Definitions:
    """The IO manager of all stages, the source of shards, and an executor that starts no process a step."""
    given = settings()
    return dg.Definitions(
        resources={
            "versions": VersionedTableIOManager(),
            "source": ShardSource.mapped(given.source or "", given.tars_per_shard, given.mapping),
        },
        # Steps run in the run's own process: a process each would cost 6 CPU-seconds to import what the run has loaded.
        executor=dg.in_process_executor,
    )
