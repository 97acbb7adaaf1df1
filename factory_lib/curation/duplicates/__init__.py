"""Duplicates: found by bytes, columns, pixels or hashes, in a reference, too; grouped, and one of a group is kept."""

from factory_lib.curation.duplicates.exact import exact_duplicates, of_equal_size
from factory_lib.curation.duplicates.linking import duplicate_groups
from factory_lib.curation.duplicates.pixels import near_duplicates
from factory_lib.curation.duplicates.references import reference_matches

__all__ = ["duplicate_groups", "exact_duplicates", "near_duplicates", "of_equal_size", "reference_matches"]
