"""SQL that people write reads the warehouse and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery, sql_text
from factory_lib.errors import FactoryError, QueryError
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.handwritten import read

ALLOWED = (
    "SELECT shard, count() FROM guarded.v1 GROUP BY shard",
    "SELECT n FROM guarded.v1 WHERE n IN (SELECT n FROM guarded.v1 WHERE n > 1) ORDER BY n",
    "WITH one AS (SELECT n FROM guarded.v1) SELECT sumIf(n, n > 1), quantilesTDigest(0.5)(n), countIf(n = 2) FROM one",
    "SELECT arrayMap(x -> x + 1, [n]), row_number() OVER (ORDER BY n), if(n > 1, 'a', 'b'), n::Float64 FROM guarded.v1",
    "SELECT a.n, CASE WHEN a.n = 1 THEN 2 ELSE 3 END FROM guarded.v1 AS a JOIN guarded.v1 AS b USING (n);",
    "SELECT number FROM numbers(3) UNION ALL SELECT n FROM guarded.v1",
    "SHOW TABLES FROM guarded",
    "DESCRIBE TABLE guarded.v1",
    "EXISTS guarded.v1",
    "EXPLAIN SELECT n FROM guarded.v1",
    "SELECT name FROM system.tables WHERE database = 'guarded'",
    "SELECT 'file(''engine.json'')', \"n\" FROM guarded.v1 -- url('http://x')",
)

REFUSED = (
    "SELECT file('engine.json')",
    "SELECT FILE('engine.json')",
    "SELECT `file`('engine.json')",
    "SELECT/**/file/**/('engine.json')",
    "SELECT * FROM file('engine.json', 'LineAsString')",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    "SELECT * FROM `url`('http://127.0.0.1:1/', 'CSV', 'a String')",
    "SELECT n FROM guarded.v1 WHERE n IN (SELECT * FROM s3('http://127.0.0.1:1/a', 'CSV', 'a Int64'))",
    "WITH x AS (SELECT * FROM remote('127.0.0.1', system.one)) SELECT * FROM x",
    "SELECT * FROM executable('cat', 'TSV', 'a String')",
    "SELECT * FROM python('x')",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT * FROM filesystem('/')",
    "SELECT * FROM merge('system', '.*')",
    "SELECT * FROM loop('system', 'processes')",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM dictionary('a')",
    "SELECT * FROM view(SELECT file('engine.json'))",
    "SELECT dictGet('a.b', 'c', 1)",
    "SELECT getClientHTTPHeader('Authorization')",
    "SELECT addressToLine(1)",
    "SELECT aiGenerate('x')",
    "SELECT * FROM system.processes",
    "SELECT * FROM `system`.`processes`",
    "SELECT 1 IN system.users",
    "SELECT * FROM `engine.json`",
    "SELECT * FROM default.`engine.json`",
    "SELECT 'a' IN `engine.json`",
    "DESCRIBE file('engine.json')",
    "EXPLAIN SELECT * FROM file('engine.json')",
    "EXPLAIN AST SELECT file('engine.json')",
    "SELECT 1 INTO OUTFILE '/tmp/never'",
    "SELECT 1; SELECT file('engine.json')",
    "SELECT 1 SETTINGS readonly = 0",
    "KILL QUERY WHERE 1",
    "SYSTEM SHUTDOWN",
    "SHOW PROCESSLIST",
    "SET readonly = 0",
    "CREATE TABLE guarded.t (a Int8) ENGINE = File(CSV)",
    "INSERT INTO FUNCTION file('x.csv') SELECT 1",
    "BACKUP TABLE guarded.v1 TO File('x')",
    "SELECT 1 AS `a\n  Function count`, file('engine.json')",
)

EXPRESSIONS = (
    "x = 7) OR (1",
    "n = 1) UNION ALL SELECT (file('engine.json')",
    "n > 0 /*",
    "n, 1",
    "n FROM guarded.v1",
    "n SETTINGS max_threads = 1",
    "1; DROP DATABASE guarded",
    "file('engine.json') != ''",
    "n IN (SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a Int64'))",
    "n IN system.users",
    "",
)


@pytest.fixture(scope="module", autouse=True)
def _guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACTORY_HOME", str(tmp_path_factory.mktemp("home")))
        DatasetQuery.from_arrow(pa.table({"n": [1, 2, 3]})).save("guarded")
        yield


@pytest.mark.parametrize("sql", ALLOWED)
def test_what_reads_the_warehouse_is_run(sql: str) -> None:
    read(warehouse(), sql).read_all()


@pytest.mark.parametrize("sql", REFUSED)
def test_whatever_reads_elsewhere_is_refused(sql: str) -> None:
    with pytest.raises(FactoryError) as refused:
        read(warehouse(), sql)
    assert isinstance(refused.value, QueryError) or "INTO OUTFILE is not allowed" in refused.value.message
    assert not Path("/tmp/never").exists()


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_an_expression_is_one_expression(text: str) -> None:
    rows = DatasetQuery("guarded")
    for build in (
        lambda: rows.filter(text),
        lambda: rows.mutate(x=sql_text(text)),
        lambda: rows.select(x=sql_text(text)),
        lambda: rows.filter((C.n > 1) & sql_text(text)),
        lambda: rows.order_by(sql_text(text)),
        lambda: rows.agg(x=sql_text(text)),
    ):
        with pytest.raises(FactoryError):
            build()


def test_expressions_keep_their_meaning() -> None:
    rows = DatasetQuery("guarded")
    assert rows.filter("n = 1 OR n = 3 -- both").count() == 2
    assert rows.filter("n = 1 OR n = 3").filter("n > 1").to_arrow()["n"].to_pylist() == [3]
    assert rows.mutate(x=sql_text("sum(n) OVER ()")).to_arrow()["x"].to_pylist() == [6, 6, 6]
    assert rows.filter("n IN (SELECT max(n) FROM guarded.v1)").count() == 1
    assert rows.mutate(x=sql_text("arrayMap(y -> y + n, [1])")).to_arrow()["x"].to_pylist() == [[2], [3], [4]]
