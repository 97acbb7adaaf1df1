"""Counts broken samples of an epoch, tells of them once, and decides at its end whether they were too many."""

from __future__ import annotations

import logging

from factory_lib import errors
from factory_lib.errors import LoaderError
from factory_lib.loading.tasks import Broken, MadeBatch

log = logging.getLogger(__name__)


class Damage:
    """Watches one iteration over an epoch.

    Args:
        most: share of the samples of this rank that may be broken.
        place: name of the epoch, for messages.
    """

    def __init__(self, most: float, place: str) -> None:
        self._most, self._place = most, place
        self._samples = self._broken = 0.0
        self._first: Broken | None = None

    def see(self, made: MadeBatch) -> None:
        """Count a batch."""
        self._samples += made.counters.get("samples", 0)
        self._broken += made.counters.get("substituted", 0)
        if self._first is None and made.broken:
            self._first = made.broken[0]
            log.warning("%s: a broken sample was replaced by another one: %s", self._place, self._first.text)

    def finish(self) -> None:
        """Say how many samples were broken.

        Raises:
            LoaderError, StoreError: more than may be; of the kind of the first one that was seen.
        """
        if not self._broken:
            return
        share = self._broken / max(1.0, self._samples)
        text = f"{int(self._broken):,} of {int(self._samples):,} samples of {self._place} were broken and replaced"
        first = f" The first one: {self._first.text}" if self._first else ""
        if share <= self._most:
            log.warning("%s (%.2g %%).%s", text, 100 * share, first)
            return
        kind = getattr(errors, self._first.kind, LoaderError) if self._first else LoaderError
        kind = kind if isinstance(kind, type) and issubclass(kind, errors.StoreError) else LoaderError
        raise kind(
            f"{text}: {share:.1%}, more than max_broken={self._most:g}.{first}",
            "Ingest damaged shards again, filter broken samples out (the image_header signal finds them), or give a "
            "larger max_broken.",
        )
