"""`DatasetQuery.to_torch` and what it hands its arguments to."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from factory_lib import DatasetQuery
from factory_lib.loading import dataset
from factory_lib.loading.terminal import to_torch


def test_both_have_the_same_arguments() -> None:
    ours, theirs = (inspect.signature(f).parameters for f in (DatasetQuery.to_torch, dataset.to_torch))
    own = {"self", "members"}  # members may be left out where rows are those of a query
    fixed = {"rows", "identity", "etags", "members"}
    assert [p for n, p in ours.items() if n not in own] == [p for n, p in theirs.items() if n not in fixed]
    told = (DatasetQuery.to_torch.__doc__ or "").replace("rank, world_size:", "rank: world_size:")
    told = told.replace("unit_rows, window_rows, lanes:", "unit_rows: window_rows: lanes:")
    assert [n for n in ours if n != "self" and f" {n}:" not in told] == []


def test_all_arguments_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    class Query:
        python = "a query"
        columns = {"image": "Tuple(uri String, offset UInt64, size UInt64)"}

        def _pinned(self, columns: list[str]) -> tuple[Any, str, dict[str, str]]:
            return columns, "identity", {"uri": "etag"}

    def arrived(*args: Any, **named: Any) -> Any:
        return args, named

    monkeypatch.setattr(dataset, "to_torch", arrived)
    names = [n for n, p in inspect.signature(to_torch).parameters.items() if p.kind is p.KEYWORD_ONLY]
    given = {n: f"value of {n}" for n in names} | {"members": ["image"], "columns": ["caption"]}
    rows, arguments = to_torch(Query(), **given)  # type: ignore[arg-type, misc, assignment]
    assert rows == (["image", "caption"], "identity")
    assert arguments == {**given, "etags": {"uri": "etag"}}
    rows, arguments = to_torch(Query())  # type: ignore[misc, assignment]
    assert arguments["members"] == ["image"]
