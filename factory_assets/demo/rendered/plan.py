"""What each row of a rendered folder is: the plan that the writer follows and that the truth repeats.

The plan of a shard depends on the recipe and on the shard's number alone: a folder of 13 shards is a folder of 12
with one added. Copies in shard s are of pictures in shards 0 … s, so a shard that comes later brings near-duplicates
of older ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

from factory_assets.demo.rendered.edits import DAMAGES, EDITS
from factory_assets.demo.rendered.scene import (
    TEMPLATES,
    Scene,
    caption,
    contradicting_scene,
    random_scene,
    uninformative_caption,
)

SHARES: dict[str, float] = {
    "copy": 0.10,
    "mismatched": 0.22,
    "uninformative": 0.07,
    "too_small": 0.06,
    "unsafe": 0.05,
    "broken": 0.03,
    "failed": 0.03,
}
"""Share of the rows with each fault; the rest is clean. A row has one fault at most."""

MIN_SIDE = 96
"""Pictures with a side below this many pixels are the too small ones: 24 … 72 px; all others have 96 px or more."""


@dataclass(frozen=True)
class RenderingRecipe:
    """All that a rendered folder follows from.

    Attributes:
        rows: rows of each shard's parquet, failed downloads included.
        seed: of everything random.
        shares: share of the rows with each fault, see `SHARES`.
    """

    rows: int
    seed: int = 0
    shares: Mapping[str, float] = field(default_factory=lambda: dict(SHARES))

    def __post_init__(self) -> None:
        if unknown := set(self.shares) - set(SHARES):
            raise ValueError(f"Unknown faults {sorted(unknown)}, expected some of {list(SHARES)}.")
        if not 0 < self.rows <= 10_000 or sum(self.shares.values()) > 0.9:
            raise ValueError("A shard has 1 to 10,000 rows, of which the faults take at most 90 %.")

    def __hash__(self) -> int:
        return hash((self.rows, self.seed, tuple(sorted(self.shares.items()))))


@dataclass(frozen=True)
class Row:
    """One row of a shard.

    Attributes:
        shard, index: its place; `index` is the number within the shard that its key ends with.
        fault: a name from `SHARES`, or "" for a clean row.
        picture: number of the picture it shows; rows with one picture are versions of each other.
        scene: what the picture shows.
        said: the scene that the caption speaks of, None when it speaks of none.
        caption: the caption.
        edit: "original", a name from `EDITS` for a copy, or a name from `DAMAGES` for a broken file.
    """

    shard: int
    index: int
    fault: str
    picture: int
    scene: Scene
    said: Scene | None
    caption: str
    edit: str


def plan_shard(recipe: RenderingRecipe, shard: int) -> list[Row]:
    """The rows of one shard, in the order of their index."""
    return [_row(recipe, shard, index, fault) for index, fault in enumerate(_faults(recipe, shard))]


def picture_seed(recipe: RenderingRecipe, picture: int) -> str:
    """The seed that a picture of a folder is drawn with."""
    return f"folder-{recipe.seed}/{picture}"


def _row(recipe: RenderingRecipe, shard: int, index: int, fault: str) -> Row:
    rng = Random(f"row-{recipe.seed}/{shard}/{index}")
    picture = _copied_picture(recipe, shard, rng) if fault == "copy" else shard * recipe.rows + index
    scene = random_scene(Random(f"scene-{recipe.seed}/{picture}"))
    said = contradicting_scene(scene, rng) if fault == "mismatched" else scene
    text = caption(said, rng.randrange(len(TEMPLATES)))
    if fault == "uninformative":
        return Row(shard, index, fault, picture, scene, None, uninformative_caption(rng), "original")
    edit = {"copy": rng.choice(list(EDITS)), "broken": rng.choice(DAMAGES)}.get(fault, "original")
    return Row(shard, index, fault, picture, scene, said, text, edit)


def _copied_picture(recipe: RenderingRecipe, shard: int, rng: Random) -> int:
    source = rng.randint(0, shard)
    return source * recipe.rows + rng.choice(_clean_indices(recipe, source))


@lru_cache(maxsize=256)
def _clean_indices(recipe: RenderingRecipe, shard: int) -> list[int]:
    return [index for index, fault in enumerate(_faults(recipe, shard)) if not fault]


def _faults(recipe: RenderingRecipe, shard: int) -> list[str]:
    """The fault of every row of a shard: exact shares, in random places."""
    faults = [name for name, share in sorted(recipe.shares.items()) for _ in range(round(share * recipe.rows))]
    faults += [""] * (recipe.rows - len(faults))
    Random(f"faults-{recipe.seed}/{shard}").shuffle(faults)
    return faults
