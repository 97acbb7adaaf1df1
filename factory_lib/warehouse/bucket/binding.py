"""A data folder and its bucket belong together from the first start of its engine with `FACTORY_VERSIONS` on."""

from __future__ import annotations

from pathlib import Path

from factory_lib.settings import settings
from factory_lib.warehouse.bucket.blobs import METADATA
from factory_lib.warehouse.bucket.head import Bound, BucketError, claim, read_head


def bind(home: Path) -> None:
    """Make sure that a data folder whose engine is about to start has the bucket that the settings name.

    Raises:
        BucketError: the folder's versions lie elsewhere, the bucket belongs to another folder, or it cannot be written
            by the first engine of a folder.
        StoreError: the bucket cannot be read.
    """
    bound, wanted = Bound.of(home), _wanted(home)
    if bound is not None:
        _check(home, bound, wanted)
        # It, or the first step of a move, was killed before it had claimed the prefix.
        if not _is_used(home) and read_head(bound.uri) is None:
            claim(home, bound.uri)
        else:
            bound.head()
    elif wanted is not None:
        if _has_versions(home):
            raise BucketError(
                f"The versions of {home} lie on its disk, and FACTORY_VERSIONS names {wanted}.",
                f"Move them there: factory move {wanted}.",
            )
        claim(home, wanted)


def agree(home: Path) -> None:
    """Make sure that an engine that runs keeps versions where the settings say. Raises `BucketError`."""
    bound, wanted = Bound.of(home), _wanted(home)
    if bound is None and wanted is not None:
        raise BucketError(
            f"The engine of {home} runs and keeps versions on its disk; FACTORY_VERSIONS={wanted} is new to it.",
            "Stop it: factory down. The next one begins with the bucket.",
        )
    if bound is not None:
        _check(home, bound, wanted)


def _check(home: Path, bound: Bound, wanted: str | None) -> None:
    if wanted is not None and wanted != bound.uri:
        raise BucketError(
            f"The versions of {home} lie in {bound.uri}, and FACTORY_VERSIONS names {wanted}.",
            f"Unset it, or move them: factory move {wanted}.",
        )


def _wanted(home: Path) -> str | None:
    """What the settings say of this folder: of others that a process opens they say nothing."""
    found = settings()
    return found.versions if found.home == home else None


def _is_used(home: Path) -> bool:
    """Whether anything of the folder lies in its bucket."""
    return (home / "data" / METADATA / "store").exists()


def _has_versions(home: Path) -> bool:
    return any((home / "data" / "metadata").glob("*/v[1-9]*.sql"))
