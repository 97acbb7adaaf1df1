"""Which failures of a stage are worth another try, and how long to wait for it.

What fails for the time being is tried again: storage that answers with 5xx, that times out or cannot be reached (after
the retries of single requests, which take minutes), an engine that cannot be reached or has too much to do. What would
fail in the same way is not: code, samples, names, settings, a full disk.

The tries are made inside of the step, not by Dagster's `RetryPolicy`: with one of these, terminating a run begins the
step again (dagster#15026), and it would make all shards anew for one of them. Here an interrupt ends the waiting and
the step, and only what failed is tried again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from factory_lib.errors import FactoryError
from factory_lib.redaction import redact
from factory_lib.settings import stage_retries
from factory_lib.storage.retry import is_transient as is_transient_in_storage

T = TypeVar("T")

FIRST_SECONDS = 20.0
"""The first wait; each is twice as long as the one before, give or take a quarter."""


def is_transient(error: BaseException) -> bool:
    """Whether the same may succeed a little later, without anybody doing anything."""
    link: BaseException | None = error
    while isinstance(link, FactoryError):
        if link.is_transient:
            return True
        link = link.__cause__
    # errors of ours say themselves what they are; others are what client libraries raise in the code of a stage
    return not isinstance(error, FactoryError) and is_transient_in_storage(error)


class Tries:
    """How often one thing is tried.

    Args:
        say: told before each wait what failed, and when it is tried again.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._most = 1 + stage_retries()
        self._made = 0

    def wait_after(self, error: BaseException) -> bool:
        """Wait for the next try, if there is to be one.

        Returns:
            Whether it is worth another try.
        """
        self._made += 1
        if self._made >= self._most or not is_transient(error):
            return False
        wait = FIRST_SECONDS * 2.0 ** (self._made - 1) * random.uniform(0.75, 1.25)
        self._say(f"try {self._made + 1} of {self._most} in {wait:.0f} s: {redact(one_line(error))}")
        time.sleep(wait)
        return True


def tried(action: Callable[[], T], say: Callable[[str], None]) -> T:
    """The result of an action that is tried again as long as its failures are worth it.

    Raises:
        Exception: the failure that was not, or the last one.
    """
    tries = Tries(say)
    while True:
        try:
            return action()
        except Exception as error:
            if not tries.wait_after(error):
                raise


def one_line(error: BaseException) -> str:
    """An error in one line: our own in their words, others with the name of their kind before."""
    text = " ".join(str(error).split())
    return text if isinstance(error, FactoryError) else f"{type(error).__name__}: {text}".rstrip(": ")
