"""A project that is operated for a week: its source, its code, Dagster's daemon over both, and what should come of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from dagster import partition_loading_context
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.partition_status_cache import build_failed_and_in_progress_partition_subset

from factory_lib import DatasetQuery
from factory_lib.orchestration.home import dagster_home
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.schema import ensure_tables
from tests.dagster_graph import SHARDS, tar_of
from tests.waiting import wait_for

PATIENCE = 400.0

GRAPH = '''
import time
from pathlib import Path

import dagster as dg

from factory_lib import C, DatasetQuery, signal
from factory_lib.orchestration.automation.sensor import FewRunsSensor
from factory_lib.orchestration.io_manager import VersionedTableIOManager
from factory_lib.orchestration.source.shard_watch import shard_sensor
from factory_lib.orchestration.source.shards import ShardSource, observe_shards
from factory_lib.orchestration.checks.sources import check_ingest
from factory_lib.orchestration.stage import stage
from factory_lib.orchestration.source.vanishing import check_all_there
from week_helper import measure
from week_threshold import LEAST

WEIGHTS = Path(__file__).with_name("weights.txt")
SHARD_FOLDER = Path(__file__).with_name("shards")
SOURCE = dg.AssetKey("source_shards")
SHARDS = dg.DynamicPartitionsDefinition(name="shards")


@signal(depends_on=[WEIGHTS])
def score(caption: str, image: bytes) -> int:
    if caption.startswith("slow"):
        time.sleep(0.03)
    return measure(caption) * int(WEIGHTS.read_text())


@dg.observable_source_asset(partitions_def=SHARDS)
def source_shards(source: ShardSource) -> dg.DataVersionsByPartition:
    return observe_shards(source)


@stage(group="week", partitions=SHARDS, deps=["source_shards"])
def samples(context: dg.AssetExecutionContext, source: ShardSource) -> DatasetQuery:
    """Samples."""
    return source.query(context.partition_keys)


@stage(group="week", partitions=SHARDS)
def scored(samples: DatasetQuery) -> DatasetQuery:
    """With a score."""
    return samples.add_signals(score)


@stage(group="week")
def good(scored: DatasetQuery) -> DatasetQuery:
    """Those with a high score."""
    return scored.filter(C.score >= LEAST)


@stage(group="week")
def training_set(good: DatasetQuery) -> DatasetQuery:
    """One sample of each caption."""
    return good.order_by("caption", "sample_id").distinct("caption").select("caption", "score")


@dg.asset_check(asset="samples")
def ingested():
    return check_ingest("samples")


@dg.asset_check(asset="source_shards")
def all_there(context):
    return check_all_there(context.instance, SOURCE)


defs = dg.Definitions(
    assets=[source_shards, samples, scored, good, training_set],
    asset_checks=[ingested, all_there],
    sensors=[
        shard_sensor(asset=SOURCE, partitions=SHARDS, seconds=1),
        FewRunsSensor("automation", description="Runs what is behind.", seconds=1),
    ],
    resources={"versions": VersionedTableIOManager(), "source": ShardSource(uri=str(SHARD_FOLDER))},
    executor=dg.in_process_executor,
)
'''
HELPER = "def measure(caption: str) -> int:\n    return len(caption) + {more}\n"


@dataclass(frozen=True)
class Done:
    """What came of an event.

    Attributes:
        runs: Dagster runs that there were.
        computed: values of signals that were computed.
        red: asset -> partitions that are shown as failed.
        checks: check -> whether it passed, "warn" or "error".
    """

    runs: int
    computed: int
    red: Mapping[str, list[str]]
    checks: Mapping[str, str]


@dataclass
class Week:
    """A project in a folder, and the daemon that runs it.

    Attributes:
        folder: of the project: `shards/` is its source.
        home: its data folder.
        instance: the same that the daemon has.
        captions: shard -> captions of the samples that can be read of it.
        broken_at: the event that is going on, or did not go well; what comes after it says nothing.
        least, more, weight: the constants in the project's code, helper and weights.
    """

    folder: Path
    home: Path
    instance: dg.DagsterInstance
    captions: dict[str, list[str]] = field(default_factory=dict)
    least: int = 0
    more: int = 0
    weight: int = 1
    broken_at: str = ""
    _daemon: subprocess.Popen[bytes] | None = None
    _since: float = 0.0
    _computed: int = 0

    def write(self) -> None:
        """Write the project's code and weights as they are to be."""
        texts = {
            "week_graph.py": GRAPH,
            "week_helper.py": HELPER.format(more=self.more),
            "week_threshold.py": f"LEAST = {self.least}\n",
            "weights.txt": str(self.weight),
        }
        for name, text in texts.items():
            if not (self.folder / name).exists() or (self.folder / name).read_text() != text:
                (self.folder / name).write_text(text)

    def put(self, shard: str, captions: list[str], data: bytes | None = None) -> None:
        """Put a shard at the source, at once as a crawler does; `captions` are those that can be read of it."""
        self.captions[shard] = captions
        beside = self.folder / f"{shard}.part"
        beside.write_bytes(tar_of(captions) if data is None else data)
        beside.rename(self.folder / "shards" / f"{shard}.tar")

    def take_away(self, shard: str) -> None:
        """Have a shard vanish from the source."""
        del self.captions[shard]
        (self.folder / "shards" / f"{shard}.tar").unlink()

    def expected(self) -> set[tuple[str, int]]:
        """Caption and score of what is to be trained on, by the definition of the project's stages."""
        every = {caption for captions in self.captions.values() for caption in captions}
        scores = {caption: (len(caption) + self.more) * self.weight for caption in every}
        return {(caption, value) for caption, value in scores.items() if value >= self.least}

    def start(self) -> None:
        """Start the daemon, with the code as it is now."""
        command = [sys.executable, "-m", "dagster._daemon", "run", "-m", "week_graph", "-d", str(self.folder)]
        variables = {**os.environ, "DAGSTER_HOME": str(dagster_home()), "PYTHONPATH": str(self.folder)}
        with open(self.folder.parent / "daemon.log", "ab") as log:
            self._daemon = subprocess.Popen(
                command, env=variables, cwd=self.folder, start_new_session=True, stdout=log, stderr=log
            )

    def kill_daemon(self, number: int = signal.SIGKILL) -> None:
        """Stop the daemon and all that it started."""
        if self._daemon is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._daemon.pid, number)
            self._daemon.wait()

    def restart(self) -> None:
        """What is done when the code has changed."""
        self.write()
        self.kill_daemon(signal.SIGTERM)
        self.kill_daemon()
        self.start()

    @contextlib.contextmanager
    def event(self) -> Iterator[None]:
        """Count from the beginning of the block what comes of it."""
        self._computed = self._values_computed()
        self._since = time.time()
        yield

    def settled(self, until: Callable[[], bool] = lambda: True) -> Done:
        """Wait until nothing more comes of the event.

        Raises:
            AssertionError: that takes too long; the message has the end of the daemon's log.
        """
        deadline = time.monotonic() + PATIENCE
        while not (self._is_settled() and until()):
            if time.monotonic() > deadline:
                raise AssertionError(f"Not settled after {PATIENCE:.0f} s.\n{self.log()}")
            time.sleep(0.5)
        return Done(len(self.since()), self._values_computed() - self._computed, self._red(), self._checks())

    def running(self) -> list[dg.DagsterRun]:
        """Runs under way."""
        return list(self.instance.get_runs(dg.RunsFilter(statuses=list(NOT_FINISHED_STATUSES))))

    def processes(self, words: str) -> list[int]:
        """Processes of this project whose command line has these words."""
        found = []
        mine = f"FACTORY_HOME={self.home}".encode()
        for one in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (one / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                is_mine = str(self.home) in command or mine in (one / "environ").read_bytes().split(b"\0")
                if words in command and is_mine:
                    found.append(int(one.name))
        return found

    def kill(self, words: str) -> None:
        """Kill the processes of this project whose command line has these words."""
        for one in self.processes(words):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)

    def wait(self, what: Callable[[], object]) -> None:
        """Wait for something to happen."""
        wait_for(what, PATIENCE, self.log)

    def log(self) -> str:
        """The end of what the daemon said."""
        return (self.folder.parent / "daemon.log").read_text(errors="replace")[-6000:]

    def run_what_is_behind(self) -> None:
        """What an operator does when the cause of a failure is gone."""
        text = (
            "from factory_lib.orchestration.home import factory_instance\n"
            "from factory_lib.orchestration.runs.running import run_graph\n"
            "import week_graph\n"
            "with factory_instance() as instance:\n"
            "    assert not run_graph(instance, week_graph.defs).errors"
        )
        subprocess.run([sys.executable, "-c", text], cwd=self.folder, check=True)

    def training_set(self) -> set[tuple[str, int]]:
        """Caption and score of what is trained on."""
        rows = DatasetQuery("training_set").select("caption", "score").to_arrow()
        return set(zip(rows["caption"].to_pylist(), rows["score"].to_pylist(), strict=True))

    def since(self) -> list[dg.RunRecord]:
        """The runs that there were since the event began."""
        return [one for one in self.instance.get_run_records() if one.create_timestamp.timestamp() >= self._since]

    def _is_settled(self) -> bool:
        """Whether the source has been looked at since, and then the automation, which found nothing to do."""
        if self.running() or self.instance.get_backfills(status=BulkActionStatus.REQUESTED, limit=1):
            return False
        ended = max((one.end_time or 0.0 for one in self.since()), default=0.0)
        looked = self._last_tick("shard_watch")
        asked = self._last_tick("automation")
        if looked is None or asked is None or looked.timestamp < max(self._since, ended):
            return False
        quiet = looked.status == TickStatus.SKIPPED and "Nothing changed" in (looked.tick_data.skip_reason or "")
        if "being told of" in (asked.tick_data.skip_reason or ""):
            return False
        return quiet and asked.status == TickStatus.SKIPPED and asked.timestamp > max(looked.timestamp - 1, ended)

    def _last_tick(self, sensor: str) -> InstigatorTick | None:
        for state in self.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
            if state.origin.instigator_name == sensor:
                ticks = self.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
                return ticks[0] if ticks else None
        return None

    def _values_computed(self) -> int:
        wh = warehouse()
        ensure_tables(wh)
        return int(wh.scalar("SELECT sum(JSONExtractUInt(record, 'computed')) FROM factory.versions") or 0)

    def _red(self) -> dict[str, list[str]]:
        found = {}
        for asset in ("samples", "scored"):
            with partition_loading_context(dynamic_partitions_store=self.instance):
                subset, _, _ = build_failed_and_in_progress_partition_subset(
                    self.instance, dg.AssetKey(asset), SHARDS, self.instance
                )
                if keys := sorted(subset.get_partition_keys()):
                    found[asset] = keys
        return found

    def _checks(self) -> dict[str, str]:
        keys = [
            dg.AssetCheckKey(dg.AssetKey(asset), name)
            for asset, name in (("samples", "ingested"), ("source_shards", "all_there"))
        ]
        found = {}
        for key, record in self.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys).items():
            event = record.event.dagster_event if record.event else None
            told = event.event_specific_data if event else None
            if isinstance(told, dg.AssetCheckEvaluation):
                found[key.name] = "passed" if told.passed else told.severity.value.lower()
            else:
                found[key.name] = "not executed"
        return found
