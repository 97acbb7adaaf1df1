"""A Ray cluster of three nodes on this machine, for the tests that need one."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "memory": 2 * 2**30}


@pytest.fixture(scope="module")
def nodes() -> Iterator[object]:
    """The cluster, with this process connected; gone with the module."""
    import ray
    from ray.cluster_utils import Cluster

    from factory_lib.compute.cluster.staff import dismiss_kept

    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(wait=False, **NODE)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster
        dismiss_kept()
    finally:
        ray.shutdown()
        cluster.shutdown()
