"""Stages and shards as people name them: Dagster's selections, lists and ranges, with the nearest right name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from factory_lib.errors import NotFound, SettingsError, nearest
from factory_lib.orchestration.dagster_internals import disable_dagster_warnings

if TYPE_CHECKING:
    from factory_lib.orchestration.dagster_internals import AssetGraph

ALL = "all"
_PIECE = re.compile(r"""(?P<attribute>\w+):|(?P<quoted>"[^"]*")|(?P<word>[^\s()+,:"<]+)|(?P<other>.)""", re.DOTALL)
_NOT_NAMES = {"and", "or", "not", "roots", "sinks", "*"}


def select_stages(graph: AssetGraph, selection: str) -> list[str]:
    """Names of the stages that a selection means, in the order of the graph.

    Args:
        selection: in Dagster's syntax (`image_signals+`, `group:curation`, `a or b`), or names with commas between.

    Raises:
        NotFound: it names a stage or a group that is not there, or means none.
        SettingsError: it cannot be read.
    """
    known = {key.to_user_string(): key for key in graph.materializable_asset_keys}
    text = _spelled_out(graph, selection, sorted(known))
    try:
        with disable_dagster_warnings():
            found = dg.AssetSelection.from_string(text).resolve(graph)
    except dg.DagsterError as error:
        said = str(error).splitlines()[0]
        raise SettingsError(
            f"--select {selection!r} cannot be read: {said}", "Such as image_signals+, group:curation, or a or b."
        ) from None
    stages = [key.to_user_string() for key in graph.toposorted_asset_keys if key in found and key in known.values()]
    if not stages:
        raise NotFound(f"--select {selection!r} means no stage of the graph.", f"There are {', '.join(sorted(known))}.")
    return stages


def _spelled_out(graph: AssetGraph, selection: str, stages: Sequence[str]) -> str:
    """A selection as Dagster reads it: names are said to be names, commas mean "or".

    Raises:
        NotFound: there is no such stage or group; Dagster would take some of these for nothing.
    """
    known = {key.to_user_string() for key in graph.get_all_asset_keys()}
    groups = sorted({graph.get(key).group_name or "" for key in graph.materializable_asset_keys})
    pieces: list[str] = []
    attribute = ""
    for found in _PIECE.finditer(selection):
        text = found[0]
        if found["attribute"]:
            attribute = found["attribute"]
        elif found["quoted"] or found["word"]:
            word = text.strip('"')
            if attribute == "group" and word not in groups:
                raise NotFound(f"The graph has no group {word!r}.", nearest(word, groups))
            depth = word.isdigit() and not attribute  # of 2+stage
            is_name = attribute in {"", "key"} and not depth and word not in _NOT_NAMES
            if is_name and "*" not in word and word not in known:
                raise NotFound(f"The graph has no stage {word!r}.", nearest(word, stages))
            text = f'key:"{word}"' if is_name and not attribute else text
            attribute = ""
        pieces.append(" or " if text == "," else text)
    return "".join(pieces).strip().removesuffix("or").strip()


def select_shards(known: Sequence[str], text: str) -> list[str] | None:
    """The shards that a text means, in the order of the graph.

    Args:
        known: all shards there are, in the order of the graph.
        text: names with commas between, ranges of names (`a..z`, both ends in it), or `all`.

    Returns:
        None for all.

    Raises:
        NotFound: a shard is not there.
        SettingsError: a range ends before it begins, or the text names nothing.
    """
    if text.strip() == ALL:
        return None
    by_name = sorted(known)
    places = {name: place for place, name in enumerate(by_name)}
    wanted: set[str] = set()
    for part in (one.strip() for one in text.split(",")):
        if not part:
            continue
        first, dots, last = part.partition("..")
        if part in places:
            wanted.add(part)
        elif dots and first and last:
            begin, end = _place(places, first), _place(places, last)
            if end < begin:
                raise SettingsError(
                    f"--shards {part}: {last!r} comes before {first!r}.", f"Turn it round: {last}..{first}."
                )
            wanted.update(by_name[begin : end + 1])
        else:
            _place(places, part)
    if not wanted:
        raise SettingsError(f"--shards {text!r} names no shard.", "Names with commas between, a..z, or all.")
    return [name for name in known if name in wanted]


def _place(places: dict[str, int], name: str) -> int:
    if name not in places:
        hint = nearest(name, places) if places else "No shard is known yet: is the source right?"
        raise NotFound(f"There is no shard {name!r} among {len(places):,}.", hint)
    return places[name]
