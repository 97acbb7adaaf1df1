"""Reads shards ahead of whoever takes their rows."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from multiprocessing import get_context

import pyarrow as pa

from factory_lib.errors import FactoryError, SourceError
from factory_lib.lifeline import end_with_creator
from factory_lib.sources.shards import ShardReport, Source, SourceShard
from factory_lib.storage.store import is_local

REMOTE_THREADS = 4
"""Shards that are read at once from remote storage, to hide its latency."""
BATCHES_AHEAD = 2


def read_shards(
    source: Source,
    shards: Sequence[SourceShard],
    workers: int | None = None,
    reports: dict[str, ShardReport] | None = None,
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Rows of several shards: those of one shard in byte order, those of different shards possibly in turns.

    Args:
        workers: None reads ahead in threads (one for a local source: reading is Python code for the most part, so more
            would wait for each other; it runs while the caller waits for the warehouse). A number above 1 starts as
            many processes, each of which reads whole shards; that pays from some hundred thousand samples on, because
            a process takes about a second to start.
        reports: filled with the report of each shard, as they end.

    Raises:
        FactoryError: a shard changed while it was read, or its storage failed. What is wrong inside a shard is in its
            report instead.
    """
    if workers is not None and workers < 1:
        raise SourceError(f"workers is {workers}.", "It is how many processes read shards: 1 or more, or None.")
    reports = {} if reports is None else reports
    if workers is None:
        files = [shard.files[0].uri for shard in shards[:1] if shard.files]
        threads = 1 if all(map(is_local, files)) else min(REMOTE_THREADS, len(shards))
        return _in_threads(source, shards, threads, reports)
    if workers == 1 or len(shards) < 2:
        return _in_turn(source, shards, reports)
    return _in_processes(source, shards, min(workers, len(shards)), reports)


def _in_turn(
    source: Source, shards: Sequence[SourceShard], reports: dict[str, ShardReport]
) -> Iterator[tuple[str, pa.RecordBatch]]:
    for shard in shards:
        report = ShardReport(shard.name)
        with _blamed_on(shard):
            for batch in source.read(shard, report):
                yield shard.name, batch
        reports[shard.name] = report


@contextmanager
def _blamed_on(shard: SourceShard) -> Iterator[None]:
    """Errors within say which shard they happened in."""
    try:
        yield
    except FactoryError as error:
        error.shard = shard.name
        raise


def _in_threads(
    source: Source, shards: Sequence[SourceShard], threads: int, reports: dict[str, ShardReport]
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Threads read shards into a short queue; an error of theirs is raised here."""
    waiting: queue.SimpleQueue[SourceShard] = queue.SimpleQueue()
    for shard in shards:
        waiting.put(shard)
    ready: queue.Queue[tuple[str, pa.RecordBatch] | BaseException | None] = queue.Queue(BATCHES_AHEAD * threads)
    stopped = threading.Event()

    def put(item: tuple[str, pa.RecordBatch] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                break
            except queue.Full:
                continue

    def work() -> None:
        try:
            while not stopped.is_set():
                shard = waiting.get_nowait()
                for item in _in_turn(source, [shard], reports):
                    put(item)
                    if stopped.is_set():
                        return
        except queue.Empty:
            put(None)
        except BaseException as error:
            put(error)

    for number in range(threads):
        # Progress is reported to where the caller's is.
        inside = copy_context().run
        threading.Thread(target=inside, args=(work,), name=f"read-shards-{number}", daemon=True).start()
    try:
        running = threads
        while running:
            item = ready.get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        stopped.set()


def _in_processes(
    source: Source, shards: Sequence[SourceShard], workers: int, reports: dict[str, ShardReport]
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Processes read whole shards and send them as Arrow IPC; at most one more than `workers` is under way."""
    with ProcessPoolExecutor(workers, get_context("spawn"), _set_source, (source,)) as pool:
        left = iter(shards)
        under_way = [pool.submit(_read_shard, shard) for _, shard in zip(range(workers + 1), left, strict=False)]
        try:
            while under_way:
                name, stream, report = under_way.pop(0).result()
                following = next(left, None)
                if following is not None:
                    under_way.append(pool.submit(_read_shard, following))
                for batch in pa.ipc.open_stream(stream):
                    yield name, batch
                reports[name] = report
        finally:
            for future in under_way:
                future.cancel()


_source: Source


def _set_source(source: Source) -> None:
    global _source
    _source = source
    end_with_creator()


def _read_shard(shard: SourceShard) -> tuple[str, bytes, ShardReport]:
    report = ShardReport(shard.name)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _source.schema) as writer, _blamed_on(shard):
        for batch in _source.read(shard, report):
            writer.write_batch(batch)
    return shard.name, sink.getvalue().to_pybytes(), report
