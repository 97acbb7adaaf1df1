"""A small graph on real tars, and a stand-in for the daemon: what the Dagster tests are about."""

from __future__ import annotations

import contextlib
import functools
import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from factory_lib import DatasetQuery, fn
from factory_lib.orchestration.io_manager import VersionedTableIOManager
from factory_lib.orchestration.shards import ShardSource, apply_changes, observe_shards, shard_changes
from factory_lib.orchestration.stage import stage
from factory_lib.plan.expressions import C

SHARDS = dg.DynamicPartitionsDefinition(name="shards")
SOURCE = dg.AssetKey("source_shards")
ORDER = ["samples", "measured", "kept", "chosen"]


def write_tar(path: Path, captions: Sequence[str]) -> None:
    """A webdataset tar with a (tiny, not decodable) image and a caption a sample; replaced at once, as a crawler would."""
    with tarfile.open(path.with_suffix(".part"), "w") as tar:
        for index, caption in enumerate(captions):
            for extension, data in (("jpg", b"\xff\xd8" + bytes(50)), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{index:04d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
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
    shards = ShardSource(uri=str(folder)).open().shards()
    stages = [dg.AssetKey(name) for name in ORDER[:3]]
    changes = shard_changes(instance, shards, asset=SOURCE, partitions="shards", stages=stages)
    apply_changes(instance, changes, asset=SOURCE, partitions="shards")


def run(
    definitions: dg.Definitions, instance: dg.DagsterInstance, assets: Sequence[str], partitions: Sequence[str] = ()
) -> dg.ExecuteInProcessResult:
    """Materialize assets in one run, for no partition, one, or a range of them."""
    tags = {}
    if len(partitions) > 1:
        tags = {ASSET_PARTITION_RANGE_START_TAG: partitions[0], ASSET_PARTITION_RANGE_END_TAG: partitions[-1]}
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
    """Evaluates automation conditions and runs what they request, as Dagster's daemon does.

    A request for several partitions is carried out as its backfills are: upstream first, and a partition whose upstream
    failed is given up.
    """

    instance: dg.DagsterInstance
    cursor: object = None
    runs: list[tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)

    def tick(self, definitions: dg.Definitions) -> dict[str, tuple[str, ...]]:
        """One evaluation.

        Returns:
            What was requested: asset to partitions, () for an asset without partitions.
        """
        wanted = self.evaluate(definitions)
        self._carry_out(definitions, wanted)
        return wanted

    def evaluate(self, definitions: dg.Definitions) -> dict[str, tuple[str, ...]]:
        """What would be requested now."""
        with partitions_asked_for_once(self.instance):
            result = dg.evaluate_automation_conditions(definitions, self.instance, cursor=self.cursor)  # type: ignore[arg-type]
        self.cursor = result.cursor
        wanted: dict[str, tuple[str, ...]] = {}
        for found in result.results:
            subset = found.true_subset
            if not subset.is_empty:
                keys = subset.expensively_compute_partition_keys() if subset.is_partitioned else ()
                wanted[found.key.to_user_string()] = tuple(sorted(keys))
        return wanted

    def settle(self, definitions: dg.Definitions, ticks: int = 10) -> list[dict[str, tuple[str, ...]]]:
        """Evaluate until nothing is requested any more, and say what was, tick by tick."""
        seen = []
        for _ in range(ticks):
            wanted = self.tick(definitions)
            if not wanted:
                return seen
            seen.append(wanted)
        raise AssertionError(f"still not settled after {ticks} ticks: {seen}")

    def _carry_out(self, definitions: dg.Definitions, wanted: dict[str, tuple[str, ...]]) -> None:
        self._failed: set[str] = set()
        todo = {name: wanted[name] for name in [*ORDER, "extra"] if name in wanted}
        groups: dict[tuple[str, ...], list[str]] = {}
        for name, partitions in todo.items():
            groups.setdefault(partitions, []).append(name)
        for partitions, names in groups.items():
            upstream = ORDER.index(names[0]) - 1 if names[0] in ORDER else ORDER.index("kept")
            lost = {p for p in partitions if upstream >= 0 and ORDER[upstream] in wanted and p in self._failed}
            for piece in self._neighbours(tuple(p for p in partitions if p not in lost)):
                if partitions and not piece:
                    continue
                self.runs.append((tuple(names), piece))
                result = run(definitions, self.instance, names, piece)
                made = {
                    e.partition for e in result.get_asset_materialization_events() if e.asset_key.path[-1] == names[-1]
                }
                self._failed |= set(piece) - made

    def _neighbours(self, partitions: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if not partitions:
            yield ()
            return
        piece: list[str] = []
        for key in [*self.instance.get_dynamic_partitions("shards"), None]:
            if key in partitions:
                piece.append(str(key))
            elif piece:
                yield tuple(piece)
                piece = []


def data_version(instance: dg.DagsterInstance, asset: str, partition: str | None = None) -> str | None:
    """Data version in the newest materialization of an asset, or of one of its partitions."""
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=None if partition is None else [partition]), limit=1
    ).records
    if not found or found[0].asset_materialization is None:
        return None
    return (found[0].asset_materialization.tags or {}).get(DATA_VERSION_TAG)
