"""Finds out what is at a URI and opens it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.errors import SourceError, nearest
from factory_lib.redaction import redact
from factory_lib.settings import settings
from factory_lib.sources.account import Account
from factory_lib.sources.columns import TYPES, column_name, shown_type
from factory_lib.sources.datacomp import JoinedSource
from factory_lib.sources.declared import DeclaredSource, check_unsaid, declared, is_sources_file, read_sources
from factory_lib.sources.descriptions import CAPTION, tables_among, texts_among
from factory_lib.sources.folder import ImageFolder, open_folder
from factory_lib.sources.img2dataset import Img2Dataset, TarWithTables
from factory_lib.sources.keyindex import CAPTIONS, KeyedTables
from factory_lib.sources.layout import Layout, LayoutBuilder, first_blocks
from factory_lib.sources.listing import listed, visible
from factory_lib.sources.mapping import Mapping
from factory_lib.sources.members import LAST_DOT
from factory_lib.sources.metadata import MetadataTables, key_column
from factory_lib.sources.opened import OpenedSource
from factory_lib.sources.packedtar import first_members
from factory_lib.sources.partitions import partitioned, placed
from factory_lib.sources.picture_names import names_in
from factory_lib.sources.sample_names import find_names, knows_some
from factory_lib.sources.several import UnitedSource, open_several
from factory_lib.sources.shards import POINTER, Source
from factory_lib.sources.surviving import reading
from factory_lib.sources.tablefiles import table_stem
from factory_lib.sources.tables import KEYS, TablePair, pair_files, settle_schema
from factory_lib.sources.tar import CompressedTar, TarBlock, TarReader
from factory_lib.sources.unpack import need_place
from factory_lib.sources.webdataset import WebDataset
from factory_lib.sources.zipped import open_zips, tables_of_zips
from factory_lib.storage.store import FileInfo, store

TAR_SUFFIXES = (
    ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst",
    *(f".tar.{packed}" for packed in ("gz", "zst", "bz2", "xz", "lz4")),
)  # fmt: skip
ZIP_SUFFIXES = (".zip", ".npz", ".cbz")
"""Zip archives; the others than the first only where the format is named."""
SCHEMA_MEMBERS = 6_000
"""Members of each tar that the schema is settled from."""
MAX_MEMBER_COLUMNS = 64
"""More kinds of members than this are names with dots in them."""
MAX_ONCE = 16
"""More extensions with a dot than this that only one member has are, too."""
_STATS = "_stats.json"
_OF_TARS = ("datacomp", "img2dataset", "webdataset")
"""Formats whose samples are members of tars."""


def open_source(
    uri: str,
    *,
    format: str | None = None,
    metadata: str | None = None,
    on: str | None = None,
    vectors: Sequence[str] | None = None,
    tars_per_shard: int | None = None,
    schema_tars: int = 3,
    image: str | None = None,
    caption: str | None = None,
    key: str | None = None,
    members: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    drop_columns: Sequence[str] | None = None,
    key_pattern: str | None = None,
    rename: MappingOf[str, str] | None = None,
    unpack_to: str | None = None,
    sources: MappingOf[str, str | MappingOf[str, Any]] | None = None,
    seconds: float | None = None,
) -> OpenedSource | UnitedSource:
    """Open whatever is at `uri`: one source, or several that a TOML file declares.

    Formats, in the order in which they are looked for: `datacomp` (folders `shards/` and `metadata/`), `img2dataset`
    (tars with parquet files beside them), `webdataset` (tars), `zip`, `folder` (image files), `tables` (parquet, npz,
    npy and others).

    All shards have one schema, settled from the first tars and tables: what comes later and does not fit it is null
    and counted in the report of its shard.

    Args:
        uri: a file or folder; a local path, `s3://…`, `https://…`, `hf://…`, or what else fsspec opens. Several, by a
            pattern: `{000..012}`, `{train,test}`, `*`; or a text file that lists them.
        format: one of the above; None to find out.
        metadata: parquet, npz or npy files, or a folder of them, whose columns are joined to the samples.
        on: column of samples and metadata to join by; None for the first of key, uid, hash, url that both have.
        vectors: arrays of npz files that become columns, by their names in the file; None for all.
        tars_per_shard: how many consecutive tars make one shard; None for `FACTORY_TARS_PER_SHARD`.
        schema_tars: how many tars (or tables), from the first, are looked into for the schema.
        image, caption, key: extension, field or column that becomes `image`, `caption` or `key`; see `Mapping`.
        members, columns, drop_columns: which members and columns are taken; see `Mapping`.
        key_pattern, rename: how the names of members are split, and columns called otherwise; see `Mapping`.
        unpack_to: folder or bucket into which compressed archives, and pictures inside parquet or Arrow files, are
            unpacked once, so that they can be pointed at; None for `FACTORY_UNPACK_TO`.
        sources: several sources: name -> path or URI, or what a file says of it; `uri` then only names them together.
        seconds: how long each of several sources may take to answer; one that takes longer counts as away.

    Raises:
        FileMissing: nothing is there.
        SourceError: what is there is of no known format, or none of it can be read.
    """
    mapping = Mapping(image, caption, key, members, columns, drop_columns, key_pattern, rename)
    if sources is not None or is_sources_file(uri):
        said = {"format": format, "metadata": metadata, "on": on, "vectors": vectors, **mapping.options()}
        check_unsaid(uri, said)
        otherwise: dict[str, Any] = {
            "tars_per_shard": tars_per_shard,
            "schema_tars": schema_tars,
            "unpack_to": unpack_to,
        }
        those = read_sources(uri) if sources is None else declared(sources, uri)
        return open_several(store().resolve(uri), those, partial(_open_declared, **otherwise), seconds)
    if format is not None and format not in _OPENERS:
        raise SourceError(f"There is no format {format!r}.", nearest(format, _OPENERS) or f"Known: {_FORMATS}.")
    uri = store().resolve(uri)
    per_shard = settings().tars_per_shard if tars_per_shard is None else tars_per_shard
    to = settings().unpack_to if unpack_to is None else unpack_to
    to = to and store().resolve(to)
    account = Account()
    root, seen = listed(uri, account)
    files = tuple(visible(root, seen))
    found = _Found(root, files, vectors, per_shard, max(schema_tars, 1), account, key_pattern, to, format, caption)
    for name, opener in _OPENERS.items():
        if format not in (None, name):
            continue
        with reading(root):
            source = opener(found)
        if source is not None:
            if key_pattern is not None and name not in _OF_TARS:
                raise SourceError(
                    f"key_pattern says where the keys of members of tars end; {redact(uri)} is read as {name}.",
                    "Leave it out.",
                )
            used = {file.uri for shard in source.shards() for file in shard.files}
            account.settle_files(root, (file.uri for file in seen), used, name)
            described = _described_by(source, found, metadata, on) if isinstance(source, ImageFolder) else None
            source = described or source
            if not isinstance(source, MetadataTables):  # whose tables have them already
                source = placed(root, source, account)
            if metadata is not None and described is None:
                source = join_metadata(source, metadata, on, vectors, account, key_pattern, caption)
            said = {"on": on, "vectors": None if vectors is None else list(vectors), **mapping.options()}
            options: dict[str, Any] = {"format": name, "metadata": metadata and store().resolve(metadata), **said}
            options |= {"tars_per_shard": per_shard, "schema_tars": schema_tars, "unpack_to": to}
            names = mapping.columns_of(source.schema, uri, account)
            words = {option: value for option, value in said.items() if value is not None}
            text = json.dumps(words, sort_keys=True) if words else ""
            opened = OpenedSource(uri, source, names, account, options, text)
            kinds = {field.name: shown_type(field.type) for field in opened.schema}
            account.settle_columns(kinds, _choices(opened.schema))
            return opened
    wanted = "samples of a known format" if format is None else f"samples in the format {format!r}"
    raise SourceError(
        f"{redact(uri)} holds no {wanted}: {_contents(found.files)}.",
        "Known: WebDataset tars, img2dataset output, DataComp pools (shards/ and metadata/), zip archives, folders of "
        "images, tables (parquet, Arrow, CSV, JSON Lines, npz).",
    )


def _open_declared(one: DeclaredSource, **otherwise: Any) -> OpenedSource:
    """One of several sources, with what is said of it, and otherwise with what is said of all."""
    opened = open_source(one.uri, **{**otherwise, **one.options})
    assert isinstance(opened, OpenedSource)  # no source is declared that declares others
    return opened


def _choices(schema: pa.Schema) -> dict[str, str]:
    """Column -> what it could be, where nothing is called `image` or `caption`."""
    found: dict[str, str] = {}
    if "image" in schema.names and schema.field("image").type != POINTER:
        found["image"] = "points at no bytes, so it is no picture"
    if "image" not in schema.names:
        found |= {field.name: "--image makes one the image" for field in schema if field.type == POINTER}
    if "caption" not in schema.names:
        texts = {field.name for field in schema if field.type == pa.string()} - {"key", "folder", *TYPES}
        found |= dict.fromkeys(texts, "--caption makes one the caption")
    return found


def opened_with(source: Source) -> dict[str, Any] | None:
    """The options with which `open_source` would open a source again; None for one that it did not open."""
    return dict(source.options) if isinstance(source, OpenedSource | UnitedSource) else None


def _described_by(source: ImageFolder, found: _Found, metadata: str | None, on: str | None) -> ImageFolder | None:
    """Pictures with tables from elsewhere that name them by their files; None for tables that have a key to join by."""
    if metadata is None:
        return None
    root, seen = listed(store().resolve(metadata), Account())
    tables = _metadata_tables(_Found(root, tuple(visible(root, seen)), None, 1, 3))
    if on is not None or not tables or set(_first_schema(tables, found).names) & set(KEYS) & set(source.schema.names):
        return None
    described = open_folder(found.uri, found.files, [*found.tables, *tables], found.caption, Account())
    used = {file.uri for shard in described.shards() for file in shard.files} if described is not None else set()
    if not used & {file.uri for pair in tables for file in pair.files}:
        return None
    found.account.settle_files(root, (file.uri for file in seen), used, "folder")
    return described


def join_metadata(
    source: Source,
    metadata: str,
    on: str | None = None,
    vectors: Sequence[str] | None = None,
    account: Account | None = None,
    key_pattern: str | None = None,
    caption: str | None = None,
) -> JoinedSource:
    """Join the columns of tables to the samples of a source: by a column of both, or by one that names their files.

    Where several rows of the first tables have one key, their captions become a list as well.

    Args:
        key_pattern: where extensions begin in names of files; see `Mapping`.
        caption: column of captions; None for `caption`.

    Raises:
        SourceError: there are no tables at `metadata`, or nothing to join by.
    """
    uri = store().resolve(metadata)
    account = Account() if account is None else account
    root, seen = listed(uri, account)
    found = _Found(root, tuple(visible(root, seen)), vectors, 1, 3, account, caption=caption)
    joined = _joined(source, found, on, key_pattern)
    used = {file.uri for pair in joined.metadata.pairs for file in pair.files}
    account.settle_files(root, (f.uri for f in seen), used, "tables")
    return joined


def _joined(source: Source, found: _Found, on: str | None, key_pattern: str | None = None) -> JoinedSource:
    uri, pairs, home = found.uri, tuple(_metadata_tables(found)), settings().home / "sources"
    if not pairs:
        raise SourceError(
            f"{redact(uri)} holds no table (parquet, Arrow, CSV, TSV, JSON Lines, npz, npy): {_contents(found.files)}."
        )
    schema = _first_schema(pairs, found)
    shared = [name for name in KEYS if name in schema.names and name in source.schema.names]
    pattern = key_pattern if source.format in _OF_TARS else LAST_DOT
    if on is None or (on in schema.names and on not in source.schema.names):
        names = None if shared and on is None else find_names(source, pairs, on, pattern)
        if names is None and on is None and shared[:1] == ["key"]:
            as_they_are = KeyedTables(pairs, "key", schema, home, _are_numbers(schema, source, "key"))
            if not knows_some(source, pairs, "key", as_they_are.keys):
                names = find_names(source, pairs, "key", pattern)
        if names is not None:
            kind = shown_type(schema.field(names.column).type)
            found.account.use("columns", kind, names.column, "names the samples by their files")
            tables = KeyedTables(pairs, names.column, schema, home, names=names)
            return JoinedSource(source.uri, source, _listed(tables, source, found))
    if on is None and not shared:
        raise SourceError(
            f"{redact(uri)} has none of the columns {', '.join(KEYS)} in common with {redact(source.uri)}, and names "
            "none of its first samples by their files.",
            f"Name a column of both with on=…; the tables have {', '.join(schema.names)}, and the samples "
            f"{', '.join(name for name in source.schema.names if source.schema.field(name).type != POINTER)}.",
        )
    on = on or shared[0]
    for where, names in ((uri, schema.names), (source.uri, source.schema.names)):
        if on not in names:
            raise SourceError(f"{redact(where)} has no column {on!r} to join by.", nearest(on, names))
    tables = KeyedTables(pairs, on, schema, home, _are_numbers(schema, source, on))
    return JoinedSource(source.uri, source, _listed(tables, source, found))


def _listed(tables: KeyedTables, source: Source, found: _Found) -> KeyedTables:
    """The same with a list of all captions of a sample, where the first tables have several."""
    caption = column_name(found.caption) if found.caption else CAPTION
    named = {*tables.schema.names, *source.schema.names}
    if caption not in tables.schema.names or caption == tables.on or CAPTIONS in named:
        return tables
    read = (pair.fresh() for pair in tables.pairs[: found.schema_tars] if tables.on in pair.fields)
    keys = [tables.keys(names_in(pair, tables.on, None)) for pair in read]
    every = pa.chunked_array(keys, pa.string()).drop_null()
    if pc.count_distinct(every).as_py() == len(every):
        return tables
    found.account.use("columns", shown_type(pa.list_(pa.string())), CAPTIONS, f"of all rows of a sample: {caption}")
    return replace(tables, listed=caption)


def _metadata_tables(found: _Found) -> list[TablePair]:
    """Tables, also those in zips; where there are none, texts that may be some."""
    return [*found.tables, *tables_of_zips(found.files, found.account)] or texts_among(found.files)


def _are_numbers(schema: pa.Schema, source: Source, on: str) -> bool:
    """Whether keys are to be compared as numbers: they are such in the tables, or in the samples."""
    kinds = (schema.field(on).type, source.schema.field(on).type)
    return any(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds)


@dataclass(frozen=True)
class _Found:
    """What is at a URI, and how it is to be opened."""

    uri: str
    files: tuple[FileInfo, ...]
    vectors: Sequence[str] | None
    tars_per_shard: int
    schema_tars: int
    account: Account = field(default_factory=Account)
    key_pattern: str | None = None
    unpack_to: str | None = None
    format: str | None = None
    caption: str | None = None

    @cached_property
    def tars(self) -> tuple[FileInfo, ...]:
        return tuple(file for file in self.files if file.path.lower().endswith(TAR_SUFFIXES))

    @cached_property
    def tables(self) -> list[TablePair]:
        """Tables: also those in JSON, unless it is a picture's own."""
        return partitioned(self.uri, tables_among(self.files))

    def below(self, folder: str) -> _Found:
        """Only what is in a folder of it."""
        root = f"{self.uri}/{folder}"
        files = tuple(file for file in self.files if file.uri.startswith(root + "/"))
        return replace(self, uri=root, files=files)


def _open_datacomp(found: _Found) -> Source | None:
    samples = found.below("shards")
    if not samples.tars or not found.below("metadata").files:
        return None
    opened = _open_img2dataset(samples) or _open_webdataset(samples)
    assert opened is not None
    joined = _joined(opened, found.below("metadata"), "uid")
    return JoinedSource(found.uri, joined.samples, joined.metadata)


def _open_img2dataset(found: _Found) -> Source | None:
    by_stem = {table_stem(pair.files[0].path): pair for pair in reversed(pair_files(found.files))}
    stats = {file.path.removesuffix(_STATS): file for file in found.files if file.path.endswith(_STATS)}
    tars = [
        TarWithTables(tar, by_stem[stem], stats.get(stem))
        for tar in found.tars
        if (stem := tar.path.rsplit(".", 1)[0]) in by_stem and by_stem[stem].table is not None
    ]
    if not tars:
        return None
    table_schema = _first_schema([tar.table for tar in tars], found)
    if "key" not in table_schema.names:
        raise SourceError(
            f"{tars[0].table.name} has no column 'key', by which its rows belong to samples of the tar beside it.",
            f"It has {', '.join(table_schema.names)}. Join it with metadata=… and on=… from another folder.",
        )
    layout = settle_layout(found, parse_json=False)
    with_tables = {tar.tar.uri: tar for tar in tars}
    every = tuple(with_tables.get(tar.uri, TarWithTables(tar, TablePair(None, None), None)) for tar in found.tars)
    return Img2Dataset(found.uri, every, layout, table_schema, found.tars_per_shard, found.unpack_to)


def _open_webdataset(found: _Found) -> Source | None:
    if not found.tars:
        return None
    return WebDataset(found.uri, found.tars, settle_layout(found), found.tars_per_shard, found.unpack_to)


def _open_tables(found: _Found) -> Source | None:
    pairs = [*found.tables, *tables_of_zips(found.files, found.account)]
    if not pairs:
        return None
    schema = _first_schema(pairs, found)
    media = {column: name for pair in pairs[: found.schema_tars] for column, name in _media_of(pair).items()}
    if media:
        names = ", ".join(map(repr, media.values()))
        need_place(f"{redact(found.uri)} holds files inside the columns {names} of its tables", found.unpack_to)
    return MetadataTables(found.uri, tuple(pairs), schema, key_column(schema), tuple(media), found.unpack_to)


def _media_of(pair: TablePair) -> dict[str, str]:
    """Columns with the bytes of files; none of a table that cannot be read."""
    try:
        with reading(pair.files[0].uri):
            return pair.fresh().media
    except SourceError:
        return {}


def _open_zips(found: _Found) -> Source | None:
    suffixes = ZIP_SUFFIXES if found.format == "zip" else ZIP_SUFFIXES[:1]
    archives = tuple(file for file in found.files if file.path.lower().endswith(suffixes))
    if not archives:
        return None
    return open_zips(found.uri, archives, found.files, found.schema_tars, found.unpack_to, found.caption, found.account)


def _open_folder(found: _Found) -> Source | None:
    if any(map(_media_of, found.tables[: found.schema_tars])):
        return None
    return open_folder(found.uri, found.files, found.tables, found.caption, found.account)


_OPENERS: dict[str, Callable[[_Found], Source | None]] = {
    "datacomp": _open_datacomp,
    "img2dataset": _open_img2dataset,
    "webdataset": _open_webdataset,
    "zip": _open_zips,
    "folder": _open_folder,
    "tables": _open_tables,
}


_FORMATS = ", ".join(_OPENERS)


def settle_layout(found: _Found, parse_json: bool = True) -> Layout:
    """Look into the first tars that can be read.

    Raises:
        SourceError: none of them holds a sample; the message is that of the first.
    """
    builder = LayoutBuilder(parse_json, key_pattern=found.key_pattern)
    problems: list[str] = []
    looked_into = 0
    for tar in found.tars:
        try:
            with reading(tar.uri):
                for block in _first_blocks(tar, found, problems):
                    builder.add(block)
        except SourceError as error:
            problems.append(str(error))
            continue
        looked_into += 1
        if looked_into >= found.schema_tars and builder.extensions:
            break
    if not builder.extensions:
        number = len(found.tars)
        reason = problems[0] if problems else f"{redact(found.tars[0].uri)} has no members with an extension."
        raise SourceError(reason, f"No sample was found in {number} tar{'s' * (number > 1)}.")
    once = [name for name, number in builder.members.items() if number == 1 and "." in name]
    if len(builder.extensions) > MAX_MEMBER_COLUMNS or len(once) > MAX_ONCE:
        some = ", ".join(f".{extension}" for extension in [*once, *builder.extensions][:3])
        raise SourceError(
            f"The members of {redact(found.tars[0].uri)} have {len(builder.extensions)} extensions ({some}, …): keys "
            "end at the first dot of the file name, so dots within names look like extensions.",
            "Say where keys end: key_pattern='last-dot', or a regular expression (--key-pattern).",
        )
    return builder.build()


def _first_blocks(tar: FileInfo, found: _Found, problems: list[str]) -> Iterator[TarBlock]:
    try:
        yield from first_blocks(TarReader(store(), tar, problems.append).blocks(), SCHEMA_MEMBERS)
    except CompressedTar:
        if found.unpack_to is None:
            raise
        yield first_members(tar, SCHEMA_MEMBERS)


def _first_schema(pairs: Sequence[TablePair], found: _Found) -> pa.Schema:
    """The schema of the first tables that can be read; the error of the first when none can."""
    readable: list[TablePair] = []
    errors: list[SourceError] = []
    for pair in pairs:
        try:
            with reading(pair.files[0].uri):
                settle_schema([pair])
                pair.fresh().tell(found.account)
        except SourceError as error:
            errors.append(error)
            continue
        readable.append(pair)
        if len(readable) == found.schema_tars:
            break
    if not readable:
        raise errors[0]
    return settle_schema(readable, found.vectors)


def _contents(files: Sequence[FileInfo]) -> str:
    """What is there, by extension."""
    if not files:
        return "it is empty"
    names = [file.path.rsplit("/", 1)[-1] for file in files]
    endings = Counter(f".{name.rsplit('.', 1)[1]}" if "." in name else "without extension" for name in names)
    return ", ".join(f"{number} x {ending}" for ending, number in endings.most_common(6))
