"""Sharing work out on Ray, without a cluster: sizes, losses, and what is said when there is none that fits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from factory_lib.compute.cluster import connection, pieces, spreading
from factory_lib.compute.cluster.worker import Computed, Greeting, check_versions, check_warehouse, versions_here
from factory_lib.compute.processes import PackedSignals
from factory_lib.compute.reading import ReadPlan
from factory_lib.errors import EngineError, ExecutorError, SignalError
from factory_lib.progress import Tracked
from factory_lib.signals.resources import Resources


class Answer:
    """What a worker owes: a value, or an error."""

    def __init__(self, make: Callable[[], Any], *, greeting: bool = False) -> None:
        self.make, self.greeting = make, greeting


class FakeRay:
    """Of Ray what sharing out uses, on one thread: workers answer what `greet` and `compute` give.

    Args:
        greet: the answer of the n-th worker to its greeting.
        compute: the answer of the n-th worker to a piece.
    """

    def __init__(self, greet: Callable[[int], Any], compute: Callable[[int, pieces.Piece], Any]) -> None:
        import ray

        self.exceptions = ray.exceptions
        self.hired = 0
        self._greet, self._compute = greet, compute

    def nodes(self) -> list[dict[str, Any]]:
        resources = {"CPU": 2.0, "memory": 2.0**34}
        return [{"Alive": True, "NodeManagerHostname": "h", "NodeManagerAddress": "10.0.0.1", "Resources": resources}]

    def get_runtime_context(self) -> Any:
        class Context:
            get_job_id = staticmethod(lambda: str(id(self)))

        return Context

    def put(self, thing: object) -> object:
        return thing

    def remote(self, kind: type) -> Any:
        return self

    def options(self, **given: object) -> Any:
        class Kind:
            remote = staticmethod(self._hire)

        return Kind

    def wait(self, owed: list[Answer], *, num_returns: int, timeout: float) -> tuple[list[Answer], list[Answer]]:
        assert owed
        owed = sorted(owed, key=lambda answer: not answer.greeting)  # saying hello takes no time
        return owed[:num_returns], owed[num_returns:]

    def get(self, answer: Answer) -> Any:
        return answer.make()

    def _hire(self) -> Any:
        number, self.hired = self.hired, self.hired + 1

        class Greet:
            remote = staticmethod(lambda greeting: Answer(lambda: self._greet(number), greeting=True))

        class Compute:
            remote = staticmethod(lambda given, piece: Answer(lambda: self._compute(number, piece)))

        class Actor:
            greet, compute = Greet, Compute

        return Actor


class Recorded:
    """A job that notes what was blamed."""

    def __init__(self) -> None:
        self.blamed: list[tuple[int, str]] = []

    def compute(self, piece: pieces.Piece, signals: PackedSignals, pool: object) -> int:
        raise AssertionError("computed here")

    def blame(self, piece: pieces.Piece, signals: PackedSignals, reason: str) -> None:
        self.blamed.append((piece.spans[0].first, reason))


def shared_out(ray: FakeRay, monkeypatch: pytest.MonkeyPatch, rows: int = 64) -> tuple[list[int], Recorded, Tracked]:
    """Positions of the pieces that came back, in the order in which they did."""
    from factory_lib.compute.cluster import staff

    monkeypatch.setattr(spreading, "connected", lambda: ray)
    monkeypatch.setattr(spreading, "check_reach", lambda *_: None)
    monkeypatch.setattr(staff, "KEPT_SECONDS", 600.0)
    plan, resources = ReadPlan((), ()), Resources(memory=2**30)
    signals = PackedSignals((), ("a",), pa.RecordBatch.from_pydict({"a": [None]}), b"", plan, resources, 0, False)
    tracked, job = Tracked("computing", rows, lambda *_: None), Recorded()
    found = spreading.Spreading(signals, rows, 8, tracked)
    number = found.add(job)  # type: ignore[arg-type]

    def given() -> Iterator[tuple[int, pieces.Piece]]:
        for start in range(0, rows, 8):
            yield number, pieces.Piece((pieces.ShardSpan("a", start, start + 7, 8),))

    done = [span.first for piece in found.results(given()) for span in piece.spans]
    return done, job, tracked


def lost(text: str) -> Any:
    import ray

    raise ray.exceptions.RayActorError(error_msg=text)


def test_workers_of_a_connection_that_is_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from factory_lib.compute.cluster.staff import dismiss_kept

    shared_out(FakeRay(lambda n: f"node {n}", lambda n, piece: Computed(piece.rows, 0.1)), monkeypatch)
    dismiss_kept()
    assert not ray.is_initialized()  # it would start a cluster to end them


def test_pieces_come_back_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(lambda n: f"node {n}", lambda n, piece: Computed(piece.rows, 0.1))
    done, job, tracked = shared_out(ray, monkeypatch)
    assert sorted(done) == list(range(0, 64, 8))
    assert (ray.hired, job.blamed, tracked.done) == (2, [], 64)
    assert "node 0 " in tracked.detail


def test_the_first_worker_that_is_there_leaves_work_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    who: list[int] = []

    def compute(n: int, piece: pieces.Piece) -> Computed:
        who.append(n)
        return Computed(piece.rows, 0.1)

    shared_out(FakeRay(lambda n: f"node {n}", compute), monkeypatch, rows=16)
    assert sorted(who) == [0, 1]


def test_a_sample_that_takes_workers_with_it_is_blamed_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def compute(n: int, piece: pieces.Piece) -> Any:
        bad = any(span.first <= 21 <= span.last for span in piece.spans)
        return lost("The actor died\npages of logs") if bad else Computed(piece.rows, 0.1)

    done, job, tracked = shared_out(FakeRay(lambda n: f"node {n}", compute), monkeypatch)
    assert job.blamed == [(21, "WorkerDied: the Ray worker computing it was lost: The actor died")]
    assert sorted(done) == sorted([*range(0, 16, 8), *range(16, 24), *range(24, 64, 8)])
    assert tracked.done == 64


def test_workers_that_are_lost_one_after_the_other_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SignalError, match=r"^4 Ray workers were lost, one after the other: no reason\. Do they have"):
        shared_out(FakeRay(lambda n: lost("no reason."), lambda n, piece: None), monkeypatch)
    with pytest.raises(SignalError, match="^21 Ray workers were lost, one after the other: out of memory"):
        shared_out(FakeRay(lambda n: f"node {n}", lambda n, piece: lost("out of memory")), monkeypatch, rows=4096)


def test_a_worker_that_cannot_work_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: Exception) -> Any:
        raise error

    absent = ModuleNotFoundError("No module named 'factory_lib'")
    with pytest.raises(
        SignalError, match="^A Ray worker cannot work: ModuleNotFoundError: No module named 'factory_lib'"
    ):
        shared_out(FakeRay(lambda n: fails(absent), lambda n, piece: None), monkeypatch)
    full = EngineError("The disk is full.", "Free some.", code=243)
    with pytest.raises(EngineError, match=r"^Ray node node \d: The disk is full\. Free some\.") as caught:
        shared_out(FakeRay(lambda n: f"node {n}", lambda n, piece: fails(full)), monkeypatch)
    assert caught.value.code == 243
    of_sample = SignalError("Signal 'a' failed at shard 'a'.")
    of_sample.sample = 3
    with pytest.raises(SignalError, match="^Signal 'a' failed"):
        shared_out(FakeRay(lambda n: f"node {n}", lambda n, piece: fails(of_sample)), monkeypatch)


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
