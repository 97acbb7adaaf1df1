"""A table that lies in a bucket or folder with all that belongs to it, so that any engine can open it where it is.

Such a disk (`plain_rewritable`) keeps in the bucket also what is where. A table on it is given its columns by whoever
opens it. As a disk that may only be read it refuses every change, and dropping the table leaves what lies there.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

from factory_lib.errors import PublicationError
from factory_lib.plan.sqltext import literal, quote
from factory_lib.redaction import redact
from factory_lib.settings import retry_seconds
from factory_lib.storage.store import is_local, store
from factory_lib.warehouse.arrow_types import PLAIN_TYPES
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.s3_endpoint import request_tries, s3_endpoint
from factory_lib.warehouse.staging import SETTINGS

REMOTE = b"metadata_type = plain_rewritable"
"""What the engine's definition of a table says that lies elsewhere."""

_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`", re.DOTALL)
_CACHE = "pulled"
_ENGINE = f"ENGINE = MergeTree PARTITION BY shard ORDER BY (shard, position) SETTINGS {SETTINGS}"


@dataclass(frozen=True)
class Declaration:
    """How a table is declared, as JSON keeps it.

    Attributes:
        columns: name, type, codec and comment of each.
        indexes: name, expression, type and granularity of each.
    """

    columns: tuple[tuple[str, str, str, str], ...]
    indexes: tuple[tuple[str, str, str, int], ...] = ()

    @classmethod
    def of(cls, warehouse: Warehouse, database: str, table: str) -> Declaration:
        """That of a table which is there."""
        columns = warehouse.rows(
            "SELECT name, type, compression_codec AS codec, comment FROM system.columns"
            " WHERE database = {d:String} AND table = {t:String} ORDER BY position",
            {"d": database, "t": table},
            PLAIN_TYPES,
        )
        indexes = warehouse.rows(
            "SELECT name, expr, type_full AS type, granularity FROM system.data_skipping_indices"
            " WHERE database = {d:String} AND table = {t:String} ORDER BY name",
            {"d": database, "t": table},
        )
        return cls(_rows(columns), _rows(indexes))

    @classmethod
    def read(cls, record: dict[str, Any]) -> Declaration:
        """What `as_dict` gave, from somebody else: nothing of it may be SQL that does more than declare.

        Raises:
            ValueError: it says something else than `as_dict` does.
        """
        columns = [
            (_text(name), _call(kind), codec and _call(codec, "CODEC"), _text(comment))
            for name, kind, codec, comment in record["columns"]
        ]
        known = {written for name, *_ in columns for written in (name, quote(name))}
        indexes = [(_text(n), _one_of(known, of), _call(kind), int(step)) for n, of, kind, step in record["indexes"]]
        return cls(tuple(columns), tuple(indexes))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def sql(self) -> str:
        """Columns and indexes, as they stand in a definition."""
        columns = [
            f"{quote(name)} {kind}{f' COMMENT {literal(comment)}' if comment else ''} {codec}"
            for name, kind, codec, comment in self.columns
        ]
        indexes = [f"INDEX {quote(n)} {expr} TYPE {kind} GRANULARITY {step}" for n, expr, kind, step in self.indexes]
        return ", ".join([*columns, *indexes])


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _one_of(known: Collection[str], value: object) -> str:
    if value not in known:
        raise ValueError(f"{value!r} is no column")
    return str(value)


def _call(value: object, word: str = r"\w+") -> str:
    """A word, or a word with arguments, as types and codecs are written: nothing stands before or behind it."""
    text = _text(value)
    plain = _QUOTED.sub("q", text)
    whole = re.fullmatch(rf"{word}(\(.*\))?", plain, re.ASCII)
    if not whole or "--" in plain or re.search(r"[^\w\s(),.=-]", plain) or not _is_one_group(plain):
        raise ValueError(f"{text!r} is no type")
    return text


def _is_one_group(text: str) -> bool:
    """Whether the first parenthesis, if there is one, is closed by the last character, and not before."""
    depths = [*accumulate((one == "(") - (one == ")") for one in text[text.find("(") :])] if "(" in text else [0]
    return depths[-1] == 0 and all(depth > 0 for depth in depths[:-1])


def _rows(rows: list[dict[str, Any]]) -> tuple[Any, ...]:
    return tuple(tuple(row.values()) for row in rows)


def definition(declared: Declaration, uuid: str, *, disk: str = "", readonly: bool = False, comment: str = "") -> str:
    """What follows the name in `CREATE TABLE name` and `ATTACH TABLE name`.

    Args:
        disk: where the table lies (see `remote_disk`); else on the engine's own.
    """
    settings = f"{', table_readonly = 1' if readonly else ''}{f', disk = {disk}' if disk else ''}"
    return f"UUID {literal(uuid)} ({declared.sql()}) {_ENGINE}{settings} COMMENT {literal(comment)}"


def remote_disk(uri: str, *, readonly: bool, cache_bytes: int = 0) -> str:
    """The disk of one table, as SQL. No credentials are in it: the engine takes them from its environment or role.

    Args:
        uri: `s3://bucket/prefix`, or a folder that the engine reaches by the same path.
        cache_bytes: bound of what the engine keeps of all buckets on its own disk; 0 for nothing.

    Raises:
        PublicationError: the engine cannot read such a place.
        StoreError: the bucket's server is not known.
    """
    options = ["type = object_storage", "metadata_type = plain_rewritable", f"readonly = {int(readonly)}"]
    if is_local(uri):
        options += ["object_storage_type = local", f"path = {literal(f'{uri}/')}"]
        return f"disk({', '.join(options)})"
    if not uri.startswith("s3://"):
        raise PublicationError(
            f"Versions cannot be published to {redact(uri)}: the engine cannot open them there.",
            "Name an S3 bucket (others by their S3 API, which AWS_ENDPOINT_URL names), or a folder.",
        )
    server, region = store().s3_address(uri)
    options += [
        "object_storage_type = s3",
        f"endpoint = {literal(s3_endpoint(uri, server))}",
        f"region = {literal(region)}",
        "use_environment_credentials = 1",
        "skip_access_check = 1",
        f"retry_attempts = {request_tries(retry_seconds())}",
    ]
    disk = f"disk({', '.join(options)})"
    if not cache_bytes:
        return disk
    # A cache of another size is another one: the engine refuses two sizes for one folder.
    return f"disk(type = cache, path = '{_CACHE}-{cache_bytes}', max_size = {cache_bytes}, disk = {disk})"


def hashes(warehouse: Warehouse, database: str, table: str) -> dict[str, tuple[int, int, str]]:
    """Shard -> rows, bytes and a checksum of its files, of a table's parts; no values are read."""
    rows = warehouse.rows(
        "SELECT partition AS shard, sum(rows) AS rows, sum(bytes_on_disk) AS bytes,"
        " hex(sipHash128(arraySort(groupArray(hash_of_all_files)))) AS hash FROM system.parts"
        " WHERE active AND database = {d:String} AND table = {t:String} GROUP BY partition ORDER BY partition",
        {"d": database, "t": table},
    )
    return {row["shard"]: (row["rows"], row["bytes"], row["hash"]) for row in rows}
