"""DataComp's subset files: which samples of a pool are taken, as numbers of 128 bits.

An npy of dtype `u8,u8`, sorted: the upper and the lower half of each `uid`, whose 32 hex digits are one number. A
sample may be in it several times, and is then meant to be trained on as often. A file without npy's magic is the same
records raw, as the reference's memory map reads them.
Format: https://github.com/mlfoundations/datacomp, `resharder.py`.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from factory_lib.errors import QueryError
from factory_lib.storage.store import store

if TYPE_CHECKING:
    from factory_lib.query import DatasetQuery

RECORD = np.dtype("u8,u8")
_DIGITS = 32


def read_subset(uri: str) -> pa.Table:
    """The uids of a subset file, and how often each is in it.

    Returns:
        Columns `uid` (32 hex digits) and `copies` (int64), sorted by uid.

    Raises:
        QueryError: the file is no subset.
    """
    data = store().read(uri)
    if data.startswith(b"\x93NUMPY"):
        try:
            records = np.load(io.BytesIO(data), allow_pickle=False)
        except ValueError as error:
            raise QueryError(f"{uri} is no subset file: {error}.") from error
    elif len(data) % RECORD.itemsize == 0:
        records = np.frombuffer(data, RECORD)
    else:
        raise QueryError(f"{uri} is no subset file: {len(data)} bytes are no whole records of {RECORD.itemsize}.")
    if records.dtype != RECORD or records.ndim != 1:
        raise QueryError(f"{uri} is no subset file: it holds {records.dtype} of shape {records.shape}, not u8,u8.")
    found, copies = np.unique(records, return_counts=True)
    # the big-endian bytes of both halves, as hex, are the uid
    halves = np.stack([found["f0"], found["f1"]], 1).astype(">u8").tobytes().hex()
    uids = [halves[at : at + _DIGITS] for at in range(0, len(halves), _DIGITS)]
    return pa.table({"uid": pa.array(uids, pa.string()), "copies": pa.array(copies.astype(np.int64))})


def in_subset(samples: DatasetQuery, uri: str, uid: str = "uid") -> DatasetQuery:
    """The samples that a subset file names; how often it names them is in `read_subset`.

    Args:
        samples: of a pool.
        uri: the subset file.
        uid: column with the samples' uids.
    """
    from factory_lib.query import DatasetQuery

    wanted = DatasetQuery.from_arrow(read_subset(uri)).select("uid")
    return samples.join(wanted, on={uid: "uid"}, how="semi")


def write_subset(samples: DatasetQuery, uri: str, uid: str = "uid") -> int:
    """Write the uids of samples as a subset file, to be used by DataComp's resharder.

    Returns:
        Number of records.

    Raises:
        QueryError: a sample has no uid of up to 32 hex digits.
    """
    records = records_of(samples.select(uid).to_arrow().column(0))
    out = io.BytesIO()
    np.save(out, records)
    store().write(uri, out.getvalue())
    return len(records)


def records_of(uids: Any) -> npt.NDArray[Any]:
    """Uids as sorted records.

    Raises:
        QueryError: one is null, or not made of up to 32 hex digits.
    """
    padded = ["?" if uid is None else uid.rjust(_DIGITS, "0") for uid in uids.to_pylist()]
    try:
        halves = np.frombuffer(bytes.fromhex("".join(padded)), ">u8").reshape(-1, 2)
        if any(len(uid) != _DIGITS for uid in padded):
            raise ValueError
    except (TypeError, ValueError):
        raise QueryError(
            "A subset file needs a uid of up to 32 hex digits of every sample, and some have none.",
            "Filter them out, or name the column with uid=….",
        ) from None
    records = np.empty(len(halves), RECORD)
    records["f0"], records["f1"] = halves[:, 0], halves[:, 1]
    return np.sort(records)
