"""Sources: whatever holds samples, read as Arrow batches of pointers and attributes."""

from factory_lib.sources.detect import open_source
from factory_lib.sources.opened import OpenedSource
from factory_lib.sources.reading import read_shards
from factory_lib.sources.several import UnitedSource
from factory_lib.sources.shards import POINTER, ShardReport, Source, SourceShard

__all__ = [
    "POINTER",
    "OpenedSource",
    "ShardReport",
    "Source",
    "SourceShard",
    "UnitedSource",
    "open_source",
    "read_shards",
]
