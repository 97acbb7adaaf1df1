"""What every test stands on: one real engine for the test process, emptied between tests."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as searches

from tests.s3 import relay, relay_server, s3, s3_client, s3_endpoint
from tests.waiting import wait_for

__all__ = ["relay", "relay_server", "s3", "s3_client", "s3_endpoint"]

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("FACTORY_RETRY_SECONDS", "0")  # storage that tests have fail for good is given up soon
# How long an example takes says what else the machine does, and nothing of the law.
searches.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
searches.load_profile("any machine")
# A shell that starts things in the background has them ignore interrupts, and Dagster takes SIGTERM for one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
LONGEST = (
    "week graph dagster_automation layouts yaml_graph driver_state loader_frameworks loader_remote several_sources soak ray"
    " versions dagster_running loader_epochs bucket graph_models history_descent training_run loader_soak history storage_away"
    " docs cli_run why_stale datacomp_track verify dagster_io_manager concurrent_writers duplicates_again completion init"
    " staleness cli stage_checks stays serving cli_processes signals_processes terminals loader_damage clusters"
).split()
"""Files of tests that take half a minute and more; they begin first, so that nobody waits for one alone at the end."""
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the order of `LONGEST`, then as they were found."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


_AT_ONCE = {"FACTORY_SETTLE_SECONDS": "0", "FACTORY_VANISHED": "drop", "FACTORY_MODELS": "none"}
"""What happens at a source is taken at once, and not after a minute or a day, and no model looks at photos: but by tests
that are about that."""


@pytest.fixture(scope="session", autouse=True)
def factory_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder of its own for the test process, with its embedded engine stopped at the end: never that of who runs tests."""
    home = tmp_path_factory.mktemp("home")
    old = {name: os.environ.get(name) for name in ("FACTORY_HOME", "FACTORY_CLICKHOUSE_URL", *_AT_ONCE)}
    os.environ |= {"FACTORY_HOME": str(home), **_AT_ONCE}
    os.environ.pop("FACTORY_CLICKHOUSE_URL", None)
    yield home
    from factory_lib.warehouse.embedded import stop_engine

    stop_engine(home)
    for name, value in old.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """What is imported by now stays: to look through all of it costs 0.2 s whenever garbage is collected."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def engine(factory_home: Path) -> Iterator[None]:
    """A running, empty warehouse: whatever a test makes is dropped after it, and what others left before."""
    _empty()
    yield
    _empty()


def _empty() -> None:
    from factory_lib.warehouse import schema
    from factory_lib.warehouse.client import warehouse

    gc.collect()  # results that lie in cycles hold their tables, which would be waited for without an end
    wait_for(lambda: not _running(), 60, lambda: f"still running: {_running()}")
    for row in warehouse().rows("SELECT name FROM system.databases"):
        if row["name"].lower() not in {"system", "information_schema", "default", "_local"}:
            warehouse().execute(f"DROP DATABASE `{row['name']}` SYNC")
    schema.checked.clear()


def _running() -> list[str]:
    """Statements that the engine is at, but for the one that asks."""
    from factory_lib.warehouse.client import warehouse

    asks = "SELECT query FROM system.processes WHERE query NOT LIKE '%system.processes%'"
    return [row["query"] for row in warehouse().rows(asks)]


@pytest.fixture(scope="module")
def engine_for_all(factory_home: Path) -> Iterator[None]:
    """A running warehouse for the tests of a module together, emptied after the last of them."""
    _empty()
    yield
    _empty()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photos, tars and metadata; tests that need them are skipped where they are absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real test data is not at {SHARED_DATA}")
    return SHARED_DATA
