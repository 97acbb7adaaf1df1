"""What changed since a stage was made: every component of code by name, and inputs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from factory_lib.cli import factory
from factory_lib.orchestration.behind.staleness import Staleness, why_stale
from tests.dagster_graph import SOURCE, Code, graph, look, run, write_tar

PACKAGE = {
    "attic/__init__.py": "",
    "attic/texts.py": """
        def shorten(text):
            return text[:9]
        """,
    "attic/graph.py": """
        from pathlib import Path

        import dagster as dg
        import heavy
        import pyarrow as pa

        from factory_lib import C, DatasetQuery, signal
        from factory_lib.orchestration.io_manager import VersionedTableIOManager
        from factory_lib.orchestration.stage import stage
        from factory_lib.fingerprints.files import file_digest
        from attic.texts import shorten

        LEAST = 3
        WEIGHTS = Path(__file__).with_name("weights.bin")
        ROWS = 5

        rule = lambda column: column > 1


        def limited(number):
            def keep(query):
                return query.limit(number)

            return keep


        keep = limited(4)


        class Scorer:
            def __init__(self, path):
                self.path = path

            def __fingerprint__(self):
                return {"weights": file_digest(self.path), "preprocessing": str(len(SCALES))}

            def __call__(self, key: str) -> int:
                return len(key)


        SCALES = (1, 2)
        scored = signal(Scorer(WEIGHTS), name="scored")


        @signal(version="1")
        def declared(key: str) -> int:
            return 1


        @stage(group="test")
        def attic_rows() -> DatasetQuery:
            return DatasetQuery.from_arrow(pa.table({"key": [f"k{i}" for i in range(ROWS)], "x": list(range(ROWS))}))


        @stage(group="test")
        def by_lambda(attic_rows: DatasetQuery) -> DatasetQuery:
            return attic_rows.filter(rule(C.x))


        @stage(group="test")
        def by_helper(attic_rows: DatasetQuery) -> DatasetQuery:
            return attic_rows.mutate(text=shorten("some text"))


        @stage(group="test")
        def by_global(attic_rows: DatasetQuery) -> DatasetQuery:
            return attic_rows.filter(C.x < LEAST)


        @stage(group="test")
        def by_closure(attic_rows: DatasetQuery) -> DatasetQuery:
            return keep(attic_rows)


        @stage(group="test")
        def by_weights(attic_rows: DatasetQuery) -> DatasetQuery:
            return attic_rows.add_signals(scored)


        @stage(group="test")
        def by_version(attic_rows: DatasetQuery) -> DatasetQuery:
            return attic_rows.add_signals(declared)


        @stage(group="test")
        def by_package(attic_rows: DatasetQuery) -> DatasetQuery:
            return attic_rows.limit(heavy.run())


        @stage(group="test")
        def by_its_own_code(attic_rows: DatasetQuery) -> DatasetQuery:
            return attic_rows.limit(2)


        @stage(group="test")
        def untouched(attic_rows: DatasetQuery) -> DatasetQuery:
            return attic_rows.limit(1)


        STAGES = [
            attic_rows, by_lambda, by_helper, by_global, by_closure, by_weights, by_version, by_package,
            by_its_own_code, untouched,
        ]
        defs = dg.Definitions(
            assets=STAGES,
            resources={"versions": VersionedTableIOManager()},
            executor=dg.in_process_executor,
        )


        def make(*names):
            from factory_lib.orchestration.home import factory_instance

            with factory_instance() as instance:
                done = defs.resolve_implicit_global_asset_job_def().execute_in_process(
                    instance=instance, asset_selection=[dg.AssetKey(n) for n in names] or None,
                    run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                )
            assert done.success
        """,
    "attic/weights.bin": "0123456789",
    "site-packages/heavy/__init__.py": "def run():\n    return 3\n",
    "site-packages/heavy-1.4.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: heavy\nVersion: 1.4.0\n",
    "site-packages/heavy-1.4.0.dist-info/top_level.txt": "heavy\n",
    "site-packages/heavy-1.4.0.dist-info/RECORD": "heavy/__init__.py,,\n",
}

EDITS = [
    ("attic/graph.py", "column > 1", "column > 2"),
    ("attic/texts.py", "text[:9]", "text[:8]"),
    ("attic/graph.py", "LEAST = 3", "LEAST = 2"),
    ("attic/graph.py", "limited(4)", "limited(5)"),
    ("attic/weights.bin", "0123456789", "0123456780"),
    ("attic/graph.py", 'version="1"', 'version="2"'),
    ("attic/graph.py", "attic_rows.limit(2)", "attic_rows.limit(3)"),
]

EXPECTED = {
    "by_lambda": ("code", "attic.graph.rule", "changed"),
    "by_helper": ("code", "attic.texts.shorten", "changed"),
    "by_global": ("global", "attic.graph.LEAST", "3 -> 2"),
    "by_closure": ("closure", "attic.graph.keep.number", "4 -> 5"),
    "by_weights": ("weights", "attic.graph.Scorer.weights", "changed"),
    "by_version": ("declared version", "signal:declared.version", "1 -> 2"),
    "by_package": ("package", "package:heavy", "1.4.0 -> 1.5.0"),
    "by_its_own_code": ("code", "attic.graph.by_its_own_code", "changed"),
}


@pytest.fixture
def package(engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package whose graph was materialized by another process, and edited since."""
    for name, text in PACKAGE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n") if name.endswith(".py") else text)
    site = tmp_path / "site-packages"
    root = str(Path(__file__).parents[2])
    code = f"import sys; sys.path[:0] = {[str(tmp_path), str(site), root]!r}; import attic.graph; attic.graph.make()"
    subprocess.run([sys.executable, "-B", "-c", code], check=True, capture_output=True, text=True)
    for name, old, new in EDITS:
        text = (tmp_path / name).read_text()
        assert text.count(old) == 1, old
        (tmp_path / name).write_text(text.replace(old, new))
    (site / "heavy-1.4.0.dist-info").rename(site / "heavy-1.5.0.dist-info")
    metadata = site / "heavy-1.5.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.4.0", "1.5.0"))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [n for n in sys.modules if n.partition(".")[0] in ("attic", "heavy")]:
        del sys.modules[name]


def call(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(factory, ["why-stale", *arguments, "--module", "attic.graph"])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def test_each_edit_is_named(package: Path) -> None:
    for name, (kind, component, change) in EXPECTED.items():
        found = json.loads(call(name, "--json").stdout)
        assert found["is_stale"]
        assert [c["components"] for c in found["code"]] == [[{"kind": kind, "name": component, "change": change}]], name
        assert (found["inputs"], found["never_made"]) == ([], [])
    fresh = call("untouched")
    assert fresh.stdout == ""
    assert "Nothing changed: untouched is up to date" in fresh.stderr
    assert json.loads(call("untouched", "--json").stdout)["is_stale"] is False
    assert "package:heavy: 1.4.0 -> 1.5.0" in call("by_package").stdout
    assert "Did you mean 'by_lambda'" in call("by_lamda", code=1).stderr
    graph_module = importlib.import_module("attic.graph")
    graph_module.make("by_lambda")
    assert json.loads(call("by_lambda", "--json").stdout)["is_stale"] is False
    # other rows: what was made of them is behind by its input
    path = package / "attic" / "graph.py"
    path.write_text(path.read_text().replace("ROWS = 5", "ROWS = 6"))
    for name in [n for n in sys.modules if n.partition(".")[0] == "attic"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    (component,) = json.loads(call("attic_rows", "--json").stdout)["code"][0]["components"]
    assert component == {"kind": "global", "name": "attic.graph.ROWS", "change": "5 -> 6"}
    importlib.import_module("attic.graph").make("attic_rows")
    found = json.loads(call("untouched", "--json").stdout)
    assert found["code"] == []
    assert [(i["parent"], i["change"]) for i in found["inputs"]] == [
        ("attic_rows", "attic_rows.v1 was read, it is attic_rows.v2 now")
    ]


@pytest.mark.usefixtures("engine")
def test_partitions_that_are_behind_are_named(tmp_path: Path) -> None:
    for name in "ab":
        write_tar(tmp_path / f"{name}.tar", ["one", "two"])
    with dg.DagsterInstance.ephemeral() as instance:
        definitions = graph(tmp_path)
        look(instance, tmp_path)

        def why(stage: str, unit: int = 1) -> Staleness:
            return why_stale(instance, graph(tmp_path, Code(unit=unit)).resolve_asset_graph(), dg.AssetKey(stage))

        assert why("samples").never_made == ["a", "b"]
        assert why("chosen").is_missing
        run(definitions, instance, ["samples", "measured", "kept"], ["a", "b"])
        run(definitions, instance, ["chosen"])
        assert not any(why(stage).is_stale for stage in ("samples", "measured", "kept", "chosen"))
        (changed,) = why("measured", 2).code
        assert changed.partitions == ["a", "b"]
        assert changed.components is not None
        assert [(c.kind, c.name.rpartition(".")[2]) for c in changed.components] == [("closure", "unit")]
        assert why("kept", 2).code == []
        write_tar(tmp_path / "b.tar", ["one", "two", "three"])
        look(instance, tmp_path)
        (given,) = why("samples").inputs
        assert (given.parent, given.partitions, given.change) == (SOURCE.to_user_string(), ["b"], "1 with other files")
        run(definitions, instance, ["samples"], ["b"])
        (given,) = why("measured").inputs
        assert (given.parent, given.partitions) == ("samples", ["b"])
        assert given.change == "samples.v1 was read, it is samples.v2 now"
