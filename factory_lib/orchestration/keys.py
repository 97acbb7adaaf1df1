"""Keys of assets, and the datasets that they make."""

from __future__ import annotations

import dagster as dg


def dataset_name(key: dg.AssetKey) -> str:
    """The dataset that an asset makes: the parts of its key joined by `_`."""
    return "_".join(key.path)
