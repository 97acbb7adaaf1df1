"""Signals on a Ray cluster of three nodes: the same values as here, whatever becomes of nodes, workers and samples."""

from __future__ import annotations

import os
import signal as system_signals
import sys
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
from factory_lib.compute.cluster import connection, pieces
from factory_lib.compute.cluster.worker import Greeting, check_versions, check_warehouse, versions_here
from factory_lib.errors import EngineError, ExecutorError, SettingsError, SignalError
from factory_lib.progress import Tracked, reporting
from factory_lib.signals import Signal, env
from factory_lib.signals.resources import Resources
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


def test_a_server_that_a_node_does_not_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_CLICKHOUSE_URL", "http://me:secret@127.0.0.1:9/")
    with pytest.raises(EngineError, match=r"^Ray node a node cannot write values: .*http://127\.0\.0\.1:9") as caught:
        check_warehouse(Greeting.here(), "a node")
    assert "secret" not in str(caught.value)
    assert caught.value.hint == "FACTORY_CLICKHOUSE_URL has to be an address that all nodes reach."


def test_other_versions_on_a_node() -> None:
    here = versions_here()
    assert {"Python", "dataset-factory", "cloudpickle"} <= here.keys()
    check_versions(here, dict(here), "a node")
    with pytest.raises(
        SignalError, match=r"^Ray node a node has cloudpickle 2\.0 where it is [\d.]+ here\. .*same image"
    ):
        check_versions(here, here | {"cloudpickle": "2.0"}, "a node")


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExecutorError, match=r'pip install "dataset-factory\[ray\]"'):
        connection.connected()


def test_no_cluster_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ExecutorError, match=rf"no Ray cluster at {address} that answers: Connection refused"):
            connection.connected()


def test_a_cluster_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray._private.utils import check_version_info

    def init(**_: object) -> None:
        check_version_info({"ray_version": "2.9.0", "python_version": "3.8.1"}, "10.0.0.1")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ExecutorError, match=r"Ray: 2\.9\.0 Python: 3\.8\.1 .* same image"):
        connection.connected()


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


def test_a_lost_piece_is_tried_again_then_cut() -> None:
    one = pieces.Piece((pieces.ShardSpan("a", 10, 29, 20),))
    (again,) = one.lost()
    assert (again.deaths, again.rows) == (1, 20)
    parts = again.lost()
    assert [(p.spans[0].first, p.spans[0].last) for p in parts] == [(i, min(i + 2, 29)) for i in range(10, 30, 3)]
    assert sum(part.rows for part in parts) == 20
    assert all(part.deaths == 1 for part in parts)
    (sample,) = pieces.Piece((pieces.ShardSpan("a", 4, 4, 1),), 1).lost()
    assert (sample.is_sample, sample.deaths) == (True, 2)
    several = pieces.Piece((pieces.ShardSpan("a", 0, 0, 1), pieces.ShardSpan("b'", 5, 9, 2)), 1)
    assert [part.spans[0].shard for part in several.lost()] == ["a", "b'"]
    assert (
        several.where == "((shard = 'a' AND position BETWEEN 0 AND 0) OR (shard = 'b\\'' AND position BETWEEN 5 AND 9))"
    )


def test_pieces_take_about_as_long_as_they_should_and_get_smaller_towards_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "PIECE_SECONDS", 10.0)
    monkeypatch.setattr(pieces, "FIRST_PIECE_ROWS", 512)
    sizes = pieces.Sizes(100_000, workers=4, least=256)
    spans = iter(pieces.ShardSpan("a", n * 256, n * 256 + 255, 256) for n in range(391))
    cut = sizes.cut(spans)
    assert [next(cut).rows for _ in range(3)] == [512, 512, 512]
    sizes.saw(512, 1.0)
    rest = [piece.rows for piece in cut]
    assert rest[0] == 5120
    assert rest[-1] == 256
    assert rest == sorted(rest, reverse=True)
    assert sum(rest) == 391 * 256 - 3 * 512


def test_room_on_a_node_is_that_of_its_scarcest_resource() -> None:
    node = {"CPU": 16.0, "GPU": 2.0, "memory": 2.0**36}
    needs = [Resources(), Resources(cpus=5), Resources(gpus=0.5), Resources(gpus=1, memory=2**36), Resources(gpus=4)]
    assert [connection.places_on(node, one) for one in needs] == [16, 3, 4, 1, 0]
    assert connection.places_on({"memory": 2.0**36}, Resources()) == 0


def test_progress_carries_details_that_change() -> None:
    seen: list[str] = []
    tracked = Tracked("computing", 10, lambda what, done, total: seen.append(what), started=0.0)
    tracked.advance()
    tracked.describe("node 5/s")
    assert seen == ["computing", "computing · node 5/s"]
