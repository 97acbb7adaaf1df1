"""`factory cache show` and `factory cache clear`: what the loader's caches hold and served, and emptying them."""

from __future__ import annotations

from typing import Any

import click

from factory_lib.commands.options import command, group
from factory_lib.commands.output import number, print_json, print_rows, say, size, when
from factory_lib.errors import FactoryError
from factory_lib.settings import settings
from factory_lib.storage import cache_statistics
from factory_lib.storage.cache import KeptMirror, clear, mirrors_of
from factory_lib.storage.shared import SharedUse, clear_shared, shared_use

_LARGEST = 10
TROUBLES = ("bypassed_bytes", "corrupt_pages", "corrupt_objects", "cache_errors", "shared_errors")


@group(
    """
    factory cache show
    factory cache clear
    """
)
def cache_command() -> None:
    """The caches of remote files: the local folder, and the tier that machines share.

    FACTORY_CACHE and FACTORY_CACHE_BYTES say where the local one is and how large it may become, FACTORY_SHARED_CACHE
    where the shared one is.
    """


@command(
    """
    factory cache show
    factory cache show --json
    """
)
def show_command(as_json: bool) -> None:
    """Show what each tier holds, and what it served since the cache was last cleared.

    The shares are of the bytes that loaders read through this folder: what neither the shared tier nor the files'
    own storage had to give was a hit. Whole pages and objects are fetched, so shares may add up to more than 100 %.
    """
    now = settings()
    kept, served = mirrors_of(now.cache), cache_statistics.read(now.cache)
    shared = shared_use(now.shared_cache) if now.shared_cache else None
    if as_json:
        print_json(_facts(kept, shared, served))
        return
    rows: list[tuple[str, ...]] = [
        ("local", str(now.cache), number(len(kept)), _bounded(kept, now.cache_bytes), *_served("cache", served)),
    ]
    if shared is not None and now.shared_cache:
        rows.append(
            ("shared", now.shared_cache, number(shared.objects), size(shared.bytes), *_served("shared", served))
        )
    rows.append(("origin", "", "", "", *_served("origin", served)))
    print_rows(
        ("tier", "where", "files", "size", "served", "share"), rows, numbers=("files", "size", "served", "share")
    )
    troubles = [f"{number(served[n])} {n.replace('_', ' ')}" for n in TROUBLES if served[n]]
    if troubles:
        say(f"Overcome: {', '.join(troubles)}.")
    largest = sorted(kept, key=lambda mirror: -mirror.bytes)[:_LARGEST]
    if largest:
        click.echo()
        lines = [(mirror.uri, size(mirror.bytes), when(_iso(mirror.used))) for mirror in largest]
        print_rows(("largest", "size", "last used"), lines, numbers=("size",))


@command(
    """
    factory cache clear
    factory cache clear --shared
    """
)
@click.option("--shared", is_flag=True, help="The shared tier, too.")
def clear_command(shared: bool, as_json: bool) -> None:
    """Empty the local cache.

    Safe while loaders run: they go on, and fetch again what they need.
    """
    now = settings()
    if shared and not now.shared_cache:
        raise FactoryError("There is no shared tier.", "FACTORY_SHARED_CACHE names its folder or bucket prefix.")
    freed = clear(now.cache)
    gone = clear_shared(now.shared_cache) if shared and now.shared_cache else None
    if as_json:
        print_json({"local_bytes": freed, "shared_bytes": gone.bytes if gone else None})
        return
    say(f"Freed {size(freed)} in {now.cache}.")
    if gone is not None:
        say(f"Removed {number(gone.objects)} objects, {size(gone.bytes)}, from {now.shared_cache}.")


def _facts(kept: list[KeptMirror], shared: SharedUse | None, served: dict[str, int]) -> dict[str, Any]:
    now = settings()
    local = {
        "folder": now.cache,
        "bytes": sum(mirror.bytes for mirror in kept),
        "capacity": now.cache_bytes,
        "files": [{"uri": m.uri, "bytes": m.bytes, "used": _iso(m.used)} for m in kept],
    }
    beyond = None if shared is None else {"url": now.shared_cache, "bytes": shared.bytes, "objects": shared.objects}
    return {"local": local, "shared": beyond, "served": served, "shares": cache_statistics.shares(served)}


def _bounded(kept: list[KeptMirror], capacity: int) -> str:
    return f"{size(sum(mirror.bytes for mirror in kept))} of {size(capacity)}"


def _served(tier: str, served: dict[str, int]) -> tuple[str, str]:
    share = cache_statistics.shares(served).get(tier)
    return ("–", "–") if share is None else (size(round(share * served["bytes_read"])), f"{share:.1%}")


def _iso(seconds: float) -> str:
    import datetime as dt

    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


cache_command.add_command(show_command)
cache_command.add_command(clear_command)
