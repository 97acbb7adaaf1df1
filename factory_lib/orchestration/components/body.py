"""The body of a stage written in YAML: what `stage` takes in place of a function."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import dagster as dg

from factory_lib.curation.rules import Kept
from factory_lib.orchestration.components.steps import GraphStep, run_steps
from factory_lib.orchestration.source.shards import ShardSource
from factory_lib.query import DatasetQuery
from factory_lib.signals.given import GivenFile


class YamlBody:
    """Steps as the function of a stage: its parameters are the datasets that they read, or the source.

    Its code version is that of the steps, of all that they name, and of the file.

    Args:
        name: of the stage.
        begin: the dataset or file that the steps begin with; None: the shards of the source.
        steps: in order.
        datasets: all that are read.
        description: of the stage.
    """

    def __init__(
        self,
        name: str,
        begin: str | GivenFile | None,
        steps: Sequence[GraphStep],
        datasets: Sequence[str],
        description: str = "",
    ) -> None:
        self._begin, self._steps = begin, tuple(steps)
        parameters: dict[str, Any] = {}
        if begin is None:
            parameters |= {"context": dg.AssetExecutionContext, "source": ShardSource}
        parameters |= dict.fromkeys(datasets, DatasetQuery)
        kind = inspect.Parameter.KEYWORD_ONLY
        self.__name__, self.__doc__ = name, description or None
        self.__annotations__ = {**parameters, "return": Kept if steps and steps[-1].verb == "keep" else DatasetQuery}
        self.__signature__ = inspect.Signature(
            [inspect.Parameter(name, kind, annotation=one) for name, one in parameters.items()]
        )

    def __fingerprint__(self) -> Mapping[str, Any]:
        begin = self._begin
        if isinstance(begin, GivenFile):  # a column may be named as the file is
            begin = f"{PurePosixPath(begin.uri).name} {begin.__fingerprint__()['sha256']}"
        return {"begin": begin, "steps": self._steps}

    def __call__(self, **inputs: Any) -> DatasetQuery | Kept:
        """The query of the dataset, or what filters keep."""
        return run_steps(self._samples(inputs), self._steps, inputs)

    def _samples(self, inputs: Mapping[str, Any]) -> DatasetQuery:
        if self._begin is None:
            source: ShardSource = inputs["source"]
            return source.query(inputs["context"].partition_keys)
        if isinstance(self._begin, GivenFile):
            return DatasetQuery.from_source(self._begin.uri)
        samples: DatasetQuery = inputs[self._begin]
        return samples
