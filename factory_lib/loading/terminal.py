"""The terminal `to_torch` of a query, with all that it takes; torch is imported when it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from factory_lib.loading.defaults import MAX_BROKEN, SIZES, Shape

if TYPE_CHECKING:
    from factory_lib.loading.arguments import Tokenizer
    from factory_lib.loading.batches import OnError
    from factory_lib.loading.dataset import BatchDataset
    from factory_lib.loading.decode import Decoder
    from factory_lib.loading.index import RowSource
    from factory_lib.loading.order import Tail
    from factory_lib.loading.position import EarlyEnd
    from factory_lib.loading.tasks import Batch
    from factory_lib.loading.workers import StartMethod
    from factory_lib.storage.cache import CacheOptions


class Loadable(Protocol):
    """What `to_torch` needs of a query."""

    @property
    def columns(self) -> dict[str, str]:
        """Column name -> ClickHouse type."""

    def _pinned(self, columns: Sequence[str]) -> tuple[RowSource, str, dict[str, str]]:
        """A reader of the rows with these columns, the rows' identity, and the etags of the files they point into."""


def to_torch(
    self: Loadable,
    *,
    members: Sequence[str] | None = None,
    columns: Sequence[str] = (),
    global_batch_size: int | None = None,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
    num_workers: int = 0,
    tail: Tail | None = None,
    drop_last: bool | None = None,
    image_size: int | None = None,
    buckets: Sequence[Shape] | None = None,
    size_columns: tuple[str, str] = SIZES,
    decoders: Decoder | Mapping[str, Decoder] = "pillow",
    transform: Callable[..., Any] | None = None,
    sample_transform: Callable[..., Any] | None = None,
    tokenizer: Tokenizer | Mapping[str, Tokenizer] | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    collate: Callable[[Batch], Any] | None = None,
    on_error: OnError = "substitute",
    max_broken: float = MAX_BROKEN,
    sample_seconds: float | None = None,
    early_end: EarlyEnd = "next",
    unit_rows: int | None = None,
    window_rows: int | None = None,
    lanes: int | None = None,
    prefetch: int = 2,
    start_method: StartMethod = "forkserver",
    pin_memory: bool = False,
    progress: bool = True,
    cache: CacheOptions | Literal["settings"] | None = "settings",
    map_style: bool = False,
) -> BatchDataset:
    """The samples as batches for training: an iterable dataset for PyTorch, Lightning, accelerate.

    Args:
        members: pointers to deliver: pictures decoded, other members as bytes (``{"data": uint8, "offsets":
            int64}``); default: `image`.
        columns: to deliver; what becomes of each type is told by `loading.collate`.
        global_batch_size: rows of a batch over all ranks (default 512). Multiples of 96 keep each byte range on one
            rank.
        batch_size: rows of a batch of one rank, in place of that.
        shuffle: False gives storage order.
        seed: of the order and of augmentation.
        rank, world_size: both or none; default to those of torch.distributed, then of `RANK` and `WORLD_SIZE`.
        num_workers: processes that make batches; 0 makes them in the calling one.
        tail: the last batch of an epoch, when rows are left over: ``"repeat"`` fills it with rows from the start of
            the epoch, ``"drop"`` leaves it out, ``"mask"`` fills it and adds ``batch["mask"]``, False for rows that
            must not count (exactly-once evaluation).
        drop_last: True for ``tail="drop"``, False for ``tail="repeat"``.
        image_size: deliver pictures as uint8 (rows, image_size, image_size, 3): shorter side scaled, centre cropped.
            Without it and without `transform`, pictures of one size are stacked, others come as a list.
        buckets: (height, width) of pictures; each batch has pictures of one of these, those whose aspect ratio is
            nearest to it, scaled and cropped like squares.
        size_columns: names of the columns with the widths and the heights of the pictures, for `buckets`.
        decoders: ``"pillow"``, ``"simplejpeg"`` or ``"raw"`` for all picture members, or by member.
        transform: from a PIL picture to an array or tensor, in place of scaling and cropping; with an `image_size`, the
            picture may have been decoded at a fraction of its size, its shorter side still at least that long.
            One with a parameter `rng` is given a seeded `numpy.random.Generator`.
        sample_transform: from a sample, a dict without the batch dimension, to another one. Needs no pictures.
        tokenizer: for the only text column, or by column, from list of str to a tensor or a mapping of tensors.
        collate_fn: from a list of samples to a batch, as a DataLoader's.
        collate: last step in the worker, from the batch to what is yielded.
        on_error: a sample that cannot be decoded, or whose shard is damaged, is replaced by another one and counted, or
            raises.
        max_broken: share of broken samples of a rank above which an epoch ends with an error.
        sample_seconds: that decoding and transforming a sample may take; by default 300 in workers, no limit in the
            calling process.
        early_end: what follows an iteration that ended early: ``"next"``, the next epoch, as in PyTorch's own loaders,
            or ``"continue"``, the rest of the same epoch.
        unit_rows, window_rows, lanes: see `loading.order`; by default they suit the number of samples and their mean
            size.
        prefetch: batches that each worker makes ahead.
        start_method: of the workers.
        pin_memory: page-locked tensors, for copying to an accelerator.
        progress: draw a bar where an iteration of rank 0 takes more than two seconds in a terminal: samples a second,
            bytes by tier, shares of decoding and waiting, stalls.
        cache: of remote files; by default what the settings say, None for none.
        map_style: a `SampleDataset` of single samples in place of a `BatchDataset` of batches.

    Returns:
        A `BatchDataset`, or a `SampleDataset`.

    Raises:
        LoaderError: no rows, unknown names, impossible numbers.
        StoreError: a file of the rows does not exist.
    """
    from factory_lib.loading import dataset
    from factory_lib.loading.arguments import check_delivers, pictures_of

    members = pictures_of(self.columns) if members is None else members
    check_delivers(repr(self), self.columns, [*members, *columns])
    rows, identity, etags = self._pinned([*members, *columns])
    made = dataset.to_torch(
        rows,
        identity,
        members=members,
        columns=columns,
        etags=etags,
        global_batch_size=global_batch_size,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        rank=rank,
        world_size=world_size,
        num_workers=num_workers,
        tail=tail,
        drop_last=drop_last,
        image_size=image_size,
        buckets=buckets,
        size_columns=size_columns,
        decoders=decoders,
        transform=transform,
        sample_transform=sample_transform,
        tokenizer=tokenizer,
        collate_fn=collate_fn,
        collate=collate,
        on_error=on_error,
        max_broken=max_broken,
        sample_seconds=sample_seconds,
        early_end=early_end,
        unit_rows=unit_rows,
        window_rows=window_rows,
        lanes=lanes,
        prefetch=prefetch,
        start_method=start_method,
        pin_memory=pin_memory,
        progress=progress,
        cache=cache,
        map_style=map_style,
    )
    return cast("BatchDataset", made)
