"""Whether two plans are the same query: over whatever versions and shards each is run on.

The identity of a plan is a hash of its canonical JSON without what may differ between two runs of one query: the
versions and shards that were read, the state of files, and how values are kept in Python. Two plans with one identity
make the same rows of the same inputs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from factory_lib.names import is_version_name
from factory_lib.plan.codec import Data
from factory_lib.redaction import stripped


def identity(recipe: Mapping[str, Any]) -> str:
    """The identity of a plan: 32 hexadecimal digits.

    Args:
        recipe: the plan as JSON, as `plan.codec` writes it. Credentials in it make no difference.
    """
    nodes = stripped(recipe["nodes"])
    found: dict[int, str] = {}
    for number, node in enumerate(nodes):  # nodes stand behind those that they are made of
        text = json.dumps(_essence(node, found), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        found[number] = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return found[recipe["root"]]


def _essence(node: Data, known: Mapping[int, str]) -> Any:
    """What of a node decides which rows it gives."""
    match node["is"]:
        case "Table":
            name = node["name"]
            return ["Table", name.partition(".")[0] if is_version_name(name) else name]
        case "Storage":
            return ["Storage", node["uri"], node["source_format"]]
        case "Arrow":
            return ["Arrow", _canonical(node["columns"], known)]
        case "Signals":
            signals = [[signal["name"], signal["fingerprint"]] for signal in node["signals"]]
            return ["Signals", _canonical(node["input"], known), signals]
        case "Columns":
            return ["Columns", _canonical(node["input"], known), node["on"], _canonical(node["types"], known)]
        case "NewSamples":
            made = [node["fingerprint"], node["suffix"], sorted(_canonical(node["columns"], known)["map"])]
            return ["NewSamples", _canonical(node["input"], known), *made]
        case "Derived":
            code = [node["code"]] if "code" in node else []
            return ["Derived", _canonical(node["input"], known), node["function"], node["options"], *code]
    return _canonical({name: part for name, part in node.items() if name != "windowed"}, known)


def _canonical(part: Any, known: Mapping[int, str]) -> Any:
    """A part of a node with the identities of other nodes in place of their numbers, and plain numbers for numpy's."""
    if isinstance(part, list):
        return [_canonical(one, known) for one in part]
    if not isinstance(part, dict):
        return part
    if "node" in part:
        return {"node": known[part["node"]]}
    if "scalar" in part:
        return part["value"]
    return {name: _canonical(one, known) for name, one in part.items()}
