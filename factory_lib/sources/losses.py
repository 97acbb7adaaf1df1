"""Which of the oddities that readers count mean that something is not in the dataset.

Every kind stands in one of the three sets: a reader that counts a new one has to say what it means.
"""

from __future__ import annotations

from factory_lib.sources.shards import ShardReport
from factory_lib.warehouse.losses import WITHOUT_SAMPLES, ShardLoss

FILES = frozenset(
    "unreadable_archives unreadable_tars unreadable_shards unreadable_tables damaged_tars unfinished_tars".split()
)
"""Files that may hold any number of samples or values more than were read."""

SAMPLES = frozenset(
    "failed_rows malformed_rows no_image missing_pictures missing_members pictures_elsewhere lfs_pointers"
    " unreadable_samples unreadable_members encrypted_members oversized_members nameless_members sparse_members"
    " links rows_without_key".split()
)
"""Samples, or members and rows that would be some, that are not in the dataset or lack their picture."""

NOTES = frozenset(
    "bad_utf8 bad_integers bad_json bad_labels misfit_values null_elements unknown_fields unknown_columns"
    " unknown_members hidden_members members_left_out extra_images extra_files duplicate_members repeated_keys"
    " repeated_rows different_keys different_stats no_metadata problems_not_shown".split()
)
"""What says something of single values, or of things that were not asked for."""


def loss_of(report: ShardReport) -> ShardLoss | None:
    """What of a shard was seen and is not in the dataset; None where everything is."""
    lost = {kind: number for kind, number in report.counts.items() if kind in SAMPLES}
    files = {kind: number for kind, number in report.counts.items() if kind in FILES}
    if not report.samples and not lost and not files:
        return ShardLoss(report.shard, 0, {}, {WITHOUT_SAMPLES: 1}, ("its files hold no sample", *report.problems))
    return ShardLoss(report.shard, report.samples, lost, files, tuple(report.problems)) if lost or files else None
