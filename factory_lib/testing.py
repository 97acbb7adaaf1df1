"""For tests of projects that stand on the factory: a data folder of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from factory_lib.settings import in_home
from factory_lib.warehouse.embedded import stop_engine


@contextmanager
def engine_folder(folder: Path | str) -> Iterator[Path]:
    """Work in this data folder: what is saved and asked for within the block is there, in an engine of its own.

    One folder after the other, or one within the other, may be used in a process; the one that was used before is used
    again behind the block. A query belongs to the folder in which it runs, a `Version` to the one in which it was made.

    Args:
        folder: the data folder, made if missing. The server and the source that settings name do not count within.

    Yields:
        The folder. Its engine is stopped at the end of the block.
    """
    home = Path(folder).absolute()
    with in_home(home):
        try:
            yield home
        finally:
            stop_engine(home)
