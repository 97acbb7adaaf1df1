"""What the numbers of classes are called: the data.yaml beside YOLO's labels, or a file with a name on each line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from factory_lib.sources.entries import Entry, beginning, split_path
from factory_lib.sources.sidecars import unmarked
from factory_lib.sources.tar import INLINE_BYTES

_LISTS = ("classes.txt", "predefined_classes.txt", "class_names.txt", "obj.names", "_darknet.labels", "labels.txt")
"""Names of files with a class on each line."""
_FILES_TRIED = 20


@dataclass(frozen=True)
class Classes:
    """What is known of the classes of labels.

    Attributes:
        names: by number.
        keypoints: how many values of keypoints stand behind a box; 0 for none.
    """

    names: tuple[tuple[int, str], ...] = ()
    keypoints: int = 0


@dataclass(frozen=True)
class NamedClasses:
    """What the files of a source say of classes: there may be several data sets in it.

    Attributes:
        folders: of each file, by name, and what it says.
    """

    folders: tuple[tuple[str, Classes], ...] = ()

    def of(self, key: str) -> Classes:
        """What is known of a picture's labels: what the nearest folder above says, or else the only one that does."""
        above = [one for one in self.folders if not one[0] or key.startswith(f"{one[0]}/")]
        if above:
            return max(above, key=lambda one: len(one[0]))[1]
        return self.folders[0][1] if len(self.folders) == 1 else Classes()


def find_classes(entries: Sequence[Entry]) -> tuple[list[Entry], NamedClasses]:
    """The files that name classes, and what they say; of those of one folder a yaml counts before a list."""
    yamls = (entry for entry in entries if split_path(entry.path)[1] in ("yaml", "yml"))
    lists = (entry for entry in entries if _is_list(entry.path.rpartition("/")[2].lower()))
    naming: list[Entry] = []
    folders: dict[str, Classes] = {}
    for some, read in ((yamls, _in_yaml), (lists, _in_lines)):
        for entry in islice(some, _FILES_TRIED):
            found = read(_text(beginning(entry, INLINE_BYTES)))
            if found is not None:
                naming.append(entry)
                folders.setdefault(entry.folder, found)
    return naming, NamedClasses(tuple(folders.items()))


def _is_list(name: str) -> bool:
    return name in _LISTS or name.endswith(".names")


def _text(content: bytes) -> str:
    return (unmarked(content) or b"").decode("utf-8", "replace")


def _in_lines(text: str) -> Classes | None:
    lines = [line.strip() for line in text.strip().splitlines()]
    return Classes(tuple(enumerate(lines))) if lines else None


def _in_yaml(text: str) -> Classes | None:
    import yaml

    try:
        found: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    names, shape = found.get("names"), found.get("kpt_shape")
    numbered = names.items() if isinstance(names, dict) else enumerate(names if isinstance(names, list) else ())
    known = tuple((int(n), str(name)) for n, name in numbered if str(n).isdecimal() and isinstance(name, str | int))
    sizes = [side for side in shape if isinstance(side, int)] if isinstance(shape, list) else []
    return Classes(known, sizes[0] * sizes[1] if len(sizes) == 2 else 0) if known else None
