"""Dataset Factory: curate image-text datasets of millions to billions of samples.

A dataset is a table of pointers into storage plus attributes; every step of curation makes a new immutable version.
Names are loaded when they are first used, so that importing the package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from factory_lib.catalog import (
        datasets,
        descent,
        diff,
        lineage,
        publish,
        published,
        pull,
        reproduce,
        tag,
        tags,
        trace,
        untag,
        uses,
        version,
        versions,
    )
    from factory_lib.errors import FactoryError
    from factory_lib.loading.mixing import mix
    from factory_lib.loading.weighting import mix_by
    from factory_lib.plan.expressions import C, case, cosine_distance, fn, lit, sql_text
    from factory_lib.query import DatasetQuery
    from factory_lib.signals import Vector, signal
    from factory_lib.signals import clip as clip
    from factory_lib.sources import open_source
    from factory_lib.warehouse.versions import Version
    from factory_lib.writing.exporting import export

_HOMES = {
    "C": "plan.expressions",
    "DatasetQuery": "query",
    "FactoryError": "errors",
    "Vector": "signals",
    "Version": "warehouse.versions",
    "case": "plan.expressions",
    "clip": "signals.clip",
    "cosine_distance": "plan.expressions",
    "datasets": "catalog",
    "descent": "catalog",
    "diff": "catalog",
    "export": "writing.exporting",
    "fn": "plan.expressions",
    "lineage": "catalog",
    "lit": "plan.expressions",
    "mix": "loading.mixing",
    "mix_by": "loading.weighting",
    "open_source": "sources",
    "publish": "catalog",
    "published": "catalog",
    "pull": "catalog",
    "reproduce": "catalog",
    "signal": "signals",
    "sql_text": "plan.expressions",
    "tag": "catalog",
    "tags": "catalog",
    "trace": "catalog",
    "untag": "catalog",
    "uses": "catalog",
    "version": "catalog",
    "versions": "catalog",
}

__all__ = [
    "C",
    "DatasetQuery",
    "FactoryError",
    "Vector",
    "Version",
    "case",
    "clip",
    "cosine_distance",
    "datasets",
    "descent",
    "diff",
    "export",
    "fn",
    "lineage",
    "lit",
    "mix",
    "mix_by",
    "open_source",
    "publish",
    "published",
    "pull",
    "reproduce",
    "signal",
    "sql_text",
    "tag",
    "tags",
    "trace",
    "untag",
    "uses",
    "version",
    "versions",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return home if _HOMES[name].endswith(f".{name}") else getattr(home, name)


def __dir__() -> list[str]:
    return __all__
