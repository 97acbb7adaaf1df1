"""What the user says of a source: which column is the image, the caption, the key, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from factory_lib.errors import SourceError, nearest
from factory_lib.redaction import redact
from factory_lib.sources.account import Account
from factory_lib.sources.columns import column_name, name_columns, shown_type
from factory_lib.sources.shards import POINTER
from factory_lib.warehouse.null_elements import is_list

BY_CHOICE = "left out by choice"
_NAMED = 20
"""Columns that a message names at most."""


_TEXTS = ("format", "metadata", "on", "image", "caption", "key", "key_pattern")
_LISTS = ("members", "columns", "drop_columns")
_RENAME = "rename"


def from_words(words: MappingOf[str, str]) -> dict[str, Any]:
    """What is said of a source in settings and on the command line, as arguments of `open_source`.

    Args:
        words: argument -> its value as text; lists have commas between the names, `rename` is `new=old,…`.

    Raises:
        SourceError: there is no such argument.
    """
    known = (*_TEXTS, *_LISTS, _RENAME)
    for name in words:
        if name not in known:
            raise SourceError(f"A source has no {name!r} that could be mapped.", nearest(name, known))
    lists = {name: _parts(words[name]) for name in _LISTS if name in words}
    return {**words, **lists, **({_RENAME: _pairs(words[_RENAME])} if _RENAME in words else {})}


def _parts(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def _pairs(text: str) -> dict[str, str]:
    pairs = [one.partition("=") for one in _parts(text)]
    if wrong := [new for new, equals, old in pairs if not (new and equals and old)]:
        raise SourceError(f"rename={text!r} has {wrong[0]!r}.", "It is new=old names, with commas between.")
    return {new.strip(): old.strip() for new, _, old in pairs}


def _plain(value: str | Sequence[str] | MappingOf[str, str]) -> str | list[str] | dict[str, str]:
    if isinstance(value, str):
        return value
    return dict(value) if isinstance(value, MappingOf) else list(value)


@dataclass(frozen=True)
class Mapping:
    """Names are those of the source (`input.jpg`, `TEXT`) or of the dataset (`input_jpg`, `caption`).

    Attributes:
        image: extension of the members, or column of pointers, that becomes `image`.
        caption: extension, JSON field or column of text that becomes `caption`.
        key: column that becomes `key`.
        members: the only members that become columns of pointers, besides the image; None for all.
        columns: the only attributes that are taken, besides `key` and the caption that was named; None for all.
        drop_columns: attributes and members that are left out.
        rename: new names of columns -> what they are called; another column of the new name gets a number behind it.
        key_pattern: how a name of a member is split into key and extension: a regular expression (RE2) with the groups
            `key` and `extension` that matches the whole name, or `last-dot`; None for the first dot of the file name.
    """

    image: str | None = None
    caption: str | None = None
    key: str | None = None
    members: Sequence[str] | None = None
    columns: Sequence[str] | None = None
    drop_columns: Sequence[str] | None = None
    key_pattern: str | None = None
    rename: MappingOf[str, str] | None = None

    def options(self) -> dict[str, Any]:
        """As arguments of `open_source`; those that are None are left out."""
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {n: _plain(value) for n, value in given.items() if value is not None}

    def columns_of(self, schema: pa.Schema, where: str, account: Account) -> dict[str, str]:
        """Which columns the dataset has.

        Args:
            schema: of the reader.
            where: uri of the source, for messages.
            account: gets what is left out.

        Returns:
            column of the dataset -> column of the reader.

        Raises:
            SourceError: a name is in no column, or of the wrong kind; the hint names the nearest.
        """
        roles = {role: _find(name, role, schema, where) for role in ("image", "caption", "key")
                 if (name := getattr(self, role)) is not None}  # fmt: skip
        roles |= {_new(new): _find(old, "column", schema, where) for new, old in (self.rename or {}).items()}
        if len(set(roles.values())) < len(roles):
            twice = next(raw for raw in roles.values() if list(roles.values()).count(raw) > 1)
            raise SourceError(f"The column {twice!r} of {redact(where)} is given two names.", "Give it one.")
        kept = self._kept(schema, where, set(roles.values()), account)
        of_role = {raw: role for role, raw in roles.items()}
        named = name_columns((raw for raw in kept if raw not in of_role and raw in roles), taken=schema.names)
        found = {of_role.get(raw, named.get(raw, raw)): raw for raw in kept}
        renamed = {name: account.forget("columns", raw) for name, raw in found.items() if name != raw}
        for name, said in renamed.items():
            if said is not None:
                account.use("columns", said.what, name, said.reason)
        first = [name for name in ("key", "image") if name in found]
        return {name: found[name] for name in (*first, *(n for n in found if n not in first))}

    def _kept(self, schema: pa.Schema, where: str, roles: set[str], account: Account) -> list[str]:
        kept, dropped = list(schema.names), {_find(name, "column", schema, where) for name in self.drop_columns or ()}
        if self.columns is not None:
            wanted = {_find(name, "column", schema, where) for name in self.columns} | roles
            dropped |= {n for n in kept if n not in wanted and n != "key" and schema.field(n).type != POINTER}
        if self.members is not None:
            wanted = {_find(name, "image", schema, where) for name in self.members} | roles
            dropped |= {n for n in kept if n not in wanted and n != "image" and schema.field(n).type == POINTER}
        if "key" in dropped and "key" not in roles:
            raise SourceError("The column 'key' cannot be left out: it names the samples.", "Name another with key=….")
        for name in (name for name in kept if name in dropped - roles):
            account.forget("columns", name)
            account.leave_out("columns", shown_type(schema.field(name).type), name, BY_CHOICE, loss=False)
        return [name for name in kept if name not in dropped or name in roles]


def _new(name: str) -> str:
    """A name that a column is to have.

    Raises:
        SourceError: none may have it; the hint has the nearest that may.
    """
    better = column_name(name)
    if better != name:
        raise SourceError(f"rename: no column can be called {name!r}.", f"Try {better!r}.")
    return name


def _find(name: str, role: str, schema: pa.Schema, where: str) -> str:
    """The column that a name means."""
    column = name if name in schema.names else column_name(name.lstrip("."))
    known: MappingOf[str, pa.DataType] = {field.name: field.type for field in schema}
    fitting = [
        n for n, kind in known.items()
        if role == "column" or ((kind == POINTER) == (role == "image") and not (role == "key" and is_list(kind)))
    ]  # fmt: skip
    if column in fitting:
        return column
    if column in known:
        pointing = "does not point at bytes" if role == "image" else "is no text: it points at bytes"
        wrong = "holds lists" if is_list(known[column]) else pointing
        raise SourceError(f"The column {column!r} of {redact(where)} {wrong}.", nearest(name, fitting))
    there = ", ".join(fitting[:_NAMED]) + (", …" if len(fitting) > _NAMED else "")
    hint = nearest(column, fitting) or nearest(name, known) or (f"There is {there}." if there else "")
    raise SourceError(f"{redact(where)} has nothing called {name!r}.", hint)
