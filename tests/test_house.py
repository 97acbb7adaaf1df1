"""The house: imports point downward, modules stay small, importing the package stays cheap."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS: tuple[tuple[str, ...], ...] = (
    ("factory_assets",),
    ("factory_lib.entry", "factory_lib.cli", "factory_lib.commands"),
    ("factory_lib.orchestration", "factory_lib.catalog", "factory_lib.testing"),
    ("factory_lib.curation", "factory_lib.history", "factory_lib.writing"),
    ("factory_lib.query",),
    ("factory_lib.build", "factory_lib.sharing"),
    ("factory_lib.loading", "factory_lib.compute", "factory_lib.augmentation"),
    ("factory_lib.signals", "factory_lib.sources", "factory_lib.engine"),
    ("factory_lib.warehouse",),
    ("factory_lib.plan", "factory_lib.storage", "factory_lib.view"),
    ("factory_lib.pictures", "factory_lib.home", "factory_lib.tables"),
    ("factory_lib.progress", "factory_lib.settings"),
    (
        "factory_lib.bounded",
        "factory_lib.environment",
        "factory_lib.errors",
        "factory_lib.filelocks",
        "factory_lib.fingerprints",
        "factory_lib.lifeline",
        "factory_lib.memory",
        "factory_lib.names",
        "factory_lib.owners",
        "factory_lib.redaction",
        "factory_lib.renamed",
    ),
)
"""From the roof down. A module may import what stands below it or beside it, but never in a circle."""

MOST_FLOORS = 13


def modules() -> dict[str, Path]:
    """Name -> file of every module of the two packages."""
    found = {}
    for package in ("factory_lib", "factory_assets"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(p for p in parts if p != "__init__")] = path
    return found


def floor_of(name: str) -> int:
    matches = [(len(room), i) for i, rooms in enumerate(FLOORS) for room in rooms if f"{name}.".startswith(f"{room}.")]
    assert matches, f"{name} has no floor in the house: add its room to FLOORS."
    return max(matches)[1]


def imports_of(path: Path, known: Collection[str]) -> set[str]:
    """Modules of ours that a module imports when it runs, at its top or inside functions.

    Imports for type checkers alone do not count.
    """
    tree = ast.parse(path.read_text())
    for_checkers = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in for_checkers:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively."
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {part if part in known else node.module for part in parts}
    return found & set(known)


def graph() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports."""
    known = modules()
    return {name: imports_of(path, known) for name, path in known.items()}


def circle(imports: Mapping[str, Collection[str]]) -> list[str]:
    """The names along a circle of imports, or none."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def room_of(name: str) -> str:
    """The room of a module: `factory_lib.build` of `factory_lib.build.saving`."""
    return ".".join(name.split(".")[:2])


def test_imports_point_downward() -> None:
    assert len(FLOORS) <= MOST_FLOORS
    wrong = [
        f"{name} imports {imported}, which stands above it"
        for name, found in graph().items()
        for imported in found
        if name != "factory_lib" and floor_of(imported) < floor_of(name)
    ]
    assert wrong == []


def test_no_modules_and_no_rooms_import_each_other_in_a_circle() -> None:
    imports = graph()
    assert circle(imports) == []
    rooms: dict[str, set[str]] = {}
    for name, found in imports.items():
        rooms.setdefault(room_of(name), set()).update({room_of(one) for one in found} - {room_of(name)})
    assert circle(rooms) == []
    assert circle({"a": ["b"], "b": ["c"], "c": ["b"]}) != []


def test_some_rooms_stand_by_themselves() -> None:
    """Fingerprints know nothing of ours, plans next to nothing, and only its own process has the engine."""
    imports = graph()
    below = {one for name, found in imports.items() if room_of(name) == "factory_lib.fingerprints" for one in found}
    assert {room_of(one) for one in below} <= {"factory_lib.fingerprints"}
    of_plans = {one for name, found in imports.items() if room_of(name) == "factory_lib.plan" for one in found}
    assert {room_of(one) for one in of_plans} <= {
        "factory_lib.plan",
        "factory_lib.errors",
        "factory_lib.names",
        "factory_lib.redaction",
    }
    users = {name for name, found in imports.items() if any(room_of(one) == "factory_lib.engine" for one in found)}
    assert {room_of(name) for name in users} <= {"factory_lib.engine"}


def test_a_class_name_stands_once() -> None:
    places: dict[str, list[str]] = {}
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{name}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_modules_stay_small_and_have_names_that_say_something() -> None:
    for name, path in modules().items():
        assert len(path.read_text().splitlines()) <= 500, f"{name} is over 500 lines."
        assert not re.search(r"\b(utils?|helpers?|misc|common|manager|node|chain)$", name), name
        assert ast.get_docstring(ast.parse(path.read_text())) or path.stat().st_size == 0, f"{name} has no docstring."


@pytest.mark.parametrize(
    ("package", "only_in"),
    [
        ("clickhouse_connect", ("factory_lib.warehouse",)),
        ("chdb", ("factory_lib.engine",)),
        ("fsspec", ("factory_lib.storage",)),
        ("s3fs", ("factory_lib.storage",)),
        ("ray", ("factory_lib.compute",)),
        ("dagster", ("factory_lib.orchestration", "factory_assets", "factory_lib.commands")),
        ("transformers", ("factory_lib.signals", "factory_lib.loading.trainer")),
    ],
)
def test_each_heavy_package_has_one_room(package: str, only_in: tuple[str, ...]) -> None:
    for name, path in modules().items():
        text = path.read_text()
        if re.search(rf"^\s*(import|from) {package}\b", text, re.MULTILINE):
            assert name.startswith(only_in), f"{name} imports {package}"


def test_what_is_private_to_dagster_is_imported_in_one_place() -> None:
    for name, path in modules().items():
        private = re.findall(r"^\s*(?:from|import) (dagster\w*\._\S*)", path.read_text(), re.MULTILINE)
        assert not private or name == "factory_lib.orchestration.dagster_internals", f"{name} imports {private}"


def test_tests_stand_in_folders_named_as_the_rooms() -> None:
    rooms = {path.name for package in ("factory_lib", "factory_assets") for path in (ROOT / package).iterdir()}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders - {"docker"} <= rooms


def test_only_settings_read_the_environment() -> None:
    allowed = {"factory_lib.settings", "factory_lib.environment"}
    for name, path in modules().items():
        if name not in allowed:
            reads = re.findall(r"os\.environ\.get|os\.getenv|os\.environ\[[^\]]+\](?! *=)", path.read_text())
            assert not reads, f"{name} reads the environment"


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import sys; import factory_lib; from factory_lib import C, DatasetQuery, signal, fn;"
        "print(','.join(m for m in sys.modules if '.' not in m))"
    )
    loaded = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        .stdout.strip()
        .split(",")
    )
    heavy = {
        "torch",
        "transformers",
        "dagster",
        "pandas",
        "polars",
        "scipy",
        "chdb",
        "clickhouse_connect",
        "s3fs",
        "rich",
        "PIL",
    }
    assert heavy & set(loaded) == set()


def test_the_project_speaks_only_of_itself() -> None:
    words = re.compile(r"\b(claude|copilot|chatgpt|llm|ai agent|subagent|issue #?\d+)\b", re.IGNORECASE)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".toml", ".yaml", ".yml"}
            and path.exists()
            and path != Path(__file__).resolve()
        ):
            assert not words.search(path.read_text()), name


def test_pictures_are_opened_in_one_place() -> None:
    """Pillow tries every format that it knows on foreign bytes unless it is told which: `factory_lib.pictures` tells."""
    openers = {
        ("Image", "open"),
        ("ImageFile", "Parser"),
        ("cv2", "imread"),
        ("cv2", "imdecode"),
        ("imageio", "imread"),
    }
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                opens = (node.value.id, node.attr) in openers
                assert not opens or name == "factory_lib.pictures", f"{name}:{node.lineno} opens pictures by itself."
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("PIL"):
                assert not {"open", "Parser"} & {alias.name for alias in node.names}, name
            if isinstance(node, ast.Call) and "Image.open" in ast.unparse(node.func):
                assert any(word.arg == "formats" for word in node.keywords), f"{name}:{node.lineno}"
