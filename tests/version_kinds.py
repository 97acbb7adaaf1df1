"""Kinds of versions: every verb and way of deriving, alone and after another, as queries over a small dataset `laion`.

`KINDS` maps a name to a function from that dataset to a query. `labels` is a second dataset beside it, made of it. The
signals stand here and not in a function, so that they can be imported when a version is made again.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import NamedTuple, TypedDict

import numpy as np

from factory_lib import C, DatasetQuery, case, cosine_distance, fn, sql_text
from factory_lib.curation.duplicates import near_duplicates
from factory_lib.signals import Vector, signal
from factory_lib.signals.hashes import dhash, phash, sha256
from factory_lib.signals.image import image_header
from factory_lib.signals.text import caption_stats
from factory_lib.signals.thumbnails import thumbnail

Kind = Callable[[DatasetQuery], DatasetQuery]


@signal
def whole(caption: str) -> int:
    return len(caption)


@signal
def real(caption: str) -> float:
    return len(caption) / 7


@signal
def text(caption: str) -> str:
    return caption[::-1]


@signal
def truth(caption: str) -> bool:
    return "a" in caption


@signal
def small(caption: str) -> np.uint8:
    return np.uint8(len(caption) % 256)


@signal
def raw(caption: str) -> bytes:
    return caption.encode()[:3]


@signal
def moment(width: int) -> datetime.datetime:
    return datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=width)


@signal
def day(width: int) -> datetime.date:
    return datetime.date(2026, 1, 1) + datetime.timedelta(days=width)


@signal
def words(caption: str) -> list[str]:
    return caption.split()


@signal(output=Vector(4))
def vector(width: int) -> list[float]:
    return [1.0, width, 2.0, 3.0]


@signal(output=Vector(3, dtype="float32", unit=False))
def plain_vector(width: int) -> list[float]:
    return [1.0, width, 2.0]


class Shape(NamedTuple):
    low: int
    high: float | None


@signal
def shape(width: int) -> Shape:
    return Shape(width, None if width % 2 else width / 2)


class Sides(TypedDict):
    short: int
    names: list[str]


@signal
def sides(width: int, height: int) -> Sides:
    return Sides(short=min(width, height), names=["wide"] if width > height else [])


@signal
def missing(width: int) -> int | None:
    return width if width % 3 else None


@signal
def fails(width: int) -> int:
    return 100 // (width % 2)


@signal(batch=7)
def in_batches(caption: list[str]) -> list[int]:
    return [len(one) for one in caption]


@signal
def size_of(image: bytes) -> int:
    return len(image)


def labels(laion: DatasetQuery) -> DatasetQuery:
    """The second dataset: one row a width, and a key that several samples have."""
    return laion.group_by("width").agg(n=fn.count(), label=fn.argMin(C.caption, C.key)).order_by("width")


def _labels() -> DatasetQuery:
    return DatasetQuery("labels")


def _pixels(q: DatasetQuery) -> DatasetQuery:
    return q.limit(16).add_signals(image_header, thumbnail, phash, dhash)


KINDS: dict[str, Kind] = {
    # columns
    "as it is": lambda q: q,
    "selected": lambda q: q.select("shard", "position", "key", "caption"),
    "selected and computed": lambda q: q.select("key", "width", twice=C.width * 2),
    "dropped": lambda q: q.drop("url", "caption"),
    "renamed": lambda q: q.rename(w="width", text="caption"),
    "renamed to each other's names": lambda q: q.rename(width="height", height="width"),
    "replaced": lambda q: q.mutate(width=C.width + 1),
    "dropped and made again": lambda q: q.drop("width").mutate(width=C.height.cast("Float64")),
    "arithmetic": lambda q: q.mutate(r=C.width / C.height, m=C.width % 7, p=C.width**2, h=C.width // 3),
    "text functions": lambda q: q.mutate(u=fn.upper(C.caption), n=C.caption.length(), s=fn.splitByChar(" ", C.caption)),
    "cases": lambda q: q.mutate(c=case((C.width > 90, "wide"), (C.width > 60, "some"), default="narrow")),
    "SQL text": lambda q: q.mutate(c=sql_text("if(width > 60, upper(caption), 'x')")),
    "vectors": lambda q: q.mutate(d=cosine_distance([0.6, 0.8], fn.array(C.width.cast("Float32"), 1.0).cast("Array(Float32)"))),
    "constants": lambda q: q.mutate(a=1, b="x", d=[1, 2], e=datetime.date(2026, 1, 2), f=2.5),
    "parts of pointers": lambda q: q.mutate(size=C.image.size, file=fn.basename(C.image.uri)),
    "lambdas": lambda q: q.mutate(n=sql_text("arrayMap(x -> length(x), splitByChar(' ', caption))")),
    "casts": lambda q: q.mutate(a=C.width.cast("String"), b=C.width.cast("Nullable(Float32)")),
    # rows
    "filtered": lambda q: q.filter(C.width > 60),
    "filtered twice": lambda q: q.filter(C.width > 60).mutate(w=C.width - 60).filter(C.w < 60),
    "filtered by text": lambda q: q.filter("length(caption) > 20 AND caption LIKE '%a%'"),
    "none left": lambda q: q.filter(C.width < 0),
    "a few left": lambda q: q.filter(C.key == "000000003"),
    "between and patterns": lambda q: q.filter(C.width.between(40, 100) & C.caption.matches("[a-z]+") & C.key.like("%1%")),
    "isin a list": lambda q: q.filter(C.width.isin([64, 96, 128])),
    "isin a query": lambda q: q.filter(C.width.isin(_labels().filter(C.n > 1).select("width"))),
    "not isin a limited query": lambda q: q.filter(~C.key.isin(q.order_by("width").limit(9).select("key"))),
    "one shard": lambda q: DatasetQuery("laion", shards=["00001"]).filter(C.width > 0),
    # order
    "ordered": lambda q: q.order_by("-width", "key"),
    "ordered with ties": lambda q: q.order_by("width"),
    "limited with ties": lambda q: q.order_by("-height").limit(11),
    "limited, no order": lambda q: q.limit(13),
    "a page": lambda q: q.order_by("width").offset(5).limit(7),
    "ordered by an expression": lambda q: q.order_by(fn.cityHash64(C.caption)).limit(9),
    "a limit, then a filter": lambda q: q.order_by("width").limit(20).filter(C.height > 60),
    "a limit, then a limit": lambda q: q.order_by("width").limit(20).order_by("-height").limit(5),
    # chance and distinct
    "a sample": lambda q: q.sample(9, seed=4),
    "a share": lambda q: q.sample(fraction=0.4, seed=2),
    "a sample of what is left": lambda q: q.filter(C.width > 50).sample(fraction=0.5),
    "distinct rows": lambda q: q.select("width", "height").distinct(),
    "the first of each": lambda q: q.distinct("width"),
    "the first of each in an order": lambda q: q.order_by("-height").distinct("width"),
    # joins
    "inner join": lambda q: q.join(_labels(), on="width"),
    "left join": lambda q: q.join(_labels().filter(C.n > 2), on="width", how="left"),
    "right join": lambda q: q.filter(C.height > 70).select("width", k="key").join(_labels(), on="width", how="right"),
    "semi join": lambda q: q.join(_labels().filter(C.n > 2), on="width", how="semi"),
    "anti join": lambda q: q.join(_labels().filter(C.n > 2), on="width", how="anti"),
    "semi join by two keys": lambda q: q.join(q.order_by("key").limit(20), on=["shard", "position"], how="semi"),
    "join by other names": lambda q: q.join(_labels().rename(w="width"), on={"width": "w"}),
    "join with itself": lambda q: q.select("key", "width").join(q.select("width", other="key"), on="width").filter(C.key < C.other),
    "join, ordered with ties": lambda q: q.join(_labels(), on="width").order_by("n").limit(12),
    "join, then groups": lambda q: q.join(_labels(), on="width").group_by("label").agg(n=fn.count(), k=fn.any(C.key)),
    # unions
    "union": lambda q: q.filter(C.width > 90).union(q.filter(C.width <= 60)),
    "union of other columns": lambda q: q.filter(C.width > 90).drop("url").union(q.filter(C.width <= 60).mutate(extra=1)),
    "union with itself": lambda q: q.union(q),
    "union of two datasets": lambda q: q.select("width", n=fn.toUInt64(0)).union(_labels().select("width", "n")),
    "union, ordered": lambda q: q.union(q.filter(C.width > 60)).order_by("width").limit(30),
    # groups
    "groups": lambda q: q.group_by("width").agg(n=fn.count(), low=fn.min(C.key)),
    "groups by an expression": lambda q: q.group_by(parity=C.height % 2).agg(n=fn.count(), mean=fn.avg(C.width)),
    "one row": lambda q: q.agg(n=fn.count(), mean=fn.avg(C.width), q=fn.quantileExact(C.width, parameters=[0.9])),
    "argMax with ties": lambda q: q.group_by("width").agg(best=fn.argMax(C.key, C.height)),
    "any": lambda q: q.group_by("width").agg(one=fn.any(C.caption), last=fn.anyLast(C.key)),
    "groupArray": lambda q: q.group_by("width").agg(all=fn.groupArray(C.key), some=fn.groupArray(C.height, parameters=[2])),
    "groupUniqArray": lambda q: q.group_by("width").agg(all=fn.groupUniqArray(C.height)),
    "topK": lambda q: q.agg(most=fn.topK(C.width, parameters=[3]), about=fn.uniq(C.key)),
    "sums of floats": lambda q: q.group_by("width").agg(s=fn.sum(C.height / 7), d=fn.stddevPop(C.height / 3)),
    "groups, joined back": lambda q: q.join(q.group_by("width").agg(n=fn.count()), on="width").filter(C.n > 1),
    "groups of groups": lambda q: q.group_by("width", "height").agg(n=fn.count()).group_by("width").agg(m=fn.max(C.n)),
    "arrays apart": lambda q: q.select("key", word=sql_text("arrayJoin(splitByChar(' ', caption))")),
    "arrays apart, counted": lambda q: q.select(w=sql_text("arrayJoin(splitByChar(' ', caption))")).group_by("w").agg(n=fn.count()).order_by("-n").limit(9),
    # windows
    "numbered": lambda q: q.mutate(r=fn.row_number().over("width", "height")),
    "ranked": lambda q: q.mutate(r=fn.rank().over("width", C.height.desc()), d=fn.dense_rank().over((), "width")),
    "before and after": lambda q: q.mutate(a=fn.lagInFrame(C.key).over("shard", "width"), f=fn.first_value(C.key).over("width", "height")),
    "sums over windows": lambda q: q.mutate(s=fn.sum(C.height).over("width"), share=C.height / fn.max(C.height).over("shard")),
    "best of each by a window": lambda q: q.mutate(r=fn.row_number().over("width", C.height.desc())).filter(C.r == 1),
    "windows in SQL text": lambda q: q.mutate(r=sql_text("count() OVER (PARTITION BY width)")),
    # signals
    "numbers": lambda q: q.add_signals(whole, real, small, truth),
    "text and bytes": lambda q: q.add_signals(text, raw, words),
    "times": lambda q: q.add_signals(moment.reading(width="height"), day),
    "unit vectors": lambda q: q.add_signals(vector, plain_vector),
    "fields": lambda q: q.add_signals(shape, sides),
    "values that are missing": lambda q: q.add_signals(missing),
    "errors": lambda q: q.add_signals(fails),
    "batches": lambda q: q.add_signals(in_batches),
    "bytes of members": lambda q: q.add_signals(size_of, sha256),
    "pictures": lambda q: q.limit(12).add_signals(image_header, phash),
    "bundled, renamed": lambda q: q.add_signals(caption_stats.named("about")),
    "a signal, then a filter": lambda q: q.add_signals(whole).filter(C.whole > 20),
    "a filter, then a signal": lambda q: q.filter(C.width > 60).add_signals(whole).mutate(half=C.whole / 2),
    "a signal of a signal": lambda q: q.add_signals(whole).add_signals(day.reading(width="whole").named("later")),
    "a signal, limited with ties": lambda q: q.add_signals(whole).order_by("-whole").limit(7),
    "nearest by vectors": lambda q: q.add_signals(vector).order_by(cosine_distance(C.vector, [1.0, 9.0, 2.0, 3.0])).limit(5),
    "a signal of groups": lambda q: q.group_by("width").agg(caption=fn.any(C.caption)).add_signals(whole),
    # curation
    "near-duplicates by pixels": lambda q: near_duplicates(_pixels(q)),
    "near-duplicates by hashes": lambda q: near_duplicates(_pixels(q), "hashes"),
    "without near-duplicates": lambda q: _without(_pixels(q)),
}  # fmt: skip


def _without(pixels: DatasetQuery) -> DatasetQuery:
    measured = DatasetQuery(pixels.save("pixels"))
    return measured.join(near_duplicates(measured).filter(~C.kept), on=["shard", "position"], how="anti")
