"""Settings: what the environment says of how Dataset Factory works."""

from __future__ import annotations

import difflib
import functools
import json
import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from factory_lib.environment import read_count, read_folder, read_number, read_whole
from factory_lib.errors import SettingsError, nearest
from factory_lib.memory import processes_that_fit

MOST_PIXELS = 2 * 89_478_485
"""Above this Pillow itself refuses a picture as a decompression bomb."""


@dataclass(frozen=True)
class Settings:
    """What the environment says, with defaults.

    Attributes:
        home: `FACTORY_HOME`, the data folder of the embedded engine and of everything kept locally (default
            `.factory`).
        clickhouse_url: `FACTORY_CLICKHOUSE_URL`, a ClickHouse server; unset, the embedded engine of `home` is used.
        versions: `FACTORY_VERSIONS`, `s3://bucket/prefix` that holds the parts of all versions of `home`; unset, where
            they lie already: on the disk of `home`, or where it was told before.
        versions_cache_bytes: `FACTORY_VERSIONS_CACHE_BYTES`, how much of what lies there is kept on that disk, too
            (default 20 GB).
        engine_idle_seconds: `FACTORY_ENGINE_IDLE_SECONDS`, after which the embedded engine stops by itself (default
            900).
        workers: `FACTORY_WORKERS`, processes that compute signals (default: one a core, and no more than memory allows
            where each may take `FACTORY_WORKER_BYTES`).
        source: `FACTORY_SOURCE`, the path or URI of the shards that the asset graph ingests; unset, the one that was
            used last in this home.
        tars_per_shard: `FACTORY_TARS_PER_SHARD`, how many tars make one shard, that is one partition (default 1).
        mapping: `FACTORY_MAPPING`, what of that source becomes which column, in words such as `image=input.jpg
            caption=blip.txt drop_columns=a,b` (see `factory_lib.orchestration.source.shards.ShardSource`); unset, as
            the source was used last.
        unpack_to: `FACTORY_UNPACK_TO`, the folder or bucket into which sources without byte ranges (compressed
            archives, pictures inside parquet) are unpacked once; unset, such sources are refused.
        derived: `FACTORY_DERIVED`, the folder or bucket in which new samples that operations make are kept as tars;
            unset, whoever makes some has to name one.
        clip: `FACTORY_CLIP`, the checkpoint behind `signals.clip.encode_image` and `encode_text`: a folder, hub id, or
            `tinyclip` (the default), which knows rendered shapes and not photos.
        rank, world_size: `RANK` and `WORLD_SIZE` as torchrun sets them, which process of a training job this is; None
            unset.
        cache: `FACTORY_CACHE`, the folder of the cache of remote files (default `cache` in `home`).
        cache_bytes: `FACTORY_CACHE_BYTES`, how large it may become (default 20 GB, and at most 90 % of the free
            disk); 0 for none.
        shared_cache: `FACTORY_SHARED_CACHE`, a folder or bucket prefix that all machines of a cluster reach; unset
            for none.
    """

    home: Path
    clickhouse_url: str | None
    versions: str | None
    versions_cache_bytes: int
    engine_idle_seconds: float
    workers: int
    source: str | None
    mapping: dict[str, str]
    tars_per_shard: int
    unpack_to: str | None
    derived: str | None
    clip: str
    rank: int | None
    world_size: int | None
    cache: Path
    cache_bytes: int
    shared_cache: str | None


def settings() -> Settings:
    """Read the settings from the environment now.

    Raises:
        SettingsError: a variable has a value of the wrong kind.
    """
    home = read_folder("FACTORY_HOME", Path(".factory"))
    source, mapping = _source(home)
    return Settings(
        home=home,
        clickhouse_url=os.environ.get("FACTORY_CLICKHOUSE_URL") or None,
        versions=_versions(),
        versions_cache_bytes=int(read_number("FACTORY_VERSIONS_CACHE_BYTES", 20e9, minimum=1e6)),
        engine_idle_seconds=read_number("FACTORY_ENGINE_IDLE_SECONDS", 900.0),
        workers=workers_for(),
        source=source,
        mapping=mapping,
        tars_per_shard=read_count("FACTORY_TARS_PER_SHARD", 1, minimum=1),
        unpack_to=os.environ.get("FACTORY_UNPACK_TO") or None,
        derived=os.environ.get("FACTORY_DERIVED") or None,
        clip=os.environ.get("FACTORY_CLIP") or "tinyclip",
        rank=read_whole("RANK"),
        world_size=read_whole("WORLD_SIZE"),
        cache=read_folder("FACTORY_CACHE", home / "cache"),
        cache_bytes=int(read_number("FACTORY_CACHE_BYTES", 20e9)),
        shared_cache=os.environ.get("FACTORY_SHARED_CACHE") or None,
    )


def models() -> tuple[str, ...]:
    """`FACTORY_MODELS`, the models that the graph asks about photos, comma-separated, or `none`. Unset, those that the
    source was used with last, or `unsafe,photo`."""
    named = os.environ.get("FACTORY_MODELS") or _remembered(read_folder("FACTORY_HOME", Path(".factory")))[2]
    named = named or "unsafe,photo"
    return () if named == "none" else tuple(dict.fromkeys(name.strip() for name in named.split(",") if name.strip()))


def max_pixels() -> int:
    """`FACTORY_MAX_PIXELS`, the most pixels that a picture may have to be decoded (default 2^26, about 67 million).

    Raises:
        SettingsError: no number, or more than Pillow decodes.
    """
    text = os.environ.get("FACTORY_MAX_PIXELS")
    return _pixels(text) if text else 2**26


AS_STORED = ("orientation", "alpha", "depth")
"""What `FACTORY_AS_STORED` may name."""


def as_stored() -> frozenset[str]:
    """`FACTORY_AS_STORED`, what of pictures is taken as it is stored, comma-separated: `orientation` (EXIF is not
    applied), `alpha` (dropped, not laid on white), `depth` (16 bits clipped to 8, not scaled). Unset, nothing.

    Raises:
        SettingsError: something else.
    """
    return _as_stored(os.environ.get("FACTORY_AS_STORED") or "")


def signal_timeout() -> float:
    """`FACTORY_SIGNAL_TIMEOUT`, seconds that a call of a signal may take (default 600; 0 for no end).

    Raises:
        SettingsError: no number.
    """
    return read_number("FACTORY_SIGNAL_TIMEOUT", 600.0)


def retry_seconds() -> float:
    """`FACTORY_RETRY_SECONDS`, how long a request to storage that fails for now is tried again (default 300).

    Asked for with each request: all settings would take as long as a hundredth of one.

    Raises:
        SettingsError: no number.
    """
    return read_number("FACTORY_RETRY_SECONDS", 300.0)


def stage_retries() -> int:
    """`FACTORY_STAGE_RETRIES`, how often a stage that fails of what may pass is tried again (default 3; 0 for never).

    Raises:
        SettingsError: no number.
    """
    return read_count("FACTORY_STAGE_RETRIES", 3)


def training_rule() -> str:
    """`FACTORY_TRAIN`, when a model is trained by itself: when this share of the samples is new, changed or gone since
    the last training (default `10%`), at the times of a cron schedule, or `never`."""
    return os.environ.get("FACTORY_TRAIN") or "10%"


def settle_seconds() -> float:
    """`FACTORY_SETTLE_SECONDS`, how long a source has to stay as it is before its new and changed shards are taken, so
    that those that arrive together are taken together (default 60; 0 for at once).

    Raises:
        SettingsError: no number.
    """
    return read_number("FACTORY_SETTLE_SECONDS", 60.0)


def vanished_hours() -> float:
    """`FACTORY_VANISHED`, what becomes of samples whose shard the source lists no more: `keep`, `drop`, or the hours
    after which they are dropped (default 24). Infinite for `keep`, 0 for `drop`.

    Raises:
        SettingsError: something else.
    """
    text = os.environ.get("FACTORY_VANISHED") or ""
    named = {"keep": math.inf, "drop": 0.0}
    if text in named:
        return named[text]
    if text and not text.replace(".", "", 1).isdigit():
        raise SettingsError(f"FACTORY_VANISHED={text!r} is no number of hours.", f"{nearest(text, named)} Or a number.")
    return float(text or 24.0)


def alert_url() -> str | None:
    """`FACTORY_ALERT_URL`, the webhook that hears of failed runs and red checks; None unset. It may hold a secret."""
    return os.environ.get("FACTORY_ALERT_URL") or None


def alert_email() -> list[str]:
    """`FACTORY_ALERT_EMAIL`, who gets a mail of failed runs, with commas between; needs `FACTORY_SMTP_URL`."""
    return [one.strip() for one in (os.environ.get("FACTORY_ALERT_EMAIL") or "").split(",") if one.strip()]


def smtp_url() -> str | None:
    """`FACTORY_SMTP_URL`, the mail server with user and password, `smtps://` or `smtp://` (STARTTLS); None unset."""
    return os.environ.get("FACTORY_SMTP_URL") or None


def ui_url() -> str | None:
    """`FACTORY_UI_URL`, the address of Dagster's UI as people reach it, for links in alerts; None unset."""
    return os.environ.get("FACTORY_UI_URL") or None


def workers_for(cpus: float = 1.0, memory: int = 0) -> int:
    """How many processes compute signals here at once: `FACTORY_WORKERS`, or as many as the machine has room for.

    Args:
        cpus: cores that each takes.
        memory: bytes that each takes; 0 for `FACTORY_WORKER_BYTES`.

    Raises:
        SettingsError: no number.
    """
    fitting = max(1, min(int((os.cpu_count() or 1) / cpus), processes_that_fit(memory or worker_bytes())))
    return wanted_workers(f"{fitting}, what this machine has room for") or fitting


def wanted_workers(otherwise: str = "as many as there is room for") -> int:
    """`FACTORY_WORKERS`; 0 unset."""
    return read_count("FACTORY_WORKERS", 0, shown=otherwise)


EXECUTORS = ("local", "ray")
"""What `FACTORY_EXECUTOR` may name."""


def executor(named: str | None = None) -> str:
    """`FACTORY_EXECUTOR`, where signals are computed: `local`, by processes of this machine (default), or `ray`.

    Args:
        named: what a caller says, which comes before the setting.

    Raises:
        SettingsError: something else.
    """
    found = named or os.environ.get("FACTORY_EXECUTOR") or EXECUTORS[0]
    if found not in EXECUTORS:
        said = f"executor={found!r}" if named else f"FACTORY_EXECUTOR={found!r}"
        raise SettingsError(f"{said}: there is no such executor.", nearest(found, EXECUTORS))
    return found


def ray_address() -> str:
    """`RAY_ADDRESS`, the Ray cluster; unset, the one that runs on this machine."""
    return os.environ.get("RAY_ADDRESS") or "auto"


def worker_bytes() -> int:
    """`FACTORY_WORKER_BYTES`, memory that a process that computes signals may need (default 2^30).

    The default is what one takes that decodes a picture of the largest size that is decoded by default: 0.2 GiB for the
    interpreter and libraries, three bytes a pixel for the picture, and as much twice for what is computed of it.

    Raises:
        SettingsError: no number, or less than 64 MiB.
    """
    return int(read_number("FACTORY_WORKER_BYTES", float(2**30), minimum=float(2**26)))


@functools.cache
def _as_stored(text: str) -> frozenset[str]:
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    for name in sorted(names - set(AS_STORED)):
        raise SettingsError(f"FACTORY_AS_STORED={text!r} names {name!r}.", nearest(name, AS_STORED))
    return names


@functools.cache
def _pixels(text: str) -> int:
    number = read_number("FACTORY_MAX_PIXELS", float(2**26), minimum=1)
    if number > MOST_PIXELS:
        raise SettingsError(
            f"FACTORY_MAX_PIXELS={text} is above {MOST_PIXELS}, the most that Pillow decodes.",
            f"Unset it for the default, {2**26}.",
        )
    return int(number)


_NO_PLACE = {
    "gs": "Google's S3 API knows no If-Match for writes, which keeps two engines off one prefix.",
    "az": "Azure has no S3 API; a ClickHouse server of yours can keep versions there (docs/bucket.md).",
}


def _versions() -> str | None:
    text = os.environ.get("FACTORY_VERSIONS", "").rstrip("/")
    if not text:
        return None
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{2,62}/[^?#]+", text):
        scheme = text.partition("://")[0]
        raise SettingsError(
            f"FACTORY_VERSIONS={text!r} is no place for versions. {_NO_PLACE.get(scheme, '')}".rstrip(),
            "It is s3://bucket/prefix; other stores by their S3 API, which AWS_ENDPOINT_URL names.",
        )
    if os.environ.get("FACTORY_CLICKHOUSE_URL"):
        raise SettingsError(
            "FACTORY_VERSIONS is for the embedded engine, and FACTORY_CLICKHOUSE_URL names a server.",
            "Unset one of them. A server keeps versions where its own storage policy `versions` says.",
        )
    return text


@contextmanager
def in_home(home: Path) -> Iterator[None]:
    """Within the block the settings name this data folder, and neither a server nor a source."""
    names = ("FACTORY_HOME", "FACTORY_CLICKHOUSE_URL", "FACTORY_VERSIONS", "FACTORY_SOURCE", "FACTORY_MAPPING")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ["FACTORY_HOME"] = str(home)
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def remember_source(uri: str, mapping: Mapping[str, str] | None = None) -> None:
    """Keep the source of the asset graph, and the models that look at its photos, for later processes not told any.

    Args:
        mapping: what of it becomes which column, as in `Settings`.
    """
    if Path(uri).exists():
        uri = str(Path(uri).absolute())  # for processes elsewhere
    if "FACTORY_SOURCE" in os.environ:  # what is said now comes before it
        os.environ["FACTORY_SOURCE"] = uri
    home = settings().home
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    before, _, asked = _remembered(home)
    asked = os.environ.get("FACTORY_MODELS") or (asked if before == uri else "")
    (home / "source").write_text(f"{uri}\n{json.dumps(dict(mapping or {}))}\n{asked}")


def _source(home: Path) -> tuple[str | None, dict[str, str]]:
    """The source and its mapping, of the environment or as they were used last."""
    source, kept, _ = _remembered(home)
    words = os.environ.get("FACTORY_MAPPING")
    return source or None, kept if words is None else _words(words)


def _remembered(home: Path) -> tuple[str, dict[str, str], str]:
    """The source that is meant, and how it was used last if it is that one: its mapping, and models."""
    try:
        uri, kept, models, *_ = [*(home / "source").read_text().split("\n"), "", ""]
    except OSError:
        uri, kept, models = "", "", ""
    given = os.environ.get("FACTORY_SOURCE") or uri
    return (uri, dict(json.loads(kept or "{}")), models) if given == uri else (given, {}, "")


def _words(text: str) -> dict[str, str]:
    try:
        pairs = [word.partition("=") for word in shlex.split(text)]
    except ValueError as error:
        raise SettingsError(
            f"FACTORY_MAPPING={text!r} cannot be taken apart: {error}.",
            "It is words such as image=input.jpg caption=txt.",
        ) from None
    if wrong := [name for name, equals, value in pairs if not (name and equals and value)]:
        raise SettingsError(f"FACTORY_MAPPING has {wrong[0]!r}.", "It is words such as image=input.jpg caption=txt.")
    return {name: value for name, _, value in pairs}


KNOWN = frozenset(
    f"FACTORY_{name}"
    for name in """HOME CLICKHOUSE_URL VERSIONS VERSIONS_CACHE_BYTES ENGINE_IDLE_SECONDS EXECUTOR WORKERS WORKER_BYTES
    SOURCE MAPPING TARS_PER_SHARD UNPACK_TO DERIVED CLIP MODELS CACHE CACHE_BYTES SHARED_CACHE MAX_PIXELS
    AS_STORED SIGNAL_TIMEOUT RETRY_SECONDS SETTLE_SECONDS STAGE_RETRIES TRAIN VANISHED ALERT_URL ALERT_EMAIL
    SMTP_URL UI_URL""".split()
)
"""The variables that are settings."""


def mistyped() -> dict[str, str]:
    """Variables of the environment that look like a setting and are none -> the setting that they look like."""
    near = {
        name: difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.85)
        for name in os.environ
        if name.startswith("FACTORY_") and name not in KNOWN
    }
    return {name: found[0] for name, found in sorted(near.items()) if found}
