"""Recipes that earlier releases wrote, as this one writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from factory_lib.plan.codec import FORMAT, Data

_RENAMED = {
    "factory_lib.curation.duplicates:NearDuplicateRows": "factory_lib.curation.duplicates:NEAR_DUPLICATE_ROWS",
}
"""Where what makes derived rows was, and where it is."""


def upgraded(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe in the format of now; one of a format that is not known is given back as it is.

    Format 1 had SELECTs alone in a list, `blocks`, each with what it reads inside it.
    """
    if recipe.get("format") != 1:
        return dict(recipe)
    upgrade = _FromFormat1(recipe["blocks"])
    root = upgrade.select(int(recipe["root"]))
    rest = {name: part for name, part in recipe.items() if name not in ("format", "blocks", "root")}
    return {"format": FORMAT, "nodes": upgrade.nodes, "root": root, **rest}


class _FromFormat1:
    def __init__(self, blocks: list[Data]) -> None:
        self.blocks = blocks
        self.nodes: list[Data] = []
        self._selects: dict[int, int] = {}

    def select(self, number: int) -> int:
        """The number that a SELECT has now."""
        if number not in self._selects:
            block = self.blocks[number]
            parts = {name: self.part(part) for name, part in block.items() if name not in ("source", "columns")}
            parts = {name: part for name, part in parts.items() if part is not None}
            node = {
                "is": "Select",
                "source": self.source(block["source"]),
                "columns": self.map(block["columns"]),
                **parts,
            }
            self._selects[number] = self.add(node)
        return self._selects[number]

    def add(self, node: Data) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def map(self, mapping: Mapping[str, Any]) -> Data:
        return {"map": [[name, self.part(one)] for name, one in mapping.items()]}

    def part(self, data: Any) -> Any:
        """An expression, or what one is made of."""
        if isinstance(data, list):
            return [self.part(one) for one in data]
        if not isinstance(data, dict) or data.get("is") == "Literal":
            return data
        if "query" in data:
            return {"node": self.select(data["query"])}
        named = {"plan" if name == "block" else name: self.part(part) for name, part in data.items()}
        return {name: part for name, part in named.items() if (name, part) not in _UNSAID.get(named["is"], ())}

    def source(self, data: Data) -> Data:
        if "block" in data:
            return {"node": self.select(data["block"])}
        if "join" in data:
            left, right = ({"node": self.select(side)} for side in data["join"])
            columns = self.map(data["columns"])
            return {
                "node": self.add(
                    {
                        "is": "Join",
                        "left": left,
                        "right": right,
                        "how": data["how"],
                        "on": data["on"],
                        "columns": columns,
                    }
                )
            }
        if "union" in data:
            queries = [{"node": self.select(number)} for number in data["union"]]
            return {"node": self.add({"is": "Union", "queries": queries})}
        common = {"columns": self.map(data["columns"]), **({"unit": data["unit"]} if data["unit"] else {})}
        if "table" in data:
            shards = {} if data["shards"] is None else {"shards": data["shards"]}
            return {"node": self.add({"is": "Table", **common, "name": data["table"], **shards, "uuid": data["uuid"]})}
        return {"node": self.add({**self.rows(data["pending"]), **common})}

    def rows(self, data: Data) -> Data:
        if "signals" in data:
            below = {"node": self.select(data["block"])}
            return {"is": "Signals", "input": below, "signals": data["signals"], "on_error": data["on_error"]}
        if "source" in data:
            named = {name: data[name] for name in ("options", "shards")}
            return {"is": "Storage", "uri": data["source"], "source_format": data["format"], **named}
        if "derived" in data:
            place = _RENAMED.get(data["derived"], data["derived"])
            below = {"node": self.select(data["block"])}
            return {"is": "Derived", "input": below, "function": place, "options": data["options"]}
        return {"is": "Arrow", "label": data["memory"]}


_UNSAID: dict[str, tuple[tuple[str, Any], ...]] = {
    "Ordering": (("descending", False),),
    "Call": (("args", []), ("parameters", [])),
    "SqlText": (("names", []), ("values", [])),
    "InQuery": (("negated", False),),
}
"""Expression -> fields that are left out where they are as they would be unsaid."""
