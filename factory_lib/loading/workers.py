"""The worker processes of a dataset: started once, given tasks in their order, replaced when they are killed."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from factory_lib.environment import environment, use_environment
from factory_lib.errors import LoaderError
from factory_lib.lifeline import end_with_creator
from factory_lib.loading import shared_blocks
from factory_lib.loading.batches import Maker
from factory_lib.loading.tasks import BatchTasks, MadeBatch

StartMethod = Literal["fork", "forkserver", "spawn"]
MESSAGE_SECONDS, MAX_TOGETHER = 0.01, 8  # of making batches, and batches, that are sent together
# What torch says of a worker that was killed; where memory is page-locked, a thread of its own finds that out.
_TELLS_OF_DEATH = re.compile(r"DataLoader worker|Pin memory thread exited")
RESTARTS = 3  # times that killed workers are replaced in one epoch


class Workers:
    """Processes that make batches; they end with this object.

    Args:
        count: processes; 0 makes batches in the calling one.
        prefetch: batches that each makes ahead.
        pin: whether tensors come page-locked.
        counters: to which `restarted_workers` is added.
    """

    def __init__(
        self,
        maker: Maker,
        count: int,
        *,
        prefetch: int,
        method: StartMethod,
        pin: bool,
        counters: dict[str, float],
    ) -> None:
        self._maker, self._count = maker, count
        self._prefetch, self._method, self._pin, self._counters = prefetch, method, pin, counters
        self._queue = _Queue()
        self._loader: DataLoader[Any] | None = None

    def make(self, tasks: BatchTasks) -> Iterator[MadeBatch]:
        """The batches of some tasks, in their order.

        Raises:
            LoaderError: workers died again and again; and what making a batch raises.
        """
        if self._count == 0:
            for task in tasks:
                made = self._maker.make(task)
                yield made.pin_memory() if self._pin and torch.cuda.is_available() else made
            return
        done = restarts = 0
        while True:
            self._queue.tasks = tasks[done:]
            try:
                for results in self._running():
                    for result in results:
                        if isinstance(result, Exception):
                            raise result
                        self._queue.learn(result.counters)
                        yield result
                        done += 1
                return
            except RuntimeError as error:
                self._end()
                if not (isinstance(error, shared_blocks.WorkerGone) or _TELLS_OF_DEATH.search(str(error))):
                    raise
                restarts += 1
                self._counters["restarted_workers"] = self._counters.get("restarted_workers", 0) + 1
                if restarts > RESTARTS or not done:
                    raise LoaderError(
                        f"A worker process of the loader died {restarts} times: {error}",
                        'Out of memory? A script without `if __name__ == "__main__":` needs start_method="fork".',
                    ) from error

    def _end(self) -> None:
        """End the processes. Torch's handler of signals may tell once more meanwhile that one of them was killed."""
        loader, self._loader = self._loader, None
        running = getattr(loader, "_iterator", None)
        if running is not None:
            with contextlib.suppress(RuntimeError):
                running._shutdown_workers()

    def _running(self) -> DataLoader[Any]:
        if self._loader is None:
            context = multiprocessing.get_context(self._method)
            if self._method == "forkserver":
                context.set_forkserver_preload(["factory_lib.loading.batches"])
            self._loader = DataLoader(
                self._maker,  # type: ignore[arg-type]
                batch_size=None,
                sampler=self._queue,
                num_workers=self._count,
                collate_fn=_unchanged,
                persistent_workers=True,
                prefetch_factor=self._prefetch,
                multiprocessing_context=context,
                worker_init_fn=functools.partial(_start_worker, environment(), shared_blocks.usable()),
                pin_memory=self._pin,
            )
        return self._loader


class _Queue:
    """The sampler: hands out the tasks that are set when an iteration begins.

    Several at once where batches are made fast: sending a message costs as much as reading 200 small samples.
    """

    def __init__(self) -> None:
        self.tasks: BatchTasks | None = None
        self._together = 1
        self._unfetched = 0  # batches in a row of which nothing was fetched

    def learn(self, counters: Mapping[str, float]) -> None:
        """Choose how many tasks make a message of 10 ms, by what one batch took.

        One where bytes are fetched: workers that are far apart would evict what others need.
        """
        fetched = counters.get("bytes_origin", 0) + counters.get("bytes_shared", 0)
        self._unfetched = 0 if fetched else self._unfetched + 1
        fitting = int(MESSAGE_SECONDS / max(counters["make_seconds"], 1e-6))
        self._together = max(1, min(MAX_TOGETHER, fitting, self._unfetched // 2))

    def __iter__(self) -> Iterator[BatchTasks]:
        waiting = self.tasks
        while waiting:
            count = self._together
            yield waiting[:count]
            waiting = waiting[count:]


def _start_worker(variables: dict[str, str], blocks: bool, _: int) -> None:
    use_environment(variables)
    if blocks:
        shared_blocks.use_blocks()
    end_with_creator()  # torch's own watch looks at the fork server, which stays


def _unchanged(made: Any) -> Any:
    return made
