"""What arguments name, for TAB in a shell: datasets, versions, tags, stages, signals, places.

Only what is at hand is looked at: an engine that runs is asked, none is started; a graph is read as text, and not
loaded, which takes seconds.
"""

from __future__ import annotations

import ast
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from factory_lib.names import CATALOG, is_dataset_database
from factory_lib.orchestration.code_location import PACKAGE, code_location
from factory_lib.warehouse.peek import peek

_VERSIONS = (
    "SELECT database, name FROM system.tables WHERE match(name, '^v[1-9][0-9]*$') ORDER BY database, length(name), name"
)
_TAGS = (
    f"SELECT dataset, tag FROM {CATALOG}.tags GROUP BY dataset, tag HAVING NOT argMax(deleted, (at, id))"
    " ORDER BY dataset, tag"
)
_SIGNALS = f"SELECT DISTINCT arrayJoin(signals.name) AS name FROM {CATALOG}.versions ORDER BY name"
_OWN = PACKAGE.partition(".")[0]
_MAKES = ("asset", "stage")
"""Decorators of functions that are stages."""


class _Named(click.ParamType[str], ABC):
    """A text that is completed."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        """What begins with what was typed."""
        return [CompletionItem(one) for one in self.known(ctx, incomplete) if one.startswith(incomplete)]

    @abstractmethod
    def known(self, ctx: click.Context, incomplete: str) -> Iterator[str]:
        """What there is.

        Args:
            incomplete: what was typed.
        """


class DatasetName(_Named):
    """The name of a dataset."""

    def known(self, ctx: click.Context, incomplete: str) -> Iterator[str]:
        """The datasets."""
        yield from dict.fromkeys(dataset for dataset, _ in _versions())


class VersionName(_Named):
    """`laion`, `laion.v3` or `laion@icml`: datasets first, then the versions and tags of the one that was typed."""

    def known(self, ctx: click.Context, incomplete: str) -> Iterator[str]:
        """The datasets; the versions behind a point, the tags behind an @, or both when only one dataset is meant."""
        versions = _versions()
        datasets = list(dict.fromkeys(dataset for dataset, _ in versions))
        meant = [one for one in datasets if one.startswith(incomplete)]
        yield from meant
        if "." in incomplete or meant == [incomplete]:
            yield from (f"{dataset}.{version}" for dataset, version in versions)
        if "@" in incomplete or meant == [incomplete]:
            yield from (f"{dataset}@{tag}" for dataset, tag in peek(_TAGS))


class StageName(_Named):
    """The name of a stage of the graph that the option `--module` names, or of that of the project here."""

    def known(self, ctx: click.Context, incomplete: str) -> Iterator[str]:
        """The stages that the code of the graph defines."""
        location = code_location()
        yield from stages_written_in(ctx.params.get("module") or location.module, location.folder)


class SignalOrFile(_Named):
    """The name of a signal, or the path of a file."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        """Files where a path was begun, else signals."""
        if incomplete.startswith(("/", ".", "~")):
            return [CompletionItem(incomplete, type="file")]
        return super().shell_complete(ctx, param, incomplete)

    def known(self, ctx: click.Context, incomplete: str) -> Iterator[str]:
        """The signals that versions have values of."""
        yield from (name for (name,) in peek(_SIGNALS))


class PathOrUri(click.ParamType[str]):
    """A path, or a URI of something else than this machine's disk."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        """The shell's own completion of files."""
        return [] if "://" in incomplete else [CompletionItem(incomplete, type="file")]


class Word(_Named):
    """One of a few words, which somebody else checks.

    Args:
        words: which.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)

    def known(self, ctx: click.Context, incomplete: str) -> Iterator[str]:
        """The words."""
        yield from self.words


def stages_written_in(module: str, folder: Path | None = None) -> list[str]:
    """Names of the stages that the files of a module's package define by `@stage` or `@asset`; nothing is imported.

    Those of the graph that comes with the package, too, where the files name it: they stand on it.

    Args:
        folder: where the package is looked for first; None means the folder of this process.
    """
    found: set[str] = set()
    for path in _files_of(module.partition(".")[0], folder or Path.cwd()):
        try:
            text = path.read_bytes()
            tree = ast.parse(text)
        except (OSError, SyntaxError, ValueError):
            continue
        if _OWN.encode() in text and not module.startswith(_OWN):
            found |= set(stages_written_in(PACKAGE))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                found |= {_stage_name(node, one) for one in node.decorator_list if _word(one) in _MAKES}
    return sorted(found)


def _files_of(package: str, folder: Path) -> list[Path]:
    """The files of a package, or of a module: in a folder or its `src`, or wherever it is installed."""
    for place in (folder / "src" / package, folder / package):
        if place.is_dir():
            return sorted(place.rglob("*.py"))
    if (folder / f"{package}.py").exists():
        return [folder / f"{package}.py"]
    spec = importlib.util.find_spec(package)
    places = (spec.submodule_search_locations or ()) if spec else ()
    files = [path for place in places for path in sorted(Path(place).rglob("*.py"))]
    return files or ([Path(spec.origin)] if spec and spec.origin else [])


def _word(decorator: ast.expr) -> str:
    """The last word of a decorator: `asset` of `@dg.asset(…)`."""
    named = decorator.func if isinstance(decorator, ast.Call) else decorator
    return named.attr if isinstance(named, ast.Attribute) else getattr(named, "id", "")


def _stage_name(function: ast.FunctionDef, decorator: ast.expr) -> str:
    given = decorator.keywords if isinstance(decorator, ast.Call) else []
    named = [one.value.value for one in given if one.arg == "name" and isinstance(one.value, ast.Constant)]
    return str(named[0]) if named else function.name


def _versions() -> list[list[str]]:
    return [row for row in peek(_VERSIONS) if is_dataset_database(row[0])]
