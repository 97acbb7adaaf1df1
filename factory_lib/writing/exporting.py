"""Samples leave the house: `export` writes the rows of a query in a format that others read.

What is written follows from the rows and the arguments alone: the same export has the same bytes, wherever it is made.
Parts are made in threads, which wait for storage most of the time; each holds 32 MiB of samples.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from factory_lib.errors import ExportError
from factory_lib.loading.arguments import pictures_of
from factory_lib.loading.convert import to_numpy
from factory_lib.loading.index import Index, build_index
from factory_lib.plan.expressions import C, fn
from factory_lib.plan.storing import with_system_columns
from factory_lib.progress import track
from factory_lib.query import DatasetQuery, identity_of
from factory_lib.redaction import redact, stripped, without_credentials
from factory_lib.settings import settings
from factory_lib.sources.declared import folders_of
from factory_lib.storage.store import store
from factory_lib.warehouse.provenance import package_version
from factory_lib.warehouse.versions import Version
from factory_lib.writing.about import about
from factory_lib.writing.formats import ExportFormat
from factory_lib.writing.keys import SAMPLE_NAME, check_keys, named_by
from factory_lib.writing.parts import ExportPart, PartReport
from factory_lib.writing.place import ExportPlace
from factory_lib.writing.rows import ExportRows, Stopped, order_of

_FORMAT = 1
_LOOK_SECONDS = 0.5
_MOST_WORKERS = 8


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes:
        uri: where to.
        made: False where the same export was there already.
        samples: that were written.
        unreadable: samples that were left out, as their bytes could not be read.
        named: key -> why, of the first of them.
        without: member -> samples that do not have it.
        left_out: what else could not be written -> how many: `boxes` of COCO that are no boxes, `uids` of a subset that
            no sample has.
        files: name -> bytes.
        provenance: what `provenance.json` says.
    """

    uri: str
    made: bool
    samples: int
    unreadable: int
    named: Mapping[str, str]
    without: Mapping[str, int]
    left_out: Mapping[str, int]
    files: Mapping[str, int]
    provenance: Mapping[str, Any] = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def export(
    samples: DatasetQuery | Version | str,
    uri: str,
    format: ExportFormat,
    *,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write samples for others to read.

    ```python
    from factory_lib import export
    from factory_lib.writing import WebDatasetExport

    export("laion@icml", "s3://bucket/icml", WebDatasetExport(samples_per_file=5_000), shuffle=True, seed=1)
    ```

    Args:
        samples: a query, a `Version`, or the name of one: `laion`, `laion.v3`, `laion@icml`.
        uri: an empty folder, or a prefix of a bucket; it may hold what is left of the same export, which then goes on.
        format: `WebDatasetExport`, `ParquetExport` and so on (see `factory_lib.writing`).
        shuffle: in the order in which `to_torch` reads the same samples with this seed in this epoch; False for storage
            order.
        seed, epoch: of that order.
        workers: parts that are made at once; by default one a processor, at most 8.
        overwrite: another export that is there may go.

    Returns:
        What was written. Where the same export is there already, nothing is.

    Raises:
        ExportError: the samples cannot be written so, or not there.
        ColumnNotFound: there is no such column.
        DatasetNotFound, VersionNotFound: there is none of that name.
        StoreError: storage fails.
    """
    if workers is not None and workers < 1:
        raise ExportError(f"workers={workers} cannot be.", "It is at least 1.")
    query = samples if isinstance(samples, DatasetQuery) else DatasetQuery(samples)
    wanted, copies = format.rows(_stored(query))
    members, columns = format.chosen_members(wanted.columns), format.chosen_columns(wanted.columns)
    if not (members or columns or format.takes_names_alone):
        raise ExportError(f"Nothing of the samples is chosen for {format.name}.", "Name a member or a column.")
    named = named_by(wanted, format.key)
    check_keys(named, paths=format.keys_are_paths)
    facts = about(query)
    _check_apart(uri, facts["sources"])
    of_query, etags = identity_of(query._settled())
    taken = list(dict.fromkeys(["shard", SAMPLE_NAME, *columns, *([copies] if copies else [])]))
    reader, identity, _ = named._pinned([*members, *taken])
    index = build_index(
        reader,
        identity,
        folder=settings().home / "plans",
        members=members,
        columns=taken,
        etags=etags,
        must_exist=False,
    )
    order = order_of(index, of_query, _picture_bytes(wanted) if shuffle else 0, shuffle=shuffle, seed=seed, epoch=epoch)
    rows = ExportRows(index, order, columns, _copies(index, copies), query)
    how: dict[str, Any] = {"format": format.name, **stripped(asdict(format)), "members": members, "columns": columns}
    how |= {"shuffle": shuffle, "seed": seed, "epoch": epoch} if shuffle else {"shuffle": False}
    place = ExportPlace(uri, _hash(of_query, format.depends_on(), how))
    return _exported(
        place, rows, format, {"what": without_credentials(repr(query)), **facts, "how": how}, workers, overwrite
    )


def _check_apart(uri: str, sources: Iterable[str]) -> None:
    """Refuse a target that a source of the samples would read as its own.

    Raises:
        ExportError: it lies in a source's folder.
    """
    target = without_credentials(store().resolve(uri))
    for folder in (folder for source in sources for folder in folders_of(source)):
        if f"{target}/".startswith(f"{folder.rstrip('/')}/"):
            raise ExportError(
                f"{redact(target)} lies in {redact(folder)}, a source of these samples, which would read the export as"
                " its own.",
                "Name a folder outside of it.",
            )


def _picture_bytes(samples: DatasetQuery) -> int:
    """Bytes of the pictures that a loader reads."""
    sizes = {name: fn.sum(C[name].size) for name in pictures_of(samples.columns)}
    return sum(filter(None, samples.agg(**sizes).to_arrow().to_pylist()[0].values())) if sizes else 0


def _stored(query: DatasetQuery) -> DatasetQuery:
    """The query with the columns that say where its samples stand.

    Raises:
        ExportError: its rows are no samples that stand anywhere, such as groups.
    """
    found = query.of(with_system_columns(query.plan))
    if missing := {"shard", "position"} - set(found.plan.names):
        lacking = " and no ".join(sorted(missing))
        raise ExportError(f"The rows of {query!r} have no {lacking}.", "Save them, and export the version.")
    return found


def _exported(
    place: ExportPlace,
    rows: ExportRows,
    format: ExportFormat,
    facts: Mapping[str, Any],
    workers: int | None,
    overwrite: bool,
) -> ExportReport:
    there = place.begin(str(facts["what"]), overwrite=overwrite)
    if there is not None:
        return _export_of(place, there, made=False)
    parts = format.parts(rows)
    place.announce(format.files(parts))
    done = place.done(part.name for part in parts)
    left = [part for part in parts if part.name not in done]
    done |= _made(left, rows, format, place, len(parts), workers or min(os.cpu_count() or 1, _MOST_WORKERS))
    reports = {part: done[part.name] for part in parts}
    total = PartReport()
    for report in reports.values():
        total.add(report)
    total.add(format.finish(rows, reports, place.uri))
    total.files |= format.describe(facts, total, place.uri)
    record = {
        "export": place.identity,
        **facts,
        "samples": total.samples,
        "left_out": ({"unreadable": total.unreadable} if total.unreadable else {}) | total.left_out,
        "unreadable": total.named,
        "without": total.without,
        "files": total.files,
        "software": {"dataset-factory": package_version()},
    }
    place.finish(record)
    return _export_of(place, record, made=True)


def _made(
    parts: list[ExportPart], rows: ExportRows, format: ExportFormat, place: ExportPlace, count: int, workers: int
) -> dict[str, PartReport]:
    """Make parts, several at once; the first error ends all."""

    def make(part: ExportPart) -> PartReport:
        if rows.stopped.is_set():
            raise Stopped
        report = format.write(part, rows, place.uri, count)
        place.record(part.name, report)
        return report

    total = sum(part.stop - part.start for part in parts)
    with track(f"exporting to {redact(place.uri)}", total) as progress, ThreadPoolExecutor(workers) as pool:
        futures: dict[Future[PartReport], str] = {pool.submit(make, part): part.name for part in parts}
        try:
            running = set(futures)
            while running:
                ended, running = wait(running, _LOOK_SECONDS, FIRST_EXCEPTION)
                progress.advance(rows.done - progress.done)
                for future in ended:
                    future.result()
        except BaseException:
            rows.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {name: future.result() for future, name in futures.items()}


def _export_of(place: ExportPlace, record: Mapping[str, Any], *, made: bool) -> ExportReport:
    return ExportReport(
        uri=place.uri,
        made=made,
        samples=record["samples"],
        unreadable=record["left_out"].get("unreadable", 0),
        named=record["unreadable"],
        without=record["without"],
        left_out={what: count for what, count in record["left_out"].items() if what != "unreadable"},
        files=record["files"],
        provenance=record,
    )


def _copies(index: Index, column: str | None) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    if column is None:
        return None
    return to_numpy(index.take(np.arange(index.rows), [column])[0]).astype(np.int64)


def _hash(*of: Any) -> str:
    text = repr((_FORMAT, package_version(), *of))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
