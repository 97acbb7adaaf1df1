"""Categories of annotations as COCO lists them: an entry each, and one name for a number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Key = int | str


class Categories:
    """What annotations are of.

    Numbers are kept where each stands for one name. Where one has several, as sources number their own, all categories
    are numbered anew. Names without a number get those behind the others, in the order of the names.

    Args:
        found: number, name and supercategory of each annotation; None for what is not said.
    """

    def __init__(self, found: Iterable[tuple[int | None, str | None, str | None]]) -> None:
        pairs: dict[tuple[int | None, str | None], str | None] = {}
        for number, name, above in found:
            pairs[number, name] = pairs.get((number, name)) or above
        named = {number: name for number, name in pairs if number is not None and name is not None}
        self._has_numbers = len(named) == sum(None not in pair for pair in pairs)
        self._entries: dict[Key, dict[str, Any]] = {}
        for pair, above in pairs.items():
            if (key := self._key(*pair)) is not None:
                name = named.get(key) if isinstance(key, int) else key
                entry = self._entries.setdefault(key, {"id": key, "name": name or str(key)})
                if above:
                    entry.setdefault("supercategory", above)
        numbers = [key for key in self._entries if isinstance(key, int)]
        names = sorted(key for key in self._entries if isinstance(key, str))
        for number, key in enumerate(names, max(numbers, default=0) + 1):
            self._entries[key]["id"] = number
        self._none = min([1, *numbers]) - 1

    @property
    def listed(self) -> list[dict[str, Any]]:
        """The entries, in the order of their numbers."""
        return sorted(self._entries.values(), key=lambda entry: int(entry["id"]))

    def number(self, number: int | None, name: str | None) -> int:
        """The number of an annotation's category; of one that says neither number nor name, a number of none."""
        key = self._key(number, name)
        return self._none if key is None else int(self._entries[key]["id"])

    def _key(self, number: int | None, name: str | None) -> Key | None:
        if number is not None and self._has_numbers:
            return number
        return str(number) if name is None and number is not None else name
