"""Where the shards are: the source of the graph as a resource of Dagster, and the fingerprints of its shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.errors import SettingsError

if TYPE_CHECKING:
    from factory_lib.query import DatasetQuery
    from factory_lib.sources import OpenedSource, UnitedSource

SECONDS_OF_A_LOOK = 30.0
"""Of several sources, one that takes longer to list its files counts as away for this time, and holds up no other."""


class ShardSource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the shards are.

    Attributes:
        uri: path or URI of the source, or of a TOML file that declares several; empty when none is configured.
        tars_per_shard: how many tars make one shard, that is one partition.
        format: of the source; empty to find out.
        metadata, on: tables whose columns are joined to the samples, and the column to join by; empty for none.
        image, caption, key, key_pattern: what of the source becomes these columns, and how names are split (see
            `factory_lib.sources.mapping.Mapping`); empty for what the source says.
        members, columns: what alone is taken; empty for all.
        drop_columns: what is left out.
        rename: new names of columns -> what they are called.
    """

    uri: str = ""
    tars_per_shard: int = 1
    format: str = ""
    metadata: str = ""
    on: str = ""
    image: str = ""
    caption: str = ""
    key: str = ""
    key_pattern: str = ""
    members: list[str] = []
    columns: list[str] = []
    drop_columns: list[str] = []
    rename: dict[str, str] = {}

    def open(self, seconds: float | None = SECONDS_OF_A_LOOK) -> OpenedSource | UnitedSource:
        """The source.

        Args:
            seconds: how long each of several sources may take to answer; one that takes longer counts as away.
                None for as long as it takes.

        Raises:
            SettingsError: no source is configured.
            SourceError: there is nothing readable at the uri.
        """
        from factory_lib.sources import open_source

        if not self.uri:
            raise SettingsError("No source of shards is configured.", "Set FACTORY_SOURCE to a path or URI of tars.")
        said: dict[str, Any] = {name: value or None for name, value in self.config().items() if name != "uri"}
        return open_source(self.uri, seconds=seconds, **said)

    def config(self) -> dict[str, Any]:
        """The fields with their values, as run configuration takes them."""
        return {name: getattr(self, name) for name in type(self).model_fields if not name.startswith("_")}

    @classmethod
    def mapped(cls, uri: str, tars_per_shard: int, mapping: Mapping[str, str]) -> ShardSource:
        """A source with what settings say of it: names and values, those of lists with commas between.

        Raises:
            SourceError: there is no such name.
        """
        from factory_lib.sources.mapping import from_words

        return cls(uri=uri, tars_per_shard=tars_per_shard, **from_words(mapping))

    def query(self, shards: Sequence[str]) -> DatasetQuery:
        """The samples of these shards; one that the source no longer has contributes none.

        Of several sources, shards of one that is away fail when they are read: the others are made without them.
        """
        from factory_lib.query import DatasetQuery

        source = self.open().asking_for(shards)
        there = {shard.name for shard in source.shards()}
        return DatasetQuery.from_source(source, shards=[shard for shard in shards if shard in there])


def observe_shards(source: ShardSource) -> dg.DataVersionsByPartition:
    """The fingerprints of all shards, for an observable source asset; none of a source that is away."""
    return dg.DataVersionsByPartition({shard.name: shard.fingerprint for shard in source.open().listing().shards})
