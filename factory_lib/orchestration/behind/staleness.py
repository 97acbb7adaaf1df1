"""Why a stage is behind: which component of its code changed, and which of its inputs, since it was made last."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.fingerprints.components import WAY, other_way, words
from factory_lib.orchestration.behind.looked_up import States
from factory_lib.orchestration.behind.unsynced import input_versions, is_settled, latest_tags
from factory_lib.orchestration.code import components_in
from factory_lib.orchestration.dagster_internals import (
    CODE_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    get_input_data_version_tag,
)
from factory_lib.orchestration.events.partition_events import REMOVED
from factory_lib.orchestration.keys import dataset_name
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import Version, versions

if TYPE_CHECKING:
    from factory_lib.orchestration.dagster_internals import BaseAssetGraph, BaseAssetNode


@dataclass(frozen=True)
class Component:
    """One component of a stage's code that is not what it was.

    Attributes:
        kind: what it is: code, global, closure, default or field, package, weights, preprocessing, declared version, …
        name: its dotted name.
        change: changed, new, no longer used, or what it was and is.
    """

    kind: str
    name: str
    change: str


@dataclass(frozen=True)
class CodeChange:
    """Code that made partitions of a stage and is not that of now.

    Attributes:
        before: the code version that is recorded; empty where none is.
        partitions: the partitions that it made; none for a stage without partitions.
        components: what differs; None where the components of that code are not known.
    """

    before: str
    partitions: Sequence[str]
    components: Sequence[Component] | None


@dataclass(frozen=True)
class InputChange:
    """An input whose data is not what a stage was made of.

    Attributes:
        parent: the stage or source that it comes from.
        partitions: the partitions that are affected; none for a stage without partitions.
        change: from which version to which, where that can be told.
    """

    parent: str
    partitions: Sequence[str]
    change: str


@dataclass(frozen=True)
class Staleness:
    """Why a stage is behind.

    Attributes:
        never_made: its partitions that were never made.
        is_missing: it has no partitions, or none is known yet, and was never made.
    """

    stage: str
    code_version: str
    code: Sequence[CodeChange]
    inputs: Sequence[InputChange]
    never_made: Sequence[str]
    is_missing: bool

    @property
    def is_stale(self) -> bool:
        """Whether anything changed."""
        return bool(self.code or self.inputs or self.never_made or self.is_missing)


def why_stale(instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], key: dg.AssetKey) -> Staleness:
    """Compare what a stage was made by and of with its code and its inputs of now."""
    node = graph.get(key)
    keys: list[str | None] = [None]
    if node.partitions_def is not None:
        keys = list(node.partitions_def.get_partition_keys(dynamic_partitions_store=instance))
    tags = latest_tags(instance, key, partitioned=node.partitions_def is not None)
    made = {k: tags[k] for k in keys if k in tags}
    stays = is_settled(node)
    parents = [] if stays else sorted(node.parent_keys)
    inputs = {parent: input_versions(instance, graph.get(parent), keys) for parent in parents}
    missing = [k for k in keys if k not in made and REMOVED not in {now.get(k) for now in inputs.values()}]
    return Staleness(
        stage=key.to_user_string(),
        code_version=node.code_version or "",
        code=_code(node, made),
        inputs=[*_inputs(dataset_name(key), made, inputs), *([] if stays else _looked_up(dataset_name(key), made))],
        never_made=[k for k in missing if k is not None],
        is_missing=None in missing or not (keys or tags),
    )


def _code(node: BaseAssetNode, made: Mapping[str | None, Mapping[str, str]]) -> list[CodeChange]:
    """Code versions that made partitions and are not that of now, with what differs."""
    by_version: dict[str, list[str]] = {}
    for key, tags in made.items():
        before = tags.get(CODE_VERSION_TAG, "")
        if node.code_version is not None and before != node.code_version:
            by_version.setdefault(before, []).extend([] if key is None else [key])
    if not by_version:
        return []
    now = components_in(node.metadata)
    known = provenance.read_code(warehouse(), by_version)
    return [
        CodeChange(before, partitions, differing(known[before], now) if now and before in known else None)
        for before, partitions in by_version.items()
    ]


def _inputs(
    stage: str,
    made: Mapping[str | None, Mapping[str, str]],
    inputs: Mapping[dg.AssetKey, Mapping[str | None, str]],
) -> list[InputChange]:
    """Inputs whose data version is not the one that a partition was made of."""
    found = []
    for parent, versions_now in inputs.items():
        tag = get_input_data_version_tag(parent)
        pairs = {k: (tags.get(tag), versions_now.get(k, DEFAULT_DATA_VERSION.value)) for k, tags in made.items()}
        changed = {k: pair for k, pair in pairs.items() if pair[0] != pair[1]}
        if changed:
            partitions = [k for k in changed if k is not None]
            name = parent.to_user_string()
            found.append(InputChange(name, partitions, _change(stage, dataset_name(parent), list(changed.values()))))
    return found


def _looked_up(stage: str, made: Mapping[str | None, Mapping[str, str]]) -> list[InputChange]:
    """Datasets that the stage looked up, that the graph does not show, and that hold something else now."""
    states = States()
    found: dict[str, list[str]] = {}
    for key, tags in made.items():
        for dataset in states.changed(tags):
            found.setdefault(dataset, []).extend([] if key is None else [key])
    return [InputChange(name, partitions, _change(stage, name, [])) for name, partitions in found.items()]


def _change(stage: str, parent: str, pairs: Sequence[tuple[str | None, str]]) -> str:
    """What became of an input, in words."""
    removed = sum(now == REMOVED for _, now in pairs)
    new = sum(before in (None, DEFAULT_DATA_VERSION.value) for before, _ in pairs)
    there = versions(warehouse(), parent)
    read = _read_by(stage, parent)
    if there:
        return f"{read or 'not recorded'} was read, it is {there[-1]} now"
    if not pairs:
        return f"{read or 'not recorded'} was read, it is gone now"
    counts = [(removed, "removed"), (new, "new"), (len(pairs) - removed - new, "with other files")]
    return ", ".join(f"{n:,} {word}" for n, word in counts if n)


def _read_by(stage: str, parent: str) -> str:
    """The newest version of a dataset that the stage's newest version was made of."""
    made: list[Version] = versions(warehouse(), stage)
    record = made[-1].provenance if made else None
    names = [p["name"] for p in record.parents if p["name"].partition(".")[0] == parent] if record else []
    return names[-1] if names else ""


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[Component]:
    """Components that differ, by name; the way of fingerprinting alone where that changed."""
    if told := other_way(before, now):
        return [Component("fingerprinting", WAY, told)]
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old != new:
            found.append(Component(_kind(name, {**before, **now}), name, words(old, new)))
    return found


def _kind(name: str, components: Mapping[str, Any]) -> str:
    """What a component is, as its name and what it stands for now tell."""
    owner, _, last = name.rpartition(".")
    by_ending = {"weights": "weights", "preprocessing": "preprocessing", "version": "declared version"}
    if name.startswith("package:"):
        return "package"
    if name == "python":
        return "package"
    if name.startswith(("file:", "env:", "depends_on[")):
        return "declared dependency"
    if name == "factory":
        return "machinery"
    if last in by_ending and (owner in components or name.startswith("signal:") or not owner):
        return by_ending[last]
    if name.startswith("signal:"):
        return "declaration"
    if name.endswith(" (module)"):
        return "module"
    if owner in components:
        return "closure" if _is_free(owner, last) else "default or field"
    value = _live(name)
    if value is None or callable(value):
        return "code"
    return "global"


def _is_free(owner: str, name: str) -> bool:
    """Whether a function takes a name from around it; taken to be so where the function cannot be found."""
    code = getattr(_live(owner), "__code__", None)
    return code is None or name in code.co_freevars


def _live(name: str) -> Any:
    """The object that a dotted name stands for in the modules that are loaded; None where there is none."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:end]))
        if module is not None:
            found: Any = module
            for part in parts[end:]:
                found = getattr(found, part, None)
            return found
    return None
