"""DataComp's subset files: which samples of a pool are taken, as numbers of 128 bits.

An npy of dtype `u8,u8`, sorted: the upper and the lower half of each `uid`, whose 32 hex digits are one number. A
sample may be in it several times, and is then meant to be trained on as often: `copies` says how often. A file without
npy's magic is the same records raw, as the reference's memory map reads them.
Format: https://github.com/mlfoundations/datacomp, `resharder.py`.
"""

from __future__ import annotations

import binascii
import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from factory_lib.errors import QueryError
from factory_lib.plan.expressions import C, fn
from factory_lib.plan.operators import Expr, InQuery
from factory_lib.query import DatasetQuery
from factory_lib.storage.store import store

RECORD = np.dtype("u8,u8")
_DIGITS = 32
_UID = "^[0-9A-Fa-f]{1,32}$"
_ROWS = 1 << 25
"""Uids of one Arrow array: its offsets have 32 bits."""

Records = npt.NDArray[np.void]


def read_subset(uri: str) -> pa.Table:
    """The uids of a subset file, and how often each is in it.

    Returns:
        Columns `uid` (32 hex digits, in lower case) and `copies` (int64), sorted by uid.

    Raises:
        QueryError: the file is no subset.
        StoreError: it is not there, or cannot be read.
    """
    records = _sorted(_records_in(uri))
    upper, lower = records["f0"], records["f1"]
    first = np.flatnonzero(np.r_[True, (upper[1:] != upper[:-1]) | (lower[1:] != lower[:-1])][: len(records)])
    copies = np.diff(first, append=len(records))
    uids = pa.chunked_array(list(_uids(records[first])), pa.string())
    return pa.table({"uid": uids, "copies": pa.array(copies, pa.int64())})


def in_subset(samples: DatasetQuery, uri: str, uid: str = "uid", *, copies: str | None = None) -> DatasetQuery:
    """The samples that a subset file names.

    Args:
        samples: of a pool.
        uri: the subset file.
        uid: column with the samples' uids: hex digits in any case, with or without leading zeros.
        copies: name of a column to be added: how often the file names the sample. With it the rows are joined and
            written anew; without it they are a mask on those of the pool.

    Raises:
        QueryError: the file is no subset, or there is a column of that name already.
        StoreError: it is not there, or cannot be read.
    """
    wanted = DatasetQuery.from_arrow(read_subset(uri))
    if copies is None:
        named: DatasetQuery = samples.filter(InQuery(_padded(uid), wanted.select("uid").plan))
        return named
    if copies in samples.columns:
        raise QueryError(f"The samples have a column {copies!r} already.", "Give another name: copies=….")
    joined = samples.mutate(_uid=_padded(uid)).join(wanted.select(_uid="uid", **{copies: "copies"}), on="_uid")
    return joined.drop("_uid")


def missing_uids(samples: DatasetQuery, uri: str, uid: str = "uid") -> int:
    """How many different uids of a subset file no sample has; arguments and errors as those of `in_subset`."""
    found = in_subset(samples, uri, uid).agg(uids=fn.uniqExact(_padded(uid))).to_arrow()
    return len(read_subset(uri)) - int(found["uids"][0].as_py())


def write_subset(samples: DatasetQuery, uri: str, uid: str = "uid", *, copies: str | None = None) -> int:
    """Write the uids of samples as a subset file, to be used by DataComp's resharder.

    Args:
        samples: with uids of up to 32 hex digits.
        uri: the file.
        uid: column of the uids.
        copies: column that says how often each is named; without it once.

    Returns:
        Number of records.

    Raises:
        QueryError: a sample has no uid of up to 32 hex digits, or no number of copies.
    """
    wrong = {"uids": ~fn.match(C[uid].fill_null(""), _UID)}
    if copies is not None:
        times = C[copies]
        wrong["copies"] = ~((times >= 0) & (times < 1 << 32) & (fn.floor(times) == times)).fill_null(False)
    found = samples.agg(**{name: fn.countIf(rule) for name, rule in wrong.items()}).to_arrow().to_pylist()[0]
    if found["uids"]:
        raise QueryError(
            f"A subset file needs a uid of up to 32 hex digits of every sample, and {found['uids']:,} have none.",
            "Filter them out, or name the column with uid=….",
        )
    if found.get("copies"):
        raise QueryError(f"{found['copies']:,} samples have no number of copies in {copies!r}: a whole one from 0 on.")
    out = io.BytesIO()
    records = records_of(samples, uid, copies)
    np.save(out, records)
    store().write(uri, out.getvalue())
    return len(records)


def records_of(samples: DatasetQuery, uid: str, copies: str | None = None) -> Records:
    """Sorted records of samples with uids of up to 32 hex digits; the engine makes numbers of them and sorts."""
    halves = {"f0": _number(_padded(uid), 1), "f1": _number(_padded(uid), 17)}
    times = {} if copies is None else {"copies": C[copies].cast("Nullable(UInt32)")}
    batches = samples.select(**halves, **times).order_by("f0", "f1").to_batches()
    return np.concatenate([np.empty(0, RECORD), *map(_records_of_batch, batches)])


def _records_of_batch(batch: pa.RecordBatch) -> Records:
    records = np.empty(batch.num_rows, RECORD)
    for name in ("f0", "f1"):
        records[name] = batch.column(name).to_numpy(zero_copy_only=False)
    if "copies" not in batch.schema.names:
        return records
    return np.repeat(records, batch.column("copies").to_numpy(zero_copy_only=False))


def _records_in(uri: str) -> Records:
    data = store().read(uri)
    if data.startswith(b"\x93NUMPY"):
        try:
            records = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        except ValueError as error:
            raise QueryError(f"{uri} is no subset file: {error}.") from error
    elif data and len(data) % RECORD.itemsize == 0:
        records = np.frombuffer(data, RECORD)
    else:
        raise QueryError(f"{uri} is no subset file: {len(data)} bytes are no records of {RECORD.itemsize}.")
    if records.dtype != RECORD or records.ndim != 1:
        raise QueryError(f"{uri} is no subset file: it holds {records.dtype} of shape {records.shape}, not u8,u8.")
    return records


def _sorted(records: Records) -> Records:
    """The records in order: by their fields, which is much quicker than as a whole, and only where they are in none."""
    upper, lower = records["f0"], records["f1"]
    in_order = (upper[1:] > upper[:-1]) | ((upper[1:] == upper[:-1]) & (lower[1:] >= lower[:-1]))
    return records if in_order.all() else records[np.lexsort((lower, upper))]


def _uids(records: Records) -> Iterator[pa.Array]:
    """Records as texts: the big-endian bytes of both halves, as hex, are the uid."""
    for start in range(0, len(records), _ROWS):
        block = records[start : start + _ROWS]
        halves = np.stack([block["f0"], block["f1"]], 1).astype(">u8")
        digits = pa.py_buffer(binascii.hexlify(halves.data))
        offsets = pa.py_buffer(np.arange(0, len(digits) + 1, _DIGITS, dtype=np.int32))
        yield pa.StringArray.from_buffers(len(block), offsets, digits)


def _padded(uid: str) -> Expr:
    """A uid as subset files have it: lower case, leading zeros. (`leftPad` would cut what is too long.)"""
    return fn.concat(fn.repeat("0", _DIGITS - fn.length(C[uid])), fn.lower(C[uid]))


def _number(padded: Expr, start: int) -> Expr:
    """16 hex digits of a text, from `start` on, as a number."""
    return fn.reinterpretAsUInt64(fn.reverse(fn.unhex(fn.substring(padded, start, 16))))
