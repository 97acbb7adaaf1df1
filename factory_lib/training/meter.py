"""How fast a training goes, and what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

_TIERS = {"bytes_local": "local", "bytes_cache": "cache", "bytes_shared": "shared", "bytes_origin": "origin"}

T = TypeVar("T")


@dataclass(frozen=True)
class Speed:
    """Rates over a stretch of a training, over all its processes.

    Attributes:
        samples_per_second: delivered to the model.
        stall_share: of the time of the training processes, spent waiting for the loader.
        decode_share: of the time of the processes that load, spent decoding and varying pictures.
        read_share: of the same time, spent reading bytes.
        megabytes: read, by where they came from: local files, the local cache, the shared cache, the origin.
        substituted: broken samples that others took the place of.
    """

    samples_per_second: float
    stall_share: float
    decode_share: float
    read_share: float
    megabytes: Mapping[str, float]
    substituted: int


@dataclass
class Meter:
    """Counts on one process; `read` sums over all.

    Args:
        counters: of the loader, growing.
        total: sums over all processes.
        world: processes that train.
        loading: processes that load, for each of them: its workers, or itself.
    """

    counters: Mapping[str, float]
    total: Callable[[dict[str, float]], dict[str, float]]
    world: int
    loading: int
    waited: float = 0.0
    _marks: dict[str, tuple[float, dict[str, float]]] = field(default_factory=dict)

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches, the time spent waiting for each counted."""
        iterator = iter(batches)
        while True:
            clock = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - clock
            yield batch

    def begin(self, stretch: str) -> None:
        """Begin a stretch; several may overlap."""
        self._marks[stretch] = (time.perf_counter(), {**self.counters, "waited": self.waited})

    def read(self, stretch: str) -> Speed:
        """Rates since a stretch began; every process asks at the same step."""
        began, before = self._marks[stretch]
        now = {**self.counters, "waited": self.waited}
        mine = {name: value - before.get(name, 0.0) for name, value in now.items()}
        total = self.total(mine)
        seconds = max(time.perf_counter() - began, 1e-9)
        loading = seconds * self.world * self.loading
        return Speed(
            samples_per_second=total.get("samples", 0.0) / seconds,
            stall_share=total["waited"] / (seconds * self.world),
            decode_share=total.get("decode_seconds", 0.0) / loading,
            read_share=total.get("read_seconds", 0.0) / loading,
            megabytes={tier: total[name] / 1e6 for name, tier in _TIERS.items() if total.get(name)},
            substituted=int(total.get("substituted", 0)),
        )
