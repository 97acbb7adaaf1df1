"""The Ray cluster that the settings name: connecting to it, and what room there is."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from factory_lib.compute.cluster.worker import Greeting, embedded_elsewhere
from factory_lib.errors import ExecutorError
from factory_lib.settings import ray_address, wanted_workers, worker_bytes
from factory_lib.signals.resources import Resources

_CONNECT_SECONDS = 10.0


def connected() -> Any:
    """The package `ray`, connected to the cluster that `RAY_ADDRESS` names, or as this process is connected already.

    Raises:
        ExecutorError: it is not installed, the cluster does not answer, or its versions are others.
    """
    try:
        import ray
    except ImportError:
        raise ExecutorError(
            "executor 'ray' needs the package ray, which is not installed.", 'pip install "dataset-factory[ray]"'
        ) from None
    if ray.is_initialized():
        return ray
    address = ray_address()
    _knock(address)
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:
        text = " ".join(str(error).split())
        if "ersion mismatch" in text:
            raise ExecutorError(
                f"The Ray cluster at {address} has other versions than this process. {text}",
                "Driver and nodes are to run in the same image.",
            ) from None
        raise _unreachable(address, text) from None
    return ray


def check_reach(ray: Any, greeting: Greeting) -> None:
    """Make sure that nodes can write to the warehouse, as far as that shows before they are asked.

    Raises:
        EngineError: it is the embedded engine, and there are nodes on other machines.
    """
    elsewhere = [
        str(node["NodeManagerAddress"])
        for node in ray.nodes()
        if node["Alive"] and node["NodeManagerHostname"] != socket.gethostname()
    ]
    if greeting.home and elsewhere:
        raise embedded_elsewhere(greeting.home, sorted(set(elsewhere)))


def workers_on(ray: Any, needs: Resources) -> int:
    """How many workers compute at once: `FACTORY_WORKERS`, or as many as the nodes have room for that are there.

    Raises:
        ExecutorError: there is no room for one, and nobody said how many to wait for.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    places = sum(places_on(node, needs) for node in nodes)
    if found := wanted_workers() or places:
        return found
    there = "; ".join(
        f"{node.get('CPU', 0):g} cores, {node.get('GPU', 0):g} GPUs, {node.get('memory', 0) / 2**30:.3g} GiB"
        for node in nodes
    )
    raise ExecutorError(
        f"No node of the Ray cluster has room for a worker with {needs}: they have {there}.",
        "Where the cluster adds nodes by itself, say how many workers it is to have: FACTORY_WORKERS.",
    )


def places_on(node: Mapping[str, float], needs: Resources) -> int:
    """How many workers a node with these resources has room for."""
    wanted = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": float(memory_of(needs))}
    return min(int(node.get(name, 0.0) / amount) for name, amount in wanted.items() if amount)


def memory_of(needs: Resources) -> int:
    """Bytes of memory that a worker is given."""
    return needs.memory or worker_bytes()


def options_of(needs: Resources) -> dict[str, Any]:
    """How Ray places a worker."""
    return {
        "num_cpus": needs.cpus,
        "num_gpus": needs.gpus,
        "memory": memory_of(needs),
        "max_restarts": 0,  # a new one is hired instead, wherever there is room
        "scheduling_strategy": "SPREAD",
    }


def losses(ray: Any) -> tuple[type[Exception], ...]:
    """Errors that say that a worker, or the node that it was on, is gone."""
    known = ray.exceptions
    return (known.RayActorError, known.NodeDiedError, known.WorkerCrashedError, known.OutOfMemoryError)


def _knock(address: str) -> None:
    """See that somebody answers: Ray itself asks for two minutes.

    Raises:
        ExecutorError: nobody does.
    """
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None:  # "auto", "local": Ray looks for itself
        return
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise _unreachable(address, error.strerror or type(error).__name__) from None


def _unreachable(address: str, why: str) -> ExecutorError:
    where = "on this machine" if address == "auto" else f"at {address}"
    hint = (
        "Name it in RAY_ADDRESS (host:6379 on one of its nodes, ray://host:10001 from elsewhere), or start one here:"
        " ray start --head."
    )
    return ExecutorError(f"There is no Ray cluster {where} that answers: {why}", hint, is_transient=True)
