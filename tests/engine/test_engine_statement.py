"""What the server reads out of a statement's text."""

from __future__ import annotations

import pytest

from factory_lib.engine.statement import Insert, Query, parse

INSERTS = [
    # text, head, format, data
    ("INSERT INTO t FORMAT CSV\n1,2\n", "INSERT INTO t ", "CSV", "1,2\n"),
    ("insert into db.t (a, b) format  RowBinary \r\nXYZ", "insert into db.t (a, b) ", "RowBinary", "XYZ"),
    ("INSERT INTO t VALUES (1), (2)", "INSERT INTO t ", "Values", " (1), (2)"),
    (
        "INSERT INTO t (a) SETTINGS x = 1 FORMAT Native\n\x00\xff",
        "INSERT INTO t (a) SETTINGS x = 1 ",
        "Native",
        "\x00\xff",
    ),
    ("/* FORMAT a */ INSERT INTO t -- VALUES\nFORMAT TSV\nx", "/* FORMAT a */ INSERT INTO t -- VALUES\n", "TSV", "x"),
    ("INSERT INTO values FORMAT TSV\nx", "INSERT INTO values ", "TSV", "x"),
    ("INSERT INTO db.format VALUES (1)", "INSERT INTO db.format ", "Values", " (1)"),
    ("INSERT INTO `format` (`values`) VALUES (1)", "INSERT INTO `format` (`values`) ", "Values", " (1)"),
    (
        "INSERT INTO FUNCTION s3('FORMAT', 'CSV') FORMAT JSONEachRow\n{}",
        "INSERT INTO FUNCTION s3('FORMAT', 'CSV') ",
        "JSONEachRow",
        "{}",
    ),
    ("INSERT INTO t", "INSERT INTO t", "Values", ""),
    ("INSERT INTO t;", "INSERT INTO t", "Values", ""),
]


@pytest.mark.parametrize(("text", "head", "format", "data"), INSERTS)
def test_insert_with_data(text: str, head: str, format: str, data: str) -> None:
    found = parse(text)
    assert isinstance(found, Insert)
    assert (found.head, found.format, text[found.data :]) == (head, format, data)


QUERIES = [
    # text, first word, body, format, tail, into outfile
    ("SELECT 1", "SELECT", "SELECT 1", None, "", False),
    ("SELECT 1;", "SELECT", "SELECT 1", None, "", False),
    ("SELECT 1 FORMAT JSON", "SELECT", "SELECT 1 ", "JSON", "", False),
    ("SELECT 1 FORMAT JSON ; ", "SELECT", "SELECT 1 ", "JSON", " ", False),
    (
        "SELECT 1 FORMAT JSON SETTINGS max_threads = 1",
        "SELECT",
        "SELECT 1 ",
        "JSON",
        " SETTINGS max_threads = 1",
        False,
    ),
    (
        "SELECT 1 SETTINGS max_threads=1 FORMAT CSV -- c",
        "SELECT",
        "SELECT 1 SETTINGS max_threads=1 ",
        "CSV",
        " -- c",
        False,
    ),
    (
        "SELECT ' FORMAT CSV', $$ FORMAT TSV$$ AS x",
        "SELECT",
        "SELECT ' FORMAT CSV', $$ FORMAT TSV$$ AS x",
        None,
        "",
        False,
    ),
    ("SELECT 'it''s \\' FORMAT x'", "SELECT", "SELECT 'it''s \\' FORMAT x'", None, "", False),
    ("SELECT format FROM t", "SELECT", "SELECT format FROM t", None, "", False),
    ("SELECT (SELECT 1 FORMAT x)", "SELECT", "SELECT (SELECT 1 FORMAT x)", None, "", False),
    ("INSERT INTO t SELECT * FROM s", "INSERT", "INSERT INTO t SELECT * FROM s", None, "", False),
    ("INSERT INTO t (SELECT 1)", "INSERT", "INSERT INTO t (SELECT 1)", None, "", False),
    (
        "INSERT INTO t WITH x AS (SELECT 1) SELECT * FROM x",
        "INSERT",
        "INSERT INTO t WITH x AS (SELECT 1) SELECT * FROM x",
        None,
        "",
        False,
    ),
    ("INSERT INTO t FROM INFILE 'a' FORMAT CSV", "INSERT", "INSERT INTO t FROM INFILE 'a' ", "CSV", "", False),
    ("SELECT 1 INTO OUTFILE 'x'", "SELECT", "SELECT 1 INTO OUTFILE 'x'", None, "", True),
    ("kill query where query_id = 'a'", "KILL", "kill query where query_id = 'a'", None, "", False),
    ("", "", "", None, "", False),
]


@pytest.mark.parametrize(("text", "keyword", "body", "format", "tail", "outfile"), QUERIES)
def test_other_statements(text: str, keyword: str, body: str, format: str | None, tail: str, outfile: bool) -> None:
    assert parse(text) == Query(keyword, body, format, tail, outfile)


def test_piped_statement_keeps_its_format_and_settings() -> None:
    found = parse("SELECT 1 FORMAT CSV SETTINGS max_threads = 1")
    assert isinstance(found, Query)
    assert found.piped("/dev/fd/9", "TSV").split() == (
        "SELECT 1 INTO OUTFILE '/dev/fd/9' APPEND FORMAT CSV SETTINGS max_threads = 1".split()
    )
    plain = parse("SELECT 1 -- comment")
    assert isinstance(plain, Query)
    assert plain.piped("p", "TSV").endswith("-- comment\nINTO OUTFILE 'p' APPEND FORMAT TSV ")
