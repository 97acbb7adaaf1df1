"""The first line of a failed run says stage, shard, sample, cause, and how to repeat it, whatever failed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from factory_lib import DatasetQuery, fn, signal
from factory_lib.errors import CommitError, SourceError
from factory_lib.orchestration.first_line import first_line, repeat
from factory_lib.orchestration.stage import stage
from factory_lib.plan.expressions import C
from factory_lib.sources.webdataset import WebDataset
from tests.dagster_graph import SHARDS, look, over_samples, run, write_tar

NAMES = ["a", "b", "c"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        write_tar(tmp_path / f"{name}.tar", [name, name * 2])
    return tmp_path


@pytest.fixture
def instance(engine: None, folder: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        look(made, folder)
        yield made


@signal
def letters(caption: str) -> int:
    if caption == "bb":
        raise ValueError("two of them")
    return len(caption)


@stage(group="test", partitions=SHARDS)
def signals(samples: DatasetQuery) -> DatasetQuery:
    """A signal that fails at one sample."""
    return samples.add_signals(letters, on_error="raise")


@stage(group="test", partitions=SHARDS)
def query(samples: DatasetQuery) -> DatasetQuery:
    """SQL that fails at one sample."""
    return samples.mutate(n=fn.throwIf(C.caption == "cc", "cc is not wanted"))


@stage(group="test", partitions=SHARDS)
def code(samples: DatasetQuery) -> DatasetQuery:
    """Wrong code."""
    raise KeyError("no such word")


@stage(group="test")
def whole(samples: DatasetQuery) -> DatasetQuery:
    """Wrong SQL over all shards."""
    return samples.mutate(n=fn.throwIf(C.caption != "", "nothing is wanted"))


def shown(definitions: dg.Definitions, instance: dg.DagsterInstance, name: str, shards: list[str]) -> str:
    """What Dagster's pages show first of a failed step: message of the event's error, with its kind before."""
    result = run(definitions, instance, [name], shards)
    [failed] = [event for event in result.all_events if event.is_step_failure]
    data = failed.step_failure_data
    assert data.error is not None
    assert data.user_failure_data is not None
    message = data.error.message.strip()
    assert message == f"dagster._core.definitions.events.Failure: {data.user_failure_data.description}"
    assert "\n" not in message
    return str(data.user_failure_data.description)


def test_each_kind_of_failure(folder: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = over_samples(folder, signals, query, code, whole)
    original = WebDataset.read

    def read(self: WebDataset, shard, report):  # type: ignore[no-untyped-def]
        if shard.name == "c":
            raise SourceError("c.tar is no tar.")
        return original(self, shard, report)

    with monkeypatch.context() as broken:
        broken.setattr(WebDataset, "read", read)
        assert shown(definitions, instance, "samples", NAMES) == (
            "samples: shard c: c.tar is no tar. · the other 2 are published as samples.v1"
            " · repeat: factory run --select samples --shards c"
        )
    # an input that was never made
    assert shown(definitions, instance, "signals", ["c"]).startswith(
        "signals: shard c: 1 shards of 'samples' were never"
    )
    run(definitions, instance, ["samples"], NAMES)

    line = shown(definitions, instance, "signals", NAMES)
    assert line.startswith("signals: shard b (sample b/1): Signal 'letters' failed at shard 'b', position 1")
    assert "ValueError: two of them" in line
    assert line.endswith("repeat: factory run --select signals --shards b")

    line = shown(definitions, instance, "query", NAMES)
    assert line.startswith("query: shard c: ClickHouse refused: cc is not wanted")
    assert line.endswith("repeat: factory run --select query --shards c")

    assert shown(definitions, instance, "code", ["b"]) == (
        "code: shard b: KeyError: 'no such word' · repeat: factory run --select code --shards b"
    )
    assert shown(definitions, instance, "code", NAMES) == (
        "code: KeyError: 'no such word' · repeat: factory run --select code"
    )
    assert shown(definitions, instance, "whole", []).startswith("whole: ClickHouse refused: nothing is wanted")

    def refused(*_: object, **__: object) -> None:
        raise CommitError("samples: 20 other writers were faster.")

    with monkeypatch.context() as racing:
        racing.setattr(DatasetQuery, "save", refused)
        line = shown(definitions, instance, "samples", NAMES)
    assert line == "samples: samples: 20 other writers were faster. · repeat: factory run --select samples"


def test_secrets_stay_out_of_it(folder: Path, instance: dg.DagsterInstance) -> None:
    @stage(group="test")
    def leaky() -> DatasetQuery:
        raise OSError("s3://AKIAABCDEFGHIJKLMNOP:hush@bucket/x: denied, token=abcdefgh")

    line = shown(over_samples(folder, leaky), instance, "leaky", [])
    assert line == "leaky: OSError: s3://bucket/x: denied, token=*** · repeat: factory run --select leaky"


def test_many_shards_are_counted_and_the_first_named() -> None:
    errors = {f"s{n}": ValueError(f"no {n}") for n in range(30)}
    line = first_line("stage", errors, of=40, rest="the other 10 are published as stage.v2")
    assert line.startswith("stage: 30 of 40 shards failed: shard s0: ValueError: no 0; shard s1: ")
    assert "; and 25 more · the other 10 are published as stage.v2 · repeat: factory run --select stage" in line
    assert line.endswith("--select stage")  # so many are what is behind
    assert repeat("a/b", ["x y", "z"]) == "factory run --select a/b --shards 'x y,z'"
