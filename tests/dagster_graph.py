"""A small graph on real tars, and a stand-in for the daemon: what the Dagster tests are about."""

from __future__ import annotations

import contextlib
import functools
import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from factory_lib import DatasetQuery, fn
from factory_lib.orchestration.automation.sensor import FewRunsSensor
from factory_lib.orchestration.io_manager import VersionedTableIOManager
from factory_lib.orchestration.source.shard_changes import apply_changes, shard_changes
from factory_lib.orchestration.source.shards import ShardSource, observe_shards
from factory_lib.orchestration.stage import stage
from factory_lib.plan.expressions import C

SHARDS = dg.DynamicPartitionsDefinition(name="shards")
SOURCE = dg.AssetKey("source_shards")
ORDER = ["samples", "measured", "kept", "chosen"]


def tar_of(captions: Sequence[str]) -> bytes:
    """A webdataset tar with a (tiny, not decodable) image and a caption a sample."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for index, caption in enumerate(captions):
            for extension, data in (("jpg", b"\xff\xd8" + bytes(50)), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{index:04d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def write_tar(path: Path, captions: Sequence[str]) -> None:
    """Put such a tar into a file, replaced at once, as a crawler would."""
    path.with_suffix(".part").write_bytes(tar_of(captions))
    path.with_suffix(".part").rename(path)


@dataclass(frozen=True)
class Code:
    """What a developer may change in the graph: each value is a constant in the body of one stage.

    Attributes:
        unit: `measured` multiplies the number of characters by it.
        note: `measured` adds its length and takes it off again: other code, the same data.
        least: `kept` keeps rows whose measure is at least this.
        extra: the graph has one more stage at its end, `extra`.
        columns: `measured` has a column `note` instead of `caption`.
    """

    unit: int = 1
    note: str = ""
    least: int = 0
    extra: bool = False
    columns: bool = False


def over_samples(folder: Path, *stages: dg.AssetsDefinition) -> dg.Definitions:
    """source_shards -> samples (a partition a shard) -> stages."""

    @dg.observable_source_asset(partitions_def=SHARDS)
    def source_shards(source: ShardSource) -> dg.DataVersionsByPartition:
        return observe_shards(source)

    @stage(group="test", partitions=SHARDS, deps=["source_shards"])
    def samples(context: dg.AssetExecutionContext, source: ShardSource) -> DatasetQuery:
        """Samples."""
        return source.query(context.partition_keys)

    return dg.Definitions(
        assets=[source_shards, samples, *stages],
        resources={"versions": VersionedTableIOManager(), "source": ShardSource(uri=str(folder))},
        executor=dg.in_process_executor,
    )


def graph(folder: Path, code: Code = Code()) -> dg.Definitions:
    """source_shards -> samples -> measured -> kept (a partition a shard) -> chosen (the whole dataset)."""
    unit, note, least, other_columns = code.unit, code.note, code.least, code.columns

    @stage(group="test", partitions=SHARDS)
    def measured(samples: DatasetQuery) -> DatasetQuery:
        """Samples with a measure; a caption `bad` cannot be measured."""
        number = fn.throwIf(C.caption == "bad", "caption is bad") + fn.length(C.caption) * unit
        measured = samples.mutate(measure=number + len(note) - len(note))
        return measured.rename(note="caption") if other_columns else measured

    @stage(group="test", partitions=SHARDS)
    def kept(measured: DatasetQuery) -> DatasetQuery:
        """Samples with a large measure."""
        return measured.filter(C.measure >= least)

    @stage(group="test")
    def chosen(kept: DatasetQuery) -> DatasetQuery:
        """One sample of each measure, over all shards."""
        return kept.order_by("measure", "sample_id").distinct("measure")

    stages = [measured, kept, chosen]
    if code.extra:

        @stage(group="test", partitions=SHARDS)
        def extra(kept: DatasetQuery) -> DatasetQuery:
            """A stage that was added later."""
            return kept.mutate(twice=C.measure * 2)

        stages.append(extra)
    return over_samples(folder, *stages)


def look(instance: dg.DagsterInstance, folder: Path) -> None:
    """What the shard sensor does: tell the instance how the source changed."""
    listing = ShardSource(uri=str(folder)).open().listing()
    stages = [dg.AssetKey(name) for name in ORDER[:3]]
    changes = shard_changes(instance, listing, asset=SOURCE, partitions="shards", stages=stages)
    apply_changes(instance, changes, asset=SOURCE, partitions="shards", source=str(folder))


def run(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    assets: Sequence[str],
    partitions: Sequence[str] = (),
    *,
    tags: Mapping[str, str] | None = None,
) -> dg.ExecuteInProcessResult:
    """Materialize assets in one run, for no partition, one, or a range of them."""
    if len(partitions) > 1:
        ends = {ASSET_PARTITION_RANGE_START_TAG: partitions[0], ASSET_PARTITION_RANGE_END_TAG: partitions[-1]}
        tags = {**(tags or {}), **ends}
    return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(name) for name in assets],
        partition_key=partitions[0] if len(partitions) == 1 else None,
        tags=tags,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )


@contextlib.contextmanager
def partitions_asked_for_once(instance: dg.DagsterInstance) -> Iterator[None]:
    """Dynamic partitions as they are now: an evaluation asks for them hundreds of times."""
    asked = functools.cache(instance.get_dynamic_partitions)
    instance.get_dynamic_partitions = asked  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        del instance.get_dynamic_partitions


@dataclass
class Daemon:
    """Evaluates the automation's sensor and carries out what it requests, as Dagster's daemon does.

    Attributes:
        runs: what was run: assets in the order of the graph, and partitions.
        made: what these runs recorded, run by run: asset to partitions, () for an asset without.
    """

    instance: dg.DagsterInstance
    cursor: str | None = None
    runs: list[tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)
    made: list[dict[str, tuple[str, ...]]] = field(default_factory=list)

    def tick(self, definitions: dg.Definitions) -> list[dg.RunRequest]:
        """One evaluation, and the runs that it requests."""
        requests = self.evaluate(definitions)
        for request in requests:
            self._carry_out(definitions, request)
        return requests

    def evaluate(self, definitions: dg.Definitions) -> list[dg.RunRequest]:
        """What would be requested now."""
        sensor = FewRunsSensor("automation", description="", rest=0)
        found = dg.Definitions.merge(definitions, dg.Definitions(sensors=[sensor]))
        context = dg.build_sensor_context(self.instance, cursor=self.cursor, definitions=found)
        with partitions_asked_for_once(self.instance), context:
            result = sensor.evaluate_tick(context)
        self.cursor = result.cursor
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        return list(result.run_requests or ())

    def settle(self, definitions: dg.Definitions, ticks: int = 10) -> int:
        """Evaluate until nothing is requested any more, and count the ticks that requested something."""
        for count in range(ticks):
            if not self.tick(definitions):
                return count
        raise AssertionError(f"still not settled after {ticks} ticks: {self.runs}")

    def clear(self) -> None:
        """Forget what was run."""
        self.runs.clear()
        self.made.clear()

    def _carry_out(self, definitions: dg.Definitions, request: dg.RunRequest) -> None:
        keys = definitions.resolve_asset_graph().toposorted_asset_keys
        names = tuple(key.to_user_string() for key in keys if key in (request.asset_selection or ()))
        partitions = (request.partition_key,) if request.partition_key else ()
        if ASSET_PARTITION_RANGE_START_TAG in request.tags:
            order = self.instance.get_dynamic_partitions("shards")
            first, last = (request.tags[t] for t in (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG))
            partitions = tuple(order[order.index(first) : order.index(last) + 1])
        assert request.asset_check_keys is None, "all checks of the stages run with them"
        result = run(definitions, self.instance, names, partitions, tags=request.tags)
        made: dict[str, tuple[str, ...]] = {}
        for event in result.get_asset_materialization_events():
            name = event.asset_key.to_user_string()
            made[name] = (*made.get(name, ()), *([event.partition] if event.partition else []))
        self.runs.append((names, partitions))
        self.made.append(made)


def data_version(instance: dg.DagsterInstance, asset: str, partition: str | None = None) -> str | None:
    """Data version in the newest materialization of an asset, or of one of its partitions."""
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=None if partition is None else [partition]), limit=1
    ).records
    if not found or found[0].asset_materialization is None:
        return None
    return (found[0].asset_materialization.tags or {}).get(DATA_VERSION_TAG)


def partition_status(instance: dg.DagsterInstance, asset: str) -> dict[str, str]:
    """What the UI shows of each partition of an asset."""
    found = instance.get_status_by_partition(
        dg.AssetKey(asset), instance.get_dynamic_partitions("shards"), partitions_def=SHARDS
    )
    return {key: status.value.lower() if status is not None else "missing" for key, status in (found or {}).items()}
