"""What a soak checks a data folder against: the tars that it wrote itself, and what it was told was done.

Nothing of the library reads here but the door of the engine: statements go by plain HTTP, rows are compared in Python
with what the captions say of themselves. A caption names its shard, the generation of its file, its number and how many
samples that file has; the values of signals are computed again here.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import urllib.request
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_VERSION = re.compile(r"v[1-9]\d*")
_OWN = ("system", "information_schema", "INFORMATION_SCHEMA", "default", "_local", "factory", "factory_staging")
_PARTIAL = ("chosen",)
"""Datasets that hold a choice of samples; all others hold shards whole."""


def caption(shard: str, generation: int, number: int, samples: int) -> str:
    """The text of a sample, which says all that is to be known of it."""
    return f"{shard} {generation} {number} {samples} " + "x" * ((generation * 7 + number * 3) % 11)


def weight(text: str) -> int:
    """The value of the signal that is computed of a caption."""
    return zlib.crc32(text.encode()) % 1_000_003


@dataclass
class Oracle:
    """What must be there.

    Attributes:
        home: the data folder.
        now: shard -> generation of its file.
        seen: UUID of a version -> what it held when it was first seen.
        files: UUID of a version -> shard -> generation of its file when the version was first seen.
        returned: version -> UUID, of those that a save or update returned.
        expected: UUID -> shard -> generation, of versions that a call returned that took all of the source.
        tags: dataset@tag -> UUID, of those that were said to be set.
    """

    home: Path
    now: dict[str, int] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, int]] = field(default_factory=dict)
    returned: dict[str, str] = field(default_factory=dict)
    expected: dict[str, dict[str, int]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a statement, by HTTP."""
        from factory_lib.warehouse.embedded import engine_url

        engine_url(self.home)  # starts it where none runs
        state = json.loads((self.home / "engine.json").read_text())
        request = urllib.request.Request(
            f"http://127.0.0.1:{state['port']}/?output_format_json_quote_64bit_integers=0",
            data=f"{sql} FORMAT JSONEachRow".encode(),
            headers={"X-ClickHouse-User": "default", "X-ClickHouse-Key": state["token"]},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return [json.loads(line) for line in answer.read().decode().splitlines()]

    def faults(self) -> list[str]:
        """What is lost, half, wrong or NULL."""
        tables = {
            row["uuid"]: f"{row['database']}.{row['name']}"
            for row in self.rows("SELECT database, name, toString(uuid) AS uuid FROM system.tables")
            if row["database"] not in _OWN and _VERSION.fullmatch(row["name"])
        }
        found = self._lost(tables) + self._not_there(set(tables.values()))
        content = self._content(tables)
        recorded = {
            row["id"]: row
            for row in self.rows(
                "SELECT toString(v.uuid) AS id, any(v.rows) AS rows, any(s.n) AS n FROM factory.versions AS v LEFT JOIN"
                " (SELECT uuid, sum(rows) AS n FROM factory.shards GROUP BY uuid) AS s ON s.uuid = v.uuid GROUP BY id"
            )
        }
        for uuid, name in tables.items():
            held = content.get(uuid, [])
            files = self.files.setdefault(uuid, dict(self.now))
            found += [f"{name}: {what}" for what in _wrong(name, held, files)]
            if uuid not in recorded or not len(held) == recorded[uuid]["rows"] == recorded[uuid]["n"]:
                found.append(f"{name}: {len(held)} rows, recorded are {recorded.get(uuid)}")
            if uuid in self.expected and _generations(held) != {(s, n) for s, n in self.expected[uuid].items()}:
                found.append(f"{name}: it holds {sorted(_generations(held))}, there was {self.expected[uuid]}")
            same = sorted(map(str, held))
            if self.seen.setdefault(uuid, same) != same:
                found.append(f"{name}: it holds other rows than before")
        return found

    def _lost(self, tables: dict[str, str]) -> list[str]:
        dropped = {row["id"] for row in self.rows("SELECT toString(uuid) AS id FROM factory.dropped")}
        found = [
            f"{name} was returned and is not there"
            for name, uuid in self.returned.items()
            if tables.get(uuid) != name and uuid not in dropped
        ]
        found += [f"{tag}: its version is gone" for tag, uuid in self.tags.items() if uuid not in tables]
        entries = self.rows("SELECT concat(dataset, '@', tag) AS tag, toString(uuid) AS id FROM factory.tags")
        there = {(row["tag"], row["id"]) for row in entries}
        return found + [f"{tag} is gone" for tag, uuid in self.tags.items() if (tag, uuid) not in there]

    def _not_there(self, names: set[str]) -> list[str]:
        """Versions that Dagster says were made, and that are neither there nor were dropped."""
        dropped = {row["version"] for row in self.rows("SELECT version FROM factory.dropped")}
        return [
            f"{name} is materialized by Dagster's events and is not there"
            for name in sorted(set(materialized(self.home)) - names - dropped)
        ]

    def _content(self, tables: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
        columns: dict[str, set[str]] = defaultdict(set)
        for row in self.rows("SELECT concat(database, '.', table) AS t, name FROM system.columns"):
            columns[row["t"]].add(row["name"])
        held: dict[str, list[dict[str, Any]]] = defaultdict(list)
        parts = []
        for uuid, name in tables.items():
            picked = [
                f"toString({c}) AS {c}" if c in columns[name] else f"'absent' AS {c}"
                for c in ("weight", "weight_error", "measure")
            ]
            shown = ", ".join(f"ifNull({c.partition(' AS ')[0]}, 'NULL') AS {c.rpartition(' ')[2]}" for c in picked)
            parts.append(f"SELECT '{uuid}' AS id, toString(shard) AS shard, caption, {shown} FROM {name}")
        for start in range(0, len(parts), 50):
            for row in self.rows(" UNION ALL ".join(parts[start : start + 50])):
                held[row.pop("id")].append(row)
        return held


def materialized(home: Path) -> list[str]:
    """Versions that Dagster's event log names, one for each materialization."""
    log = home / "dagster/history/runs/index.db"
    if not log.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True, timeout=60)) as events:
        found = events.execute("SELECT event FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'")
        entries = [
            json.loads(event)["dagster_event"]["event_specific_data"]["materialization"]["metadata_entries"]
            for (event,) in found
        ]
    return [one["entry_data"]["text"] for of_event in entries for one in of_event if one["label"] == "version"]


def _generations(held: list[dict[str, Any]]) -> set[tuple[str, int]]:
    return {(row["shard"], int(row["caption"].split(" ")[1])) for row in held}


def _wrong(name: str, held: list[dict[str, Any]], files: dict[str, int]) -> list[str]:
    """What is wrong with the rows of a version, by what its captions say.

    Where a file was overwritten before the values of its rows were computed, they can't be: they are NULL, and say so.
    """
    found = []
    shards: dict[str, set[tuple[int, int, int]]] = defaultdict(set)
    for row in held:
        text = row["caption"]
        shard, generation, number, samples = (text.split(" ")[0], *map(int, text.split(" ")[1:4]))
        shards[shard].add((generation, number, samples))
        if shard != row["shard"] and row["shard"] != "all":
            found.append(f"a sample of {shard} lies in {row['shard']}")
        if generation < files[shard] and row["weight"] == "NULL" and row["weight_error"].startswith("FileChanged"):
            continue
        if row["weight"] not in ("absent", str(weight(text))):
            found.append(f"the weight of {text!r} is {row['weight']}, it must be {weight(text)}")
        if row["weight_error"] not in ("absent", "NULL"):
            found.append(f"{text!r} has an error: {row['weight_error']}")
        if row["measure"] not in ("absent", str(len(text))):
            found.append(f"the measure of {text!r} is {row['measure']}, it must be {len(text)}")
    if name.partition(".")[0] not in _PARTIAL:
        for shard, samples_of in shards.items():
            generations = {generation for generation, _, _ in samples_of}
            wanted = {number for _, _, samples in samples_of for number in range(samples)}
            if len(generations) != 1 or {number for _, number, _ in samples_of} != wanted:
                found.append(f"{shard} is half: {sorted(samples_of)}")
        if len(held) != sum(map(len, shards.values())):
            found.append("it has rows twice")
    return found[:3]
