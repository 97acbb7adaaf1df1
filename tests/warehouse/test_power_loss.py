"""The power goes right after `save` returned: what was returned is there, whole. `bench.power_loss` cuts 20 times."""

from __future__ import annotations

import pytest

from bench import power_loss
from bench.disks import NoDisks


def test_what_was_saved_is_there_after_a_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_HOME", "set by the run")
    monkeypatch.delenv("FACTORY_CLICKHOUSE_URL", raising=False)
    try:
        assert power_loss.run(3, print) == []
    except NoDisks as error:
        pytest.skip(str(error))
