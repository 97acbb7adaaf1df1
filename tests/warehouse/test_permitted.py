"""SQL that people write reads the warehouse and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery, sql_text
from factory_lib.errors import ColumnNotFound, EngineError, FactoryError, QueryError
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.embedded import stop_engine
from factory_lib.warehouse.functions import permitted_functions
from factory_lib.warehouse.user_sql import read

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
    "SELECT * EXCEPT (shard) REPLACE (n + 1 AS n) FROM guarded.v1 ORDER BY ALL",
    "SELECT g.n, t.2 FROM guarded.v1 AS g CROSS JOIN (SELECT (1, 'a') AS t) AS o WHERE g.n BETWEEN 1 AND 2",
    "WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r WHERE a < 3) SELECT * FROM r",
    "SELECT n, sum(n) OVER w FROM guarded.v1 WINDOW w AS (ORDER BY n ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
    "SELECT arraySort(x -> -x, groupArray(n)), arrayReduce('sum', groupArray(n)) FROM guarded.v1",
    "SELECT n FROM guarded.v1 GROUP BY GROUPING SETS ((n), ()) HAVING count() > 0 ORDER BY n LIMIT 1 BY n LIMIT 2",
    "SELECT toDateTime64('2024-01-01', 3), today() > date '2020-01-01'",
    "SELECT lower('A'), match('a', 'b'), JSONExtractString('{}', 'a'), cosineDistance([1., 2.], [2., 1.])",
    "SELECT n FROM guarded.v1 INTERSECT SELECT 2",
    "SELECT * FROM values('a Int8', 1, 2) UNION ALL SELECT * FROM generateRandom('a Int8') LIMIT 2",
    "FROM guarded.v1 SELECT n",
    "(SELECT 1) UNION ALL (SELECT 2)",
    "DESCRIBE (SELECT n FROM guarded.v1)",
    "SHOW COLUMNS FROM v1 FROM guarded",
    "SHOW CREATE TABLE guarded.v1",
    "SELECT count() FROM system.columns WHERE table = 'v1'",
    "SELECT /* /* nested */ */ 'a' // and to the end\n, “n” FROM guarded.v1",
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
    "SELECT 1 AS `a\u2028   Literal 1`, file('engine.json')",
    "SELECT arrayMap(file, ['engine.json'])",
    "SELECT mapApply(file, map('engine.json', 1))",
    "SELECT arrayMap(x -> file(x), ['engine.json'])",
    "SELECT * APPLY(file) FROM (SELECT 'engine.json')",
    "SELECT * APPLY(x -> file(x)) FROM (SELECT 'engine.json')",
    "SELECT * REPLACE (file('engine.json') AS n) FROM guarded.v1",
    "SELECT COLUMNS('n') APPLY file FROM guarded.v1",
    "SELECT n FROM guarded.v1 ORDER BY file('engine.json')",
    "SELECT n FROM guarded.v1 LIMIT length(file('engine.json'))",
    "SELECT count() OVER (PARTITION BY file('engine.json')) FROM guarded.v1",
    "SELECT 1 AS a ARRAY JOIN [file('engine.json')] AS b",
    "SELECT n FROM guarded.v1 JOIN (SELECT 1 AS n) AS o ON file('engine.json') != ''",
    "SELECT 1 UNION ALL SELECT length(file('engine.json'))",
    "SELECT 1 EXCEPT SELECT * FROM url('http://127.0.0.1:1/')",
    "SELECT exists(SELECT * FROM file('engine.json', 'LineAsString'))",
    "SELECT * FROM file",
    "SELECT * FROM plain",
    "SELECT * FROM 'engine.json'",
    "SELECT (WITH plain AS (SELECT 1) SELECT * FROM plain), * FROM plain",
    "SELECT 1 IN plain",
    "EXISTS default.`engine.json`",
    "SHOW CREATE TABLE default.`engine.json`",
    "DESCRIBE default.`engine.json`",
    "EXPLAIN INSERT INTO FUNCTION file('x.csv') SELECT 1",
    "EXPLAIN TABLE OVERRIDE mysql('127.0.0.1:1', 'a', 'b', 'c', 'd') PARTITION BY x",
    "EXPLAIN SELECT 1 INTO OUTFILE '/tmp/never'",
    "SELECT 1 /* /* */ */ INTO OUTFILE '/tmp/never'",
    "SELECT ‘1’ INTO OUTFILE ‘/tmp/never’",
    "graph = 1 SELECT 1",
    "SELECT 1 PARALLEL WITH SELECT 2",
    "SELECT joinGet('guarded.v1', 'n', 1)",
    "SELECT hasColumnInTable('system', 'users', 'name')",
    "SELECT getServerSetting('max_connections')",
    "SELECT getMacro('a')",
    "SELECT getSetting('max_threads')",
    "SELECT AIClassify('x', ['a'])",
    "SELECT * FROM input('a Int8')",
    "SELECT * FROM fileCluster('default', 'engine.json')",
    "SELECT * FROM viewExplain('', '', (SELECT 1))",
    "SELECT * FROM viewIfPermitted(SELECT 1 ELSE file('engine.json'))",
    "SELECT * FROM mergeTreeIndex('guarded', 'v1')",
    "SELECT sumFile('engine.json')",
    "SELECT mergeIf('system', 1)",
    "SELECT * FROM system.`users`",
    "SELECT * FROM guarded.outside",
    "SELECT * FROM guarded.eye",
    "SHOW GRANTS",
    "WATCH guarded.v1",
    "DROP TABLE guarded.v1",
    "USE system",
    "",
    "-- nothing",
    "\0",
    "SELECT " + "1," * 200_000 + "1",
)

SETTINGS = {
    "additional_result_filter": "file('engine.json') != ''",
    "additional_table_filters": "{'guarded.v1': 'file(''engine.json'') != '''''}",
    "dialect": "kusto",
    "filter": "file('engine.json') != ''",
    "query": "SELECT file('engine.json') --",
    "database": "default",
    "format_schema": "/etc/passwd",
    "param_n": "1",
    "user": "x",
    "url_base": "http://127.0.0.1:1/",
}

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
    "n > 0) // (",
    "n > 0 ‘",
    "n > 0; -- x",
    "arrayMap(file, ['engine.json']) != []",
    "n IN (SELECT 1 SETTINGS max_threads = 1)",
    "n LIMIT 1",
    "n INTO OUTFILE '/tmp/never'",
    "n FORMAT CSV",
    "n UNION ALL SELECT 1",
    "n WINDOW w AS ()",
    "{x:Int8}",
    "",
    " ",
    "-- n",
)


AGGREGATES = {"hierarchicalKMeans", "stochasticLinearRegression", "stochasticLogisticRegression"}
NEVER_RUN = (47, 60, 62, 81)
"""Codes of the engine's errors: a name that is not there, or text that cannot be parsed."""


@pytest.fixture(scope="module", autouse=True)
def _guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("FACTORY_HOME", str(home))
        DatasetQuery.from_arrow(pa.table({"n": [1, 2, 3]})).save("guarded")
        for name in ("plain", "file", "outside.csv"):
            (home / name).write_text('{"a": 1}\n')
        warehouse().execute("CREATE TABLE guarded.outside (a String) ENGINE = File(LineAsString)")
        warehouse().execute("CREATE VIEW guarded.eye AS SELECT file('engine.json') AS a")
        yield
        stop_engine(home)


@pytest.mark.parametrize("sql", ALLOWED)
def test_what_reads_the_warehouse_is_run(sql: str) -> None:
    read(warehouse(), sql).read_all()


@pytest.mark.parametrize("sql", REFUSED)
def test_whatever_reads_elsewhere_is_refused(sql: str) -> None:
    with pytest.raises(FactoryError) as refused:
        read(warehouse(), sql)
    known = isinstance(refused.value, QueryError | ColumnNotFound)
    assert known or (isinstance(refused.value, EngineError) and refused.value.code in NEVER_RUN), refused.value
    assert not Path("/tmp/never").exists()


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_are_text_are_refused(name: str) -> None:
    with pytest.raises(QueryError, match="setting"):
        read(warehouse(), "SELECT n FROM guarded.v1", {name: SETTINGS[name]})
    assert read(warehouse(), "SELECT n FROM guarded.v1", {"max_threads": 1}).read_all().num_rows == 3


def test_every_function_of_the_engine_was_judged() -> None:
    known = permitted_functions(warehouse())
    rows = warehouse().rows("SELECT name, categories FROM system.functions")
    kinds = {"AI", "Dictionary", "Embedded Dictionary", "Introspection", "Machine Learning"}
    assert {row["name"] for row in rows if row["categories"] in kinds and known.allow(row["name"])} <= AGGREGATES
    reading = set(warehouse().query("SELECT name FROM system.table_functions")["name"].to_pylist())
    plain = "numbers numbers_mt zeros zeros_mt primes generateSeries generate_series generateRandom values null format"
    assert {name for name in reading if known.allow(name)} == {*plain.split(), "view", "SQLStandardValues"}
    for name in ("sum", "sumIf", "sumArrayIf", "quantilesTDigestIf", "lower", "UPPER", "multiIf", "cosineDistance"):
        assert known.allow(name), name


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


def test_text_means_the_same_among_other_columns() -> None:
    """What a column stands for is put in where the name stands, and nowhere else: not in strings, not in comments."""
    rows = DatasetQuery("guarded").mutate(a=sql_text("'$$ || file(''engine.json'') || $$\n) OR (1 = 1'"))
    for text in (
        "$$ a $$ = ''",
        "n = 0 -- a",
        "n = 0 // a",
        "n = 0 # a",
        "n = 0 /* /* a */ a */",
        "‘a’ = ''",
        "'' = 'a'",
    ):
        assert rows.filter(text).count() == 0, text
    assert rows.mutate(b=sql_text("arrayMap((a, n) -> a + n, [1], [2])")).to_arrow()["b"].to_pylist() == [[3]] * 3
    assert DatasetQuery("guarded").mutate(**{"x y": C.n}).filter('"x y" = 1 OR `x y` = 2').count() == 2
