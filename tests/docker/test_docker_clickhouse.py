"""What docker/ configures of ClickHouse: users, grants, settings, backups, against the engine and the library's SQL."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from factory_lib.errors import EngineError
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.deployment import SERVER

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


def _grants_in_xml() -> dict[str, list[str]]:
    roles = ElementTree.parse(DOCKER / "clickhouse/users.xml").find("roles")
    assert roles is not None
    return {role.tag: [" ".join((q.text or "").split()) for q in role.findall("grants/query")] for role in roles}


def _grants_in_sql() -> list[str]:
    text = re.sub(r"--.*", "", (DOCKER / "clickhouse/grants.sql").read_text())
    return [" ".join(statement.split()) for statement in text.split(";") if statement.strip()]


def test_both_places_grant_the_same() -> None:
    in_sql: dict[str, list[str]] = {}
    for statement in _grants_in_sql():
        body, _, role = re.split(r" (TO|FROM|EXISTS) ", statement)
        in_sql.setdefault(role, [])
        if not statement.startswith("CREATE"):
            in_sql[role].append(body)
    assert in_sql == _grants_in_xml()


def test_users_are_let_in_from_the_network_alone() -> None:
    root = ElementTree.parse(DOCKER / "clickhouse/users.xml")
    users = {user.tag: user for user in root.findall("users/*")}
    assert users.keys() == {"default", "factory", "reader"}
    networks = users["default"].find("networks")
    assert networks is not None
    assert networks.attrib == {"replace": "replace"}
    assert [ip.text for ip in networks] == ["127.0.0.1", "::1"]
    roles = {}
    for name in ("factory", "reader"):
        assert [ip.attrib for ip in users[name].findall("networks/*")] == [{"from_env": "FACTORY_SUBNET"}]
        password = users[name].find("password")
        assert password is not None
        assert password.attrib["from_env"]
        assert not password.text
        roles[name] = users[name].findtext("grants/query")
    assert roles == {"factory": "GRANT factory_writer", "reader": "GRANT factory_reader"}
    assert not any(re.search(r"INSERT|ALTER|CREATE|DROP", query) for query in _grants_in_xml()["factory_reader"])


def test_the_engine_knows_grants_and_settings(engine_for_all: None) -> None:
    engine = warehouse()
    for statement in _grants_in_sql():
        rows = engine.query(f"EXPLAIN AST {statement}")
        assert rows.num_rows, statement
    server = ElementTree.parse(DOCKER / "clickhouse/server.xml").getroot()
    # sections of the server's configuration that are no single settings
    sections = {"access_control_improvements", "backups", "logger", "merge_tree", "query_log"}
    named = {e.tag: e.text for e in server if "remove" not in e.attrib and e.tag not in sections}
    known = {row["name"] for row in engine.rows("SELECT name FROM system.server_settings")}
    assert named.keys() <= known
    of_tables = {row["name"] for row in engine.rows("SELECT name FROM system.merge_tree_settings")}
    assert {e.tag for e in server.iterfind("merge_tree/*")} <= of_tables
    assert named["background_pool_size"] == "64"
    assert named["max_table_size_to_drop"] == named["max_partition_size_to_drop"] == "0"
    profile = ElementTree.parse(DOCKER / "clickhouse/users.xml").find("profiles/default")
    assert profile is not None
    given = {e.tag: e.text for e in profile}
    defaults = {r["name"]: r["default"] for r in engine.rows("SELECT name, default FROM system.settings")}
    assert given.keys() <= defaults.keys()
    assert all(defaults[name] != value for name, value in given.items())  # else it need not be there


def test_the_engine_refuses_unknown_privileges(engine_for_all: None) -> None:
    """The check above is one: what is no privilege does not parse."""
    with pytest.raises(EngineError):
        warehouse().query("EXPLAIN AST GRANT FLATTER ON system.parts TO factory_writer")


def _texts(tree: ast.AST) -> Iterator[str]:
    """String literals but docstrings; what f-strings put in is left out."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_grants_are_what_the_library_needs() -> None:
    """Statements, table engines and system tables in the library's SQL, against the writer's role."""
    needs = {
        "ALTER TABLE": {"ALTER TABLE"},
        "ATTACH TABLE": {"CREATE TABLE"},
        "CREATE DATABASE": {"CREATE DATABASE"},
        "CREATE TABLE": {"CREATE TABLE"},
        "DELETE FROM": {"ALTER TABLE"},
        "DETACH TABLE": {"DROP TABLE"},
        "DROP TABLE": {"DROP TABLE"},
        "INSERT INTO": {"INSERT"},
        "KILL MUTATION": {"ALTER TABLE"},
        "OPTIMIZE TABLE": {"OPTIMIZE"},
        "RENAME TABLE": {"SELECT", "INSERT", "CREATE TABLE", "DROP TABLE"},
    }
    other = "TRUNCATE|EXCHANGE|BACKUP|RESTORE|GRANT|REVOKE|DETACH|UNDROP|SYSTEM|CREATE|DROP|KILL|RENAME|ATTACH"
    begins = re.compile(rf"\s*({'|'.join(needs)}|(?:{other}) [A-Z]+)\b")
    engines, tables = set(), set()
    kinds = {match[1] for match in [begins.match(SERVER.create_database("d"))] if match}
    for path in sorted((ROOT / "factory_lib").rglob("*.py")):
        if "engine" in path.relative_to(ROOT).parts:  # the embedded engine itself
            continue
        if path.name == "deployment.py":  # what other servers than this one get: see the test below
            continue
        for text in _texts(ast.parse(path.read_text())):
            kinds |= {match[1] for match in [begins.match(text)] if match}
            engines |= set(re.findall(r"\bENGINE = (\w+)", text))
            tables |= set(re.findall(r"\b(?:FROM|JOIN) system\.(\w+)", text))
    assert {"ALTER TABLE", "RENAME TABLE"} <= kinds
    kinds -= {"ATTACH PARTITION", "DROP PARTITION", "DROP COLUMN", "DROP INDEX", "RENAME COLUMN"}  # of ALTER TABLE
    kinds -= {"SYSTEM RESTART"}  # of a disk, by which the embedded engine looks anew at what was pulled
    assert kinds <= needs.keys(), "a new kind of statement: say what it needs"
    queries = _grants_in_xml()["factory_writer"]
    everywhere = next(q for q in queries if q.endswith(" ON *.*")).removeprefix("GRANT ").removesuffix(" ON *.*")
    granted = set(everywhere.split(", "))
    shows = {"SHOW DATABASES", "SHOW TABLES", "SHOW COLUMNS"}
    assert granted == set().union(*(needs[kind] for kind in kinds)) | {"SELECT"} | shows
    assert {q.removeprefix("GRANT TABLE ENGINE ON ") for q in queries if "TABLE ENGINE" in q} == engines
    # ClickHouse shows these to everybody, those with rows of somebody row by row what they may see
    free = {"tables", "columns", "databases", "settings", "one", "functions", "table_functions"}
    assert {q.rpartition("system.")[2] for q in queries if q.startswith("GRANT SELECT ON system.")} == tables - free


def test_grants_of_a_cluster_are_what_its_statements_need(engine_for_all: None) -> None:
    grants = [
        line
        for line in (DOCKER / "clickhouse/grants-cluster.sql").read_text().splitlines()
        if line.startswith("GRANT") and warehouse().syntax_tree(line)
    ]
    sent = (ROOT / "tests/fixtures/statements/cluster.sql").read_text()
    asked = (ROOT / "factory_lib/warehouse/deployment.py").read_text()
    engines = set(re.findall(r"ENGINE = (Replicated\w+)", sent))
    tables = set(re.findall(r"(?:FROM|JOIN) system\.(\w+)", asked)) - {"settings", "databases"}
    assert "ON CLUSTER" in sent
    assert "SYSTEM SYNC REPLICA" in sent
    assert {grant.removeprefix("GRANT ").removesuffix(" TO factory_writer;") for grant in grants} == {
        "CLUSTER ON *.*",
        "SYSTEM SYNC REPLICA ON *.*",
        *(f"TABLE ENGINE ON {engine}" for engine in engines - {"Replicated"}),
        *(f"SELECT ON system.{table}" for table in tables),
    }


CLIENT = """#!{python}
# clickhouse-client, by the same engine in this process
import os, sys
import chdb

options = dict(one[2:].partition("=")[::2] for one in sys.argv[1:] if one.startswith("--") and "=" in one)
text = sys.argv[sys.argv.index("--query") + 1] if "--query" in sys.argv else sys.stdin.read()
form = options.pop("format", "TSV")
connection = chdb.connect(os.environ["DATA"] + "?config-file=" + os.environ["CONFIG"])
try:
    for name, value in options.items():
        connection.query(f"SET {{name}} = {{value}}")
    for statement in text.split(";\\n"):
        if statement.strip():
            sys.stdout.write(str(connection.query(statement, form)))
except RuntimeError as error:
    sys.exit(str(error)[:500])
"""


def test_backup_and_restore_keep_versions_as_they_are(tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    (tmp_path / "bin").mkdir()
    client = tmp_path / "bin/clickhouse-client"
    client.write_text(CLIENT.format(python=sys.executable))
    client.chmod(0o755)
    config = (DOCKER / "clickhouse/server.xml").read_text()
    assert "<allowed_path>/var/lib/clickhouse/backups/</allowed_path>" in config
    (tmp_path / "config.xml").write_text(
        f"<clickhouse><backups><allowed_path>{backups}/</allowed_path></backups></clickhouse>"
    )
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "BACKUPS": str(backups),
        "CONFIG": str(tmp_path / "config.xml"),
    }

    def run(data: str, *command: str, sql: str = "") -> subprocess.CompletedProcess[str]:
        where = {**environment, "DATA": str(tmp_path / data)}
        return subprocess.run(command, env=where, input=sql, capture_output=True, text=True)

    columns = (
        "(shard String, position UInt32, x Float32 COMMENT 'it''s; a \\n line') ENGINE = MergeTree PARTITION BY shard"
    )
    settings = "ORDER BY position SETTINGS table_readonly = 0"
    made = run(
        "old",
        "clickhouse-client",
        sql=f"CREATE DATABASE laion;\nCREATE TABLE laion.v1 {columns} {settings};\n"
        "INSERT INTO laion.v1 SELECT toString(number % 3), number, number FROM numbers(30000);\n"
        f"CREATE TABLE laion.v2 AS laion.v1 ENGINE = MergeTree PARTITION BY shard {settings};\n"
        "ALTER TABLE laion.v2 ATTACH PARTITION ALL FROM laion.v1;\nDELETE FROM laion.v2 WHERE x < 1000;\n"
        "ALTER TABLE laion.v1 MODIFY SETTING table_readonly = 1;\n",
    )
    assert made.returncode == 0, made.stderr
    look = (
        "SELECT name, uuid, total_rows, create_table_query FROM system.tables WHERE database = 'laion' ORDER BY name;\n"
    )
    look += "SELECT (SELECT sum(x) FROM laion.v1), (SELECT count() FROM laion.v2)"
    before = run("old", "clickhouse-client", sql=look).stdout
    assert before.count("table_readonly = 1") == 1
    script = str(DOCKER / "clickhouse/backup.sh")
    saved = run("old", "bash", script, "save", "monday")
    assert saved.returncode == 0, saved.stderr
    restored = run("new", "bash", script, "restore", "monday")
    assert restored.returncode == 0, restored.stderr
    assert run("new", "clickhouse-client", sql=look).stdout == before
    assert "empty server" in run("old", "bash", script, "restore", "monday").stderr


def test_backup_takes_no_strange_names(tmp_path: Path) -> None:
    script = str(DOCKER / "clickhouse/backup.sh")
    for arguments in (("save", "../x"), ("save", ""), ("drop", "x"), ("save", "a'b")):
        done = subprocess.run(["bash", script, *arguments], capture_output=True, text=True)
        assert (done.returncode, done.stderr[:6]) == (2, "usage:"), arguments
