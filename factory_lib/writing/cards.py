"""What stands beside exported tables: a card for people, and a Croissant file for programs.

Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html) is schema.org's description of a
dataset with what its files and columns are: loaders and search engines of datasets read it. Nothing in it depends on
when or by whom it was written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

CARD = "README.md"
CROISSANT = "croissant.json"

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context of the specification, as it asks for it."""

_MOST_ROWS = 10


def croissant(facts: Mapping[str, Any], schema: pa.Schema, samples: int, tables: str) -> bytes:
    """The Croissant file.

    Args:
        facts: what `provenance.json` says.
        schema: of the tables.
        tables: a pattern that names them, such as `data/*.parquet`.
    """
    found: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": _name(facts),
        "description": f"{samples:,} samples, exported by Dataset Factory. {_made_of(facts)}".strip(),
        "version": _number(facts),
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": "tables",
                "encodingFormat": "application/x-parquet",
                "includes": tables,
            }
        ],
        "recordSet": [
            {"@type": "cr:RecordSet", "@id": "samples", "name": "samples", "field": [_field(one) for one in schema]}
        ],
    }
    if created := [one["created"] for one in facts["versions"]]:
        found["datePublished"] = max(created)
    if licences := _licences(facts):
        found["license"] = licences
    if uris := [uri for uri in facts["sources"] if uri.startswith(("http://", "https://"))]:
        found["isBasedOn"] = sorted(uris)
    return json.dumps(found, indent=1, ensure_ascii=False).encode() + b"\n"


def card(facts: Mapping[str, Any], schema: pa.Schema, samples: int, front: str = "") -> bytes:
    """The card, in Markdown.

    Args:
        facts: what `provenance.json` says.
        front: lines of YAML that stand before all else.
    """
    columns = "\n".join(f"| `{one.name}` | {one.type} |" for one in schema)
    parts = [
        f"---\n{front.strip()}\n---" if front else "",
        f"# {_name(facts)}",
        f"{samples:,} samples, exported by Dataset Factory; `provenance.json` says what they were made of,"
        f" `{CROISSANT}` describes the tables for programs.",
        _made_of(facts),
        f"| column | type |\n|---|---|\n{columns}",
        _list("Sources", [f"`{uri}` ({kind})" for uri, kind in sorted(facts["sources"].items())]),
        _list("Computed columns", [f"`{name}`: signal {made}" for name, made in sorted(facts["signals"].items())]),
        _list("Licences", _licences(facts)),
    ]
    return "\n\n".join(one for one in parts if one).encode() + b"\n"


def _field(column: pa.Field) -> dict[str, Any]:
    """A column; one that has parts, such as a pointer, with a field for each part."""
    name, kind = column.name, column.type
    if pa.types.is_struct(kind):
        parts = [_part(name, f"samples/{name}/{one.name}", one.type, {"jsonPath": f"$.{one.name}"}) for one in kind]
        return {"@type": "cr:Field", "@id": f"samples/{name}", "name": f"samples/{name}", "subField": parts}
    return _part(name, f"samples/{name}", kind)


def _part(column: str, name: str, kind: pa.DataType, transform: dict[str, str] | None = None) -> dict[str, Any]:
    repeated = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    source: dict[str, Any] = {"fileSet": {"@id": "tables"}, "extract": {"column": column}}
    field = {
        "@type": "cr:Field",
        "@id": name,
        "name": name,
        "dataType": _data_type(kind.value_type if repeated else kind),
        "source": {**source, "transform": transform} if transform else source,
    }
    return {**field, "repeated": True} if repeated else field


def _data_type(kind: pa.DataType) -> str:
    """The type of schema.org; what has parts or is bytes is text there."""
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "sc:Float"
    return "sc:Date" if pa.types.is_date(kind) or pa.types.is_timestamp(kind) else "sc:Text"


def _name(facts: Mapping[str, Any]) -> str:
    return "-".join(one["name"].partition(".")[0] for one in facts["versions"]) or "samples"


def _number(facts: Mapping[str, Any]) -> str:
    """The version as Croissant wants it, major.minor.patch: 3.0.0 of `laion.v3`."""
    numbers = [one["name"].rpartition(".v")[2] for one in facts["versions"]]
    return f"{numbers[0] if numbers else 1}.0.0"


def _made_of(facts: Mapping[str, Any]) -> str:
    names = ", ".join(f"{one['name']} ({one['rows']:,} rows)" for one in facts["versions"])
    return f"Made of {names}." if names else ""


def _licences(facts: Mapping[str, Any]) -> list[str]:
    """The values of columns that say licences, the most frequent first."""
    counted = [(n, value) for values in facts["licences"].values() for value, n in values.items() if value != "None"]
    return list(dict.fromkeys(value for _, value in sorted(counted, key=lambda one: (-one[0], one[1]))))[:_MOST_ROWS]


def _list(title: str, lines: list[str]) -> str:
    shown = [f"* {line}" for line in lines[:_MOST_ROWS]]
    more = [f"* … and {len(lines) - _MOST_ROWS:,} more"] if len(lines) > _MOST_ROWS else []
    return "\n".join([f"## {title}", "", *shown, *more]) if lines else ""
