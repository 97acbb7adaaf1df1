"""The small members beside an image (txt, cls, json), from bytes to columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.sources.columns import json_column
from factory_lib.sources.shards import ShardReport

_DECODE = json.JSONDecoder().raw_decode
_DECODE_LONG = json.JSONDecoder(parse_int=lambda digits: int(digits) if len(digits) < 4_000 else digits).raw_decode
"""For integers of more digits than Python reads: they stay text."""
_FIRST_OF_MARKS = (b"\xef", b"\xff", b"\xfe")
Contents = Sequence[bytes | None]
"""One entry a sample: the content of a member, None where the sample has none."""


def text_column(contents: Contents, keys: pa.StringArray, report: ShardReport) -> pa.StringArray:
    """Texts without the byte order mark before them and the line end behind them; UTF-16 is told by its mark.

    Bytes that are no UTF-8 become U+FFFD and are counted.
    """
    contents = [unmarked(content) for content in contents]
    try:
        texts = pa.array(contents, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        texts, bad = _decoded(contents)
        report.count("bad_utf8", len(bad))
        report.problem(f"text of {where(keys, bad)} is not UTF-8: the wrong bytes became U+FFFD")
    return pc.utf8_rtrim(texts, characters="\r\n")


def integer_column(contents: Contents, keys: pa.StringArray, report: ShardReport) -> pa.Int64Array:
    """Integers written as text; what is none becomes null and is counted."""
    texts = pc.utf8_trim_whitespace(text_column(contents, keys, report))
    try:
        return texts.cast(pa.int64())
    except pa.ArrowInvalid:
        numbers = [_integer(text) for text in texts.to_pylist()]
    bad = [row for row, number in enumerate(numbers) if number is None and contents[row] is not None]
    report.count("bad_integers", len(bad))
    report.problem(f"class of {where(keys, bad)} is not an integer")
    return pa.array(numbers, pa.int64())


def json_objects(
    contents: Contents, keys: pa.StringArray | None, report: ShardReport | None, others: list[str | None] | None = None
) -> list[dict[str, Any]]:
    """Parse one JSON object a sample; what is none becomes an empty one and is counted.

    Args:
        others: gets, by sample, the text of JSON that is no object (a list, a number), which is then not counted.
    """
    objects: list[dict[str, Any]] = []
    bad: list[int] = []
    for row, content in enumerate(contents):
        found = parsed(content) if content is not None else {}
        if isinstance(found, dict):
            objects.append(found)
            continue
        objects.append({})
        if found is not None and others is not None:
            others[row] = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        else:
            bad.append(row)
    if bad and report is not None and keys is not None:
        report.count("bad_json", len(bad))
        report.problem(f"json of {where(keys, bad)} is not a JSON object")
    return objects


def json_columns(
    objects: list[dict[str, Any]], fields: Sequence[tuple[str, pa.DataType]], keys: pa.StringArray, report: ShardReport
) -> list[pa.Array]:
    """One column for each (field, type); values that do not fit, and fields that have no column, are counted."""
    columns: list[pa.Array] = []
    for name, kind in fields:
        column, misfits = json_column([found.get(name) for found in objects], kind)
        columns.append(column)
        if misfits:
            report.count("misfit_values", len(misfits))
            report.problem(f"json field {name!r} of {where(keys, misfits)} does not fit {kind}: left null")
    unknown = set[str]().union(*objects) - {name for name, _ in fields} - {"key"}
    if unknown:
        report.count("unknown_fields", sum(len(unknown & found.keys()) for found in objects))
        shown = ", ".join(repr(name) for name in sorted(unknown)[:5])
        report.problem(
            f"json fields {shown} are in no column: the tars that settled the schema don't have them; "
            "open the source with schema_tars=… larger to look into more of them"
        )
    return columns


def parsed(content: bytes) -> Any:
    """A JSON document; None for what is none, and for null."""
    try:
        text = (unmarked(content) or b"").decode().strip("\ufeff \t\r\n")
        try:
            found, end = _DECODE(text)
        except ValueError as error:
            if "integer string conversion" not in str(error):
                raise
            found, end = _DECODE_LONG(text)
    except (ValueError, RecursionError):
        return None
    return found if end == len(text) else None


def unmarked(content: bytes | None) -> bytes | None:
    """Text without the byte order mark before it, as UTF-8."""
    if content is None or content[:1] not in _FIRST_OF_MARKS:
        return content
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) and len(content) % 2 == 0:
        return content.decode("utf-16", "replace").encode()
    return content.removeprefix(b"\xef\xbb\xbf")


def _decoded(contents: Contents) -> tuple[pa.StringArray, list[int]]:
    texts = [None if content is None else content.decode("utf-8", "replace") for content in contents]
    bad = [
        row
        for row, (text, content) in enumerate(zip(texts, contents, strict=True))
        if text is not None and "\ufffd" in text and content is not None and text.encode() != content
    ]
    return pa.array(texts, pa.string()), bad


def _integer(text: str | None) -> int | None:
    try:
        number = int(text or "")
    except ValueError:
        return None
    return number if -(2**63) <= number < 2**63 else None


def where(keys: pa.StringArray, rows: Sequence[int]) -> str:
    """The first few samples by key, and how many more there are."""
    first = ", ".join(repr(keys[row].as_py()) for row in rows[:3])
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return f"sample{'s' if len(rows) > 1 else ''} {first}{more}"
