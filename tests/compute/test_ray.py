"""Signals on a Ray cluster of three nodes: the same values as here, whatever becomes of nodes, workers and samples."""

from __future__ import annotations

import os
import re
import signal as system_signals
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factory_lib import DatasetQuery, signal
from factory_lib.build import lacking, signal_rows
from factory_lib.build.ledger import Ledger
from factory_lib.build.session import discard, staged
from factory_lib.compute.cluster import pieces
from factory_lib.compute.cluster.worker import Greeting, check_warehouse
from factory_lib.errors import EngineError, ExecutorError, SettingsError, SignalError
from factory_lib.progress import reporting
from factory_lib.signals import Signal, env
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import Version
from tests.measured import both, counts, length, level, look, picture, vector, write
from tests.ray_nodes import nodes

__all__ = ["nodes"]
SAMPLES = 120


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many pieces of few rows."""
    monkeypatch.setattr(signal_rows, "SMALL_ROWS", 0)
    monkeypatch.setattr(lacking, "SPAN_ROWS", 8)
    monkeypatch.setattr("factory_lib.build.on_ray.SPAN_ROWS", 8)
    monkeypatch.setattr(pieces, "FIRST_PIECE_ROWS", 24)
    monkeypatch.setattr(pieces, "PIECE_SECONDS", 0.1)


@pytest.fixture(scope="module")
def samples(engine_for_all: None, tmp_path_factory: pytest.TempPathFactory) -> DatasetQuery:
    """Three shards; every tenth picture is none, and every seventh caption is missing."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(3):
        rows = {
            f"k{shard}{i:03d}": (picture(i) if i % 10 else b"no picture", f"caption {i}") for i in range(SAMPLES // 3)
        }
        write(folder / f"{shard}.tar", rows)
    return DatasetQuery(DatasetQuery.from_source(str(folder)).save("samples"))


def column(version: Version, name: str) -> dict[str, Any]:
    table = DatasetQuery(version).select("key", name, f"{name}_error").to_arrow()
    return {key: (value, error) for key, value, error in zip(*(c.to_pylist() for c in table.columns), strict=True)}


def test_values_and_fingerprints_are_those_of_the_local_pool(nodes: Any, samples: DatasetQuery) -> None:
    known = np.arange(2**18, dtype=np.float64)  # two MiB, which do not travel in the pickle

    class Where:
        def setup(self) -> None:
            self.process = os.getppid()

        def __call__(self, image: bytes) -> int:
            return self.process

    def table(caption: str) -> float:
        return float(known[len(caption) * 1000])

    heavy = signal(table)
    signals = [level, look, vector, length, both, heavy]
    where = signal(Where, name="worker")
    version = samples.add_signals(*signals, where).save("on_ray", executor="ray")
    assert counts(version) == (0, 7 * SAMPLES)
    assert len({worker for worker, _ in column(version, "worker").values()}) == 3
    assert column(version, "table")["k0012"] == (10_000.0, None)
    assert column(version, "level")["k1013"] == (13, None)
    assert column(version, "level")["k1010"] == (None, "UnidentifiedImageError: cannot identify image file")
    assert version.provenance is not None
    done = re.findall(r": ([\d,]+) samples, [\d,]+/s", version.provenance.context["computed_on"])
    assert len(done) == 3
    assert sum(int(n.replace(",", "")) for n in done) == SAMPLES

    query = samples.add_signals(*signals).plan
    ledger = Ledger(fresh=True, executor="local")
    stage = staged(query.source, ledger)
    try:
        assert ledger.computed == 6 * SAMPLES
        assert ledger.signals == version.provenance.signals[:6]
        names = ", ".join(f"`{name}`" for one in signals for name in one.columns)
        bits = f"SELECT key, hex(toString(tuple({names}))) AS bits FROM {{}} ORDER BY shard, position"
        here = warehouse().query(bits.format(stage.name))
        assert here.num_rows == SAMPLES
        assert warehouse().query(bits.format(version)).equals(here)
    finally:
        for finish in ledger.finish:
            finish()
        discard(query)


def dying_at(keys: set[str], whom: str) -> Signal:
    """A signal that kills the process that computes it, or the worker that has it computed, at some samples."""

    def fragile(image: bytes, key: str) -> str:
        if key in keys:
            os.kill(os.getpid() if whom == "process" else os.getppid(), system_signals.SIGKILL)
            time.sleep(30)
        return key

    return signal(fragile, inputs={"key": "key"})


def test_a_sample_that_kills_processes_is_found_as_in_the_local_pool(nodes: Any, samples: DatasetQuery) -> None:
    version = samples.add_signals(dying_at({"k1005"}, "process")).save("fragile", executor="ray")
    found = column(version, "fragile")
    assert {key for key, (value, _) in found.items() if value is None} == {"k1005"}
    assert found["k1005"] == (None, "WorkerDied: the process computing it was killed by SIGKILL (out of memory?)")


def test_a_sample_that_takes_workers_with_it_is_found(
    nodes: Any, samples: DatasetQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "FIRST_PIECE_ROWS", 8)
    version = samples.add_signals(dying_at({"k2003"}, "worker").named("deadly")).save("deadly", executor="ray")
    found = column(version, "deadly")
    assert {key for key, (value, _) in found.items() if value is None} == {"k2003"}
    assert found["k2003"][1].startswith("WorkerDied: the Ray worker computing it was lost: The actor died")


def test_what_differs_on_the_nodes_is_named_before_the_first_value(
    nodes: Any, samples: DatasetQuery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MODE_OF_THE_DAY", "sunny")
    told = signal(lambda caption: caption.upper(), name="told", output=str, inputs={"caption": str},
                  depends_on=[env("MODE_OF_THE_DAY")])  # fmt: skip
    with pytest.raises(SignalError, match=r"^Ray node .*not what the signals are here: .*MODE_OF_THE_DAY.* differ"):
        samples.add_signals(told).save("told", executor="ray")


def test_a_sample_may_end_the_run_and_says_where(nodes: Any, samples: DatasetQuery) -> None:
    def strict(key: str) -> int:
        return int(key.removeprefix("k"), 7)

    with pytest.raises(SignalError, match=r"^Signal 'strict' failed at shard '\d', position \d+, key '") as caught:
        samples.add_signals(signal(strict), on_error="raise").save("strict", executor="ray")
    assert caught.value.sample is not None


@signal
def unseen(caption: str) -> str:
    return caption[::-1]


def test_no_node_has_the_gpu(nodes: Any, samples: DatasetQuery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal_rows, "SMALL_ROWS", 10_000)  # few rows, which need what is not here
    wanted = (
        "No node of the Ray cluster has room for a worker with 1 GPUs, 1 cores: they have 1 cores, 0 GPUs, 2 GiB; 1"
    )
    with pytest.raises(ExecutorError, match=wanted):
        samples.add_signals(unseen.needing(gpus=1)).save("bright", executor="ray")


def test_the_embedded_engine_is_out_of_reach_of_other_machines(
    nodes: Any, samples: DatasetQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Greeting.here()
    there = Greeting(here.settings, here.home, ("elsewhere", "another boot"), here.path, here.folder, here.versions)
    both_ways = r"FACTORY_CLICKHOUSE_URL\), or Ray on this machine alone"
    with pytest.raises(EngineError, match=rf"others: a node\. Two ways out: .*{both_ways}"):
        check_warehouse(there, "a node")
    check_warehouse(here, "a node")
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    with pytest.raises(EngineError, match=both_ways):
        samples.add_signals(unseen).save("dark", executor="ray")


def test_executors_have_names(samples: DatasetQuery, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"executor='rey': there is no such executor\. Did you mean 'ray'\?"):
        samples.save("copy", executor="rey")
    monkeypatch.setenv("FACTORY_EXECUTOR", "dask")
    with pytest.raises(SettingsError, match="FACTORY_EXECUTOR='dask': there is no such executor"):
        samples.save("copy")


def test_a_node_that_is_killed_costs_what_it_had_not_written(nodes: Any, samples: DatasetQuery, tmp_path: Path) -> None:
    """The last one: afterwards the cluster has two nodes."""

    def counted(image: bytes, key: str) -> str:
        (tmp_path / f"{key}-{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(0.05)
        return key[::-1]

    def kill() -> None:
        until = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < SAMPLES // 3 and time.monotonic() < until:
            time.sleep(0.05)
        nodes.remove_node(sorted(nodes.worker_nodes, key=str)[0], allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    seen: list[str] = []
    with reporting(lambda what, done, total: seen.append(what)):
        version = samples.add_signals(signal(counted, inputs={"key": "key"})).save("counted", executor="ray")
    killer.join()
    found = column(version, "counted")
    assert {key: value for key, (value, _) in found.items()} == {key: key[::-1] for key in found}
    assert len(found) == SAMPLES
    calls = len(list(tmp_path.iterdir()))
    assert SAMPLES <= calls < SAMPLES + 60
    assert any(what.startswith("computing counted · ") and "/s" in what for what in seen)
