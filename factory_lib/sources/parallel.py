"""Files that belong to pictures of another folder: `images/0001.jpg` with its caption in `captions/0001.txt`.

Which folder lies beside which is told once for a folder: the one with pictures of the same names, and of several such
the one whose path differs least (`train/labels/a` goes with `train/images/a`, and not with `val/images/a`). Where two
differ alike, neither is taken: the files stand in the account.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from factory_lib.sources.entries import split_path
from factory_lib.sources.layout import IMAGES, TEXTS

SIDECARS = ("txt", "caption", "json", "cls", "xml")
"""Extensions of what is read where it has the name of a picture."""
ARRAYS = ("npz", "npy")
"""Extensions of what is pointed at where it has the name of a picture, as the latents that trainers keep."""
_NAMES_TRIED = 1_000
"""Files of a folder that are looked for among the pictures."""
_FOLDERS_TRIED = 256
_ENOUGH = 0.5
"""Share of them whose picture must be there, where the paths of the folders differ in more than one place."""
_CAPTIONS = TEXTS | {"texts", "captions", ""}
"""Names of folders whose texts are the captions, where there are texts of several kinds."""


@dataclass(frozen=True)
class CompanionFolder:
    """A folder of files about the pictures of another one.

    Attributes:
        folder: with the files.
        pictures: the folder that they are about.
        tag: put before the extensions of the files, where another folder has files of the same ones.
        tagged: extensions for which that is so.
    """

    folder: str
    pictures: str
    tag: str
    tagged: frozenset[str] = frozenset()

    def stem(self, stem: str) -> str:
        """The path of the picture without its extension, given that of a file."""
        name = stem.rpartition("/")[2]
        return f"{self.pictures}/{name}" if self.pictures else name

    def extension(self, extension: str) -> str:
        """What tells the file from others of its picture."""
        return f"{self.tag}.{extension}" if extension in self.tagged else extension


def folders_beside(paths: Iterable[str], content: Iterable[str] = ()) -> dict[str, CompanionFolder]:
    """Folder -> the one that its files are about; none for a folder that has pictures of its files itself.

    Args:
        paths: of all files of a source.
        content: those of them that are pictures whatever they are called.
    """
    known = set(content)
    pictures: dict[str, set[str]] = {}
    others: dict[str, list[tuple[str, str]]] = {}
    for path in paths:
        stem, extension = (path, "") if path in known else split_path(path)
        folder, _, name = stem.rpartition("/")
        if path in known or extension in IMAGES:
            pictures.setdefault(folder, set()).add(name)
        elif extension in SIDECARS or extension in ARRAYS:
            others.setdefault(folder, []).append((name, extension))
    own: dict[str, set[str]] = {}
    left: dict[str, list[tuple[str, str]]] = {}
    for folder, found in others.items():
        here = pictures.get(folder, set())
        if of_own := {extension for name, extension in found if name in here}:
            own[folder] = of_own
        else:
            left[folder] = found
    if not left or not pictures:
        return {}
    chosen = _matched({folder: [name for name, _ in found] for folder, found in left.items()}, pictures)
    return _told_apart(chosen, left, own)


def named_by(path: str, beside: Mapping[str, CompanionFolder]) -> tuple[str, str]:
    """The path of the picture that a file belongs to, without extension, and what tells the file from others of it."""
    stem, extension = split_path(path)
    one = beside.get(path.rpartition("/")[0])
    if one is None or extension in IMAGES:
        return stem, extension
    return one.stem(stem), one.extension(extension)


def _matched(left: dict[str, list[str]], pictures: dict[str, set[str]]) -> dict[str, CompanionFolder]:
    nearby: dict[tuple[str, ...], list[str]] = {}
    for folder in pictures:
        for form in _forms(folder):
            nearby.setdefault(form, []).append(folder)
    tried = {folder: set(islice(names, _NAMES_TRIED)) for folder, names in left.items()}
    found = {}
    for folder, names in tried.items():
        like = dict.fromkeys(other for form in _forms(folder) for other in nearby.get(form, ())[:_FOLDERS_TRIED])
        near = [other for other in like if other != folder and _differences(folder, other)[0] == 1]
        best = _best(folder, names, near, pictures, 1)
        if best is None and len(tried) <= _FOLDERS_TRIED:
            best = _best(folder, names, islice(pictures, _FOLDERS_TRIED), pictures, int(_ENOUGH * len(names)) or 1)
        if best is not None:
            found[folder] = CompanionFolder(folder, best, _tag(folder, best))
    return found


def _best(
    folder: str, names: set[str], others: Iterable[str], pictures: Mapping[str, set[str]], least: int
) -> str | None:
    """Which of other folders has the pictures of these names: the one whose path differs least; None where it cannot
    be told."""
    ranked = []
    for other in others:
        shared = len(names & pictures[other])
        if shared >= least:
            alike = _same(folder, other)
            ranked.append(((*_differences(folder, other), -alike, -shared, len(other)), other))
    ranked.sort()
    return ranked[0][1] if ranked and (len(ranked) == 1 or ranked[0][0] < ranked[1][0]) else None


def _forms(folder: str) -> Iterable[tuple[str, ...]]:
    """What folders have in common whose paths differ in one place."""
    parts = tuple(folder.split("/")) if folder else ()
    yield parts
    for at in range(len(parts)):
        yield parts[:at] + parts[at + 1 :]


def _told_apart(
    chosen: dict[str, CompanionFolder], left: dict[str, list[tuple[str, str]]], own: dict[str, set[str]]
) -> dict[str, CompanionFolder]:
    """With tags, where files of one picture would have the same extension: all but those of captions.

    Args:
        own: folder -> extensions of files that lie with their pictures.
    """
    extensions = {folder: {extension for _, extension in left[folder]} for folder in chosen}
    together: dict[tuple[str, str], set[str | None]] = {}
    for folder, beside in chosen.items():
        for extension in extensions[folder]:
            of_own: set[str | None] = {None} if extension in own.get(beside.pictures, ()) else set()
            together.setdefault((beside.pictures, extension), of_own).add(beside.tag)
    tagged: set[tuple[str, str]] = set()
    for (_, extension), tags in together.items():
        captions = sorted(tag for tag in tags if tag is not None and tag.lower() in _CAPTIONS)
        plain = tags if len(tags) == 1 else {None} if None in tags else set(captions[:1])
        tagged |= {(tag, extension) for tag in tags - plain if tag is not None}
    return {
        folder: replace(beside, tagged=frozenset(e for e in extensions[folder] if (beside.tag, e) in tagged))
        for folder, beside in chosen.items()
    }


def _differences(one: str, other: str) -> tuple[int, int]:
    """In how many places two paths of folders differ, and, negative, how many parts they share. A folder that only one
    of them has is one place."""
    shorter, longer = sorted((one.split("/") if one else [], other.split("/") if other else []), key=len)
    if len(shorter) == len(longer):
        shared = sum(a == b for a, b in zip(shorter, longer, strict=True))
    else:
        ahead = _same(shorter, longer)
        shared = ahead + _same(shorter[ahead:][::-1], longer[ahead:][::-1])
    return len(longer) - shared, -shared


def _same(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts (or letters) are equal from the first on."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _tag(folder: str, pictures: str) -> str:
    """The part of a path that says what its files are."""
    parts, theirs = folder.split("/"), set(pictures.split("/"))
    return next((part for part in reversed(parts) if part not in theirs), parts[-1])
