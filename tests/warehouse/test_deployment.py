"""The statements that each kind of ClickHouse gets: of all four they are compared with files, and parsed by the engine.

The embedded engine and a server by address run them as they are. What a cluster and Cloud get is run by the embedded
engine with the words taken out that only they know: so what follows a statement in the code is what follows it there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from factory_lib import C, DatasetQuery
from factory_lib.errors import EngineError
from factory_lib.history.tampering import compared
from factory_lib.warehouse import schema
from factory_lib.warehouse.client import Warehouse, warehouse
from factory_lib.warehouse.deployment import CLOUD, EMBEDDED, SERVER, Deployment, asked, replicas
from factory_lib.warehouse.embedded import engine_url
from factory_lib.warehouse.locking import locked
from factory_lib.warehouse.policy import KeepPolicy, drop_versions, expired
from factory_lib.warehouse.scratch import scratch_table
from factory_lib.warehouse.versions import resolve
from tests.history_rows import samples, save

STATEMENTS = Path(__file__).parents[1] / "fixtures/statements"
KINDS = {"embedded": EMBEDDED, "server": SERVER, "cluster": replicas("team"), "cloud": CLOUD}
_KEPT = re.compile(r"CREATE|ALTER|DELETE|RENAME|DROP|OPTIMIZE|SYSTEM|KILL")
_ON_EMBEDDED: dict[str, tuple[tuple[str, str], ...]] = {
    "cluster": (
        (r" ON CLUSTER `?team`? ENGINE = Replicated\(.*\)$", ""),
        (r"\bENGINE = Replicated", "ENGINE = "),
        (r"^SYSTEM SYNC REPLICA .*", "SELECT 1"),
    ),
    "cloud": (),
}


def _plain(statement: str) -> str:
    """Without what is another at each run."""
    text = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID", statement)
    text = re.sub(r"(_stage_(?:dropped_)?(?:\w+?_)?)[0-9a-f]{8,16}\b", r"\1ID", text)
    return re.sub(r"COMMENT '\{[^']*?(\"version\": \"[^\"]*\")?\}'", lambda m: f"COMMENT '{{{m[1] or ''}}}'", text)


@pytest.fixture
def recorded(request: pytest.FixtureRequest, factory_home: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that are run from now on, by a warehouse of the kind that the test is about."""
    kind: str = request.param
    request.getfixturevalue("engine")
    if kind != "embedded":
        address = urlsplit(engine_url(factory_home))
        monkeypatch.setenv(
            "FACTORY_CLICKHOUSE_URL", f"http://me:{address.password}@127.0.0.1:{address.port}/?log_comment={kind}"
        )
    if kind in _ON_EMBEDDED:
        monkeypatch.setitem(vars(warehouse()), "deployment", KINDS[kind])
    found: list[str] = []
    execute = Warehouse.execute

    def recording(self: Warehouse, sql: str, params: Any = None, settings: Any = None) -> None:
        if _KEPT.match(sql):
            found.append(_plain(sql))
        for pattern, word in _ON_EMBEDDED.get(kind, ()):
            sql = re.sub(pattern, word, sql)
        execute(self, sql, params, settings)

    monkeypatch.setattr(Warehouse, "execute", recording)
    assert warehouse().deployment == KINDS[kind]
    return found


def _doings() -> None:
    """A catalog, versions of each kind of derivation, a lock, a scratch table, and versions that go."""
    save([*samples("a", range(3)), *samples("b", range(3))])
    DatasetQuery("d").filter("x > 0").mutate(y=C.x + 1).save("d")
    with locked(warehouse(), "d"), scratch_table(warehouse(), "made", select="SELECT 1 AS x") as name:
        assert warehouse().rows(f"SELECT * FROM {name}") == [{"x": 1}]
    policy = KeepPolicy(days=0)
    DatasetQuery("d").save("other")
    save(samples("a", range(2)))
    assert compared(warehouse(), [resolve(warehouse(), "d"), resolve(warehouse(), "other")]).keys()
    assert [one.version for one in drop_versions(warehouse(), expired(warehouse(), policy), policy)] == []
    save(samples("a", range(1)))
    assert [one.version for one in drop_versions(warehouse(), expired(warehouse(), policy), policy)] == ["d.v3"]


@pytest.mark.parametrize(("recorded", "kind"), [(kind, kind) for kind in KINDS], indirect=["recorded"])
def test_statements_are_those_in_the_files(recorded: list[str], kind: str) -> None:
    _doings()
    written = STATEMENTS / f"{kind}.sql"
    assert [f"{statement};" for statement in recorded] == written.read_text().splitlines()
    for statement in set(recorded):
        assert warehouse().syntax_tree(statement), statement
    found = {one: compared(warehouse(), [resolve(warehouse(), one)]) for one in ("d", "other")}
    assert [finding for one in found.values() for findings in one.values() for finding in findings] == []


def test_what_a_cluster_does_not_take_is_not_sent_to_it() -> None:
    text = (STATEMENTS / "cluster.sql").read_text()
    assert "table_readonly" not in text
    assert re.search(r"ENGINE = (?!Replicated)", text.replace("ENGINE = Memory COMMENT", "")) is None
    # Locks hold no rows: that they are there is all.
    in_memory = {line.split()[2] for line in text.splitlines() if "ENGINE = Memory" in line}
    assert in_memory == {"factory.lock_d", "factory.lock_other"}
    assert not re.search(r"COMMENT '[^']*' AS SELECT| UUID '", text)
    assert all(line.count(" TO ") == 1 for line in text.splitlines() if line.startswith("RENAME TABLE"))
    made = re.findall(r"^CREATE DATABASE IF NOT EXISTS (\w+)(.*)$", text, re.MULTILINE)
    assert {name for name, _ in made} == {"factory", "factory_staging", "d", "other"}
    assert all(end.startswith(" ON CLUSTER team ENGINE = Replicated(") for _, end in made)
    order = [line.split()[0] for line in text.splitlines() if "SYNC REPLICA" in line or line.startswith("RENAME")]
    assert order[:2] == ["SYSTEM", "RENAME"]


# --- which one it is ---


def answering(**answers: Any) -> Callable[[str], list[dict[str, Any]]]:
    """A server: what it says of itself, and the clusters that it lists or the error that it gives for them."""

    def rows(sql: str) -> list[dict[str, Any]]:
        if "cloud_mode" in sql:
            return [{"cloud": answers.get("cloud"), "catalog": answers.get("catalog")}]
        assert "system.clusters" in sql
        found = answers.get("clusters", [])
        if isinstance(found, Exception):
            raise found
        return [{"cluster": name} for name in found]

    return rows


DENIED = EngineError("Not enough privileges.", "", code=497)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"cloud": "0"}, SERVER),
        ({}, SERVER),  # one that knows no such setting
        ({"cloud": "1"}, CLOUD),
        ({"cloud": "0", "catalog": "Shared"}, CLOUD),
        ({"clusters": ["all", "team"]}, replicas("all")),
        ({"clusters": DENIED}, SERVER),
        ({"catalog": "Replicated", "clusters": ["team"]}, replicas("team")),
        ({"catalog": "Replicated", "clusters": DENIED}, replicas("")),
        ({"catalog": "Atomic", "clusters": ["team"]}, SERVER),  # somebody wanted it on one node alone
    ],
)
def test_the_server_says_what_it_is(answers: dict[str, Any], expected: Deployment) -> None:
    assert asked(answering(**answers)) == expected


def test_errors_of_a_server_are_not_taken_for_an_answer() -> None:
    with pytest.raises(EngineError, match="Timeout"):
        asked(answering(clusters=EngineError("Timeout.", "", code=159)))


def test_who_may_not_see_the_cluster_reads_and_makes_no_dataset() -> None:
    blind = replicas("")
    assert blind.definition("ENGINE = MergeTree ORDER BY x") == "ENGINE = ReplicatedMergeTree ORDER BY x"
    with pytest.raises(EngineError, match="cluster is not to be seen") as caught:
        blind.create_database("laion")
    assert "GRANT SELECT ON system.clusters" in str(caught.value.hint)


@pytest.mark.usefixtures("engine")
def test_what_is_asked_is_asked_in_sql_that_the_engine_takes(factory_home: Path) -> None:
    address = urlsplit(engine_url(factory_home))
    server = Warehouse(f"http://me:{address.password}@127.0.0.1:{address.port}/")
    sent: list[str] = []

    def rows(sql: str) -> list[dict[str, Any]]:
        sent.append(sql)
        return server.rows(sql)

    assert server.deployment == asked(rows) == SERVER
    assert len(sent) == 2
    schema.ensure_tables(server)
    assert asked(rows) == SERVER
    assert len(sent) == 3  # the catalog is there, and says it


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_settings_of_the_engine(kind: str) -> None:
    deployment = KINDS[kind]
    known = set(warehouse().query("SELECT name FROM system.settings")["name"].to_pylist())
    assert {*deployment.reading, *deployment.writing} <= known
    assert warehouse().scalar("SELECT 1", settings={**deployment.writing, **deployment.reading}) == 1
