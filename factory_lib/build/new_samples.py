"""New samples: operations over the samples of a query become tars in a store, and rows that point into them."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence

import pyarrow as pa

from factory_lib.augmentation.applying import CAPTION, IMAGE
from factory_lib.build.ledger import Ledger
from factory_lib.build.made_shard import ParentShard, ShardMaker
from factory_lib.build.made_store import claim_store
from factory_lib.build.made_tars import MadeTars, TarPart
from factory_lib.build.reuse.contents import among
from factory_lib.build.reuse.files import etags, files_of
from factory_lib.build.reuse.identity import HashedRows, Reads
from factory_lib.build.signal_rows import WAVE_ROWS, WAVE_SHARDS, table_sources
from factory_lib.fingerprints.components import digest
from factory_lib.names import STAGING
from factory_lib.plan.nodes import OPERATION, OPERATION_FINGERPRINT, PARENT, NewSamples
from factory_lib.plan.select import Select
from factory_lib.plan.sqltext import literal, quote
from factory_lib.progress import track
from factory_lib.storage.store import FileInfo
from factory_lib.warehouse import provenance
from factory_lib.warehouse.arrow_types import POINTER
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.derive import derive
from factory_lib.warehouse.filling import waves
from factory_lib.warehouse.losses import NOT_MADE, ShardLoss
from factory_lib.warehouse.scratch import scratch_table
from factory_lib.warehouse.staging import StagingTable, create_stage

_SHOWN_REASONS = 20
_MADE = (
    "shard String, position UInt32, image Tuple(uri LowCardinality(String), offset UInt64, size UInt64),"
    " width UInt32, height UInt32, caption Nullable(String)"
)


def write_new_samples(node: NewSamples, rows: Select, ledger: Ledger) -> StagingTable:
    """Make the samples of a node, as far as they are not there, and write their rows into a staging table.

    Args:
        rows: the query, all of whose rows are in tables.

    Raises:
        QueryError: the store may not be written to (see `claim_store`).
        StorageAway: parents cannot be read, or tars not written, for the time being.
    """
    wh = warehouse()
    components = node.signal.components
    fingerprint = digest(components)
    sources = {**table_sources(rows, wh), **ledger.shard_sources}
    parents, how, added = derive(wh, STAGING, rows)
    try:
        claim_store(wh, node.into, parents)
        tars = MadeTars(node.into, node.augmentation.name, fingerprint)
        with scratch_table(wh, "made", _MADE, engine="MergeTree ORDER BY (shard, position)") as made:
            sizes = parents.shard_rows()
            with (
                track(f"making {node.label}", sum(sizes.values())) as progress,
                files_of(parents, [IMAGE], sources, uuid.uuid4().hex) as files,
            ):
                for wave in waves(sizes, WAVE_ROWS, WAVE_SHARDS):
                    states = etags(wh, files, wave)
                    maker = ShardMaker(node.signal, str(node.augmentation), tars, node.suffix, states, progress.advance)
                    for shard, parts in maker.made(_parent_shards(node, parents, files, wave)):
                        _record(shard, parts, made, ledger)
                    ledger.computed += maker.computed
                    ledger.reused += maker.reused
            stage = _joined(node, parents, made, fingerprint)
    finally:
        parents.drop()
    ledger.bytes += added + stage.bytes()
    ledger.storage += [*([how.kind] if how.kind != "clone" else []), "new samples"]
    name = node.augmentation.name
    ledger.signals.append({"name": name, "fingerprint": fingerprint, "components": dict(components)})
    return stage


def _parent_shards(node: NewSamples, parents: StagingTable, files: str, shards: Sequence[str]) -> Iterator[ParentShard]:
    """The parents of some shards, shard by shard.

    Args:
        files: a table `shard, uri, etag` of the files that they point into.
    """
    wh, signal = parents.warehouse, node.signal
    rows = HashedRows(parents.name, files, {}, among(shards, "_t.shard"))
    read = rows.by_place([Reads.of(signal)], ["_t.key AS key", "_t.sample_id AS id"])
    hashes = [f"hex(groupBitXor({hashed}64(position, key, id, identity_0)))" for hashed in ("sipHash", "cityHash")]
    states = wh.rows(
        f"SELECT shard, concat({', '.join(hashes)}, toString(count())) AS state"
        f" FROM ({read}) GROUP BY shard ORDER BY shard"
    )
    given = ", ".join(f"tuple({quote(name)})" for name in signal.values) or "''"
    wanted = ", ".join(["toString(shard) AS shard", "position", *map(quote, dict.fromkeys(signal.reads))])

    def parent_shard(name: str, state: str) -> ParentShard:
        there = f"FROM {parents.name} WHERE shard = {literal(name)} ORDER BY position"
        about = f"SELECT position, sample_id, key, hex(sipHash128({given})) AS given {there}"
        state = hashlib.sha256(f"{name}\n{node.suffix}\n{state}".encode()).hexdigest()
        return ParentShard(name, state, wh.query(about), lambda: iter(wh.stream(f"SELECT {wanted} {there}")))

    return (parent_shard(one["shard"], one["state"]) for one in states)


def _record(parents: ParentShard, parts: Sequence[TarPart], made: str, ledger: Ledger) -> None:
    """Keep what became of a shard: its rows, its files, and what could not be made."""
    wh, shard = warehouse(), parents.name
    files: list[FileInfo] = []
    problems: list[str] = []
    keys = dict(zip(*(parents.rows.column(name).to_pylist() for name in ("position", "key")), strict=True))
    lost = 0
    for part in parts:
        failed = part.record.filter(part.record.column("error").is_valid())
        lost += failed.num_rows
        shown = failed.slice(0, max(0, _SHOWN_REASONS - len(problems)))
        problems += [f"{keys[row['position']]}: {row['error']}" for row in shown.to_pylist()]
        if part.tar is not None:
            files.append(part.tar)
            wh.insert(made, _rows(shard, part.tar, part.record.filter(part.record.column("error").is_null())))
    identity = "\n".join(f"{file.uri}\t{file.size}\t{file.etag}" for file in files)
    source = hashlib.sha256(f"made\n{identity}".encode()).hexdigest()[:32]
    ledger.shard_sources[shard] = source
    provenance.record_files(wh, {source: [(file.uri, file.size, file.etag) for file in files]})
    if lost:
        ledger.losses.append(
            ShardLoss(shard, parents.rows.num_rows - lost, lost={NOT_MADE: lost}, problems=tuple(problems))
        )


def _rows(shard: str, tar: FileInfo, record: pa.Table) -> pa.Table:
    n = record.num_rows
    uris = pa.array([tar.uri] * n, pa.string())
    place = [uris, *(record.column(name).combine_chunks() for name in ("offset", "size"))]
    columns = {"shard": pa.array([shard] * n, pa.string()), "position": record.column("position")}
    image = pa.StructArray.from_arrays(place, fields=list(POINTER))
    return pa.table({**columns, IMAGE: image, **{c: record.column(c) for c in ("width", "height", CAPTION)}})


def _joined(node: NewSamples, parents: StagingTable, made: str, fingerprint: str) -> StagingTable:
    """The rows of the new samples, each with what is true of it of its parent."""
    suffix = literal(node.suffix)
    key = f"concat(p.key, {suffix})"
    values = {
        "shard": "p.shard",
        "position": "p.position",
        "sample_id": f"xxHash64(concat(toString(p.sample_id), '\\n', {key}))",
        "key": key,
        PARENT: "p.sample_id",
        OPERATION: literal(str(node.augmentation)),
        OPERATION_FINGERPRINT: literal(fingerprint),
    }
    values |= {name: f"m.{name}" for name in (IMAGE, CAPTION, "width", "height")}
    selected = ", ".join(
        f"CAST({values[name]}, {literal(kind)})" if name in values else f"p.{quote(name)}"
        for name, kind in node.columns.items()
    )
    stage = create_stage(parents.warehouse, STAGING, node.columns, node.unit)
    with stage.dropped_on_error():
        parents.warehouse.execute(
            f"INSERT INTO {stage.name} ({', '.join(map(quote, node.columns))}) SELECT {selected}"
            f" FROM {parents.name} AS p INNER JOIN {made} AS m"
            " ON m.shard = toString(p.shard) AND m.position = p.position"
        )
        stage.optimize()
    return stage
