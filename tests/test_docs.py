"""The documentation: whatever can be used is told, and whatever is told is there."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import factory_lib
import factory_lib.curation
import factory_lib.signals
from factory_lib import DatasetQuery, signal
from factory_lib.cli import factory
from factory_lib.orchestration.stage import stage
from factory_lib.settings import KNOWN
from factory_lib.signals import Signal
from tests.test_house import floor_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md")))
    if not path.is_symlink()  # the changelog tells of what is no more
}
PACKAGES = ("factory_lib", "factory_assets")
FOREIGN = frozenset(
    """arrayMap hex import_module write_bytes Array LowCardinality Tuple DataLoader StatefulDataLoader __subclasses__ fn
    prepare AssetSpec with_io_manager_key""".split()
)
"""What the pages call that others made."""


def code(text: str) -> list[str]:
    """What a page sets in code font, in a line and in blocks."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    return blocks + spans(text)


def spans(text: str) -> list[str]:
    return [s.replace(r"\|", "|") for s in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))]


def told(page: str | None = None) -> set[str]:
    """The words in code font of a page, or of all."""
    texts = PAGES.values() if page is None else [PAGES[page]]
    return {word for text in texts for one in code(text) for word in re.findall(r"\w+", one)}


# What can be used is told ----------------------------------------------------------------------------------------


def test_exports_are_documented() -> None:
    assert set(factory_lib.__all__) - told() == set()
    assert set(factory_lib.curation.__all__) - told("docs/curation.md") == set()


def test_verbs_are_documented() -> None:
    def is_old(member: Any) -> bool:
        return "warn_renamed" in inspect.getsource(member)

    public = {
        name
        for name, member in vars(DatasetQuery).items()
        if not name.startswith("_") and not (inspect.isfunction(member) and is_old(member))
    }
    assert "update" not in public
    assert "refresh" in public
    assert public - told("docs/queries.md") == set()


def test_arguments_of_decorators_are_documented() -> None:
    for decorator, page in ((signal, "docs/signals.md"), (stage, "docs/graph.md")):
        names = {n for n in inspect.signature(decorator).parameters if n != "target"}
        assert names - told(page) == set()


def bundled_signals() -> set[str]:
    found = set()
    for module in pkgutil.walk_packages(factory_lib.signals.__path__, "factory_lib.signals."):
        members = vars(importlib.import_module(module.name))
        shown = module.name.removeprefix("factory_lib.")
        found |= {f"{shown}.{name}" for name, one in members.items() if isinstance(one, Signal)}
    return found


def test_bundled_signals_are_documented() -> None:
    assert {"signals.hashes.phash", "signals.models.faces.faces"} <= bundled_signals()
    assert bundled_signals() - set(spans(PAGES["docs/signals.md"])) == set()


def settings() -> set[str]:
    """Variables that the settings read."""
    tree = ast.parse((ROOT / "factory_lib" / "settings.py").read_text())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {text for text in texts if re.fullmatch(r"FACTORY_[A-Z_]+", text)}


def test_settings_are_documented_and_those_documented_exist() -> None:
    assert "FACTORY_HOME" in settings()
    assert settings() == KNOWN
    assert settings() - set(spans(PAGES["docs/settings.md"])) == set()
    for page, text in PAGES.items():
        assert set(re.findall(r"FACTORY_[A-Z_]+", text)) <= settings(), page


@cache
def commands() -> dict[str, click.Command]:
    """Every command by the words that call it; those that other packages bring as the project declares them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: dict[str, click.Command] = {}
    for name, where in project["entry-points"]["dataset_factory.commands"].items():
        module, _, attribute = where.partition(":")
        found[f"factory {name}"] = getattr(importlib.import_module(module), attribute)
    context = click.Context(factory)
    for name in set(factory.list_commands(context)) - {words.split()[1] for words in found}:
        one = factory.get_command(context, name)
        assert one is not None
        inner = one.commands if isinstance(one, click.Group) else {}
        found |= {f"factory {name} {word}": command for word, command in inner.items()} or {f"factory {name}": one}
    return found


def test_commands_and_their_options_are_documented_and_those_documented_exist() -> None:
    """The page says of each option what `--help` says."""
    sections = re.split(r"^## ", PAGES["docs/commands.md"], flags=re.MULTILINE)[1:]
    seen = set()
    for section in sections:
        title, _, body = section.partition("\n")
        words = title.strip("`").split()
        name = next(n for n in (" ".join(words[:3]), " ".join(words[:2])) if n in commands())
        seen.add(name)
        command = commands()[name]
        rows = dict(re.findall(r"^\| (`-.*?`) \| (.*) \|$", body, re.MULTILINE))
        options = {re.findall(r"(-[\w-]+)", names)[-1]: text.replace(r"\|", "|") for names, text in rows.items()}
        helped = {
            one.opts[-1]: one.help or ""
            for one in command.params
            if isinstance(one, click.Option) and not one.hidden and one.opts[-1] not in ("--json", "--debug")
        }
        assert options.keys() == helped.keys(), name
        assert [n for n in helped if not options[n].startswith(helped[n])] == [], name
        given = {one.make_metavar(click.Context(command)) for one in command.params if isinstance(one, click.Argument)}
        assert {one.strip("[].") for one in title.strip("`")[len(name) :].partition("--")[0].split()} == {
            one.strip("[].") for one in given
        }, name
    assert seen == set(commands())


# What is told is there -------------------------------------------------------------------------------------------


@cache
def defined() -> set[str]:
    """Names of functions, classes, arguments and variables in the packages and in the pages' blocks."""
    texts = [path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    texts += [block for text in PAGES.values() for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    found = re.findall(r"\b(?:def|class) (\w+)|\b(\w+)(?=:| = )", "\n".join(texts))
    return {*dir(builtins), *(name for pair in found for name in pair)}


def called(tree: ast.AST) -> Iterator[str]:
    """Functions and methods that code calls, and the arguments that it names; functions of ClickHouse left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (word.arg for word in node.keywords if word.arg and not _is_free(node.func))
            if isinstance(node.func, ast.Name):
                yield node.func.id
            elif isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) != "fn":
                yield node.func.attr


def _is_free(function: ast.expr) -> bool:
    """Whether a call takes any names: those of new columns."""
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("select", "mutate", "rename", "agg", "group_by", "run") or name in FOREIGN


@pytest.mark.parametrize("page", PAGES)
def test_what_is_called_exists(page: str) -> None:
    for text in spans(PAGES[page]):
        try:
            tree = ast.parse(re.sub(r"^@", "", text).replace("(…)", "()").replace("…", "..."))
        except SyntaxError:  # no Python
            names = re.findall(r"^(\w+)=$", text)
        else:
            names = list(called(tree))
        assert set(names) <= defined() | FOREIGN, text


@pytest.mark.parametrize("page", PAGES)
def test_modules_files_and_links_exist(page: str) -> None:
    rooms = {path.stem for path in (ROOT / "factory_lib").iterdir()}
    for text in spans(PAGES[page]):
        if re.fullmatch(r"[a-z_]+(\.(?!json|log|lock)\w+)+", text) and (
            text.startswith(PACKAGES) or text.partition(".")[0] in rooms
        ):
            found = _resolved(text if text.startswith(PACKAGES) else f"factory_lib.{text}")
            assert found or (ROOT / "factory_lib" / text).exists() or (ROOT / text).exists(), text
        elif re.fullmatch(r"[\w.-]+(/[\w.-]+)*(\.(py|xml|sql)|/)", text) and text.partition("/")[0] in _folders():
            assert (ROOT / text).exists() or (ROOT / "factory_lib" / text).exists(), text
    for node in (
        node
        for block in re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
        for node in ast.walk(ast.parse(block))
    ):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGES):
            assert all(_resolved(f"{node.module}.{alias.name}") for alias in node.names), ast.unparse(node)
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = (ROOT / page).parent / path if path else ROOT / page
            assert target.exists(), link
            assert not anchor or anchor in _anchors(target.read_text()), link


@cache
def _folders() -> set[str]:
    """Folders that hold something: what a room leaves behind when it moves is only what was compiled of it."""
    places = [path for place in (ROOT, ROOT / "factory_lib") for path in place.iterdir() if path.is_dir()]
    return {path.name for path in places if any(inner.name != "__pycache__" for inner in path.iterdir())}


def _resolved(name: str) -> bool:
    """Whether there is a module or a member of one of that dotted name."""
    module, _, member = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ImportError:
        return bool(module) and (hasattr(importlib.import_module(module), member) if _is_module(module) else False)
    return True


def _is_module(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_page_of_the_house_names_every_room_in_order_and_no_other() -> None:
    page = PAGES["docs/architecture.md"]
    rooms = {
        path.parent.relative_to(ROOT).as_posix().removeprefix("factory_lib/")
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    } - {"factory_lib"}
    named = {name.rstrip("/") for text in code(page) for name in re.findall(r"[a-z_]+(?:/[a-z_]+)*/", text)}
    places = (ROOT, ROOT / "factory_lib", ROOT / "factory_assets")
    there = {folder.relative_to(ROOT).as_posix() for name in named for at in places if (folder := at / name).is_dir()}
    assert {name.removeprefix("factory_lib/") for name in there} == rooms
    assert [name for name in named if not any((at / name).is_dir() for at in places)] == []
    assert [n for n in re.findall(r"`([\w/]+\.py)`", page) if not any((at / n).exists() for at in places)] == []
    table = [line for line in page.splitlines() if line.startswith("| `")]
    listed = [floor_of(_module(re.findall(r"`([a-z_/]+)/`", line)[0])) for line in table]
    assert listed == sorted(listed)
    assert len(page.splitlines()) <= 64  # a screen


def _module(room: str) -> str:
    return (room if room.startswith(PACKAGES) else f"factory_lib/{room}").replace("/", ".")


# What is shown runs ----------------------------------------------------------------------------------------------

NOT_RUN = re.compile(r"<!-- not run: [^\n]+ -->\n```python\n(.*?)```", re.DOTALL)
"""A block of Python that a page marks: it needs what a test does not have."""

MARKED = 3
"""How many there are."""


def blocks(page: str) -> list[str]:
    """The Python of a page that runs, block by block."""
    return re.findall(r"```python\n(.*?)```", NOT_RUN.sub("", PAGES[page]), re.DOTALL)


WITH_PYTHON = [page for page in PAGES if blocks(page) and page not in ("README.md", "docs/loader.md")]
"""Pages whose Python runs here; that of the two others has tests of its own."""


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_pages_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from factory_assets.demo.rendered.folder import write_folder

    folder = write_folder(tmp_path / "shards", samples=40, shards=1)
    version = DatasetQuery.from_source(str(folder.path)).save("laion")
    for stage_of_the_graph in ("samples", "training_set"):
        DatasetQuery(version).save(stage_of_the_graph)
    keys = DatasetQuery(version).to_arrow()["key"].to_pylist()
    (tmp_path / "labels.csv").write_text("key,label\n" + "".join(f"{key},shirt\n" for key in keys[:30]))
    (tmp_path / "labels.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACTORY_WORKERS", "1")
    name = Path(page).stem
    names: dict[str, Any] = {"__name__": name}
    for number, block in enumerate(blocks(page)):
        file = tmp_path / f"{name}_{number}.py"
        file.write_text(block)
        exec(compile(block, str(file), "exec"), names)


def test_code_has_no_escaped_bars() -> None:
    """GitHub takes the backslash away in a table, the site shows it."""
    assert [span for text in PAGES.values() for span in re.findall(r"`[^`\n]*\\\|[^`\n]*`", text)] == []


def test_blocks_that_do_not_run_are_few() -> None:
    assert sum(len(NOT_RUN.findall(text)) for text in PAGES.values()) == MARKED


# The site --------------------------------------------------------------------------------------------------------


def _entries(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for one in nav.values() if isinstance(nav, dict) else nav:
            yield from _entries(one)


def test_the_site_has_every_page_and_nothing_of_other_servers(tmp_path: Path) -> None:
    """Pages find each other, references exist, and a browser asks nobody else."""
    given = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(_entries(given["nav"])) == sorted(pages)
    pytest.importorskip("zensical", reason="`make install` brings what makes the site")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")  # it has to lie beside its configuration
    given["site_dir"] = "site"
    given["plugins"][-1]["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT)]
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(given))
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(tmp_path / "mkdocs.yml")]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "griffe:" not in built.stdout + built.stderr  # a docstring that is not understood is not shown
    made = {path.relative_to(tmp_path / "site").as_posix(): path for path in (tmp_path / "site").rglob("*.html")}
    assert {page.removesuffix(".md") for page in pages} <= {name.removesuffix(".html") for name in made}
    for name, path in made.items():
        assert (
            re.findall(
                r"<(?:script|img|iframe)[^>]* src=\"?(?:https?:)?//[^>]*|<link[^>]*https?://[^>]*", path.read_text()
            )
            == []
        ), name
